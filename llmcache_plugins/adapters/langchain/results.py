"""How the results of a chat model become bytes and come back, whole or in chunks.

One entry serves both: what LangChain's models return from `_generate`, and what they yield from `_stream`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from langchain_core.messages import AIMessage, message_chunk_to_message
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult

from llmcache_plugins.adapters.langchain.stored import (
    StoredChat,
    StoredChunk,
    Wire,
    built,
    facts_of,
    refuse_extension,
    tried,
    wire_of_chunk,
    wires_of,
)
from llmcache_plugins.answers.plain import pack
from llmcache_plugins.errors import CorruptEntry, UnstorableAnswer
from llmcache_plugins.models import EncodedAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from langchain_core.outputs import ChatGenerationChunk

__all__ = ["ResultCodec"]


class ResultCodec:
    """The `StreamCodec` for a `ChatResult` and its `ChatGenerationChunk`s.

    Ids come back as fresh ones; all else comes back equal in value and type, or is not stored. A stored
    answer streams as one chunk.
    """

    kind = "langchain.result"

    def encode(self, answer: ChatResult) -> EncodedAnswer:
        """Return a result as bytes, after a trial that it comes back equal."""
        wire = _wire_of(answer)
        encoded = EncodedAnswer(kind=self.kind, payload=pack(wire), facts=facts_of(wire["generations"]))
        tried(lambda: self.decode(encoded), wire_of=_wire_of, payload=encoded.payload)
        return encoded

    def decode(self, encoded: EncodedAnswer) -> ChatResult:
        """Return the result, fresh objects with fresh ids each time."""
        stored = self._read(encoded)
        return built(
            lambda: ChatResult(
                generations=[generation.build() for generation in stored.generations],
                llm_output=stored.llm_output,
            )
        )

    def join(self, chunks: Sequence[ChatGenerationChunk]) -> EncodedAnswer:
        """Return the result that the chunks of a stream amount to, as LangChain adds them."""
        if not chunks:
            raise UnstorableAnswer("a stream without chunks is not an answer")
        try:
            whole = chunks[0] + list(chunks[1:])
            message = message_chunk_to_message(whole.message)
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            raise UnstorableAnswer("the chunks do not add up") from error
        if isinstance(message, AIMessage) and message.usage_metadata is None:
            # Most models tell it only of a whole answer, and readers of one rely on its counts.
            message.usage_metadata = UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0)
        generation = ChatGeneration(message=message, generation_info=whole.generation_info)
        return self.encode(ChatResult(generations=[generation]))

    def pack_chunk(self, chunk: ChatGenerationChunk) -> bytes:
        """Return a chunk as bytes, after a trial that it comes back equal."""
        data = pack(wire_of_chunk(chunk))
        tried(lambda: _chunk_of(data), wire_of=wire_of_chunk, payload=data)
        return data

    def unpack_chunk(self, data: bytes, *, query: Any) -> list[ChatGenerationChunk]:
        """Return the chunk afresh."""
        return [_chunk_of(data)]

    def split(self, encoded: EncodedAnswer, *, query: Any) -> Iterable[ChatGenerationChunk]:
        """Return one chunk that is the whole answer; of several generations the first."""
        stored = self._read(encoded)
        first = stored.generations[:1]
        return built(lambda: [part for one in first for part in one.split(stored.llm_output)])

    def _read(self, encoded: EncodedAnswer) -> _StoredResult:
        if encoded.kind != self.kind:
            raise CorruptEntry(f"the entry holds {encoded.kind!r}, not {self.kind!r}")
        return built(lambda: _results.decode(encoded.payload))


class _StoredResult(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    generations: list[StoredChat]
    llm_output: dict[str, Any] | None


_results = msgspec.msgpack.Decoder(_StoredResult, ext_hook=refuse_extension)
_chunks = msgspec.msgpack.Decoder(StoredChunk, ext_hook=refuse_extension)


def _wire_of(result: ChatResult) -> Wire:
    if type(result) is not ChatResult:
        raise UnstorableAnswer(f"a {type(result).__name__} is not what a chat model returns")
    return {"generations": wires_of(result.generations), "llm_output": result.llm_output}


def _chunk_of(data: bytes) -> ChatGenerationChunk:
    return built(lambda: _chunks.decode(data).build())
