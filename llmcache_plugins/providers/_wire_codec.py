"""Codecs for SDK objects that travel as OpenAI wire dicts.

Owns what the codecs of all SDKs have in common: the payload is the wire dict, so that an entry written
through one SDK is read through another, and nothing is stored that would not come back equal. Imports no
SDK: a `Shape` says how one class is read and built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from llmcache_plugins.answers.kinds import Kind
from llmcache_plugins.answers.openai_wire import (
    facts_of,
    join_chat_chunks,
    join_response_events,
    split_chat,
    split_response,
)
from llmcache_plugins.answers.plain import pack, unpack
from llmcache_plugins.errors import CorruptEntry, UnstorableAnswer
from llmcache_plugins.models import AnswerFacts, EncodedAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Shape", "WireCodec", "WireStreamCodec", "chat_codec", "classes_by_type", "responses_codec"]

Wire = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One kind of object of an SDK, and its way from and to the wire."""

    holds: Callable[[object], bool]
    """Whether an object is of this shape."""
    read: Callable[[Any], Wire]
    build: Callable[[Wire], Any]


class WireCodec:
    """The codec for one kind of answer of one SDK."""

    def __init__(self, kind: str, *, answer: Shape) -> None:
        self.kind = str(kind)
        self._answer = answer

    def encode(self, answer: Any) -> EncodedAnswer:
        """Return the wire form of an answer, after a trial that it comes back equal.

        Equal in value and in the type of every part; private attributes, which describe the call and not
        the answer, are not kept.
        """
        wire = _read(self._answer, answer)
        encoded = EncodedAnswer(kind=self.kind, payload=pack(wire), facts=facts_of(wire))
        if not _same(answer, _trial(self, encoded)):
            raise UnstorableAnswer(f"a {type(answer).__name__} like this one would not come back equal")
        return encoded

    def decode(self, encoded: EncodedAnswer) -> Any:
        """Return the answer as a fresh object of the SDK."""
        return _build(self._answer, self._wire(encoded))

    def _wire(self, encoded: EncodedAnswer) -> Wire:
        wire = unpack(encoded, kind=self.kind)
        if not isinstance(wire, dict):
            raise CorruptEntry(f"the payload of {self.kind!r} is not an object")
        return wire


class WireStreamCodec(WireCodec):
    """The codec for an answer that also comes in chunks."""

    def __init__(
        self,
        kind: str,
        *,
        answer: Shape,
        chunk: Shape,
        joined: Callable[[list[Wire]], Wire | None],
        parts: Callable[[Wire, Any], list[Wire]],
        wanted: Callable[[Wire, Any], bool] = lambda _wire, _query: True,
    ) -> None:
        super().__init__(kind, answer=answer)
        self._chunk = chunk
        self._joined = joined
        self._parts = parts
        self._wanted = wanted

    def join(self, chunks: Sequence[Any]) -> EncodedAnswer:
        """Return the answer that the chunks of a stream amount to.

        `facts.unfinished` if the stream did not say its end: such an answer is for admission to refuse,
        its payload need not be readable.
        """
        wire = self._joined([_read(self._chunk, chunk) for chunk in chunks])
        if wire is None:
            return EncodedAnswer(kind=self.kind, payload=b"", facts=AnswerFacts(unfinished=True))
        encoded = EncodedAnswer(kind=self.kind, payload=pack(wire), facts=facts_of(wire, streamed=True))
        if not encoded.facts.unfinished:
            _trial(self, encoded)
        return encoded

    def pack_chunk(self, chunk: Any) -> bytes:
        """Return the wire form of a chunk."""
        return pack(_read(self._chunk, chunk))

    def unpack_chunk(self, data: bytes, *, query: Any) -> Iterable[Any]:
        """Return the chunk as a fresh object of the SDK; none for what `query` did not ask for."""
        wire = unpack(EncodedAnswer(kind=self.kind, payload=data), kind=self.kind)
        if not isinstance(wire, dict):
            raise CorruptEntry(f"a chunk of {self.kind!r} is not an object")
        return [_build(self._chunk, wire)] if self._wanted(wire, query) else []

    def split(self, encoded: EncodedAnswer, *, query: Any) -> Iterable[Any]:
        """Return the chunks that replay the answer, with its usage if `query` asks for that."""
        return [_build(self._chunk, part) for part in self._parts(self._wire(encoded), query)]


def chat_codec(*, answer: Shape, chunk: Shape) -> WireStreamCodec:
    """Return the codec for chat completions."""
    return WireStreamCodec(
        Kind.CHAT,
        answer=answer,
        chunk=chunk,
        joined=join_chat_chunks,
        parts=lambda wire, query: split_chat(wire, include_usage=_wants_usage(query)),
        # The chunk without choices that tells the usage is only for who has asked for it.
        wanted=lambda wire, query: bool(wire.get("choices")) or not wire.get("usage") or _wants_usage(query),
    )


def responses_codec(*, answer: Shape, chunk: Shape) -> WireStreamCodec:
    """Return the codec for the Responses API, whose streams always tell their usage."""
    return WireStreamCodec(
        Kind.RESPONSES,
        answer=answer,
        chunk=chunk,
        joined=join_response_events,
        parts=lambda wire, _query: split_response(wire),
    )


def classes_by_type(union: object) -> dict[str, Any]:
    """Return the classes of a union of events by the literals of their `type`."""
    members = [member for part in get_args(union) for member in (get_args(part) or (part,))]
    fields = [(member, getattr(member, "model_fields", {}).get("type")) for member in members]
    return {
        str(getattr(literal, "value", literal)): member
        for member, field in fields
        if field is not None
        for literal in get_args(field.annotation)
    }


def _wants_usage(query: Any) -> bool:
    options = query.get("stream_options") if isinstance(query, Mapping) else None
    return isinstance(options, Mapping) and bool(options.get("include_usage"))


def _read(shape: Shape, value: Any) -> Wire:
    if not shape.holds(value):
        raise UnstorableAnswer(f"a {type(value).__name__} is not what this provider's calls return")
    try:
        return shape.read(value)
    except (TypeError, ValueError) as error:
        raise UnstorableAnswer(f"a {type(value).__name__} that has no wire form") from error


def _build(shape: Shape, wire: Wire) -> Any:
    # TypeError: the payload has no shape that the class could be called with. ValueError: validation.
    try:
        return shape.build(wire)
    except (TypeError, ValueError, AttributeError) as error:
        raise CorruptEntry("the payload is not an answer of this kind") from error


def _trial(codec: WireCodec, encoded: EncodedAnswer) -> Any:
    try:
        return codec.decode(encoded)
    except CorruptEntry as error:
        raise UnstorableAnswer("the answer could not be read back") from error


def _same(one: Any, other: Any) -> bool:
    """Compare value and type of every part of two objects, but for private attributes.

    Not `==`: LiteLLM's models compare the `_hidden_params` of their calls too, and nested dicts and models
    of equal content are not the same to who reads an attribute.
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return _same_items(one, other)
    if hasattr(one, "__pydantic_extra__"):
        return _same(_public(one), _public(other))
    return bool(one == other)


def _same_items(one: list[Any], other: list[Any]) -> bool:
    if one and isinstance(one[0], float):
        # Embeddings: thousands of numbers that need no walk.
        return one == other
    return len(one) == len(other) and all(map(_same, one, other))


def _public(model: Any) -> dict[str, Any]:
    fields = {name: value for name, value in vars(model).items() if not name.startswith("_")}
    return {**fields, **(model.__pydantic_extra__ or {})}
