"""The stored form of LangChain's generations.

Explicit fields and a closed set of classes. Never `langchain_core.load`, which builds what the data names and
can read the environment (CVE-2025-68664): whatever an answer contains comes back as data.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

import msgspec
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk
from pydantic import BaseModel

from llmcache_plugins.answers.plain import pack
from llmcache_plugins.errors import CorruptEntry, UnstorableAnswer
from llmcache_plugins.models import AnswerFacts, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pydantic.fields import FieldInfo

__all__ = [
    "NO_TOKENS",
    "StoredChat",
    "StoredChunk",
    "StoredText",
    "Wire",
    "built",
    "facts_of",
    "refuse_extension",
    "tried",
    "wire_of_chunk",
    "wires_of",
]

Wire = dict[str, Any]

T = TypeVar("T")

_FRESH_ID = "lc_run--"
"""How the ids begin that LangChain gives to messages; in the place of one it means an id of its own."""

HAS_POSITION: Final = "chunk_position" in AIMessageChunk.model_fields
"""Whether chunks say which is the last: not in 0.3."""

NO_TOKENS: Final = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
_MOST_TOKENS = 2**63 - 1

_MESSAGE_FIELDS = (
    "content",
    "additional_kwargs",
    "response_metadata",
    "name",
    "id",
    "tool_calls",
    "invalid_tool_calls",
    "usage_metadata",
)
# What follows from the class, from `tool_calls` or from the message.
_DERIVED = frozenset({"type", "tool_call_chunks", "chunk_position", "text"})

# OpenAI and most others; Anthropic; Ollama; Bedrock's Converse.
_ENDS = ("finish_reason", "stop_reason", "done_reason", "stopReason")
_MODELS = ("model_name", "model", "model_id")


# --- Reading generations ---------------------------------------------------------------------------------


def wires_of(generations: Sequence[Generation]) -> list[Wire]:
    """Return the stored form of generations. Raises `UnstorableAnswer` for what has none."""
    if not isinstance(generations, list | tuple):
        raise UnstorableAnswer(f"a {type(generations).__name__} is not a list of generations")
    try:
        return [_wire_of(generation) for generation in generations]
    except (TypeError, ValueError, AttributeError) as error:
        raise UnstorableAnswer("a generation whose fields are not what LangChain declares") from error


def wire_of_chunk(chunk: ChatGenerationChunk) -> Wire:
    """Return the stored form of a part of a stream. Raises `UnstorableAnswer` for what has none."""
    if type(chunk) is not ChatGenerationChunk or type(chunk.message) is not AIMessageChunk:
        raise UnstorableAnswer(f"a {type(chunk).__name__} is not a chunk of an AI's message")
    wire = {**_wire_of(chunk), "tool_call_chunks": chunk.message.tool_call_chunks}
    # LangChain gives all chunks of one stream the same id, where they have none.
    wire["message"]["id"] = None
    return {**wire, "chunk_position": chunk.message.chunk_position} if HAS_POSITION else wire


def built(build: Callable[[], T]) -> T:
    """Return what `build` makes of stored bytes. Raises `CorruptEntry` for anything that is not ours."""
    try:
        return build()
    # From msgspec, pydantic, and what LangChain derives from a message.
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise CorruptEntry("the payload is not an answer of LangChain's") from error


def tried(read: Callable[[], T], *, wire_of: Callable[[T], Any], payload: bytes) -> T:
    """Return what was just stored, read back. Raises `UnstorableAnswer` unless it is the same."""
    try:
        returned = read()
    except CorruptEntry as error:
        raise UnstorableAnswer("the answer could not be read back") from error
    # As bytes: 1, 1.0 and True are equal in Python.
    if pack(wire_of(returned)) != payload:
        raise UnstorableAnswer("the answer would not come back equal")
    return returned


def _wire_of(generation: Generation) -> Wire:
    if type(generation) in (Generation, GenerationChunk):
        kept: Wire = {"type": "text", "text": generation.text}
    elif type(generation) in (ChatGeneration, ChatGenerationChunk):
        kept = {"type": "chat", "message": _wire_of_message(cast("ChatGeneration", generation).message)}
    else:
        raise UnstorableAnswer(f"a {type(generation).__name__} would come back as another class")
    _require_nothing_else(generation, kept=("message", "generation_info"))
    return {**kept, "generation_info": generation.generation_info}


def _wire_of_message(message: Any) -> Wire:
    # Exact classes: a subclass would come back as its base.
    if type(message) not in (AIMessage, AIMessageChunk):
        raise UnstorableAnswer(f"a {type(message).__name__} would come back as another class")
    _require_nothing_else(message, kept=_MESSAGE_FIELDS)
    return {
        **{name: getattr(message, name) for name in _MESSAGE_FIELDS},
        "additional_kwargs": _plain_kwargs(message),
        "id": _FRESH_ID if isinstance(message.id, str) and not _is_sent_back(message) else message.id,
        "usage_metadata": {**NO_TOKENS, **usage} if (usage := message.usage_metadata) is not None else None,
    }


def _is_sent_back(message: AIMessage) -> bool:
    """Say whether the provider is told a message's id again: two messages with one id are one to LangGraph.

    Of OpenAI's Responses API langchain-openai's older format, "v0", keeps the id of the item there alone.
    """
    response = message.response_metadata.get("id")
    of_responses = isinstance(response, str) and response.startswith("resp_")
    return of_responses and message.id is not None and message.id.startswith("msg_")


def _require_nothing_else(model: BaseModel, *, kept: Iterable[str]) -> None:
    """Raise for a value that has no place in the stored form: extra fields, and those of other versions."""
    fields = type(model).model_fields
    others = fields.keys() - {*kept, *_DERIVED}
    told = [name for name in others if getattr(model, name) != _default_of(fields[name])]
    if told or model.model_extra:
        raise UnstorableAnswer(f"a {type(model).__name__} with fields that are not kept")


def _default_of(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


# --- Structured output -----------------------------------------------------------------------------------


def _plain_kwargs(message: AIMessage) -> dict[Any, Any]:
    """Return `additional_kwargs`, with the data that `parsed` was made from in its place."""
    parsed = message.additional_kwargs.get("parsed")
    if not isinstance(parsed, BaseModel):
        return message.additional_kwargs
    return {**message.additional_kwargs, "parsed": _source_of(parsed, text=_text_of(message))}


def _source_of(parsed: BaseModel, *, text: str) -> Wire:
    """Return a dict from which langchain-openai's parser, by `schema(**dict)`, makes an equal of `parsed`.

    What the model said, if it can be: a dump knows nothing of validators that change their input, or of
    fields that it excludes.
    """
    sources: tuple[Callable[[], Any], ...] = (
        lambda: json.loads(text),
        lambda: parsed.model_dump(mode="json", by_alias=True, warnings=False),
    )
    for source in sources:
        if (plain := _if_it_makes(parsed, source)) is not None:
            return plain
    raise UnstorableAnswer(f"no stored form makes this {type(parsed).__name__} again")


def _if_it_makes(parsed: BaseModel, source: Callable[[], Any]) -> Wire | None:
    try:
        plain = source()
        return plain if isinstance(plain, dict) and type(parsed)(**plain) == parsed else None
    except Exception:  # noqa: BLE001 - the application's own validators: whatever they raise
        return None


def _text_of(message: AIMessage) -> str:
    # Not `message.text`, which is a method in 0.3.
    if isinstance(message.content, str):
        return message.content
    blocks = (block if isinstance(block, dict) else {"text": block} for block in message.content)
    return "".join(text for block in blocks if isinstance(text := block.get("text"), str))


# --- The stored form -------------------------------------------------------------------------------------


class _Message(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    content: str | list[str | dict[Any, Any]]
    additional_kwargs: dict[Any, Any]
    response_metadata: dict[Any, Any]
    name: str | None
    id: str | None
    tool_calls: list[dict[str, Any]]
    invalid_tool_calls: list[dict[str, Any]]
    usage_metadata: dict[str, Any] | None

    def build(self) -> AIMessage:
        # Not the constructor: it makes tool calls of `additional_kwargs`, and refuses or drops what
        # integrations add to tool calls and usages (0.3; OpenAI's service tiers in any version).
        return _like(_BLANK_MESSAGE, self._fields())

    def build_chunk(self, calls: list[dict[str, Any]], *, position: str | None) -> AIMessageChunk:
        for call in calls:
            msgspec.convert(call, _ToolCallChunk)
        fields = {**self._fields(), "tool_call_chunks": calls}
        if HAS_POSITION:
            fields["chunk_position"] = position
        return AIMessageChunk.model_construct(**fields)

    def calls_as_chunks(self) -> list[dict[str, Any]]:
        # As they were sent: adding chunks makes the calls anew from them.
        calls = [{**call, "args": json.dumps(call["args"])} for call in self.tool_calls]
        given = [*calls, *self.invalid_tool_calls]
        return [
            {
                "name": call["name"],
                "args": call["args"],
                "id": call["id"],
                "index": index,
                "type": "tool_call_chunk",
            }
            for index, call in enumerate(given)
        ]

    def _fields(self) -> dict[str, Any]:
        for call in self.tool_calls:
            msgspec.convert(call, _ToolCall)
        for call in self.invalid_tool_calls:
            msgspec.convert(call, _InvalidToolCall)
        if self.usage_metadata is not None:
            msgspec.convert(self.usage_metadata, _Tokens)
        fields = msgspec.structs.asdict(self)
        if self.id == _FRESH_ID:
            fields["id"] = _FRESH_ID + _random_uuid()
        return fields


def _random_uuid() -> str:
    # RFC 9562, version 4; uuid.uuid4() takes three times as long.
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def refuse_extension(code: int, _data: memoryview) -> object:
    """Refuse, as the hook of a decoder, what this version never writes."""
    raise ValueError(f"an extension type ({code}) that this version never writes")


class StoredText(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="text"):
    """One generation of a completion model."""

    text: str
    generation_info: dict[str, Any] | None

    def build(self) -> Generation:
        """Return the generation, a fresh object."""
        return Generation(text=self.text, generation_info=self.generation_info)


class StoredChat(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="chat"):
    """One generation of a chat model."""

    message: _Message
    generation_info: dict[str, Any] | None

    def build(self) -> ChatGeneration:
        """Return the generation, a fresh object."""
        message = self.message.build()
        if not isinstance(message.content, str):
            return ChatGeneration(message=message, generation_info=self.generation_info)
        # What the constructor would make of it, at a tenth of the time.
        fields = {"message": message, "text": message.content, "generation_info": self.generation_info}
        return _like(_BLANK_CHAT, fields)

    def split(self, llm_output: dict[str, Any] | None) -> list[ChatGenerationChunk]:
        """Return the parts of a stream that adds up to it, with what was said of the call as a whole."""
        message = self.message.build_chunk(self.message.calls_as_chunks(), position="last")
        message.response_metadata = {**(llm_output or {}), **message.response_metadata}
        message.id = None
        return [ChatGenerationChunk(message=message, generation_info=self.generation_info)]


class StoredChunk(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One part of a stream."""

    type: Literal["chat"]
    message: _Message
    generation_info: dict[str, Any] | None
    tool_call_chunks: list[dict[str, Any]]
    chunk_position: Literal["last"] | None = None

    def build(self) -> ChatGenerationChunk:
        """Return the part, a fresh object."""
        message = self.message.build_chunk(self.tool_call_chunks, position=self.chunk_position)
        return ChatGenerationChunk(message=message, generation_info=self.generation_info)


M = TypeVar("M", bound=BaseModel)


def _like(blank: M, fields: dict[str, Any]) -> M:
    """Return a model like another, with these fields.

    As pydantic's own `model_construct` and `copy` do it, at a fifth of their time.
    """
    made = blank.__class__.__new__(blank.__class__)
    extra = blank.__pydantic_extra__
    object.__setattr__(made, "__dict__", {**blank.__dict__, **fields})
    object.__setattr__(made, "__pydantic_fields_set__", set(fields))
    object.__setattr__(made, "__pydantic_extra__", None if extra is None else {})
    object.__setattr__(made, "__pydantic_private__", None)
    return made


_BLANK_MESSAGE = AIMessage.model_construct(**dict.fromkeys(_Message.__struct_fields__))
_BLANK_CHAT = ChatGeneration(message=AIMessage(""), generation_info=None)


# What readers of a message may rely on. Only asked whether it is there: the dicts stay as they are.


class _ToolCall(msgspec.Struct):
    name: str
    args: dict[str, Any]
    id: str | None


class _ToolCallChunk(msgspec.Struct):
    name: str | None
    args: str | None
    id: str | None
    index: int | str | None


class _InvalidToolCall(msgspec.Struct):
    name: str | None
    args: str | None
    id: str | None
    error: str | None


class _Tokens(msgspec.Struct):
    input_tokens: int
    output_tokens: int
    total_tokens: int


# --- Facts -----------------------------------------------------------------------------------------------


def facts_of(wires: list[Wire]) -> AnswerFacts:
    """Return what is known of an answer from its stored form."""
    said = [_said(wire) for wire in wires]
    reasons = [_finish_reason(one) for one in said]
    return AnswerFacts(
        model=_first_text(said[0], _MODELS) if said else None,
        usage=_usage_of(wires),
        finish_reasons=tuple(reason for reason in reasons if reason is not None),
        empty_of_choices=not wires,
        unfinished=any(
            reason is None and _ought_to_say(one) for one, reason in zip(said, reasons, strict=True)
        ),
    )


def _said(wire: Wire) -> Wire:
    """Return what the provider said about one generation; its `generation_info` goes first."""
    metadata = wire["message"]["response_metadata"] if "message" in wire else {}
    info = wire["generation_info"] or {}
    return {**metadata, **{name: value for name, value in info.items() if value is not None}}


def _finish_reason(said: Wire) -> str | None:
    reason = _first_text(said, _ENDS)
    if reason is not None or said.get("object") != "response":
        return reason
    # The Responses API; a response cut short says why in another place.
    details = said.get("incomplete_details")
    return _first_text(details if isinstance(details, dict) else {}, ("reason",)) or _first_text(
        said, ("status",)
    )


def _ought_to_say(said: Wire) -> bool:
    """Whether this provider always says how an answer ended; one that does not was cut off in its stream.

    LangChain takes a stream that just ends for a whole answer. langchain-openai before 1.0 leaves no trace
    of such a chat; of a response it leaves the id.
    """
    id_ = said.get("id")
    is_openai = said.get("model_provider") == "openai" and "finish_reason" not in said
    return is_openai or (isinstance(id_, str) and id_.startswith("resp_"))


def _usage_of(wires: list[Wire]) -> Usage | None:
    """Return the billed tokens; all zero counts as unknown."""
    messages = [wire["message"] for wire in wires if "message" in wire]
    usages = [usage for message in messages if (usage := message["usage_metadata"]) is not None]
    # With n=3 LangChain's integrations give each generation the usage of the whole call.
    if all(usage == usages[0] for usage in usages):
        usages = usages[:1]
    spent, produced = (
        min(sum(max(usage[name], 0) for usage in usages), _MOST_TOKENS)
        for name in ("input_tokens", "output_tokens")
    )
    return Usage(input_tokens=spent, output_tokens=produced) if spent or produced else None


def _first_text(holder: Wire, names: Iterable[str]) -> str | None:
    values = (holder.get(name) for name in names)
    return next((value for value in values if isinstance(value, str) and value), None)
