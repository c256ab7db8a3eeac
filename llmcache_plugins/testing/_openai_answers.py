"""What the stand-in provider says, as OpenAI wire dicts: a pure function of the request.

Owns texts, vectors, token counts and the order of stream events. Knows nothing of HTTP, time or counting,
and deliberately nothing of `answers.openai_wire`: a stand-in that shared code with what it is meant to
test would agree with its mistakes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import random
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Said",
    "chat",
    "chat_chunks",
    "count_tokens",
    "embeddings",
    "prompt_of",
    "response",
    "response_events",
]

Wire = dict[str, Any]

_NOT_ASKED = frozenset({"stream", "stream_options", "user", "metadata", "encoding_format"})
"""Parts of a request that change how an answer is delivered, not what it says."""

_VOCABULARY = """
the a an of to in for with on by from as at into over under between through after before cache
answer request key value entry server client process model token prompt reply stream chunk window
context latency budget lease holder follower leader flight queue signal signature digest hash
version epoch memory network cluster replica shard bucket limit bound rate cost price invoice plan
order customer product region storage archive report summary section paragraph example detail reason
result change keeps holds returns reads writes waits shares serves expires renews repeats explains
describes depends requires allows prevents reduces measures compares follows begins ends small large
early late quick slow stable equal fresh stale shared exact usual rare whole single many few each
every most often never always
"""
_WORDS = tuple(_VOCABULARY.split())

_WORDS_PER_CHUNK = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one answer says, before it takes the shape of an API."""

    serial: int
    """The number of the call: answers to equal requests differ in id and creation time only."""
    created: int
    texts: tuple[str, ...]
    finish_reason: str = "stop"
    tool_calls: tuple[tuple[str, str], ...] = ()
    """Name and JSON arguments of the functions to call."""
    input_tokens: int = 0

    @property
    def output_tokens(self) -> int:
        """Tokens of all choices."""
        arguments = " ".join(arguments for _, arguments in self.tool_calls)
        return sum(map(count_tokens, self.texts)) + len(self.texts) * count_tokens(arguments)


def count_tokens(text: str) -> int:
    """Return a plausible number of tokens: four for three words."""
    return math.ceil(len(text.split()) * 4 / 3)


def compose(request: Wire, *, choice: int = 0) -> str:
    """Return a long answer that follows from the request."""
    rng = _dice(request, choice)
    return " ".join(_sentence(rng) for _ in range(rng.randint(8, 16)))


def _sentence(rng: random.Random) -> str:
    words = rng.choices(_WORDS, k=rng.randint(8, 18))
    return f"{' '.join(words).capitalize()}."


def _dice(request: Wire, *salt: object) -> random.Random:
    asked = {name: value for name, value in request.items() if name not in _NOT_ASKED}
    spelled = json.dumps([asked, *salt], sort_keys=True)
    return random.Random(hashlib.sha256(spelled.encode()).digest())  # noqa: S311 - repeatable, not secret


def calls_for(request: Wire) -> tuple[tuple[str, str], ...]:
    """Return the tool calls of an answer: every function offered, once.

    None if the caller wants none, or brings the result of one and leaves the choice: then an agent ends.
    """
    choice = request.get("tool_choice") or "auto"
    if choice == "none" or (choice == "auto" and _brings_a_result(request)):
        return ()
    offered = [tool.get("function", tool).get("name") for tool in request.get("tools") or []]
    rng = _dice(request, "arguments")
    return tuple(
        (name, json.dumps({"topic": rng.choice(_WORDS), "limit": rng.randint(1, 9)}))
        for name in offered
        if name
    )


def _brings_a_result(request: Wire) -> bool:
    asked = request.get("messages", request.get("input"))
    last = asked[-1] if isinstance(asked, list) and asked else None
    if not isinstance(last, dict):
        return False
    return last.get("role") == "tool" or last.get("type") == "function_call_output"


# --- What was asked --------------------------------------------------------------------------------------


def prompt_of(request: Wire) -> str:
    """Return the last thing the user said, by which calls are counted."""
    asked = request.get("messages", request.get("input", request.get("prompt", "")))
    if isinstance(asked, list) and asked and isinstance(asked[-1], dict):
        return _text_of(asked[-1])
    return asked if isinstance(asked, str) else json.dumps(asked)


def _text_of(message: Wire) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def input_tokens_of(request: Wire) -> int:
    """Return the tokens of everything that was sent to be read."""
    asked = request.get("messages", request.get("input", ""))
    return max(1, count_tokens(str(request.get("instructions") or "")) + _count(asked))


def _count(asked: object) -> int:
    if isinstance(asked, str):
        return count_tokens(asked)
    if isinstance(asked, list):
        return sum(1 if isinstance(item, int) else _count(item) for item in asked)
    return count_tokens(_text_of(asked)) if isinstance(asked, dict) else 0


# --- Chat completions ------------------------------------------------------------------------------------


def chat(request: Wire, said: Said) -> Wire:
    """Return a `chat.completion`."""
    return {
        **_chat_frame(request, said, kind="chat.completion"),
        "choices": [_choice(text, index, said) for index, text in enumerate(said.texts)],
        "usage": _chat_usage(said),
    }


def _chat_frame(request: Wire, said: Said, *, kind: str) -> Wire:
    return {
        "id": f"chatcmpl-{said.serial:012d}",
        "object": kind,
        "created": said.created,
        "model": request.get("model", "stand-in"),
        "service_tier": "default",
        "system_fingerprint": "fp_standin",
    }


def _choice(text: str, index: int, said: Said) -> Wire:
    message: Wire = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    if said.tool_calls:
        message |= {"content": None, "tool_calls": _tool_calls(said, index)}
    return {"index": index, "message": message, "finish_reason": said.finish_reason}


def _tool_calls(said: Said, choice: int) -> list[Wire]:
    return [
        {
            "id": f"call_{said.serial}_{choice}_{number}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for number, (name, arguments) in enumerate(said.tool_calls)
    ]


def _chat_usage(said: Said) -> Wire:
    return {
        "prompt_tokens": said.input_tokens,
        "completion_tokens": said.output_tokens,
        "total_tokens": said.input_tokens + said.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def chat_chunks(request: Wire, said: Said) -> Iterator[Wire]:
    """Return the chunks of a streamed chat completion, a few words or characters of arguments each."""
    frame = _chat_frame(request, said, kind="chat.completion.chunk")
    wants_usage = bool((request.get("stream_options") or {}).get("include_usage"))
    if wants_usage:
        frame["usage"] = None
    for index, text in enumerate(said.texts):
        for delta in _deltas(text, index, said):
            yield {**frame, "choices": [{"index": index, "delta": delta, "finish_reason": None}]}
        yield {**frame, "choices": [{"index": index, "delta": {}, "finish_reason": said.finish_reason}]}
    if wants_usage:
        yield {**frame, "choices": [], "usage": _chat_usage(said)}


def _deltas(text: str, choice: int, said: Said) -> Iterator[Wire]:
    if not said.tool_calls:
        yield {"role": "assistant", "content": "", "refusal": None}
        yield from ({"content": piece} for piece in pieces(text))
        return
    yield {"role": "assistant", "content": None, "refusal": None}
    for number, call in enumerate(_tool_calls(said, choice)):
        arguments = call["function"]["arguments"]
        opening = {**call, "function": {**call["function"], "arguments": ""}}
        yield {"tool_calls": [{"index": number, **opening}]}
        for start in range(0, len(arguments), 8):
            yield {"tool_calls": [{"index": number, "function": {"arguments": arguments[start : start + 8]}}]}


def pieces(text: str) -> Iterator[str]:
    """Return the text in pieces of a few words; joined they are the text."""
    words = text.split(" ")
    for start in range(0, len(words), _WORDS_PER_CHUNK):
        piece = " ".join(words[start : start + _WORDS_PER_CHUNK])
        if text:
            yield piece if start == 0 else f" {piece}"


# --- Responses -------------------------------------------------------------------------------------------


def response(request: Wire, said: Said) -> Wire:
    """Return a `response` object."""
    return {
        **_response_frame(request, said),
        **_outcome(said),
        "output": _output(said),
        "usage": {
            "input_tokens": said.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": said.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": said.input_tokens + said.output_tokens,
        },
    }


def _response_frame(request: Wire, said: Said) -> Wire:
    return {
        "id": f"resp_{said.serial:012d}",
        "object": "response",
        "created_at": said.created,
        "error": None,
        "instructions": request.get("instructions"),
        "max_output_tokens": request.get("max_output_tokens"),
        "metadata": {},
        "model": request.get("model", "stand-in"),
        "parallel_tool_calls": True,
        "previous_response_id": request.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "temperature": request.get("temperature", 1.0),
        "text": {"format": {"type": "text"}},
        "tool_choice": request.get("tool_choice", "auto"),
        "tools": request.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "user": request.get("user"),
    }


def _outcome(said: Said) -> Wire:
    """Return status and reason: chat's finish reasons in the words of this API."""
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(said.finish_reason)
    details = {"reason": reason} if reason else None
    return {"status": "incomplete" if reason else "completed", "incomplete_details": details}


def _output(said: Said) -> list[Wire]:
    if said.tool_calls:
        return [_function_call(said, number) for number in range(len(said.tool_calls))]
    return [_message(said, text, number) for number, text in enumerate(said.texts)]


def _function_call(said: Said, number: int) -> Wire:
    name, arguments = said.tool_calls[number]
    return {
        "id": f"fc_{said.serial}_{number}",
        "type": "function_call",
        "status": "completed",
        "call_id": f"call_{said.serial}_{number}",
        "name": name,
        "arguments": arguments,
    }


def _message(said: Said, text: str, number: int) -> Wire:
    return {
        "id": f"msg_{said.serial}_{number}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}],
    }


def response_events(request: Wire, said: Said) -> Iterator[Wire]:
    """Return the events of a streamed response, numbered."""
    for number, event in enumerate(_response_events(request, said)):
        yield {**event, "sequence_number": number}


def _response_events(request: Wire, said: Said) -> Iterator[Wire]:
    whole = response(request, said)
    begun = {**whole, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(whole["output"]):
        where = {"output_index": index, "item_id": item["id"]}
        told = _call_events(item, where) if item["type"] == "function_call" else _text_events(item, where)
        yield {"type": "response.output_item.added", "output_index": index, "item": _begun(item)}
        yield from told
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{whole['status']}", "response": whole}


def _begun(item: Wire) -> Wire:
    said_later: Wire = {"arguments": ""} if item["type"] == "function_call" else {"content": []}
    return {**item, "status": "in_progress", **said_later}


def _call_events(item: Wire, where: Wire) -> Iterator[Wire]:
    kind = "response.function_call_arguments"
    arguments = item["arguments"]
    for start in range(0, len(arguments), 8):
        yield {"type": f"{kind}.delta", **where, "delta": arguments[start : start + 8]}
    yield {"type": f"{kind}.done", **where, "name": item["name"], "arguments": arguments}


def _text_events(item: Wire, where: Wire) -> Iterator[Wire]:
    part = item["content"][0]
    where = {**where, "content_index": 0}
    yield {"type": "response.content_part.added", **where, "part": {**part, "text": ""}}
    for piece in pieces(part["text"]):
        yield {"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **where, "part": part}


# --- Embeddings ------------------------------------------------------------------------------------------


def embeddings(request: Wire, said: Said, *, empty: bool) -> Wire:
    """Return an embedding per input, as floats or as base64 of little-endian 32-bit floats."""
    inputs = [] if empty else _inputs(request.get("input"))
    vectors = [_vector(text, int(request.get("dimensions") or 64)) for text in inputs]
    as_base64 = request.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if as_base64 else vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": said.input_tokens, "total_tokens": said.input_tokens}
    return {"object": "list", "data": data, "model": request.get("model", "stand-in"), "usage": usage}


def _inputs(asked: object) -> list[object]:
    """Return the texts to embed. A list of numbers is one text, already cut into tokens."""
    if isinstance(asked, list) and not all(isinstance(item, int) for item in asked):
        return asked
    return [asked]


def _vector(text: object, dimensions: int) -> list[float]:
    rng = _dice({"text": text})
    raw = [rng.gauss(0.0, 1.0) for _ in range(dimensions)]
    length = math.sqrt(sum(x * x for x in raw))
    # Rounded to 32 bits, so that both encodings carry the same numbers.
    return list(struct.unpack(f"<{dimensions}f", struct.pack(f"<{dimensions}f", *(x / length for x in raw))))


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
