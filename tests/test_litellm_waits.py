"""How long a call of LiteLLM waits for an identical one that has ended, in whatever way.

Two caches stand for two processes, except where there are two. Whoever does not hear of an end would wait
for a minute: so late would it ask again, end a lease or give a leader up.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import textwrap
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import litellm
import pytest
from litellm_calls import (  # noqa: F401
    NOTICES_CUT_STREAMS,
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
from waiting import wait_until_async
from warm import Warm

from llmcache_plugins.testing.provider_server import Behaviour, ProviderServer, hanging

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from litellm_calls import Make
    from servers import Server

    from llmcache_plugins.adapters.litellm import LiteLLMCache

pytestmark = QUIET

SLOW = {**PATIENT, "poll_interval": 60.0, "lease_ttl": 60.0, "max_lead": 120.0}
LEAVES_CYCLES = tuple(map(int, version("litellm").split(".")[:2])) < (1, 106)
"""Whether LiteLLM's record of a call goes only when the garbage is collected."""
SOON = 15.0
"""Seconds within which what happens at once, or after a second, has happened on a busy machine."""


class World:
    """One provider, two processes, and a call that leads."""

    def __init__(self, stand_in: ProviderServer, chat: Chat, make: Make) -> None:
        self.stand_in = stand_in
        self.chat = chat
        self.there = make(**SLOW)
        self.here = make(**SLOW)
        self.go = asyncio.Event()
        self.live_on = asyncio.Event()

    async def lead(self, leader: Callable[[World], Awaitable[Any]], *script: Behaviour) -> asyncio.Task[Any]:
        self.stand_in.script(*script)
        task = asyncio.create_task(_awaited(leader(self)))
        await self.stand_in.called(1)
        return task

    async def follow(self) -> list[asyncio.Task[Any]]:
        """Begin the same call here and in the other process, and see that both wait."""
        followers = [asyncio.create_task(work) for work in (self._here(), self._there())]
        await wait_until_async(
            lambda: (callers(self.here), callers(self.there)) == (2, 1), description="both wait"
        )
        await wait_until_async(lambda: followed(self.there), description="one follows the other process")
        return followers

    async def _here(self) -> Any:
        return await litellm.acompletion(**self.chat())

    async def _there(self) -> Any:
        found = await self.there.async_get_cache(**self.chat(), litellm_call_id="there")
        if found is None:
            self.there._desk.calls.end("there", None)
        return found

    async def rest(self) -> None:
        """See that nothing of any call is left."""
        for one in (self.here, self.there):
            await wait_until_async(
                lambda one=one: one._desk.calls.count() == 0 and callers(one) == 0,
                description="no call is under way",
                timeout=SOON,
            )


def callers(cache: LiteLLMCache) -> int:
    """Return how many wait for an answer in the process that a cache stands for, its bringer included."""
    maps = list(cache.response_cache._errands._flights._per_loop._here.values())
    return sum(flight.callers for flights in maps for flight in list(flights.values()))


async def followed(cache: LiteLLMCache) -> bool:
    return (await cache.response_cache.stats()).leases["followed"] > 0


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


@pytest.fixture
async def world(stand_in: ProviderServer, chat: Chat, make: Make) -> Any:
    made = World(stand_in, chat, make)
    yield made
    made.live_on.set()
    stand_in.release()


# -- ways in which a call ends without an answer; each goes on with other work in the same task ------------


async def fails(world: World) -> None:
    with contextlib.suppress(Exception):
        await litellm.acompletion(**world.chat())
    await world.live_on.wait()


async def fails_with_a_fallback(world: World) -> None:
    await litellm.acompletion(**world.chat(), fallbacks=["openai/other"])
    await world.live_on.wait()


async def is_retried(world: World) -> None:
    await litellm.acompletion(**world.chat(), num_retries=1)
    await world.live_on.wait()


async def takes_too_long_for_litellm(world: World) -> None:
    with contextlib.suppress(Exception):
        await litellm.acompletion(**world.chat(), timeout=2)
    await world.live_on.wait()


async def takes_too_long_for_the_application(world: World) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None) as limit:
            calling = asyncio.ensure_future(world.go.wait())
            calling.add_done_callback(lambda _: limit.reschedule(asyncio.get_running_loop().time()))
            await litellm.acompletion(**world.chat())
    if LEAVES_CYCLES:
        await wait_until_async(lambda: collected(world), description="the call is collected", timeout=SOON)
    await world.live_on.wait()


async def is_answered(world: World) -> None:
    await litellm.acompletion(**world.chat())
    await world.live_on.wait()


async def fails_in_a_thread(world: World) -> None:
    with contextlib.suppress(Exception):
        await asyncio.to_thread(litellm.completion, **world.chat())
    await world.live_on.wait()


async def open_stream(world: World) -> Any:
    stream = await litellm.acompletion(**world.chat(), stream=True)
    await anext(stream)
    return stream


async def is_dropped(world: World) -> None:
    stream = await open_stream(world)
    await world.go.wait()
    del stream
    await world.live_on.wait()


async def is_closed(world: World) -> None:
    stream = await open_stream(world)
    await world.go.wait()
    await stream.aclose()
    del stream
    await world.live_on.wait()


async def is_left_at_its_finish_reason(world: World) -> None:
    stream = await open_stream(world)
    await world.go.wait()
    async for chunk in stream:
        if chunk.choices[0].finish_reason:
            break
    del stream, chunk
    await world.live_on.wait()


async def is_dropped_in_a_thread(world: World) -> None:
    def read() -> Any:
        stream = litellm.completion(**world.chat(), stream=True)
        next(stream)
        return stream

    stream = await asyncio.to_thread(read)
    await world.go.wait()
    del stream
    await wait_until_async(lambda: collected(world), description="the stream is collected", timeout=SOON)
    await world.live_on.wait()


def collected(world: World) -> bool:
    """Collect the garbage: LiteLLM's synchronous streams refer to themselves, and threads to them.

    LiteLLM 1.90 keeps the call that it has begun last, until it begins another.
    """
    litellm.error_logs.clear()
    gc.collect()
    pendings = [one for of_call in world.here._desk.calls._calls.values() for one in of_call]
    return not any(one.record is not None and one.record() is not None for one in pendings)


async def breaks_off(world: World) -> None:
    with contextlib.suppress(Exception):
        await said(await litellm.acompletion(**world.chat(), stream=True))
    await world.live_on.wait()


def _held(**how: Any) -> Behaviour:
    return Behaviour(hang=True, **how)


# What the leader does, what the provider does, and what ends it.
CALLS: dict[str, tuple[Any, Behaviour | None]] = {
    "the provider fails": (fails, _held(status=500)),
    "the provider fails, in a thread": (fails_in_a_thread, _held(status=500)),
    "the request is refused": (fails, _held(status=400)),
    "there are too many requests": (fails, _held(status=429)),
    "the provider fails, with retries": (is_retried, _held(status=500)),
    "the provider fails, with fallbacks": (fails_with_a_fallback, _held(status=500)),
    "LiteLLM's time limit": (takes_too_long_for_litellm, hanging()),
    "asyncio's time limit": (takes_too_long_for_the_application, hanging()),
    "an answer that is cut off": (is_answered, _held(finish_reason="length")),
    "an answer that says nothing": (is_answered, _held(text="")),
}
STREAMS: dict[str, tuple[Any, Behaviour | None]] = {
    "the stream is dropped": (is_dropped, None),
    "the stream is dropped, in a thread": (is_dropped_in_a_thread, None),
    "the stream is closed": (is_closed, None),
    "the stream is left at its finish reason": (is_left_at_its_finish_reason, None),
    "the stream dies": (breaks_off, _held(cut_after=2)),
    "the stream ends before its end": (breaks_off, _held(end_after=2)),
}


class TestEnds:
    @pytest.mark.parametrize(("leader", "behaviour"), CALLS.values(), ids=CALLS)
    async def test_those_who_wait_hear_of_it_soon(self, world: World, leader: Any, behaviour: Behaviour):
        await self.ends(world, leader, behaviour)

    @keeps_streams
    @pytest.mark.parametrize(("leader", "behaviour"), STREAMS.values(), ids=STREAMS)
    async def test_so_when_it_was_a_stream(self, world: World, leader: Any, behaviour: Behaviour | None):
        await self.ends(world, leader, behaviour)

    async def ends(self, world: World, leader: Any, behaviour: Behaviour | None) -> None:
        task = await world.lead(leader, *([behaviour] if behaviour is not None else []))
        followers = await world.follow()
        world.go.set()
        if behaviour != hanging():
            world.stand_in.release()
        async with asyncio.timeout(SOON):
            here, _ = await asyncio.gather(*followers)
        assert here.choices
        assert not task.done()  # the application went on in the task that had asked
        world.live_on.set()
        await task
        await world.rest()

    @pytest.mark.parametrize(
        "leader", [is_answered, pytest.param(is_dropped, marks=keeps_streams)], ids=["a call", "a stream"]
    )
    async def test_so_when_its_task_is_cancelled(self, world: World, leader: Any):
        task = await world.lead(leader, *([hanging()] if leader is is_answered else []))
        followers = await world.follow()
        task.cancel()
        async with asyncio.timeout(SOON):
            await asyncio.gather(*followers)
        await world.rest()

    async def test_so_when_it_was_an_attempt_of_the_router(
        self, stand_in: ProviderServer, chat: Chat, make: Make
    ):
        cache = make(**SLOW)
        group: Any = {"model_name": "fast", "litellm_params": chat.to()}
        router = litellm.Router([group], num_retries=1, retry_after=0, cache_responses=True)
        ask = {"model": "fast", "messages": chat()["messages"]}
        stand_in.script(_held(status=500))
        calls = [asyncio.create_task(router.acompletion(**ask))]
        await stand_in.called(1)
        calls.append(asyncio.create_task(router.acompletion(**ask)))
        await wait_until_async(lambda: callers(cache) == 2, description="one waits")
        stand_in.release()
        async with asyncio.timeout(SOON):
            answers = await asyncio.gather(*calls)
        assert len({text_of(answer) for answer in answers}) == 1
        assert stand_in.calls == 2

    async def test_an_answer_is_for_all_who_wait(self, world: World):
        task = await world.lead(is_answered, hanging())
        followers = await world.follow()
        world.stand_in.release()
        async with asyncio.timeout(SOON):
            here, there = await asyncio.gather(*followers)
        assert text_of(here) == there["choices"][0]["message"]["content"]
        assert world.stand_in.calls == 1
        world.live_on.set()
        await task

    async def test_a_provider_that_never_answers_is_given_up_in_the_end(
        self, stand_in: ProviderServer, chat: Chat, make: Make
    ):
        make(**{**SLOW, "lease_ttl": 0.5, "max_lead": 1.0})
        stand_in.script(hanging())
        leader = asyncio.create_task(litellm.acompletion(**chat()))
        await stand_in.called(1)
        async with asyncio.timeout(SOON):
            assert (await litellm.acompletion(**chat())).choices
        assert (stand_in.calls, leader.done()) == (2, False)
        stand_in.release()
        await leader

    @keeps_streams
    async def test_a_stream_that_is_held_and_not_read_is_given_up_in_the_end(
        self, stand_in: ProviderServer, chat: Chat, make: Make
    ):
        """Nothing tells of it, but the longest time that anybody waits."""
        cache = make(**{**SLOW, "lease_ttl": 0.5, "max_lead": 1.0})
        stream = await litellm.acompletion(**chat(), stream=True)
        async with asyncio.timeout(SOON):
            assert (await litellm.acompletion(**chat())).choices
        assert stand_in.calls == 2
        assert len(await said(stream)) > 1
        await written(cache)


class TestWhoHoldsNeverWaits:
    async def test_two_streams_that_are_open_in_each_other_s_way(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        async def one_in_the_other(outer: str, inner: str) -> None:
            stream = await litellm.acompletion(**chat(outer), stream=True)
            both.append(outer)
            await wait_until_async(lambda: len(both) == 2, description="both are open")
            answer = await litellm.acompletion(**chat(inner))
            answers.append(text_of(answer))
            await wait_until_async(lambda: len(answers) == 2, description="both are answered")
            await said(stream)

        both: list[str] = []
        answers: list[str] = []
        async with asyncio.timeout(SOON):
            await asyncio.gather(one_in_the_other("A", "B"), one_in_the_other("B", "A"))
        # Unless one of them was through, and its stream stored, before the other came to ask.
        assert stand_in.calls in (3, 4)

    async def test_the_same_call_while_its_stream_is_read(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        stream = await litellm.acompletion(**chat(), stream=True)
        async with asyncio.timeout(SOON):
            assert (await litellm.acompletion(**chat())).choices
        await said(stream)
        assert stand_in.calls == 2

    async def test_a_synchronous_call_on_a_loop_waits_for_nobody(
        self, stand_in: ProviderServer, make: Make, chat: Chat
    ):
        """The call it would wait for is on the very loop that it blocks."""
        cache = make(**{**SLOW, "lookup_budget": 0.5})
        looking = asyncio.create_task(cache.async_get_cache(**chat(), litellm_call_id="leader"))
        assert await looking is None
        begun = time.monotonic()
        assert cache.get_cache(**chat(), litellm_call_id="on the loop") is None
        assert time.monotonic() - begun < SOON
        cache._desk.calls.end("leader", None)
        cache._desk.calls.end("on the loop", None)

    async def test_but_it_hits(self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat):
        first = await litellm.acompletion(**chat())
        await written(cache)
        # A second cache in LiteLLM's place would do: its clients are another loop's.
        found = cache.get_cache(**chat(), litellm_call_id="on the loop")
        assert found["choices"][0]["message"]["content"] == text_of(first)


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with Warm("litellm") as warm:
        yield warm


@pytest.mark.timeout(240)  # the first one waits for the import
class TestProcesses:
    async def test_identical_calls_of_two_processes_cost_one(
        self, stand_in: ProviderServer, valkey: Server, namespace: str, warm: Warm, tmp_path: Path
    ):
        program = tmp_path / "program.py"
        program.write_text(
            textwrap.dedent(f"""
            import asyncio, litellm, os
            from llmcache_plugins.adapters.litellm import LiteLLMCache
            litellm.cache = LiteLLMCache.from_url({valkey.url!r}, namespace={namespace!r}, **{PATIENT!r})
            async def main():
                streams = (False, {NOTICES_CUT_STREAMS}) * 5
                calls = (litellm.acompletion(
                    model="openai/m", api_base={stand_in.base_url!r}, api_key="test", stream=stream,
                    messages=[{{"role": "user", "content": "Hi"}}]) for stream in streams)
                texts = set()
                for answer in await asyncio.gather(*calls):
                    if hasattr(answer, "choices"):
                        texts.add(answer.choices[0].message.content.strip())
                    else:
                        parts = [chunk.choices[0].delta.content or "" async for chunk in answer]
                        texts.add("".join(parts).strip())
                assert len(texts) == 1, texts
            other = os.fork()
            asyncio.run(main())
            if other:
                assert os.waitpid(other, 0)[1] == 0
            """)
        )
        stand_in.script(hanging())
        running = asyncio.create_task(asyncio.to_thread(warm.run, program, env={}))
        await stand_in.called(1, timeout=120)
        stand_in.release()
        done = await running
        assert (done.returncode, stand_in.calls) == (0, 1), done.stderr

    async def test_a_killed_one_is_waited_for_until_its_lease_ends(
        self,
        stand_in: ProviderServer,
        make: Make,
        chat: Chat,
        valkey: Server,
        namespace: str,
        warm: Warm,
        tmp_path: Path,
    ):
        cache = make(**{**SLOW, "lease_ttl": 2.0})
        program = tmp_path / "program.py"
        program.write_text(
            textwrap.dedent(f"""
            import asyncio, litellm, os, pathlib
            from llmcache_plugins.adapters.litellm import LiteLLMCache
            litellm.cache = LiteLLMCache.from_url(
                {valkey.url!r}, namespace={namespace!r}, lease_ttl=2.0, **{PATIENT!r})
            pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))
            asyncio.run(litellm.acompletion(**{chat()!r}))
            """)
        )
        stand_in.script(hanging())
        running = asyncio.create_task(asyncio.to_thread(warm.run, program, env={}))
        await stand_in.called(1, timeout=120)
        follower = asyncio.create_task(litellm.acompletion(**chat()))
        await wait_until_async(lambda: followed(cache), description="it follows")
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        async with asyncio.timeout(SOON):
            assert (await follower).choices
        assert ((await running).returncode, stand_in.calls) == (-signal.SIGKILL, 2)

    async def test_what_is_answered_as_the_loop_ends_is_stored(
        self, stand_in: ProviderServer, valkey: Server, namespace: str, warm: Warm, tmp_path: Path
    ):
        """LiteLLM writes after it has answered: a script that ends with its answer ends the write too."""
        program = tmp_path / "program.py"
        program.write_text(
            textwrap.dedent(f"""
            import asyncio, litellm
            from llmcache_plugins.adapters.litellm import LiteLLMCache
            litellm.cache = LiteLLMCache.from_url({valkey.url!r}, namespace={namespace!r}, **{PATIENT!r})
            asyncio.run(litellm.acompletion(
                model="openai/m", api_base={stand_in.base_url!r}, api_key="test",
                messages=[{{"role": "user", "content": "Hi"}}]))
            """)
        )
        for _ in range(2):
            done = await asyncio.to_thread(warm.run, program, env={})
            assert done.returncode == 0, done.stderr
        assert stand_in.calls == 1


class TestListening:
    async def test_it_goes_on_when_the_application_replaces_litellms_lists(
        self, stand_in: ProviderServer, make: Make, chat: Chat
    ):
        cache = make(**SLOW)
        litellm.callbacks, litellm.failure_callback, litellm._async_failure_callback = [], [], []
        stand_in.script(_held(status=500))
        leader = asyncio.create_task(litellm.acompletion(**chat()))
        await stand_in.called(1)
        follower = asyncio.create_task(litellm.acompletion(**chat()))
        await wait_until_async(lambda: callers(cache) == 2, description="it waits")
        stand_in.release()
        async with asyncio.timeout(SOON):
            assert (await follower).choices
        with pytest.raises(litellm.InternalServerError):
            await leader

    async def test_one_listener_for_all_caches_and_none_without(self, make: Make):
        lists = ("failure_callback", "_async_failure_callback")
        caches = [make() for _ in range(3)]
        assert [len(getattr(litellm, name)) for name in lists] == [1, 1]
        for one in caches:
            await one.aclose()
        assert [len(getattr(litellm, name)) for name in lists] == [0, 0]
