"""Plain values: text, and data as JSON knows it (bytes and integer keys besides).

Owns what "comes back equal in value and type" means for them. The check is strict on purpose: a tuple
that returned as a list on the second call would be a bug of the cache that shows up in the caller.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from llmcache_plugins.answers.openai_wire import facts_of
from llmcache_plugins.errors import CorruptEntry, UnstorableAnswer
from llmcache_plugins.models import EncodedAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["PlainCodec", "pack", "unpack"]

DEEPEST = 200
"""Levels of nesting; also what ends the walk through a structure that contains itself."""

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})

_encoder = msgspec.msgpack.Encoder()


class PlainCodec:
    """The codec for providers that return text or JSON-like data.

    Exact types only: `None`, `bool`, `int` of at most 64 bits, `float`, `str`, `bytes`, `list`, and `dict`
    with `str` or `int` keys. `None` is an answer like any other. A stream is text: its chunks are
    concatenated, and a stored text streams as one chunk.
    """

    kind = "plain"

    def encode(self, answer: Any) -> EncodedAnswer:
        """Return the answer as bytes; `UnstorableAnswer` for any other type, however deep inside."""
        return EncodedAnswer(kind=self.kind, payload=pack(answer), facts=facts_of(answer))

    def decode(self, encoded: EncodedAnswer) -> Any:
        """Return an equal of the encoded value."""
        return unpack(encoded, kind=self.kind)

    def join(self, chunks: Sequence[Any]) -> EncodedAnswer:
        """Concatenate text; a stream without chunks is the empty text."""
        if not all(type(chunk) is str for chunk in chunks):
            raise UnstorableAnswer("only a stream of text can be stored; wrap other chunks in a StreamCodec")
        return self.encode("".join(chunks))

    def pack_chunk(self, chunk: Any) -> bytes:
        """Return text as bytes; other chunks have no joined form and are not shared either."""
        if type(chunk) is not str:
            raise UnstorableAnswer("only chunks of text can be shared; wrap others in a StreamCodec")
        return pack(chunk)

    def unpack_chunk(self, data: bytes, *, query: Any) -> Iterable[Any]:
        """Return the text."""
        return [unpack(EncodedAnswer(kind=self.kind, payload=data), kind=self.kind)]

    def split(self, encoded: EncodedAnswer, *, query: Any) -> Iterable[Any]:
        """Return the whole answer as the only chunk."""
        return [self.decode(encoded)]


def pack(value: object) -> bytes:
    """Return msgpack of a plain value. Raises `UnstorableAnswer` for anything else."""
    _require_plain(value, depth=0)
    try:
        return _encoder.encode(value)
    except (UnicodeEncodeError, OverflowError, ValueError) as error:
        raise UnstorableAnswer(f"the value has no stored form: {type(error).__name__}") from error


def unpack(encoded: EncodedAnswer, *, kind: str) -> Any:
    """Return the plain value of a payload. Raises `CorruptEntry` if it is none, or of another kind."""
    if encoded.kind != kind:
        raise CorruptEntry(f"the entry holds {encoded.kind!r}, not {kind!r}")
    try:
        return msgspec.msgpack.decode(encoded.payload, ext_hook=_refuse_extension)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CorruptEntry("the payload is not readable") from error


def _refuse_extension(code: int, _data: memoryview) -> object:
    raise CorruptEntry(f"the payload has an extension type ({code}) that this version never writes")


def _require_plain(value: object, *, depth: int) -> None:
    """Raise unless `value` is plain all the way down.

    `type(value) is`, not `isinstance`: a `StrEnum` or a `defaultdict` would come back as its base class.
    """
    if type(value) in _SCALARS:
        return
    if depth >= DEEPEST:
        raise UnstorableAnswer(f"the value is nested more than {DEEPEST} levels deep, or contains itself")
    for child in _children(value):
        _require_plain(child, depth=depth + 1)


def _children(value: object) -> Iterable[object]:
    if type(value) is list:
        return value
    if type(value) is dict:
        return chain(map(_require_key, value), value.values())
    raise UnstorableAnswer(f"a value of type {type(value).__name__} would not come back as it went in")


def _require_key(key: object) -> object:
    if type(key) not in (str, int):
        raise UnstorableAnswer(f"a key of type {type(key).__name__} would not come back as it went in")
    return key
