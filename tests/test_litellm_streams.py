"""Streams of LiteLLM: an entry of one serves plain calls and the other way round, and half of one nobody."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import litellm
import pytest
from litellm_calls import (  # noqa: F401
    NOTICES_CUT_STREAMS,
    QUIET,
    Chat,
    cache,
    chat,
    keeps_streams,
    make,
    outcomes,
    quiet,
    said,
    text_of,
    written,
)

from llmcache_plugins.testing.provider_server import (
    ProviderServer,
    clean_eof,
    cut_stream,
    filtered,
    truncated,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmcache_plugins.adapters.litellm import LiteLLMCache

pytestmark = QUIET

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("look_up", "write_down")
]


async def whole(chunks: list[Any]) -> Any:
    return litellm.stream_chunk_builder(chunks)


async def stream(arguments: Any) -> list[Any]:
    return await said(await litellm.acompletion(**arguments, stream=True))


class TestBothWays:
    @keeps_streams
    async def test_a_stream_serves_plain_calls(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        chunks = await stream(chat())
        await written(cache)
        assert text_of(await litellm.acompletion(**chat())) == text_of(chunks)
        assert text_of(await asyncio.to_thread(litellm.completion, **chat())) == text_of(chunks)
        assert stand_in.calls == 1

    async def test_a_plain_call_serves_streams(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        plain = await litellm.acompletion(**chat())
        await written(cache)
        assert text_of(await stream(chat())) == text_of(plain)
        threaded = await asyncio.to_thread(lambda: list(litellm.completion(**chat(), stream=True)))
        assert text_of(threaded) == text_of(plain)
        assert stand_in.calls == 1

    @keeps_streams
    async def test_a_synchronous_stream_serves_all(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        chunks = await asyncio.to_thread(lambda: list(litellm.completion(**chat(), stream=True)))
        assert text_of(await litellm.acompletion(**chat())) == text_of(chunks)
        assert text_of(await stream(chat())) == text_of(chunks)
        assert stand_in.calls == 1

    @keeps_streams
    async def test_a_replay_says_what_the_stream_said(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        arguments = chat(tools=TOOLS, stream_options={"include_usage": True})
        first = await whole(await stream(arguments))
        await written(cache)
        second = await whole(await stream(arguments))
        assert stand_in.calls == 1
        one, other = first.choices[0], second.choices[0]
        assert other.finish_reason == one.finish_reason == "tool_calls"
        assert [call.function.model_dump() for call in other.message.tool_calls] == [
            call.function.model_dump() for call in one.message.tool_calls
        ]
        assert len(one.message.tool_calls) == 2
        assert (second.id, second.usage.total_tokens) == (first.id, first.usage.total_tokens)

    @pytest.mark.parametrize("asks", [True, False], ids=["asked", "not asked"])
    async def test_usage_comes_with_the_replay_to_who_asks_for_it(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat, asks: bool
    ):
        plain = await litellm.acompletion(**chat())
        await written(cache)
        chunks = await stream(chat(**({"stream_options": {"include_usage": True}} if asks else {})))
        usages = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None) is not None]
        assert len(usages) == asks
        if NOTICES_CUT_STREAMS:  # older versions count again
            assert all(usage.total_tokens == plain.usage.total_tokens for usage in usages)

    @keeps_streams
    async def test_reasoning_comes_back(self, cache: LiteLLMCache, chat: Chat):
        answer = await _reasoned(cache, chat)
        plain = await litellm.acompletion(**chat())
        assert plain.choices[0].message.reasoning_content == "I think."
        assert plain.choices[0].message.content == answer
        chunks = await stream(chat())
        thought = "".join(getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in chunks)
        assert thought == "I think."

    async def test_every_choice_of_a_plain_call_comes_back(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        first = await litellm.acompletion(**chat(n=3))
        await written(cache)
        second = await litellm.acompletion(**chat(n=3))
        assert [c.message.content for c in second.choices] == [c.message.content for c in first.choices]
        assert (len(second.choices), stand_in.calls) == (3, 1)

    async def test_a_stream_of_several_choices_is_left_alone(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        """LiteLLM would replay only the first."""
        for _ in range(2):
            await stream(chat(n=2))
            await written(cache)
        assert stand_in.calls == 2
        assert await outcomes(cache) == {"bypass": 2}


async def _reasoned(cache: LiteLLMCache, chat: Chat) -> str:
    message = {"role": "assistant", "content": "It is so.", "reasoning_content": "I think."}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    wire = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    await cache.async_add_cache(json.dumps(wire), **chat())
    return "It is so."


class TestHalves:
    @pytest.mark.skipif(NOTICES_CUT_STREAMS, reason="this LiteLLM knows a whole stream")
    async def test_where_halves_pass_for_whole_streams_none_is_kept_but_all_may_hit(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        for _ in range(2):
            await stream(chat())
            await written(cache)
        plain = await litellm.acompletion(**chat())
        await written(cache)
        assert text_of(await stream(chat())) == text_of(plain)
        assert stand_in.calls == 3

    @pytest.mark.parametrize("behaviour", [cut_stream, clean_eof], ids=["cut", "ended early"])
    @pytest.mark.parametrize("threaded", [False, True], ids=["task", "thread"])
    async def test_half_a_stream_is_never_stored(
        self,
        stand_in: ProviderServer,
        cache: LiteLLMCache,
        chat: Chat,
        behaviour: Callable[[], Any],
        threaded: bool,
    ):
        stand_in.script(behaviour())
        try:
            if threaded:
                half = await asyncio.to_thread(lambda: list(litellm.completion(**chat(), stream=True)))
            else:
                half = await stream(chat())
        except Exception:  # noqa: BLE001 - as LiteLLM sees fit
            half = []
        await written(cache)
        answer = await litellm.acompletion(**chat())
        assert stand_in.calls == 2
        assert len(text_of(answer)) > len(text_of(half))

    @keeps_streams
    @pytest.mark.parametrize("behaviour", [truncated, filtered])
    async def test_what_is_not_admitted_is_passed_on_and_counted(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat, behaviour: Callable[[], Any]
    ):
        stand_in.script(behaviour(), behaviour())
        assert (await litellm.acompletion(**chat())).choices
        await written(cache)
        assert await stream(chat())
        await written(cache)
        assert stand_in.calls == 2
        assert (await cache.response_cache.stats()).refusals == {behaviour.__name__: 2}

    async def test_a_stream_that_is_left_is_not_stored(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        left = await litellm.acompletion(**chat(), stream=True)
        await anext(left)
        await left.aclose()
        del left
        await stream(chat())
        assert stand_in.calls == 2


class TestBelonging:
    """Which answer belongs to which call is known by LiteLLM's id for it, wherever it is read."""

    @keeps_streams
    async def test_two_streams_opened_in_one_task_and_read_later(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        opened = {name: await litellm.acompletion(**chat(name), stream=True) for name in ("A", "B")}
        texts = {name: text_of(await said(opened[name])) for name in ("B", "A")}
        await written(cache)
        for name, text in texts.items():
            assert text_of(await litellm.acompletion(**chat(name))) == text
        assert texts["A"] != texts["B"]
        assert stand_in.calls == 2

    @keeps_streams
    async def test_a_stream_read_in_another_task(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        opened = await asyncio.create_task(litellm.acompletion(**chat(), stream=True))
        text = text_of(await asyncio.create_task(said(opened)))
        await written(cache)
        assert text_of(await litellm.acompletion(**chat())) == text
        assert stand_in.calls == 1

    @keeps_streams
    async def test_a_write_that_comes_twice_is_one(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        """LiteLLM hands a stream with usage over twice; between the two it may have been invalidated."""
        kept = []
        original = cache.async_add_cache

        async def keep(*args: Any, **kwargs: Any) -> None:
            kept.append((args, kwargs))
            await original(*args, **kwargs)

        cache.async_add_cache = keep  # type: ignore[method-assign]
        await stream(chat(stream_options={"include_usage": True}))
        await written(cache)
        assert len(kept) >= 1
        await cache.aclear()
        for args, kwargs in kept:
            await original(*args, **kwargs)
        await litellm.acompletion(**chat())
        assert stand_in.calls == 2

    @keeps_streams
    async def test_messages_changed_meanwhile_move_no_answer(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        arguments = chat("A")
        messages = arguments.pop("messages")
        tools = list(TOOLS)
        opened = await litellm.acompletion(
            arguments.pop("model"), messages, tools=tools, stream=True, **arguments
        )
        messages.append({"role": "user", "content": "B"})
        tools.pop()
        chunks = await said(opened)
        await written(cache)
        changed = {**chat("A"), "messages": messages, "tools": tools}
        assert (await litellm.acompletion(**changed)).choices
        assert stand_in.calls == 2
        again = await litellm.acompletion(**chat("A"), tools=TOOLS)
        assert stand_in.calls == 2
        assert len(again.choices[0].message.tool_calls) == 2
        assert chunks

    async def test_one_id_for_different_calls_at_once_mixes_nothing_up(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        names = [f"question {number}" for number in range(5)]
        calls = (litellm.acompletion(**chat(name), litellm_call_id="mine") for name in names)
        first = await asyncio.gather(*calls)
        await written(cache)
        opened = await litellm.acompletion(**chat("open"), litellm_call_id="mine", stream=True)
        other = await litellm.acompletion(**chat("other"), litellm_call_id="mine", cache={"no-cache": True})
        await said(opened)
        await written(cache)
        for name, answer in zip(names, first, strict=True):
            assert text_of(await litellm.acompletion(**chat(name))) == text_of(answer)
        assert text_of(await litellm.acompletion(**chat("other"))) == text_of(other)
        assert text_of(await litellm.acompletion(**chat("open"))) != text_of(other)
