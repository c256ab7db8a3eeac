"""What the cache asks of a codec. Two capabilities, since not everything that answers can stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmcache_plugins.models import EncodedAnswer

__all__ = ["AnswerCodec", "StreamCodec"]


@runtime_checkable
class AnswerCodec(Protocol):
    """Both directions of one kind of answer. Pure and thread-safe: no I/O, no state."""

    @property
    def kind(self) -> str:
        """Name what the payload holds; part of the cache key, so that kinds never meet."""

    def encode(self, answer: Any) -> EncodedAnswer:
        """Return the answer as bytes with its facts.

        Raises `UnstorableAnswer` for what `decode` could not give back equal in value and type.
        """

    def decode(self, encoded: EncodedAnswer) -> Any:
        """Return a fresh object each time: what one caller does to its answer reaches no other.

        Raises `CorruptEntry` for anything unreadable or of another kind.
        """


@runtime_checkable
class StreamCodec(AnswerCodec, Protocol):
    """A kind of answer that also comes in chunks; both forms share one entry."""

    def join(self, chunks: Sequence[Any]) -> EncodedAnswer:
        """Return the answer that a whole stream amounts to; `facts.unfinished` if its end was not said.

        Raises `UnstorableAnswer` for chunks that add up to no answer. The chunks stay as they are.
        """

    def pack_chunk(self, chunk: Any) -> bytes:
        """Return one chunk as bytes, for those who read the same stream elsewhere.

        Raises `UnstorableAnswer` for a chunk that has no such form.
        """

    def unpack_chunk(self, data: bytes, *, query: Any) -> Iterable[Any]:
        """Return the chunk afresh, as `query` would have got it: none if it did not ask for such.

        Raises `CorruptEntry` for anything unreadable.
        """

    def split(self, encoded: EncodedAnswer, *, query: Any) -> Iterable[Any]:
        """Return fresh chunks that add up to the answer, as `query` asked for them.

        Raises `CorruptEntry` as `decode` does, before the first chunk is given out.
        """
