"""The wire format: facts of answers of any shape, chunks to answers and back."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcache_plugins.answers.openai_wire import (
    facts_of,
    join_chat_chunks,
    join_response_events,
    split_chat,
    split_response,
)
from llmcache_plugins.models import AnswerFacts, Usage
from llmcache_plugins.policy import Refusal, admit

Wire = dict[str, Any]

# How long an example takes depends on who else uses the machine.
unhurried = settings(deadline=None, max_examples=60)

# --- Facts -----------------------------------------------------------------------------------------------


def chat(*reasons: str | None, **fields: Any) -> Wire:
    choices = [
        {"index": index, "message": {"role": "assistant", "content": "x"}, "finish_reason": reason}
        for index, reason in enumerate(reasons)
    ]
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, **fields}


def response(**fields: Any) -> Wire:
    return {
        "id": "r",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "status": "completed",
        "output": [
            {
                "id": "msg",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "hello", "annotations": []}],
            }
        ],
        **fields,
    }


@pytest.mark.parametrize(
    ("payload", "facts"),
    [
        (
            chat("stop", usage={"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}),
            AnswerFacts(model="m", usage=Usage(input_tokens=5, output_tokens=7), finish_reasons=("stop",)),
        ),
        (chat("stop", "length"), AnswerFacts(model="m", finish_reasons=("stop", "length"))),
        (chat(None, "stop"), AnswerFacts(model="m", finish_reasons=("stop",))),
        (chat(), AnswerFacts(model="m", empty_of_choices=True)),
        (
            {"object": "text_completion", "model": "m", "choices": [{"text": "", "finish_reason": "stop"}]},
            AnswerFacts(model="m", finish_reasons=("stop",)),
        ),
        (
            response(usage={"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}),
            AnswerFacts(
                model="m", usage=Usage(input_tokens=5, output_tokens=7), finish_reasons=("completed",)
            ),
        ),
        (
            response(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            AnswerFacts(model="m", finish_reasons=("max_output_tokens",)),
        ),
        (response(status="incomplete"), AnswerFacts(model="m", finish_reasons=("incomplete",))),
        (response(status="queued"), AnswerFacts(model="m", finish_reasons=("queued",))),
        (
            response(output=[]),
            AnswerFacts(model="m", finish_reasons=("completed",), empty_of_choices=True),
        ),
        (
            {
                "object": "list",
                "model": "e",
                "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}],
                "usage": {"prompt_tokens": 3, "total_tokens": 3},
            },
            AnswerFacts(model="e", usage=Usage(input_tokens=3)),
        ),
        ({"object": "list", "model": "e", "data": []}, AnswerFacts(model="e", empty_of_choices=True)),
        (
            {
                "type": "message",
                "model": "claude",
                "content": [],
                "stop_reason": "end_turn",
                "usage": {"input_tokens": 1, "output_tokens": 2},
            },
            AnswerFacts(
                model="claude", usage=Usage(input_tokens=1, output_tokens=2), finish_reasons=("end_turn",)
            ),
        ),
    ],
)
def test_facts_of_complete_answers(payload: Wire, facts: AnswerFacts) -> None:
    assert facts_of(payload) == facts


@pytest.mark.parametrize(
    ("payload", "refusal"),
    [
        (chat("stop"), None),
        (chat("tool_calls"), None),
        (chat("stop", "length"), Refusal.TRUNCATED),
        (chat("content_filter"), Refusal.FILTERED),
        (chat("error"), Refusal.UNKNOWN_FINISH),
        (chat(), Refusal.NO_CHOICES),
        (response(), None),
        (
            response(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            Refusal.TRUNCATED,
        ),
        (response(status="incomplete", incomplete_details={"reason": "content_filter"}), Refusal.FILTERED),
        (response(status="failed"), Refusal.UNKNOWN_FINISH),
        (response(status="queued"), Refusal.UNKNOWN_FINISH),
    ],
)
def test_admission_judges_the_facts_as_the_provider_meant_them(
    payload: Wire, refusal: Refusal | None
) -> None:
    assert admit(facts_of(payload)) is refusal


@pytest.mark.parametrize("payload", [None, "text", 3, [], {}, {"object": "list"}, {"answer": 42}, b"x"])
def test_an_unknown_shape_has_no_facts(payload: object) -> None:
    assert facts_of(payload) == AnswerFacts()


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "12",
        [],
        {},
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": "5", "completion_tokens": True},
        {"prompt_tokens": -5, "completion_tokens": 1.5},
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": 2**70},
    ],
)
def test_a_usage_that_says_nothing_is_unknown_and_not_zero(usage: object) -> None:
    assert facts_of(chat("stop", usage=usage)).usage is None


@pytest.mark.parametrize("choices", [None, "text", {}, 7])
def test_choices_of_a_wrong_shape_are_no_choices(choices: object) -> None:
    assert facts_of({"choices": choices}) == AnswerFacts(empty_of_choices=True)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    [
        "object",
        "type",
        "status",
        "choices",
        "data",
        "output",
        "usage",
        "model",
        "incomplete_details",
        "stop_reason",
        "content",
        "index",
        "delta",
        "message",
        "finish_reason",
        "logprobs",
        "tool_calls",
        "function",
        "thinking_blocks",
        "prompt_tokens",
        "response",
    ]
)
marks = st.sampled_from(
    ["response", "message", "list", "chat.completion", "thinking", "output_text", "function_call"]
)
shapes = st.recursive(
    junk | marks,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=6),
    max_leaves=25,
)
malformed = st.dictionaries(names, shapes, max_size=6)


@unhurried
@given(shapes, st.booleans())
def test_no_shape_raises(payload: object, streamed: bool) -> None:
    facts_of(payload, streamed=streamed)


@unhurried
@given(st.lists(malformed, max_size=4))
def test_no_chunks_raise_and_none_is_changed(chunks: list[Wire]) -> None:
    before = copy.deepcopy(chunks)
    joined = join_chat_chunks(chunks)
    facts_of(joined, streamed=True)
    join_response_events(chunks)
    assert chunks == before


@unhurried
@given(malformed, st.booleans())
def test_no_payload_raises_when_split_and_none_is_changed(payload: Wire, include_usage: bool) -> None:
    before = copy.deepcopy(payload)
    split_chat(payload, include_usage=include_usage)
    split_response(payload)
    assert payload == before


# --- Chat ------------------------------------------------------------------------------------------------

text = st.text(max_size=12)
maybe_text = st.none() | text
# Of extensions only those that say by themselves where they belong: an `index` of their own is merged by.
extras = st.dictionaries(
    st.sampled_from(["x_vendor", "citations", "notes", "details"]),
    st.none() | text | st.integers() | st.lists(text | st.dictionaries(st.sampled_from("abc"), text)),
    max_size=2,
)
tool_calls = st.builds(
    lambda id_, name, arguments: {
        "id": id_,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    },
    text,
    text,
    text,
)
tokens = st.lists(
    st.fixed_dictionaries(
        {"token": text, "logprob": st.floats(-9, 0), "bytes": st.none(), "top_logprobs": st.just([])}
    ),
    max_size=3,
)
logprobs = st.none() | st.fixed_dictionaries({"content": st.none() | tokens, "refusal": st.none() | tokens})
thinking = st.builds(
    lambda said, signature: {"type": "thinking", "thinking": said, "signature": signature},
    text,
    st.text(min_size=1, max_size=5),
)
messages = st.builds(
    lambda required, optional, extra: {**extra, **required, **optional},
    st.fixed_dictionaries({"role": st.just("assistant"), "content": maybe_text}),
    st.fixed_dictionaries(
        {},
        optional={
            "refusal": maybe_text,
            "reasoning_content": maybe_text,
            "reasoning": text,
            "tool_calls": st.none() | st.lists(tool_calls, max_size=3),
            "function_call": st.none() | st.fixed_dictionaries({"name": text, "arguments": text}),
            "annotations": st.lists(st.fixed_dictionaries({"type": st.just("url_citation"), "url": text})),
            "images": st.lists(st.fixed_dictionaries({"type": st.just("image_url"), "url": text})),
            "thinking_blocks": st.lists(thinking, max_size=2),
            "audio": st.none()
            | st.fixed_dictionaries({"id": text, "data": text, "expires_at": st.integers()}),
        },
    ),
    extras,
)
usages = st.fixed_dictionaries(
    {
        "prompt_tokens": st.integers(0, 99),
        "completion_tokens": st.integers(0, 99),
        "total_tokens": st.integers(0, 99),
    }
)


@st.composite
def completions(draw: st.DrawFn) -> Wire:
    reasons = draw(st.lists(st.sampled_from(["stop", "tool_calls", "length"]), max_size=3))
    choices = [
        {
            "index": index,
            "message": draw(messages),
            "finish_reason": reason,
            **draw(st.fixed_dictionaries({}, optional={"logprobs": logprobs, "stop_reason": maybe_text})),
        }
        for index, reason in enumerate(reasons)
    ]
    known = st.fixed_dictionaries(
        {"id": text, "created": st.integers(0), "model": text},
        optional={"system_fingerprint": maybe_text, "service_tier": maybe_text, "usage": st.none() | usages},
    )
    return {**draw(extras), **draw(known), "object": "chat.completion", "choices": choices}


@unhurried
@given(completions())
def test_an_answer_survives_being_split_and_joined(completion: Wire) -> None:
    chunks = split_chat(completion, include_usage=True)
    assert join_chat_chunks(json.loads(json.dumps(chunks))) == completion


@unhurried
@given(completions())
def test_a_replay_without_usage_has_neither_the_chunk_nor_its_announcement(completion: Wire) -> None:
    chunks = split_chat(completion, include_usage=False)
    assert all(chunk.get("usage") is None for chunk in chunks)
    assert all(chunk["choices"] for chunk in chunks) or not completion["choices"]


@unhurried
@given(completions())
def test_every_chunk_is_one_and_says_who_speaks(completion: Wire) -> None:
    for chunk in split_chat(completion, include_usage=True):
        assert chunk["object"] == "chat.completion.chunk"
        assert (chunk["id"], chunk["model"]) == (completion["id"], completion["model"])


def delta(content: Any = None, *, index: int = 0, finish: str | None = None, **fields: Any) -> Wire:
    said = fields if content is None else {"content": content, **fields}
    choice = {"index": index, "delta": said, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def only_message(chunks: list[Wire]) -> Wire:
    (choice,) = join_chat_chunks(chunks)["choices"]
    message: Wire = choice["message"]
    return message


def test_text_is_concatenated_also_in_fields_nobody_has_heard_of() -> None:
    chunks = [
        delta("Hel", role="assistant", reasoning_content="be", poem="ro"),
        delta("lo", role="assistant", reasoning_content="cause", poem="ses"),
        delta(finish="stop"),
    ]
    assert only_message(chunks) == {
        "role": "assistant",
        "content": "Hello",
        "reasoning_content": "because",
        "poem": "roses",
    }


def test_arguments_of_interleaved_tool_calls_end_up_in_their_calls_in_order() -> None:
    def part(index: int, arguments: str, **fields: Any) -> Wire:
        function = {"arguments": arguments, **fields.pop("function", {})}
        return delta(tool_calls=[{"index": index, "function": function, **fields}])

    chunks = [
        part(1, "[", id="b", type="function", function={"name": "second"}),
        part(0, "{", id="a", type="function", function={"name": "first"}),
        part(1, "]", id="b", type="function", function={"name": "second"}),
        part(0, "}"),
        delta(finish="tool_calls"),
    ]
    assert only_message(chunks) == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "first", "arguments": "{}"}},
            {"id": "b", "type": "function", "function": {"name": "second", "arguments": "[]"}},
        ],
    }


def test_choices_that_come_interleaved_are_told_apart() -> None:
    chunks = [delta("b", index=1), delta("a"), delta("B", index=1), delta("A"), delta(finish="stop")]
    joined = join_chat_chunks(chunks)
    assert [choice["message"]["content"] for choice in joined["choices"]] == ["aA", "bB"]
    assert [choice["finish_reason"] for choice in joined["choices"]] == ["stop", None]


def test_a_stream_that_did_not_say_its_end_is_unfinished() -> None:
    unfinished = facts_of(
        join_chat_chunks([delta("a"), delta(finish="stop"), delta("b", index=1)]), streamed=True
    )
    assert unfinished.unfinished
    assert admit(unfinished) is Refusal.UNFINISHED
    finished = facts_of(join_chat_chunks([delta("a"), delta(finish="stop")]), streamed=True)
    assert admit(finished) is None
    assert facts_of(join_chat_chunks([]), streamed=True).unfinished


def test_usage_comes_from_the_last_chunk_that_has_it() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    chunks = [
        {**delta("a"), "usage": None},
        {**delta(finish="stop"), "usage": {"prompt_tokens": 9}},
        {**delta(), "choices": [], "usage": usage},
        {**delta(), "choices": [], "usage": None},
    ]
    assert join_chat_chunks(chunks)["usage"] == usage


def test_the_first_and_last_chunks_of_azure_do_not_blank_the_identity() -> None:
    frame = {"id": "", "created": 0, "model": "", "object": "", "choices": []}
    filters = {"prompt_filter_results": [{"prompt_index": 0}]}
    joined = join_chat_chunks([{**frame, **filters}, delta("a", finish="stop"), frame])
    assert (joined["id"], joined["created"], joined["model"]) == ("c", 1, "m")
    assert joined["prompt_filter_results"] == filters["prompt_filter_results"]


def test_the_padding_of_a_stream_is_no_part_of_the_answer() -> None:
    assert "obfuscation" not in join_chat_chunks([{**delta("a", finish="stop"), "obfuscation": "x7Qz"}])


def test_logprobs_are_extended() -> None:
    def scored(*tokens: str) -> Wire:
        chunk = delta("".join(tokens))
        chunk["choices"][0]["logprobs"] = {"content": [{"token": t} for t in tokens], "refusal": None}
        return chunk

    (choice,) = join_chat_chunks([scored("a"), scored("b", "c"), delta(finish="stop")])["choices"]
    assert choice["logprobs"] == {"content": [{"token": t} for t in "abc"], "refusal": None}


def test_thinking_that_came_in_fragments_is_whole_up_to_its_signature() -> None:
    def thought(said: str, signature: str | None = None) -> Wire:
        block = {"type": "thinking", "thinking": said, "signature": signature}
        return delta(thinking_blocks=[block])

    chunks = [thought("one "), thought("two"), thought("", "sig1"), thought("three", "sig2")]
    assert only_message(chunks)["thinking_blocks"] == [
        {"type": "thinking", "thinking": "one two", "signature": "sig1"},
        {"type": "thinking", "thinking": "three", "signature": "sig2"},
    ]


def test_indexed_details_continue_where_their_index_says() -> None:
    chunks = [
        delta(reasoning_details=[{"index": 0, "type": "reasoning.text", "format": "v1", "text": "a"}]),
        delta(reasoning_details=[{"index": 0, "type": "reasoning.text", "format": "v1", "text": "b"}]),
    ]
    expected = [{"index": 0, "type": "reasoning.text", "format": "v1", "text": "ab"}]
    assert only_message(chunks)["reasoning_details"] == expected


# --- Responses -------------------------------------------------------------------------------------------

parts = st.builds(
    lambda text_, annotations: {"type": "output_text", "text": text_, "annotations": annotations},
    text,
    st.lists(st.fixed_dictionaries({"type": st.just("url_citation"), "url": text}), max_size=2),
) | st.fixed_dictionaries({"type": st.just("refusal"), "refusal": text})
items = st.one_of(
    st.fixed_dictionaries(
        {
            "id": text,
            "type": st.just("message"),
            "status": st.just("completed"),
            "content": st.lists(parts, max_size=2),
        }
    ),
    st.fixed_dictionaries({"id": text, "type": st.just("function_call"), "name": text, "arguments": text}),
    st.fixed_dictionaries({"id": text, "type": st.just("reasoning"), "summary": st.just([])}),
)


@unhurried
@given(st.lists(items, max_size=3), st.sampled_from(["completed", "incomplete", "failed"]))
def test_a_response_survives_being_split_and_joined(output: list[Wire], status: str) -> None:
    payload = response(output=output, status=status, usage={"input_tokens": 1, "output_tokens": 2})
    events = json.loads(json.dumps(split_response(payload)))
    assert join_response_events(events) == payload
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == f"response.{status}"


def test_the_events_of_a_text_come_in_the_order_of_the_api() -> None:
    assert [event["type"].removeprefix("response.") for event in split_response(response())] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_without_its_last_event_a_stream_has_no_response() -> None:
    events = split_response(response())
    assert join_response_events(events[:-1]) is None
    assert join_response_events([]) is None
