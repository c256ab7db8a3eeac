"""The stand-in provider as an SDK sees it, and what it counts."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import aiohttp
import httpx
import openai
import pytest
import pytest_asyncio

from llmcache_plugins.testing.provider_server import (
    Behaviour,
    Call,
    ProviderServer,
    clean_eof,
    content_filter,
    cut_stream,
    empty_text,
    filtered,
    hanging,
    no_choices,
    rate_limited,
    server_error,
    truncated,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MESSAGES = [{"role": "user", "content": "What is a cache?"}]
PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": "look_up", "strict": True, "parameters": PARAMETERS}}]
# Older SDKs pass on the error of the HTTP client they use.
CUT = (openai.APIConnectionError, httpx.TransportError)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ProviderServer]:
    async with ProviderServer() as running:
        yield running


@pytest_asyncio.fixture
async def client(server: ProviderServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0) as sdk:
        yield sdk


async def ask(client: openai.AsyncOpenAI, prompt: str = "What is a cache?", **more):
    messages = [{"role": "user", "content": prompt}]
    return await client.chat.completions.create(model="stand-in", messages=messages, **more)


async def chunks_of(client: openai.AsyncOpenAI, **more) -> list:
    async with await ask(client, stream=True, **more) as stream:
        return [chunk async for chunk in stream]


async def test_equal_requests_get_equal_texts_under_their_own_ids(client):
    one, other = await ask(client), await ask(client, user="somebody else")
    assert one.choices == other.choices
    assert one.id != other.id
    assert len(one.choices[0].message.content.split()) > 50


async def test_other_requests_get_other_texts(client):
    answers = [
        await ask(client),
        await ask(client, "What is a lease?"),
        await ask(client, temperature=0.5),
        await ask(client, seed=1),
    ]
    assert len({answer.choices[0].message.content for answer in answers}) == len(answers)


async def test_a_stream_says_the_same_as_the_plain_answer(client):
    plain = await ask(client)
    chunks = await chunks_of(client, stream_options={"include_usage": True})
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == plain.choices[0].message.content
    assert len(chunks) > 10
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert (chunks[-1].choices, chunks[-1].usage) == ([], plain.usage)


async def test_a_stream_has_a_usage_chunk_only_if_asked(client):
    chunks = await chunks_of(client)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_n_choices_differ_and_are_all_billed(client, server):
    answer = await ask(client, n=3)
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert server.output_tokens == answer.usage.completion_tokens > 150


@pytest.mark.parametrize("streams", [False, True])
async def test_tools_are_called(client, streams):
    if streams:
        async with client.chat.completions.stream(model="stand-in", messages=MESSAGES, tools=TOOLS) as stream:
            answer = await stream.get_final_completion()
    else:
        answer = await ask(client, tools=TOOLS)
    (call,) = answer.choices[0].message.tool_calls
    assert (call.function.name, answer.choices[0].finish_reason) == ("look_up", "tool_calls")
    assert call.function.arguments.startswith("{")
    assert answer.choices[0].message.content is None


async def test_tools_may_be_declined(client):
    answer = await ask(client, tools=TOOLS, tool_choice="none")
    assert answer.choices[0].message.tool_calls is None


async def test_the_result_of_a_tool_is_answered_and_not_asked_for_again(client):
    first = await ask(client, tools=TOOLS)
    (call,) = first.choices[0].message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "found"}
    messages = [*MESSAGES, first.choices[0].message.model_dump(exclude_none=True), result]
    last = await client.chat.completions.create(model="stand-in", messages=messages, tools=TOOLS)
    assert (last.choices[0].message.tool_calls, last.choices[0].finish_reason) == (None, "stop")
    assert last.choices[0].message.content
    forced = await client.chat.completions.create(
        model="stand-in", messages=messages, tools=TOOLS, tool_choice="required"
    )
    assert forced.choices[0].message.tool_calls


async def test_the_result_of_a_function_is_answered_and_not_asked_for_again(client):
    tools = [{"type": "function", "name": "look_up", "parameters": {"type": "object"}, "strict": False}]
    first = await client.responses.create(model="stand-in", input="Hi", tools=tools)
    result = {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "found"}
    asked = [{"role": "user", "content": "Hi"}, first.output[0].model_dump(), result]
    last = await client.responses.create(model="stand-in", input=asked, tools=tools)
    assert [item.type for item in last.output] == ["message"]


async def test_responses_plain_and_streamed(client):
    plain = await client.responses.create(model="stand-in", input="Hi there", instructions="Be brief.")
    async with client.responses.stream(
        model="stand-in", input="Hi there", instructions="Be brief."
    ) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert plain.status == final.status == "completed"
    assert plain.output_text == final.output_text
    assert plain.usage == final.usage
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_responses_call_functions(client):
    tools = [{"type": "function", "name": "look_up", "parameters": {"type": "object"}, "strict": False}]
    async with client.responses.stream(model="stand-in", input="Hi", tools=tools) as stream:
        final = await stream.get_final_response()
    assert (final.output[0].type, final.output[0].name) == ("function_call", "look_up")


async def test_embeddings_are_the_same_in_both_encodings(client):
    packed = await client.embeddings.create(model="embedder", input=["a", "b"], dimensions=8)
    plain = await client.embeddings.create(
        model="embedder", input=["a", "b"], dimensions=8, encoding_format="float"
    )
    assert packed == plain
    assert [len(item.embedding) for item in plain.data] == [8, 8]
    assert plain.data[0].embedding != plain.data[1].embedding
    assert sum(x * x for x in plain.data[0].embedding) == pytest.approx(1.0)


async def test_one_list_of_tokens_is_one_text(client):
    answer = await client.embeddings.create(model="embedder", input=[1, 2, 3])
    assert (len(answer.data), answer.usage.prompt_tokens) == (1, 3)


async def test_models_are_listed_and_not_counted(client, server):
    assert [model.id async for model in client.models.list()] == ["stand-in"]
    assert server.calls == 0


async def test_counters_here_and_over_http(client, server):
    answer = await ask(client)
    await ask(client)
    await ask(client, "Why?")
    await client.embeddings.create(model="embedder", input="text")
    assert server.calls == 4
    assert server.calls_by_model == {"stand-in": 3, "embedder": 1}
    assert server.calls_by_prompt == {"What is a cache?": 2, "Why?": 1, "text": 1}
    assert [call.prompt for call in server.received] == ["What is a cache?"] * 2 + ["Why?", "text"]
    assert server.output_tokens >= 2 * answer.usage.completion_tokens
    url = server.base_url.replace("/v1", "/stats")
    async with aiohttp.ClientSession() as session, session.get(url) as reply:
        stats = await reply.json()
    assert stats == {
        "calls": 4,
        "input_tokens": server.input_tokens,
        "output_tokens": server.output_tokens,
        "running": 0,
        "most_running": 1,
        "abandoned": 0,
        "calls_by_model": dict(server.calls_by_model),
        "calls_by_prompt": dict(server.calls_by_prompt),
    }


async def test_errors_come_as_the_sdk_knows_them_and_cost_nothing(client, server):
    server.script(rate_limited(retry_after=2.5), server_error(), content_filter())
    with pytest.raises(openai.RateLimitError) as limited:
        await ask(client)
    assert limited.value.response.headers["retry-after"] == "2.5"
    with pytest.raises(openai.InternalServerError):
        await ask(client)
    with pytest.raises(openai.BadRequestError) as refused:
        await ask(client)
    assert refused.value.code == "content_filter"
    assert (server.calls, server.output_tokens) == (3, 0)
    assert (await ask(client)).choices


@pytest.mark.parametrize(
    ("behaviour", "reason", "status"),
    [(truncated(), "length", "incomplete"), (filtered(), "content_filter", "incomplete")],
)
async def test_answers_that_are_not_whole(client, server, behaviour, reason, status):
    server.script(behaviour, behaviour)
    assert (await ask(client)).choices[0].finish_reason == reason
    answer = await client.responses.create(model="stand-in", input="Hi")
    assert (answer.status, answer.incomplete_details is None) == (status, False)


async def test_answers_with_nothing_in_them(client, server):
    server.script(no_choices(), empty_text(), no_choices(), no_choices())
    assert (await ask(client)).choices == []
    assert (await ask(client)).choices[0].message.content == ""
    assert (await client.responses.create(model="stand-in", input="Hi")).output == []
    assert (
        await client.embeddings.create(model="m", input="Hi", encoding_format="float", dimensions=3)
    ).data == []


async def test_a_cut_stream_is_an_error_and_a_clean_end_is_none(client, server):
    server.script(cut_stream(after=3), clean_eof(after=3))
    with pytest.raises(CUT):
        await chunks_of(client)
    chunks = await chunks_of(client)
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 3


async def test_a_plain_answer_can_be_cut_too(client, server):
    server.script(cut_stream())
    with pytest.raises(openai.APIConnectionError):
        await ask(client)


async def test_hanging_calls_wait_for_their_release(client, server):
    server.script(hanging(), hanging())
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(ask(client)) for _ in range(2)]
        await server.called(2)
        assert server.running == server.most_running == 2
        assert not any(call.done() for call in calls)
        server.release()
    assert calls[0].result().choices == calls[1].result().choices


async def test_waiting_for_a_call_that_does_not_come_times_out(server):
    with pytest.raises(TimeoutError):
        await server.called(timeout=0.01)


async def test_a_client_that_goes_away_ends_the_call(client, server):
    server.behave(lambda _call: hanging())
    task = asyncio.create_task(ask(client))
    await server.called()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.idle()
    assert server.abandoned == 1


async def test_leaving_ends_calls_that_hang():
    async with ProviderServer() as server:
        server.behave(lambda _call: hanging())
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0)
        task = asyncio.create_task(ask(client))
        await server.called()
    await asyncio.wait([task])
    assert task.exception() is None or isinstance(task.exception(), openai.APIConnectionError)
    await client.close()


async def test_a_script_may_look_at_the_call(client, server):
    def script(call: Call) -> Behaviour | None:
        return Behaviour(text=f"{call.api}: {call.prompt}") if call.model == "stand-in" else None

    server.behave(script)
    assert (await ask(client, "Why?")).choices[0].message.content == "chat: Why?"


async def test_delays_are_repeatable_and_spread_over_a_stream():
    def drawn(seed: int) -> list[float]:
        server = ProviderServer(median_seconds=0.8, seed=seed)
        return [server._duration() for _ in range(200)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert sorted(drawn(1))[100] == pytest.approx(0.8, rel=0.15)
    async with (
        ProviderServer(median_seconds=0.05) as server,
        openai.AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0) as client,
    ):
        begun = time.monotonic()
        await ask(client)
        await chunks_of(client)
        assert time.monotonic() - begun > 0.03
