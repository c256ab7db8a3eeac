"""The OpenAI wire format as plain dicts: facts of an answer, and answers to chunks and back.

Owns the shapes of chat completions, text completions, Responses and embeddings as they travel in JSON.
Imports no SDK and never raises over a shape: what a "compatible" server sends is often only nearly
right, and an answer that cannot be judged is an answer without facts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcache_plugins.models import AnswerFacts, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["facts_of", "join_chat_chunks", "join_response_events", "split_chat", "split_response"]

Wire = dict[str, Any]

_MOST_TOKENS = 2**63 - 1

# --- Facts -----------------------------------------------------------------------------------------------


def facts_of(payload: object, *, streamed: bool = False) -> AnswerFacts:
    """Return what is known of an answer; all empty if its shape is not understood.

    `streamed` says that the payload was joined from a stream, where an end that was not said means that
    the rest may be missing.
    """
    if not isinstance(payload, dict):
        return AnswerFacts()
    if payload.get("object") == "response":
        return _facts_of_response(payload, streamed=streamed)
    if payload.get("type") == "message" and "stop_reason" in payload:
        return _facts_of_message(payload, streamed=streamed)
    if "choices" in payload:
        return _facts_of_completion(payload, streamed=streamed)
    if payload.get("object") == "list" and "data" in payload:
        return _facts(payload, empty_of_choices=not _list(payload, "data"))
    return AnswerFacts()


def _facts_of_completion(payload: Wire, *, streamed: bool) -> AnswerFacts:
    choices = _list(payload, "choices")
    reasons = [choice.get("finish_reason") if isinstance(choice, dict) else None for choice in choices]
    return _facts(
        payload,
        finish_reasons=_texts(reasons),
        empty_of_choices=not choices,
        unfinished=streamed and not (reasons and all(reasons)),
    )


def _facts_of_message(payload: Wire, *, streamed: bool) -> AnswerFacts:
    """Anthropic's shape. A turn that ends without any content is a complete answer there."""
    reasons = _texts([payload.get("stop_reason")])
    return _facts(
        payload,
        finish_reasons=reasons,
        empty_of_choices=not isinstance(payload.get("content"), list),
        unfinished=streamed and not reasons,
    )


def _facts_of_response(payload: Wire, *, streamed: bool) -> AnswerFacts:
    status = payload.get("status")
    reason = _dict(payload, "incomplete_details").get("reason") if status == "incomplete" else None
    # A background response is returned as "queued": that is a finish reason nobody calls complete.
    return _facts(
        payload,
        finish_reasons=_texts([reason or status]),
        empty_of_choices=not _list(payload, "output"),
        unfinished=streamed and status not in _TERMINAL,
    )


def _facts(payload: Wire, **found: Any) -> AnswerFacts:
    model = payload.get("model")
    return AnswerFacts(model=model if isinstance(model, str) else None, usage=_usage_of(payload), **found)


def _usage_of(payload: Wire) -> Usage | None:
    """Return the billed tokens. All zero counts as unknown: SDKs fill an absent usage with zeros."""
    usage = _dict(payload, "usage")
    spent = _tokens(usage, "prompt_tokens", "input_tokens")
    produced = _tokens(usage, "completion_tokens", "output_tokens")
    return Usage(input_tokens=spent, output_tokens=produced) if spent or produced else None


def _tokens(usage: Wire, *names: str) -> int:
    found = (usage.get(name) for name in names)
    return next((n for n in found if type(n) is int and 0 < n <= _MOST_TOKENS), 0)


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(value for value in values if isinstance(value, str) and value)


def _dict(holder: Wire, name: str) -> Wire:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}


def _list(holder: Wire, name: str) -> list[Any]:
    value = holder.get(name)
    return value if isinstance(value, list) else []


def _dicts(holder: Wire, name: str) -> list[Wire]:
    return [item for item in _list(holder, name) if isinstance(item, dict)]


# --- Chat: chunks to completion --------------------------------------------------------------------------

_PADDING = "obfuscation"
"""Random text that evens out the length of OpenAI's stream events; no part of an answer."""

_FIXED = frozenset({"role", "type", "id", "index", "object", "format"})
"""Fields of a delta that are said, perhaps repeatedly, and never continued."""


def join_chat_chunks(chunks: Sequence[Wire]) -> Wire:
    """Return the `chat.completion` that chunks of a stream amount to.

    Text fields are concatenated, also those this module has never heard of; lists are extended, or merged
    by `index` where their items have one. A choice whose end was not said has `finish_reason` None.
    """
    joined: Wire = {}
    choices: dict[int, Wire] = {}
    for chunk in chunks:
        _keep_said(joined, chunk, leaving_out=("choices", "usage", _PADDING))
        _keep_usage(joined, chunk)
        for position, choice in enumerate(_dicts(chunk, "choices")):
            _join_choice(choices, choice, position=position)
    ordered = [_finished(choices[index]) for index in sorted(choices)]
    return {**joined, "object": "chat.completion", "choices": ordered}


def _keep_said(joined: Wire, part: Wire, *, leaving_out: tuple[str, ...]) -> None:
    """Keep the latest value of each field that says something.

    Azure's first chunk has an empty id and model, its last ones may as well.
    """
    for name, value in part.items():
        if name not in leaving_out and (value or name not in joined):
            joined[name] = _copy(value)


def _keep_usage(joined: Wire, chunk: Wire) -> None:
    if "usage" in chunk and (chunk["usage"] is not None or "usage" not in joined):
        joined["usage"] = _copy(chunk["usage"])


def _join_choice(choices: dict[int, Wire], part: Wire, *, position: int) -> None:
    index = part.get("index", position)
    if type(index) is not int:
        return
    choice = choices.setdefault(index, {"index": index, "message": {}, "finish_reason": None})
    _keep_said(choice, part, leaving_out=("delta", "logprobs", "message"))
    if "logprobs" in part:
        choice["logprobs"] = _merged(choice.get("logprobs"), part["logprobs"])
    _merge_into(choice["message"], _dict(part, "delta"))


def _finished(choice: Wire) -> Wire:
    """Return the choice as a plain completion has it: calls in order without positions, usual defaults."""
    message = choice["message"]
    calls = _dicts(message, "tool_calls")
    if calls and all(type(call.get("index")) is int for call in calls):
        message["tool_calls"] = sorted(calls, key=lambda call: int(call["index"]))
    for call in calls:
        call.pop("index", None)
    choice["message"] = {"role": "assistant", "content": None, **message}
    return choice


def _merge_into(target: Wire, delta: Wire) -> None:
    for name, value in delta.items():
        if name == "thinking_blocks" and isinstance(value, list):
            target[name] = _join_thinking(target.get(name) or [], value)
        elif name == "name" and value and value == target.get(name):
            # Some servers repeat a function's name with every fragment of its arguments.
            continue
        elif name in _FIXED:
            target[name] = _copy(value) if value is not None else target.get(name)
        else:
            target[name] = _merged(target.get(name), value)


def _merged(old: Any, new: Any) -> Any:
    if new is None:
        return old
    if isinstance(old, str) and isinstance(new, str):
        return old + new
    if isinstance(new, dict):
        target = old if isinstance(old, dict) else {}
        _merge_into(target, new)
        return target
    if isinstance(new, list):
        return _extended(old if isinstance(old, list) else [], new)
    return new


def _extended(old: list[Any], new: list[Any]) -> list[Any]:
    for item in new:
        known = _same_index(old, item)
        if known is None:
            old.append(_merged(None, item))
        else:
            _merge_into(known, item)
    return old


def _same_index(items: list[Any], new: Any) -> Wire | None:
    if not isinstance(new, dict) or new.get("index") is None:
        return None
    known = (item for item in items if isinstance(item, dict))
    return next((item for item in known if item.get("index") == new["index"]), None)


def _join_thinking(blocks: list[Any], new: list[Any]) -> list[Any]:
    """Continue the last thinking block until its signature has come.

    LiteLLM streams Anthropic's thinking as blocks without an index, one per fragment; sent back to the
    provider in the next turn, a block is only valid whole.
    """
    for block in new:
        if blocks and _is_open_thinking(blocks[-1]) and _is_thinking(block):
            _merge_into(blocks[-1], block)
        else:
            blocks.append(_merged(None, block))
    return blocks


def _is_thinking(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") == "thinking"


def _is_open_thinking(block: Any) -> bool:
    return _is_thinking(block) and not block.get("signature")


def _copy(value: Any) -> Any:
    """Return a copy that shares no container: what is joined must not change what was streamed."""
    if isinstance(value, dict):
        return {name: _copy(item) for name, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


# --- Chat: completion to chunks --------------------------------------------------------------------------

_IDENTITY = ("id", "created", "model", "service_tier", "system_fingerprint")
_OF_CONTENT = ("choices", "usage", "object")


def split_chat(payload: Wire, *, include_usage: bool) -> list[Wire]:
    """Return the chunks that replay a `chat.completion`; `join_chat_chunks` is the inverse.

    Per choice one chunk with everything it says and one with its end; the usage chunk without choices
    comes last, if it was asked for and the usage is known.
    """
    frame = _frame(payload, include_usage=include_usage)
    choices = list(enumerate(_dicts(payload, "choices")))
    said = [[_content_of(choice, position)] for position, choice in choices]
    ends = [[_end_of(choice, position)] for position, choice in choices if choice.get("finish_reason")]
    chunks = [{**frame, "choices": part} for part in [*said, *ends] or [[]]]
    chunks[0].update((name, _copy(value)) for name, value in payload.items() if name not in _OF_CONTENT)
    if include_usage and payload.get("usage") is not None:
        chunks.append({**frame, "choices": [], "usage": _copy(payload["usage"])})
    return chunks


def _frame(payload: Wire, *, include_usage: bool) -> Wire:
    """Return what every chunk has: who speaks, and a null usage where a later chunk brings it."""
    frame = {name: payload[name] for name in _IDENTITY if name in payload}
    frame["object"] = "chat.completion.chunk"
    if "usage" in payload and (include_usage or payload["usage"] is None):
        frame["usage"] = None
    return frame


def _content_of(choice: Wire, position: int) -> Wire:
    said = {name: _copy(value) for name, value in choice.items() if name not in ("message", "finish_reason")}
    delta = _copy(_dict(choice, "message"))
    for index, call in enumerate(_dicts(delta, "tool_calls")):
        call["index"] = index
    return {"index": position, **said, "delta": delta, "finish_reason": None}


def _end_of(choice: Wire, position: int) -> Wire:
    return {"index": choice.get("index", position), "delta": {}, "finish_reason": choice["finish_reason"]}


# --- Responses -------------------------------------------------------------------------------------------

_TERMINAL = ("completed", "incomplete", "failed")
_TERMINAL_EVENTS = tuple(f"response.{status}" for status in _TERMINAL)


def join_response_events(events: Sequence[Wire]) -> Wire | None:
    """Return the response that the last event of a stream carries; None if it has no such event."""
    for event in reversed(events):
        if event.get("type") in _TERMINAL_EVENTS and isinstance(event.get("response"), dict):
            response: Wire = _copy(event["response"])
            return response
    return None


def split_response(payload: Wire) -> list[Wire]:
    """Return a valid event sequence that replays a response; `join_response_events` is the inverse.

    Text, refusals and function arguments come as one delta each; items of other types are added and done.
    """
    status = payload.get("status")
    begun = {**payload, "status": "in_progress", "output": [], "usage": None}
    events = [_event("response.created", response=begun), _event("response.in_progress", response=begun)]
    for index, item in enumerate(_dicts(payload, "output")):
        events.extend(_events_of_item(item, output_index=index))
    events.append(
        _event(f"response.{status if status in _TERMINAL else 'completed'}", response=payload),
    )
    return [{**_copy(event), "sequence_number": number} for number, event in enumerate(events)]


def _event(kind: str, **fields: Any) -> Wire:
    return {"type": kind, **fields}


def _events_of_item(item: Wire, *, output_index: int) -> Iterator[Wire]:
    where = {"item_id": item.get("id") or "", "output_index": output_index}
    yield _event("response.output_item.added", output_index=output_index, item=_begun(item))
    if item.get("type") == "message":
        for index, part in enumerate(_dicts(item, "content")):
            yield from _events_of_part(part, {**where, "content_index": index})
    elif item.get("type") == "function_call":
        said = {"arguments": item.get("arguments") or ""}
        yield _event("response.function_call_arguments.delta", **where, delta=said["arguments"])
        yield _event("response.function_call_arguments.done", **where, name=item.get("name"), **said)
    yield _event("response.output_item.done", output_index=output_index, item=item)


def _begun(item: Wire) -> Wire:
    """Return the item as it is announced, before its content."""
    if item.get("type") == "message":
        return {**item, "status": "in_progress", "content": []}
    if item.get("type") == "function_call":
        return {**item, "status": "in_progress", "arguments": ""}
    return item


def _events_of_part(part: Wire, where: Wire) -> Iterator[Wire]:
    field = _SPOKEN.get(str(part.get("type")))
    spoken = field is not None and isinstance(part.get(field), str)
    yield _event("response.content_part.added", **where, part={**part, field: ""} if spoken else part)
    if field is not None and spoken:
        yield from _events_of_text(part, field, where)
    yield _event("response.content_part.done", **where, part=part)


_SPOKEN = {"output_text": "text", "refusal": "refusal"}
"""The parts that come in deltas, and which field holds what they say."""


def _events_of_text(part: Wire, field: str, where: Wire) -> Iterator[Wire]:
    extra = {"logprobs": part.get("logprobs") or []} if part["type"] == "output_text" else {}
    kind = f"response.{part['type']}"
    yield _event(f"{kind}.delta", **where, delta=part[field], **extra)
    yield _event(f"{kind}.done", **where, **{field: part[field]}, **extra)
