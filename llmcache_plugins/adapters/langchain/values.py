"""How LangChain's generations become bytes and come back.

Owns the stored form and what of an answer a hit may not repeat: ids, objects, other callers' changes.
Explicit fields and a closed set of classes. Never `langchain_core.load`, which builds what the data names and
can read the environment (CVE-2025-68664): whatever an answer contains comes back as data.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk
from pydantic import BaseModel

from llmcache_plugins.answers.plain import pack
from llmcache_plugins.errors import CorruptEntry, UnstorableAnswer
from llmcache_plugins.models import AnswerFacts, EncodedAnswer, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from langchain_core.messages.ai import UsageMetadata
    from pydantic.fields import FieldInfo

__all__ = ["GenerationsCodec", "mark_hit"]

Wire = dict[str, Any]

_MADE_BY_LANGCHAIN = ("run-", "lc_run-")
"""How the ids begin that LangChain gives to messages whose provider gave none: 0.3's and 1.x's."""
_FRESH_ID = "lc_run--"

_NO_TOKENS: Final = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
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


class GenerationsCodec:
    """The codec for what LangChain hands to a cache: a list of generations.

    Chunks come back as the whole messages they are, ids that LangChain had made as fresh ones, and a
    message without usage with a usage of zero: LangChain adds a cost to each hit's, and readers of a usage
    rely on its counts. All else comes back equal in value and type, or is not stored.
    """

    kind = "langchain"

    def encode(self, generations: Sequence[Generation]) -> EncodedAnswer:
        """Return generations as bytes, after a trial that they come back.

        What the application does to them afterwards is not in the bytes. `UnstorableAnswer` for objects
        anywhere inside, subclasses, and messages that are not an AI's.
        """
        wires = _wires(generations)
        answer = EncodedAnswer(kind=self.kind, payload=pack(wires))
        try:
            returned = self.decode(answer)
        except CorruptEntry as error:
            raise UnstorableAnswer("the generations could not be read back") from error
        # As bytes: 1, 1.0 and True are equal in Python.
        if pack(_wires(returned)) != answer.payload or _texts(returned) != _texts(generations):
            raise UnstorableAnswer("the generations would not come back equal")
        return msgspec.structs.replace(answer, facts=_facts_of(wires))

    def decode(self, encoded: EncodedAnswer) -> list[Generation]:
        """Return the generations, fresh objects with fresh ids each time."""
        if encoded.kind != self.kind:
            raise CorruptEntry(f"the entry holds {encoded.kind!r}, not {self.kind!r}")
        try:
            return [stored.build() for stored in _decoder.decode(encoded.payload)]
        # From msgspec, pydantic, and what LangChain derives from a message.
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise CorruptEntry("the payload is not a list of generations") from error


def mark_hit(
    generations: Iterable[Generation], *, outcome: str, age: float, cache_status: str, zero_usage: bool
) -> None:
    """Say in each message that it came from the cache: `response_metadata["llmcache"]`.

    `zero_usage` sets the counts of `usage_metadata` to zero; what the provider said of them stays in
    `response_metadata`. Changes the generations: only for those that `decode` has just returned.
    """
    for generation in generations:
        if not isinstance(generation, ChatGeneration):
            continue
        message = cast("AIMessage", generation.message)
        # str(): of a StrEnum, whose members could not be stored again.
        mark = {"outcome": str(outcome), "age": age, "cache_status": cache_status}
        message.response_metadata["llmcache"] = mark
        if zero_usage and message.usage_metadata is not None:
            message.usage_metadata = cast("UsageMetadata", _zeroed(message.usage_metadata))


def _zeroed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _zeroed(inner) for name, inner in value.items()}
    return 0 if type(value) in (int, float) else value


# --- Reading generations ---------------------------------------------------------------------------------


def _wires(generations: Sequence[Generation]) -> list[Wire]:
    if not isinstance(generations, list | tuple):
        raise UnstorableAnswer(f"a {type(generations).__name__} is not a list of generations")
    try:
        return [_wire_of(generation) for generation in generations]
    except (TypeError, ValueError, AttributeError) as error:
        raise UnstorableAnswer("a generation whose fields are not what LangChain declares") from error


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
        "id": _FRESH_ID if _is_made_by_langchain(message.id) else message.id,
        "usage_metadata": {**_NO_TOKENS, **(message.usage_metadata or {})},
    }


def _require_nothing_else(model: BaseModel, *, kept: Iterable[str]) -> None:
    """Raise for a value that has no place in the stored form: extra fields, and those of other versions."""
    fields = type(model).model_fields
    others = fields.keys() - {*kept, *_DERIVED}
    told = [name for name in others if getattr(model, name) != _default_of(fields[name])]
    if told or model.model_extra:
        raise UnstorableAnswer(f"a {type(model).__name__} with fields that are not kept")


def _default_of(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _is_made_by_langchain(id_: str | None) -> bool:
    return id_ is not None and id_.startswith(_MADE_BY_LANGCHAIN)


def _texts(generations: Iterable[Generation]) -> list[str]:
    return [generation.text for generation in generations]


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
    usage_metadata: dict[str, Any]

    def build(self) -> AIMessage:
        # Not the constructor: it makes tool calls of `additional_kwargs`, and refuses or drops what
        # integrations add to tool calls and usages (0.3; OpenAI's service tiers in any version).
        for call in self.tool_calls:
            msgspec.convert(call, _ToolCall)
        for call in self.invalid_tool_calls:
            msgspec.convert(call, _InvalidToolCall)
        msgspec.convert(self.usage_metadata, _Tokens)
        fields = msgspec.structs.asdict(self)
        if _is_made_by_langchain(self.id):
            fields["id"] = f"{_FRESH_ID}{uuid.uuid4()}"
        return AIMessage.model_construct(**fields)


class _Text(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="text"):
    text: str
    generation_info: dict[str, Any] | None

    def build(self) -> Generation:
        return Generation(text=self.text, generation_info=self.generation_info)


class _Chat(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="chat"):
    message: _Message
    generation_info: dict[str, Any] | None

    def build(self) -> Generation:
        return ChatGeneration(message=self.message.build(), generation_info=self.generation_info)


def _refuse_extension(code: int, _data: memoryview) -> object:
    raise ValueError(f"an extension type ({code}) that this version never writes")


# Ten times as fast as untyped data that is converted.
_decoder = msgspec.msgpack.Decoder(list[_Text | _Chat], ext_hook=_refuse_extension)


# What readers of a message may rely on. Only asked whether it is there: the dicts stay as they are.


class _ToolCall(msgspec.Struct):
    name: str
    args: dict[str, Any]
    id: str | None


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


def _facts_of(wires: list[Wire]) -> AnswerFacts:
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
    usages = [wire["message"]["usage_metadata"] for wire in wires if "message" in wire]
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
