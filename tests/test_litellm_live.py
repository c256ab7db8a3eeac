"""Streams that others have under way, followed live through LiteLLM.

A gateway leads: it publishes its chunks, which LiteLLM's own streams do not. Its provider gives a chunk when
it is told to, so that what a follower has before that has come live.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import litellm
import openai
import pytest
import pytest_asyncio
from litellm.integrations.custom_logger import CustomLogger
from litellm_calls import (  # noqa: F401
    PATIENT,
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
from openai.types.chat import ChatCompletionChunk
from waiting import wait_until_async

from llmcache_plugins import InferenceGateway, ResponseCache, StreamInterrupted
from llmcache_plugins.providers import OpenAIProvider
from llmcache_plugins.testing.provider_server import clean_eof, cut_stream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from litellm_calls import Make
    from servers import Server

    from llmcache_plugins.adapters.litellm import LiteLLMCache
    from llmcache_plugins.testing.provider_server import ProviderServer

pytestmark = [*QUIET, keeps_streams]

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("look_up", "write_down")
]
USAGE = {"stream_options": {"include_usage": True}}
SWIFT = {"lease_ttl": 0.5, "poll_interval": 0.05}


class Held:
    """OpenAI's provider; `give(n)` lets its first n chunks pass, `finish()` all. May fail in place of one."""

    def __init__(self, provider: OpenAIProvider) -> None:
        self._provider = provider
        self.codec, self.scope, self.complete = provider.codec, provider.scope, provider.complete
        self.fails_at: int | None = None
        self._given = 0
        self._news = asyncio.Event()

    def give(self, count: int) -> None:
        self._given = count
        self._news.set()

    def finish(self) -> None:
        self.give(10**6)

    async def stream(self, query: Any) -> AsyncIterator[Any]:
        number = 0
        async for chunk in self._provider.stream(query):
            while self._given <= number:
                self._news.clear()
                await self._news.wait()
            if number == self.fails_at:
                raise RuntimeError("the provider has failed")
            yield chunk
            number += 1


class Stage:
    """A gateway that leads, and calls of LiteLLM that follow it."""

    def __init__(self, stand_in: ProviderServer, chat: Chat, provider: Held, lead: ResponseCache) -> None:
        self.stand_in = stand_in
        self.chat = chat
        self.provider = provider
        self.gateway = InferenceGateway(provider, lead)
        self.cache: LiteLLMCache = litellm.cache

    async def lead(self, **more: Any) -> asyncio.Task[list[Any]]:
        """Begin the stream, and wait until its provider is asked."""
        request = {"model": "gpt-4o-mini", "messages": self.chat()["messages"], **more}
        task = asyncio.create_task(said(self.gateway.stream(request)))
        await self.stand_in.called()
        return task

    async def follow(self, **more: Any) -> asyncio.Task[Any]:
        """Make the same call through LiteLLM, and wait until it waits."""
        task = asyncio.create_task(litellm.acompletion(**self.chat(**more), stream=True))
        await follows(self.cache)
        return task

    async def rest(self, server: Server) -> None:
        """See that of those who follow nothing is left."""

        def is_left() -> bool:
            gc.collect()  # LiteLLM's own tasks may hold what was dropped a moment longer
            return self.cache.response_cache.in_flight() > 0

        await wait_until_async(lambda: not is_left(), description="nothing is under way")

        def is_heard() -> bool:
            # On a busy machine a stream may be detached, and no more counted, before it is dropped.
            gc.collect()
            return bool(server.command("PUBSUB", "CHANNELS"))

        await wait_until_async(lambda: not is_heard(), description="no subscription is left")


async def follows(cache: LiteLLMCache) -> None:
    async def is_so() -> bool:
        return (await cache.response_cache.stats()).leases["followed"] > 0

    await wait_until_async(is_so, description="a call waits for another process")


async def read(stream: Any, into: list[Any]) -> None:
    """Read a stream so that others see how far it has come."""
    async for chunk in stream:
        into.append(chunk)  # noqa: PERF401 - one by one


@pytest_asyncio.fixture
async def held(stand_in: ProviderServer) -> AsyncIterator[Held]:
    async with openai.AsyncOpenAI(base_url=stand_in.base_url, api_key="test", max_retries=0) as client:
        yield Held(OpenAIProvider(client))


@pytest_asyncio.fixture
async def stage(
    stand_in: ProviderServer,
    chat: Chat,
    cache: LiteLLMCache,
    held: Held,
    valkey: Server,
    namespace: str,
) -> AsyncIterator[Stage]:
    """The leader's cache is another than LiteLLM's: what they share is in Redis."""
    async with ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT) as lead:
        yield Stage(stand_in, chat, held, lead)


class TestFollowing:
    @pytest.mark.parametrize("place", ["this process", "another cache"])
    async def test_a_follower_has_a_chunk_while_the_provider_holds_the_next(self, stage: Stage, place: str):
        if place == "this process":
            stage.gateway = InferenceGateway(stage.provider, stage.cache.response_cache)
        leader = await stage.lead()
        early = await stage.follow()
        assert not early.done()
        stage.provider.give(2)
        late = asyncio.create_task(litellm.acompletion(**stage.chat(), stream=True))
        chunks: list[list[Any]] = [[], []]
        readers = [
            asyncio.create_task(read(await asyncio.wait_for(one, 5), into))
            for one, into in zip((early, late), chunks, strict=True)
        ]
        for into in chunks:
            await wait_until_async(lambda into=into: len(into) == 2, description="two chunks are there")
        assert text_of(chunks[0])
        stage.provider.finish()
        await asyncio.gather(*readers)
        whole = text_of(await leader)
        assert [text_of(one) for one in chunks] == [whole, whole]
        assert [one[-1].choices[0].finish_reason for one in chunks] == ["stop", "stop"]
        await written(stage.cache)
        assert text_of(await litellm.acompletion(**stage.chat())) == whole
        assert stage.stand_in.calls == 1
        assert (await outcomes(stage.cache))["coalesced"] == 2

    @pytest.mark.parametrize("asks", [{}, USAGE], ids=["usage not asked", "usage asked"])
    @pytest.mark.parametrize("more", [{}, {"tools": TOOLS}], ids=["text", "tools"])
    async def test_it_ends_as_the_leader_s_ends(
        self, stage: Stage, more: dict[str, Any], asks: dict[str, Any]
    ):
        leader = await stage.lead(**more, **USAGE)
        follower = await stage.follow(**more, **asks)
        stage.provider.give(2)
        stream = await asyncio.wait_for(follower, 5)
        stage.provider.finish()
        chunks = await said(stream)
        lead = await leader
        live = litellm.stream_chunk_builder(chunks)
        replay = await litellm.acompletion(**stage.chat(**more, **USAGE), stream=True)
        replayed = litellm.stream_chunk_builder(await said(replay))
        assert live.id == lead[0].id
        assert live.choices[0].model_dump() == replayed.choices[0].model_dump()
        assert live.choices[0].finish_reason == lead[-2].choices[0].finish_reason
        assert len(live.choices[0].message.tool_calls or ()) == len(more.get("tools", ()))
        usages = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None) is not None]
        assert [usage.total_tokens for usage in usages] == ([lead[-1].usage.total_tokens] if asks else [])
        assert stage.stand_in.calls == 1

    async def test_reasoning_and_probabilities_come_along(
        self,
        stand_in: ProviderServer,
        cache: LiteLLMCache,
        chat: Chat,
        held: Held,
    ):
        """As some servers say them: a first chunk without a choice, a last one that says something."""
        likely = {"content": [{"token": "It", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
        choices: list[dict[str, Any]] = [
            {"delta": {"role": "assistant", "reasoning_content": "I "}},
            {"delta": {"reasoning_content": "think."}},
            {"delta": {"content": "It is "}, "logprobs": likely},
            {"delta": {"content": "so."}, "finish_reason": "stop"},
        ]
        go_on = asyncio.Event()

        async def stream() -> AsyncGenerator[Any, None]:
            frame = {"id": "chatcmpl-1", "created": 1, "model": "m", "object": "chat.completion.chunk"}
            yield ChatCompletionChunk.construct(**frame, choices=[], prompt_filter_results=[{}])
            for number, choice in enumerate(choices):
                if number:
                    await go_on.wait()
                whole = {"index": 0, "finish_reason": None, **choice}
                yield ChatCompletionChunk.construct(**frame, choices=[whole])

        request = {"model": "gpt-4o-mini", "messages": chat()["messages"]}
        leading = cache.response_cache.stream(request, stream, codec=held.codec, scope=held.scope(request))
        leader = asyncio.create_task(said(leading))
        follower = await asyncio.wait_for(litellm.acompletion(**chat(), stream=True), 5)
        first = await anext(follower)
        assert first.choices[0].delta.reasoning_content == "I "
        go_on.set()
        chunks = [first, *await said(follower)]
        answer = litellm.stream_chunk_builder(chunks).choices[0]
        assert answer.message.reasoning_content == "I think."
        assert (answer.message.content, answer.finish_reason) == ("It is so.", "stop")
        tokens = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs is not None]
        assert [likely.content[0].token for likely in tokens] == ["It"]
        await leader
        assert stand_in.calls == 0

    async def test_it_is_reported_once_and_as_a_hit_when_it_has_ended(self, stage: Stage):
        class Reports(CustomLogger):
            seen: list[Any]

            async def async_log_success_event(
                self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
            ) -> None:
                self.seen.append((kwargs["cache_hit"], kwargs["response_cost"], response_obj))

        reports = Reports()
        reports.seen = []
        litellm.callbacks = [reports]
        leader = await stage.lead(**USAGE)
        follower = await stage.follow()
        stage.provider.give(2)
        stream = await asyncio.wait_for(follower, 5)
        assert stream._hidden_params["cache_hit"] is True
        assert stream._hidden_params["cache_key"].startswith("llm:resp:")
        await anext(stream)
        stage.provider.finish()
        await said(stream)
        lead = await leader
        await wait_until_async(lambda: reports.seen, description="the call is reported")
        await litellm.acompletion(**stage.chat())
        await wait_until_async(lambda: len(reports.seen) == 2, description="so is the next one")
        hit, cost, answer = reports.seen[0]
        assert (hit, cost) == (True, 0.0)
        assert answer.choices[0].message.content == text_of(lead)
        assert answer.usage.total_tokens == lead[-1].usage.total_tokens

    async def test_the_others_get_the_answer_when_it_is_there(self, stage: Stage):
        leader = await stage.lead()
        follower = await stage.follow()
        plain = asyncio.create_task(litellm.acompletion(**stage.chat()))
        threaded = asyncio.create_task(
            asyncio.to_thread(lambda: list(litellm.completion(**stage.chat(), stream=True)))
        )
        stage.provider.give(2)
        stream = await asyncio.wait_for(follower, 5)
        await anext(stream)
        assert [plain.done(), threaded.done()] == [False, False]
        stage.provider.finish()
        whole = text_of(await leader)
        assert text_of(await plain) == text_of(await threaded) == whole
        await said(stream)
        assert stage.stand_in.calls == 1


LEADS = """
import asyncio, json, sys
import openai
from llmcache_plugins import InferenceGateway, ResponseCache
from llmcache_plugins.providers import OpenAIProvider
from llmcache_plugins.testing.provider_server import clean_eof, cut_stream

url, settings, base_url, request, held = sys.argv[1:]

class Held:
    def __init__(self, provider):
        self.provider = provider
        self.codec, self.scope, self.complete = provider.codec, provider.scope, provider.complete

    async def stream(self, query):
        number = 0
        async for chunk in self.provider.stream(query):
            if number == int(held):
                print("holds", flush=True)
                await asyncio.to_thread(sys.stdin.readline)
            yield chunk
            number += 1

async def main():
    async with openai.AsyncOpenAI(base_url=base_url, api_key="test", max_retries=0) as client:
        async with ResponseCache.from_url(url, **json.loads(settings)) as cache:
            async for _ in InferenceGateway(Held(OpenAIProvider(client)), cache).stream(json.loads(request)):
                pass

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def leading_process(
    stand_in: ProviderServer, chat: Chat, url: str, *, holds: int, **settings: Any
) -> AsyncGenerator[asyncio.subprocess.Process, None]:
    """Run a process whose gateway gives out so many chunks, and the rest for a line of its input."""
    request = {"model": "gpt-4o-mini", "messages": chat()["messages"]}
    arguments = (url, json.dumps(settings), stand_in.base_url, json.dumps(request), str(holds))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(LEADS), *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"holds\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


class TestAnotherProcess:
    async def test_its_chunks_come_live(
        self, stand_in: ProviderServer, chat: Chat, make: Make, valkey: Server, namespace: str
    ):
        made = make()
        settings = {**PATIENT, "namespace": namespace}
        async with leading_process(stand_in, chat, valkey.url, holds=2, **settings) as process:
            stream = await asyncio.wait_for(litellm.acompletion(**chat(), stream=True), 5)
            first = [await anext(stream), await anext(stream)]
            assert process.stdin is not None
            process.stdin.write(b"\n")
            chunks = [*first, *await said(stream)]
            await process.wait()
        assert text_of(await litellm.acompletion(**chat())) == text_of(chunks)
        assert stand_in.calls == 1
        assert await outcomes(made) == {"coalesced": 1, "hit": 1}

    async def test_whoever_was_given_chunks_hears_of_its_death(
        self, stand_in: ProviderServer, chat: Chat, make: Make, valkey: Server, namespace: str
    ):
        made = make(**SWIFT)
        settings = {**PATIENT, **SWIFT, "namespace": namespace}
        async with leading_process(stand_in, chat, valkey.url, holds=2, **settings) as process:
            stream = await asyncio.wait_for(litellm.acompletion(**chat(), stream=True), 5)
            await anext(stream)
            process.kill()
            with pytest.raises(StreamInterrupted):
                await asyncio.wait_for(said(stream), 5)
        answer = await litellm.acompletion(**chat())
        await written(made)
        assert stand_in.calls == 2
        assert text_of(await litellm.acompletion(**chat())) == text_of(answer)

    async def test_whoever_was_given_none_makes_the_call(
        self, stand_in: ProviderServer, chat: Chat, make: Make, valkey: Server, namespace: str
    ):
        made = make(**SWIFT)
        settings = {**PATIENT, **SWIFT, "namespace": namespace}
        async with leading_process(stand_in, chat, valkey.url, holds=0, **settings) as process:
            followers = [asyncio.create_task(litellm.acompletion(**chat(), stream=True)) for _ in range(2)]
            await follows(made)
            assert stand_in.calls == 1
            process.kill()
            (first,), (other,) = await asyncio.wait(followers, timeout=5, return_when="FIRST_COMPLETED")
            texts = [text_of(await said(first.result())), text_of(await said(await other))]
        assert texts[0] == texts[1] != ""
        assert stand_in.calls == 2


class TestBreakingOff:
    @pytest.mark.parametrize("place", ["this process", "another cache"])
    async def test_whoever_was_given_chunks_is_told_in_words_that_both_know(self, stage: Stage, place: str):
        if place == "this process":
            stage.gateway = InferenceGateway(stage.provider, stage.cache.response_cache)
        stage.provider.fails_at = 2
        leader = await stage.lead()
        follower = await stage.follow()
        stage.provider.give(2)
        stream = await asyncio.wait_for(follower, 5)
        chunks: list[Any] = []
        reader = asyncio.create_task(read(stream, chunks))
        await wait_until_async(lambda: len(chunks) == 2, description="two chunks are there")
        stage.provider.finish()
        with pytest.raises(StreamInterrupted, match="broke off") as raised:
            await reader
        assert isinstance(raised.value, litellm.ServiceUnavailableError)
        assert isinstance(raised.value.__cause__, StreamInterrupted)
        assert raised.value.generated_content == text_of(chunks)
        with pytest.raises(RuntimeError):
            await leader
        assert await said(await litellm.acompletion(**stage.chat(), stream=True))
        assert stage.stand_in.calls == 2

    @pytest.mark.parametrize("behaviour", [clean_eof, cut_stream], ids=["ended early", "cut"])
    async def test_half_a_stream_is_not_called_complete(self, stage: Stage, behaviour: Callable[[], Any]):
        stage.stand_in.script(behaviour())
        leader = await stage.lead()
        follower = await stage.follow()
        stage.provider.give(1)
        stream = await asyncio.wait_for(follower, 5)
        await anext(stream)
        stage.provider.finish()
        with pytest.raises(StreamInterrupted):
            await asyncio.wait_for(said(stream), 5)
        await asyncio.wait((leader,))
        leader.exception()

    async def test_whoever_was_given_none_makes_the_call(self, stage: Stage):
        stage.provider.fails_at = 0
        leader = await stage.lead()
        follower = await stage.follow()
        stage.provider.finish()
        chunks = await said(await asyncio.wait_for(follower, 5))
        assert chunks[-1].choices[0].finish_reason == "stop"
        await written(stage.cache)
        assert text_of(await litellm.acompletion(**stage.chat())) == text_of(chunks)
        assert stage.stand_in.calls == 2
        with pytest.raises(RuntimeError):
            await leader

    @pytest.mark.parametrize("given", [1, 2])
    async def test_a_router_turns_to_another_model_while_no_text_is_given(
        self, stage: Stage, chat: Chat, given: int
    ):
        """The first chunk says nothing but who speaks."""
        router = litellm.Router(
            model_list=[{"model_name": name, "litellm_params": chat.to()} for name in ("first", "second")],
            fallbacks=[{"first": ["second"]}],
            cache_responses=True,
            num_retries=0,
        )
        stage.provider.fails_at = given
        messages = chat()["messages"]
        request = {"model": "first", "messages": messages, "litellm_router": True}
        sent = {"model": "gpt-4o-mini", "messages": messages}
        chunks = stage.gateway.cache.stream(
            request, lambda: stage.provider.stream(sent), codec=stage.provider.codec
        )
        leader = asyncio.create_task(said(chunks))
        await stage.stand_in.called()
        follower = asyncio.create_task(router.acompletion(model="first", messages=messages, stream=True))
        await follows(stage.cache)
        stage.provider.give(given)
        got: list[Any] = []
        reader = asyncio.create_task(read(await asyncio.wait_for(follower, 5), got))
        await wait_until_async(lambda: len(got) == given, description="what is given is there")
        stage.provider.finish()
        with contextlib.nullcontext() if given == 1 else pytest.raises(StreamInterrupted):
            await asyncio.wait_for(reader, 5)
        assert got[-1].choices[0].finish_reason == ("stop" if given == 1 else None)
        assert stage.stand_in.calls == 3 - given
        with pytest.raises(RuntimeError):
            await leader


class TestLeaving:
    @pytest.mark.parametrize("way", ["closed", "left", "dropped", "dropped unread"])
    async def test_nothing_stays_and_the_stream_goes_on(self, stage: Stage, valkey: Server, way: str):
        leader = await stage.lead()
        follower = await stage.follow()
        stage.provider.give(2)
        stream = await asyncio.wait_for(follower, 5)
        if way != "dropped unread":
            async for _ in stream:
                break
        if way == "closed":
            await stream.aclose()
        if way == "left":
            task = asyncio.create_task(said(stream))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            del task
        del stream, follower
        await stage.rest(valkey)
        stage.provider.finish()
        whole = text_of(await leader)
        assert text_of(await litellm.acompletion(**stage.chat())) == whole
        assert stage.stand_in.calls == 1
