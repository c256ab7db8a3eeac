"""Answers as LiteLLM hands them to a cache and takes them back: one wire form for all of them.

Owns which shapes LiteLLM can make an answer of. What it could not is a miss: given an odd one, LiteLLM
raises into the application. Imports nothing of LiteLLM.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llmcache_plugins.answers.kinds import Kind
from llmcache_plugins.answers.openai_wire import facts_of
from llmcache_plugins.answers.plain import pack, unpack
from llmcache_plugins.errors import CorruptEntry, UnstorableAnswer
from llmcache_plugins.models import EncodedAnswer

__all__ = ["WireCodec", "codec_of", "kind_of_answer", "wire_of"]

Wire = dict[str, Any]


def wire_of(answer: Any) -> Wire | None:
    """Return what LiteLLM has handed over, a fresh dict; None if it is no answer of a call."""
    try:
        text = answer if isinstance(answer, str) else _json_of(answer)
        wire = msgspec.json.decode(text)
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        return None
    return wire if isinstance(wire, dict) else None


def _json_of(answer: Any) -> str | bytes:
    if isinstance(answer, dict):
        return msgspec.json.encode(answer)
    text: str = answer.model_dump_json(exclude_unset=True, warnings=False)
    return text


def kind_of_answer(wire: Wire) -> Kind | None:
    """Return the kind of call that has such an answer; the inner call's, where one calls another."""
    kind = _BY_OBJECT.get(str(wire.get("object") or wire.get("type")))
    return kind or next((kind for name, kind in _BY_FIELD.items() if name in wire), None)


_EVENTS = "litellm_cached_anthropic_sse_events"
_BY_FIELD = {_EVENTS: Kind.MESSAGE_EVENTS, "results": Kind.RERANK, "text": Kind.TRANSCRIPTION}
_BY_OBJECT = {
    "chat.completion": Kind.CHAT,
    "text_completion": Kind.COMPLETIONS,
    "response": Kind.RESPONSES,
    "list": Kind.EMBEDDINGS,
    "message": Kind.MESSAGES,
}


class WireCodec:
    """The codec for the answers of one kind of call; `streams` for who wants to replay them."""

    def __init__(self, kind: Kind, *, streams: bool = False) -> None:
        self.kind = str(kind)
        self._kind = kind
        self._streams = streams

    def encode(self, answer: Wire) -> EncodedAnswer:
        """Return an answer as bytes; `UnstorableAnswer` for one that could not be served again."""
        wire = _as_text(answer) if self._kind is Kind.COMPLETIONS else answer
        if not _is_whole(self._kind, wire):
            raise UnstorableAnswer(f"no answer of the kind {self.kind!r}")
        return EncodedAnswer(kind=self.kind, payload=pack(wire), facts=facts_of(wire, streamed=self._streams))

    def decode(self, encoded: EncodedAnswer) -> Wire:
        """Return what LiteLLM takes for this kind, a fresh dict."""
        wire = unpack(encoded, kind=self.kind)
        if not isinstance(wire, dict) or not _is_whole(self._kind, wire):
            raise CorruptEntry(f"the payload is no answer of the kind {self.kind!r}")
        return _as_chat(wire) if self._streams and self._kind is Kind.COMPLETIONS else wire


_CODECS = {(kind, streams): WireCodec(kind, streams=streams) for kind in Kind for streams in (False, True)}


def codec_of(kind: Kind, *, streams: bool) -> WireCodec:
    """Return the codec for a kind of call."""
    return _CODECS[kind, streams]


_LISTED = {
    Kind.CHAT: ("choices", "message"),
    Kind.COMPLETIONS: ("choices", "text"),
    Kind.RESPONSES: ("output", None),
    Kind.EMBEDDINGS: ("data", "embedding"),
    Kind.RERANK: ("results", "index"),
    Kind.MESSAGES: ("content", None),
    Kind.MESSAGE_EVENTS: (_EVENTS, None),
}
"""The list that an answer must have, and what each of its items."""

_OF_EMBEDDING = frozenset(
    {"embedding", "format_version", "index", "model", "object", "prompt_tokens", "prompt_tokens_details"}
)


def _is_whole(kind: Kind, wire: Wire) -> bool:
    if kind is Kind.EMBEDDING:
        return wire.keys() >= _OF_EMBEDDING
    if kind is Kind.TRANSCRIPTION:
        return isinstance(wire.get("text"), str)
    name, wanted = _LISTED[kind]
    items = wire.get(name)
    if not isinstance(items, list):
        return False
    if kind is Kind.CHAT:
        return all(isinstance(item, dict) and isinstance(item.get("message"), dict) for item in items)
    return wanted is None or all(isinstance(item, dict) and wanted in item for item in items)


# LiteLLM builds a stream of old completions into a chat completion, and replays only such.


def _as_text(wire: Wire) -> Wire:
    choices = wire.get("choices")
    if wire.get("object") != "chat.completion" or not isinstance(choices, list):
        return wire
    return {**wire, "object": "text_completion", "choices": [_text_choice(choice) for choice in choices]}


def _text_choice(choice: Any) -> Any:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return choice
    kept = {name: value for name, value in choice.items() if name != "message"}
    return {**kept, "text": message.get("content") or "", "logprobs": choice.get("logprobs")}


def _as_chat(wire: Wire) -> Wire:
    choices = [
        {**{name: value for name, value in choice.items() if name != "text"}, "message": _said(choice)}
        for choice in wire["choices"]
    ]
    return {**wire, "object": "chat.completion", "choices": choices}


def _said(choice: Wire) -> Wire:
    return {"role": "assistant", "content": choice["text"]}
