"""How the generations that LangChain hands to its cache become bytes and come back.

Owns what of an answer a hit may not repeat: ids, objects, other callers' changes. The stored form is in
`stored`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec
from langchain_core.outputs import ChatGeneration

from llmcache_plugins.adapters.langchain.stored import (
    NO_TOKENS,
    StoredChat,
    StoredText,
    Wire,
    built,
    facts_of,
    refuse_extension,
    tried,
    wires_of,
)
from llmcache_plugins.answers.plain import pack
from llmcache_plugins.errors import CorruptEntry, UnstorableAnswer
from llmcache_plugins.models import EncodedAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from langchain_core.messages import AIMessage
    from langchain_core.messages.ai import UsageMetadata
    from langchain_core.outputs import Generation

    from llmcache_plugins.models import Resolution

__all__ = ["GenerationsCodec", "mark_hit"]


class GenerationsCodec:
    """The codec for what LangChain hands to a cache: a list of generations.

    Chunks come back as the whole messages they are, ids as fresh ones, and a message without usage with a
    usage of zero: LangChain adds a cost to each hit's, and readers of a usage rely on its counts. All else
    comes back equal in value and type, or is not stored.
    """

    kind = "langchain"

    def encode(self, generations: Sequence[Generation]) -> EncodedAnswer:
        """Return generations as bytes, after a trial that they come back.

        What the application does to them afterwards is not in the bytes. `UnstorableAnswer` for objects
        anywhere inside, subclasses, and messages that are not an AI's.
        """
        wires = [_with_usage(wire) for wire in wires_of(generations)]
        answer = EncodedAnswer(kind=self.kind, payload=pack(wires))
        returned = tried(lambda: self.decode(answer), wire_of=wires_of, payload=answer.payload)
        if _texts(returned) != _texts(generations):
            raise UnstorableAnswer("the texts would not come back equal")
        return msgspec.structs.replace(answer, facts=facts_of(wires))

    def decode(self, encoded: EncodedAnswer) -> list[Generation]:
        """Return the generations, fresh objects with fresh ids each time."""
        if encoded.kind != self.kind:
            raise CorruptEntry(f"the entry holds {encoded.kind!r}, not {self.kind!r}")
        return built(lambda: [stored.build() for stored in _decoder.decode(encoded.payload)])


def mark_hit(generations: Iterable[Generation], hit: Resolution, *, zero_usage: bool) -> None:
    """Say in each message how it came about: `response_metadata["llmcache"]`.

    `zero_usage` sets the counts of `usage_metadata` to zero; what the provider said of them stays in
    `response_metadata`. Changes the messages: only for those that nobody else has.
    """
    # str(): of a StrEnum, whose members could not be stored again.
    mark = {"outcome": str(hit.outcome), "age": hit.age, "cache_status": hit.cache_status}
    if hit.match is not None:
        mark["similarity"] = hit.match.similarity
    for generation in generations:
        if not isinstance(generation, ChatGeneration):
            continue
        message = cast("AIMessage", generation.message)
        message.response_metadata["llmcache"] = {**mark}
        if zero_usage and message.usage_metadata is not None:
            message.usage_metadata = cast("UsageMetadata", _zeroed(message.usage_metadata))


def _with_usage(wire: Wire) -> Wire:
    if "message" not in wire or wire["message"]["usage_metadata"] is not None:
        return wire
    return {**wire, "message": {**wire["message"], "usage_metadata": {**NO_TOKENS}}}


def _zeroed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _zeroed(inner) for name, inner in value.items()}
    return 0 if type(value) in (int, float) else value


def _texts(generations: Iterable[Generation]) -> list[str]:
    return [generation.text for generation in generations]


# Ten times as fast as untyped data that is converted.
_decoder = msgspec.msgpack.Decoder(list[StoredText | StoredChat], ext_hook=refuse_extension)
