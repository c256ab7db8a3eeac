"""Identical calls cost one provider call: across tasks, processes, loops, threads, and who gives up when."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from devmode import DEVMODE, complaints_of
from faultproxy import FaultProxy
from waiting import wait_until, wait_until_async

from llmcache_plugins import InferenceGateway, Outcome, ResponseCache
from llmcache_plugins.loops import PerLoop
from llmcache_plugins.singleflight import Flights

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence

    from servers import Server

PATIENT = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
"""These tests are about who calls, not about time: a busy machine must not make an outage of a hit."""
QUERY = {"model": "m", "prompt": "the same for everybody"}


class Provider:
    """Counts; answers a new list each time, once its gate is open."""

    def __init__(self) -> None:
        self.calls = self.cancelled = 0
        self.error: BaseException | None = None
        self.gate = asyncio.Event()

    async def __call__(self, _query: Any) -> list[int]:
        self.calls += 1
        call = self.calls
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return [call]


@pytest.fixture
async def cache(valkey: Server, namespace: str) -> AsyncIterator[ResponseCache]:
    async with ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT) as cache:
        yield cache


@pytest.fixture
async def provider() -> Provider:
    return Provider()


def leases(server: Server, namespace: str) -> list[bytes]:
    return list(server.command("KEYS", f"llm:{{{namespace}.*}}:lease:*"))


def in_use(cache: ResponseCache) -> int:
    """Connections that somebody has taken out of the pool and not given back."""
    topology: Any = cache.repository._links.current().topology
    return len(topology._client.connection_pool._in_use_connections)


async def called(provider: Provider, times: int = 1) -> None:
    await wait_until_async(lambda: provider.calls >= times, description="the provider is called")


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, asyncio.CancelledError)


def start(gateway: InferenceGateway, count: int) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(gateway.resolve(QUERY)) for _ in range(count)]


class TestTasks:
    async def test_many_callers_one_call(self, cache: ResponseCache, provider: Provider):
        gateway = InferenceGateway(provider, cache)
        calls = [asyncio.create_task(gateway.resolve_detailed(QUERY)) for _ in range(200)]
        await called(provider)
        provider.gate.set()
        outcomes = [resolution.outcome for resolution in await asyncio.gather(*calls)]
        assert provider.calls == 1
        assert sorted(outcomes) == [Outcome.COALESCED] * 199 + [Outcome.MISS]

    async def test_each_caller_gets_an_object_of_its_own(self, cache: ResponseCache, provider: Provider):
        calls = start(InferenceGateway(provider, cache), 10)
        await called(provider)
        provider.gate.set()
        answers = await asyncio.gather(*calls)
        for answer in answers:
            assert answer == [1]
            answer.append("mine")
        assert len({id(answer) for answer in answers}) == 10
        assert await InferenceGateway(provider, cache).resolve(QUERY) == [1]

    async def test_different_questions_do_not_wait_for_one_another(
        self, cache: ResponseCache, provider: Provider
    ):
        gateway = InferenceGateway(provider, cache)
        calls = [asyncio.create_task(gateway.resolve({"q": number})) for number in range(50)]
        await called(provider, 50)
        provider.gate.set()
        assert sorted(await asyncio.gather(*calls)) == [[number] for number in range(1, 51)]

    async def test_callers_of_two_caches_share_one_call_over_the_server(
        self, cache: ResponseCache, provider: Provider, valkey: Server, namespace: str
    ):
        async with ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT) as other:
            calls = [
                *start(InferenceGateway(provider, cache), 5),
                *start(InferenceGateway(provider, other), 5),
            ]
            await called(provider)
            await self._until_somebody_follows(cache, other)
            provider.gate.set()
            assert await asyncio.gather(*calls) == [[1]] * 10
        assert provider.calls == 1

    async def _until_somebody_follows(self, *caches: ResponseCache) -> None:
        async def follows() -> bool:
            return any([(await cache.stats()).leases["followed"] for cache in caches])

        await wait_until_async(follows, description="the other cache follows")

    async def test_a_provider_s_error_reaches_all_who_wait_as_it_is(
        self, cache: ResponseCache, provider: Provider, valkey: Server, namespace: str
    ):
        provider.error = ValueError("no")
        calls = start(InferenceGateway(provider, cache), 5)
        await called(provider)
        provider.gate.set()
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert error is provider.error
        assert provider.calls == 1
        assert not leases(valkey, namespace)

    async def test_who_follows_another_process_takes_over_when_its_provider_fails(
        self, cache: ResponseCache, provider: Provider, valkey: Server, namespace: str
    ):
        failing = Provider()
        failing.error = ConnectionError("reset")
        leader = start(InferenceGateway(failing, cache), 1)
        await called(failing)
        async with ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT) as other:
            provider.gate.set()
            follower = start(InferenceGateway(provider, other), 1)
            await self._until_somebody_follows(other)
            failing.gate.set()
            assert await asyncio.gather(*leader, return_exceptions=True) == [failing.error]
            assert await asyncio.wait_for(follower[0], 5) == [1]

    async def test_who_waited_for_an_answer_that_was_invalidated_meanwhile_gets_a_newer_one(
        self, cache: ResponseCache, provider: Provider
    ):
        gateway = InferenceGateway(provider, cache)
        calls = start(gateway, 3)
        await called(provider)
        await gateway.invalidate(QUERY)
        late = start(gateway, 1)
        await called(provider, 2)
        provider.gate.set()
        answers = await asyncio.gather(*calls, *late)
        assert answers[0] == [1]  # who paid for it keeps it
        assert all(answer[0] >= 2 for answer in answers[1:])

    async def test_a_cancellation_inside_the_provider_is_not_shared(
        self, cache: ResponseCache, provider: Provider
    ):
        """A call that ends itself as cancelled (a client's own time limit) is its caller's affair only."""
        given_up = Provider()
        given_up.error = asyncio.CancelledError()
        first = start(InferenceGateway(given_up, cache), 1)
        await called(given_up)
        others = start(InferenceGateway(provider, cache), 3)
        provider.gate.set()
        await asyncio.sleep(0)
        given_up.gate.set()
        answers = await asyncio.gather(*first, *others, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert answers[1:] == [[1]] * 3
        assert provider.calls == 1


class TestNesting:
    """A provider that asks the gateway itself: who holds, never waits."""

    async def test_a_provider_that_asks_its_own_question_does_not_wait_for_itself(self, cache: ResponseCache):
        asked = 0

        async def provider(query: Any) -> str:
            nonlocal asked
            asked += 1
            return "inner" if asked == 2 else f"outer of {await gateway.resolve(query)}"

        gateway = InferenceGateway(provider, cache)
        assert await asyncio.wait_for(gateway.resolve(QUERY), 5) == "outer of inner"

    async def test_two_that_ask_for_one_another_both_get_answers(self, cache: ResponseCache):
        both_ask = asyncio.Barrier(2)
        depth = {"a": 0, "b": 0}

        async def provider(query: dict[str, str]) -> str:
            name = query["prompt"]
            depth[name] += 1
            if depth[name] > 1:
                return name
            await both_ask.wait()
            return f"{name} of {await gateway.resolve({'prompt': 'b' if name == 'a' else 'a'})}"

        gateway = InferenceGateway(provider, cache)
        calls = (gateway.resolve({"prompt": "a"}), gateway.resolve({"prompt": "b"}))
        assert await asyncio.wait_for(asyncio.gather(*calls), 5) == ["a of b", "b of a"]

    async def test_a_nested_question_that_is_stored_hits_and_a_new_one_is_stored(self, cache: ResponseCache):
        async def inner(query: Any) -> str:
            return f"inner {query}"

        async def outer(query: Any) -> str:
            return f"outer of {await inner_gateway.resolve('part')} for {query}"

        inner_gateway, outer_gateway = InferenceGateway(inner, cache), InferenceGateway(outer, cache)
        assert await outer_gateway.resolve("one") == "outer of inner part for one"
        assert await outer_gateway.resolve("two") == "outer of inner part for two"
        stats = await cache.stats()
        assert (stats.provider_calls, stats.outcomes[Outcome.HIT]) == (3, 1)

    async def test_a_task_that_outlives_the_provider_s_call_waits_like_anybody_else(
        self, cache: ResponseCache, provider: Provider
    ):
        later: list[asyncio.Task[Any]] = []
        go_on = asyncio.Event()
        slow = InferenceGateway(provider, cache)

        async def outer(_query: Any) -> str:
            async def afterwards() -> Any:
                await go_on.wait()
                return await slow.resolve(QUERY)

            later.append(asyncio.create_task(afterwards()))
            return "done"

        await InferenceGateway(outer, cache).resolve("outer")
        first = asyncio.create_task(slow.resolve(QUERY))
        await called(provider)
        go_on.set()
        await asyncio.sleep(0)
        provider.gate.set()
        assert await asyncio.gather(first, *later) == [[1], [1]]
        assert provider.calls == 1


class TestClosing:
    async def test_closing_the_cache_cancels_no_call(
        self, valkey: Server, namespace: str, provider: Provider
    ):
        cache = ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT)
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(InferenceGateway(provider, cache).resolve(QUERY)) for _ in range(5)]
            await called(provider)
            await cache.aclose()
            provider.gate.set()
        assert [call.result() for call in calls] == [[1]] * 5
        await cache.aclose()
        assert not leases(valkey, namespace)

    @pytest.mark.parametrize("turns", range(0, 12, 2))
    async def test_closing_at_any_moment_leaves_no_lease(
        self, valkey: Server, namespace: str, provider: Provider, turns: int
    ):
        cache = ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT)
        call = asyncio.create_task(InferenceGateway(provider, cache).resolve(QUERY))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await cache.aclose()
        assert not leases(valkey, namespace)


class TestInvalidationMeanwhile:
    """After an invalidation has returned, nobody who asks gets the older answer."""

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ({"choices": [{"finish_reason": "length"}], "text": "OLD"}, "NEW"),
            (("OLD",), ("NEW",)),
            ("OLD", "NEW"),
        ],
        ids=["refused", "no codec", "stored"],
    )
    async def test_by_another_process_and_a_caller_that_comes_after_it(
        self, cache: ResponseCache, valkey: Server, namespace: str, old: Any, new: Any
    ):
        gate, asked = asyncio.Event(), asyncio.Event()
        answers = [old, new]

        async def provider(_query: Any) -> Any:
            answer = answers.pop(0)
            asked.set()
            if answer == old:
                await gate.wait()
            return answer

        gateway = InferenceGateway(provider, cache)
        early = asyncio.create_task(gateway.resolve(QUERY))
        await asked.wait()
        async with ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT) as elsewhere:
            await elsewhere.delete(gateway.key_of(QUERY))
        late = asyncio.create_task(gateway.resolve(QUERY))
        await asyncio.sleep(0)
        gate.set()
        assert await early == old
        assert await late == new

    async def test_a_hit_under_way_is_not_for_callers_who_come_after_it_was_asked_for(
        self, valkey: Server, namespace: str
    ):
        async def provider(_query: Any) -> str:
            return "NEW"

        async with (
            FaultProxy(valkey.url) as proxy,
            ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT) as near,
            ResponseCache.from_url(proxy.url, namespace=namespace, **PATIENT) as far,
        ):
            await near.get_or_call(QUERY, lambda: asyncio.sleep(0, "OLD"))
            proxy.delay = 0.05
            gateway = InferenceGateway(provider, far)
            early = asyncio.create_task(gateway.resolve(QUERY))
            gets = valkey.command("INFO", "commandstats").get("cmdstat_mget", {"calls": 0})["calls"]
            await wait_until_async(
                lambda: valkey.command("INFO", "commandstats")["cmdstat_mget"]["calls"] > gets,
                description="the server has answered, and the answer is on its way",
            )
            await near.delete(gateway.key_of(QUERY))
            late = asyncio.create_task(gateway.resolve(QUERY))
            assert await early == "OLD"
            assert await late == "NEW"


class TestCancellation:
    async def test_the_last_of_50_gets_the_answer_of_the_one_call(
        self, cache: ResponseCache, provider: Provider
    ):
        *gone, last = start(InferenceGateway(provider, cache), 50)
        await called(provider)
        await cancelled(*gone)
        provider.gate.set()
        assert await last == [1]
        assert (provider.calls, provider.cancelled) == (1, 0)

    async def test_when_all_have_gone_the_call_is_cancelled_and_the_next_leads_at_once(
        self, cache: ResponseCache, provider: Provider, valkey: Server, namespace: str
    ):
        before = asyncio.all_tasks()
        gateway = InferenceGateway(provider, cache)
        calls = start(gateway, 50)
        await called(provider)
        assert leases(valkey, namespace)
        await cancelled(*calls)
        assert provider.cancelled == 1
        assert not leases(valkey, namespace)
        await wait_until_async(lambda: asyncio.all_tasks() == before, description="no task is left")
        assert in_use(cache) == 0

        provider.gate.set()
        assert await asyncio.wait_for(gateway.resolve(QUERY), 3) == [2]

    async def test_who_comes_while_the_last_one_goes_starts_anew(
        self, cache: ResponseCache, provider: Provider
    ):
        gateway = InferenceGateway(provider, cache)
        (gone,) = start(gateway, 1)
        await called(provider)
        gone.cancel()
        await asyncio.sleep(0)
        (newcomer,) = start(gateway, 1)
        await called(provider, 2)
        provider.gate.set()
        assert await asyncio.wait_for(newcomer, 5) == [2]
        with pytest.raises(asyncio.CancelledError):
            await gone

    async def test_a_time_limit_of_the_caller_s_holds(self, cache: ResponseCache, provider: Provider):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(InferenceGateway(provider, cache).resolve(QUERY), 0.05)
        assert provider.cancelled == provider.calls

    async def test_with_finish_a_call_that_was_paid_for_is_kept(
        self, valkey: Server, namespace: str, provider: Provider
    ):
        async with ResponseCache.from_url(
            valkey.url, namespace=namespace, on_abandon="finish", **PATIENT
        ) as cache:
            gateway = InferenceGateway(provider, cache)
            calls = start(gateway, 3)
            await called(provider)
            await cancelled(*calls)
            assert provider.cancelled == 0
            (joined,) = start(gateway, 1)
            provider.gate.set()
            assert await joined == [1]
            assert (await gateway.resolve_detailed(QUERY)).outcome is Outcome.HIT
            assert provider.calls == 1

    async def test_closing_with_finish_ends_what_nobody_waits_for(
        self, valkey: Server, namespace: str, provider: Provider
    ):
        async with ResponseCache.from_url(
            valkey.url, namespace=namespace, on_abandon="finish", **PATIENT
        ) as cache:
            calls = start(InferenceGateway(provider, cache), 1)
            await called(provider)
            await cancelled(*calls)
        assert provider.cancelled == 1
        assert not leases(valkey, namespace)

    async def test_wherever_a_caller_is_cancelled_nothing_is_left_behind(
        self, cache: ResponseCache, valkey: Server, namespace: str
    ):
        gateway = InferenceGateway(_slow_for_some_turns, cache)
        for point in range(100):
            call = _CancelledAt({point}, gateway.resolve({"q": point}))
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.create_task(call.run())
            await self._nothing_is_left(cache, valkey, namespace)
            assert await gateway.resolve({"q": point}) == "done"
            if not call.cancelled:
                break
        else:
            pytest.fail("the call never came to its end")
        assert point > 0

    async def test_whoever_is_cancelled_again_while_cleaning_up_leaves_nothing_behind(
        self, cache: ResponseCache, valkey: Server, namespace: str
    ):
        gateway = InferenceGateway(_slow_for_some_turns, cache)
        for point in range(3):
            for again in range(1, 4):
                query = {"q": [point, again]}
                call = _CancelledAt({point, point + again}, gateway.resolve(query))
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.create_task(call.run())
                await self._nothing_is_left(cache, valkey, namespace)
                assert await gateway.resolve(query) == "done"

    @pytest.mark.parametrize("on", ["resolve", "stream"])
    async def test_whenever_a_caller_is_cancelled_nothing_is_left_behind(
        self, cache: ResponseCache, valkey: Server, namespace: str, on: str
    ):
        """At each turn of the loop, so that it meets every await of the flight too."""
        gateway = InferenceGateway(_Streams(), cache)
        was_cancelled = True
        for turns in range(400):
            query = {"q": turns}
            work: Awaitable[Any] = gateway.resolve(query) if on == "resolve" else _read(gateway.stream(query))
            task = asyncio.ensure_future(work)
            for _ in range(turns):
                await asyncio.sleep(0)
            was_cancelled = task.cancel()
            await asyncio.wait((task,))
            if turns % 4 == 0:
                await self._nothing_is_left(cache, valkey, namespace)
            assert await asyncio.wait_for(gateway.resolve(query), 5) == "done"
            if not was_cancelled:
                break
        assert not was_cancelled, "the call never came to its end"
        await self._nothing_is_left(cache, valkey, namespace)

    async def _nothing_is_left(self, cache: ResponseCache, valkey: Server, namespace: str) -> None:
        # Far less than the 10 seconds after which a forgotten lease would go by itself.
        await wait_until_async(
            lambda: not leases(valkey, namespace), description="the lease is gone", timeout=3
        )
        # A task of the cache's is one whose coroutine is defined in the package.
        await wait_until_async(
            lambda: not list(filter(_is_of_the_cache, asyncio.all_tasks())),
            description="no task of the cache is left",
            timeout=3,
        )
        assert cache.in_flight() == 0
        assert in_use(cache) == 0


def _is_of_the_cache(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and "llmcache_plugins" in code.co_filename


async def _slow_for_some_turns(_query: Any) -> str:
    for _ in range(3):
        await asyncio.sleep(0)
    return "done"


class _Streams:
    async def complete(self, query: Any) -> str:
        return await _slow_for_some_turns(query)

    async def stream(self, query: Any) -> AsyncIterator[str]:
        yield "do"
        await _slow_for_some_turns(query)
        yield "ne"


async def _read(chunks: AsyncIterator[str]) -> list[str]:
    return [chunk async for chunk in chunks]


class _CancelledAt:
    """Runs a coroutine as its task and cancels that task at the given suspensions (0 = the first)."""

    def __init__(self, points: set[int], work: Any) -> None:
        self.points = points
        self.work = work
        self.cancelled = False

    async def run(self) -> Any:
        return await self

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self.work.__await__()
        suspended = 0
        answer: Callable[[], Any] = lambda: steps.send(None)  # noqa: E731
        while True:
            try:
                waiting_for = answer()
            except StopIteration as end:
                return end.value
            if suspended in self.points:
                # The task is running just now: it is cancelled in the moment it suspends.
                task = asyncio.current_task()
                assert task is not None
                self.cancelled = task.cancel()
            suspended += 1
            try:
                yield waiting_for
            except BaseException as error:  # noqa: BLE001 - handed on to the coroutine
                answer = lambda error=error: steps.throw(error)  # noqa: E731
            else:
                answer = lambda: steps.send(None)  # noqa: E731


class TestLoops:
    def test_one_cache_serves_one_asyncio_run_after_another(self, valkey: Server, namespace: str):
        cache = ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT)
        calls: list[int] = []

        async def provider(query: Any) -> int:
            calls.append(query["q"])
            return query["q"]

        async def use() -> list[int]:
            gateway = InferenceGateway(provider, cache)
            return await asyncio.gather(*(gateway.resolve({"q": number % 3}) for number in range(9)))

        for _ in range(4):
            assert asyncio.run(use()) == [0, 1, 2] * 3
        assert sorted(calls) == [0, 1, 2]

    def test_threads_with_loops_of_their_own_share_one_cache_at_once(self, valkey: Server, namespace: str):
        cache = ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT)
        calls: list[str] = []
        errors: list[BaseException] = []
        together = threading.Barrier(8)

        async def provider(query: Any) -> Any:
            calls.append(query["q"])
            await asyncio.sleep(0.02)
            return query["q"]

        async def use(turn: int) -> None:
            gateway = InferenceGateway(provider, cache)
            own = f"{turn}-{threading.get_ident()}"
            answers = await asyncio.gather(
                *(gateway.resolve({"q": q}) for q in (f"{turn}", own, f"{turn}", own))
            )
            assert answers == [f"{turn}", own, f"{turn}", own]

        def work() -> None:
            try:
                for turn in range(6):
                    together.wait(10)
                    asyncio.run(use(turn))
            except BaseException as error:  # noqa: BLE001 - shown by the test
                errors.append(error)
                together.abort()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not errors
        assert len(calls) == len(set(calls)) == 6 + 6 * 8

    def test_loops_that_come_and_go_in_threads_do_not_disturb_one_another(self):
        """A loop's own things are found even while other threads begin and end loops."""
        per_loop: PerLoop[object] = PerLoop(object)
        errors: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(150):
                    with contextlib.closing(asyncio.new_event_loop()) as loop:
                        first = loop.run_until_complete(_current(per_loop))
                        assert loop.run_until_complete(_current(per_loop)) is first
            except BaseException as error:  # noqa: BLE001 - shown by the test
                errors.append(error)

        usual = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            threads = [threading.Thread(target=work) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        finally:
            sys.setswitchinterval(usual)
        assert not errors


async def _current(per_loop: PerLoop[object]) -> object:
    return per_loop.current()


# -- other processes --------------------------------------------------------------------------------------

PROLOGUE = """
import asyncio, json, os, sys
from llmcache_plugins import InferenceGateway, ResponseCache

url, namespace, ledger = sys.argv[1:4]
settings = {"namespace": namespace, **json.loads(sys.argv[4])}

def counted():
    with open(ledger, "ab", buffering=0) as file:
        file.write(b"%d\\n" % os.getpid())
"""

CALLERS = """
async def main(callers, seconds):
    async def provider(query):
        counted()
        await asyncio.sleep(seconds)
        return {"answered by": os.getpid()}

    async with ResponseCache.from_url(url, **settings) as cache:
        gateway = InferenceGateway(provider, cache)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        answers = await asyncio.gather(*(gateway.resolve({"q": "same"}) for _ in range(callers)))
        print(json.dumps(answers), flush=True)

asyncio.run(main(int(sys.argv[5]), float(sys.argv[6])))
"""


class Child:
    """A Python process that runs a program of ours."""

    def __init__(self, program: str, *arguments: object, options: Sequence[str] = ()) -> None:
        code = PROLOGUE + textwrap.dedent(program)
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        self.process = subprocess.Popen(
            [sys.executable, *options, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def await_ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "ready\n", self.process.communicate()[1]

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def finish(self, timeout: float = 20.0) -> str:
        out, err = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, err
        return out

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def children(valkey: Server, namespace: str, tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Start processes; those that are left at the end are killed."""
    with contextlib.ExitStack() as stack:

        def start_child(
            program: str, *arguments: object, options: Sequence[str] = (), **settings: Any
        ) -> Child:
            own = (valkey.url, namespace, tmp_path / "ledger", json.dumps({**PATIENT, **settings}))
            child = Child(program, *own, *arguments, options=options)
            stack.callback(child.end)
            return child

        yield start_child


@pytest.fixture
def ledger(tmp_path: Path) -> Callable[[], list[int]]:
    """Return the pids that have called the provider so far."""
    path = tmp_path / "ledger"
    return lambda: [int(pid) for pid in path.read_text().split()] if path.exists() else []


def begin_together(processes: Sequence[Child]) -> None:
    for child in processes:
        child.await_ready()
    for child in processes:
        child.go()


class TestProcesses:
    def test_many_callers_in_four_processes_one_call(
        self, children: Callable[..., Child], ledger: Callable[[], list[int]]
    ):
        processes = [children(CALLERS, 50, 0.4) for _ in range(4)]
        begin_together(processes)
        answers = [answer for child in processes for answer in json.loads(child.finish())]
        (leader,) = ledger()
        assert answers == [{"answered by": leader}] * 200

    def test_a_long_call_keeps_its_lease(
        self, children: Callable[..., Child], ledger: Callable[[], list[int]]
    ):
        lease_ttl = 0.5
        processes = [children(CALLERS, 3, 5 * lease_ttl, lease_ttl=lease_ttl) for _ in range(2)]
        begin_together(processes)
        answers = [answer for child in processes for answer in json.loads(child.finish())]
        (leader,) = ledger()
        assert answers == [{"answered by": leader}] * 6

    def test_when_the_leader_is_killed_the_others_are_served_within_a_lease_and_a_call(
        self, children: Callable[..., Child], ledger: Callable[[], list[int]]
    ):
        lease_ttl, seconds = 0.5, 1.0
        processes = [children(CALLERS, 5, seconds, lease_ttl=lease_ttl) for _ in range(3)]
        begin_together(processes)
        (leader,) = wait_until(ledger, description="somebody leads", timeout=10)
        os.kill(leader, signal.SIGKILL)
        killed_at = time.monotonic()
        alive = [child for child in processes if child.pid != leader]
        answers = [answer for child in alive for answer in json.loads(child.finish())]
        took = time.monotonic() - killed_at
        assert len(ledger()) == 2
        assert answers == [{"answered by": ledger()[1]}] * 10
        assert took < lease_ttl + seconds + 1.5

    def test_a_leader_that_was_asleep_past_its_lease_does_no_harm(
        self, children: Callable[..., Child], ledger: Callable[[], list[int]]
    ):
        processes = [children(CALLERS, 2, 0.5, lease_ttl=0.3) for _ in range(2)]
        begin_together(processes)
        (leader,) = wait_until(ledger, description="somebody leads", timeout=10)
        os.kill(leader, signal.SIGSTOP)
        (other,) = [child for child in processes if child.pid != leader]
        answers = json.loads(other.finish())
        os.kill(leader, signal.SIGCONT)
        (asleep,) = [child for child in processes if child.pid == leader]
        asleep.finish()
        assert answers == [{"answered by": other.pid}] * 2
        assert ledger() == [leader, other.pid]

    def test_a_forked_process_uses_the_cache_and_leaves_its_parent_s_connections_alone(
        self, children: Callable[..., Child], ledger: Callable[[], list[int]]
    ):
        child = children(
            """
            cache = ResponseCache.from_url(url, **settings)
            loop = asyncio.new_event_loop()

            async def provider(query):
                counted()
                return query["q"]

            async def use(question):
                return (await InferenceGateway(provider, cache).resolve_detailed({"q": question})).outcome

            def connections():
                pool = cache.repository._links._here[loop].topology._client.connection_pool
                return [id(connection._writer) for connection in pool._available_connections]

            assert loop.run_until_complete(use("parent's")) == "miss"
            before = connections()
            for leave in (os._exit, sys.exit):
                pid = os.fork()
                if pid == 0:
                    outcomes = [asyncio.run(use(q)) for q in ("parent's", leave.__name__, leave.__name__)]
                    leave(0 if outcomes == ["hit", "miss", "hit"] else 7)
                assert os.waitpid(pid, 0)[1] == 0, "the child failed"
                assert loop.run_until_complete(use("parent's")) == "hit"
                assert loop.run_until_complete(use(leave.__name__)) == "hit"
            assert connections() == before, "the parent had to connect again"
            loop.run_until_complete(cache.aclose())
            loop.close()
            print("fine")
            """
        )
        assert child.finish() == "fine\n"
        assert len(ledger()) == 3

    def test_a_child_forked_while_a_call_runs_starts_without_flights(
        self, children: Callable[..., Child], ledger: Callable[[], list[int]]
    ):
        child = children(
            """
            cache = ResponseCache.from_url(url, **settings)

            async def child_main():
                async def provider(query):
                    counted()
                    return "child's"
                gateway = InferenceGateway(provider, cache)
                return cache.in_flight(), await gateway.resolve({"q": "other"})

            async def main():
                may_end = asyncio.Event()
                async def provider(query):
                    counted()
                    await may_end.wait()
                    return "parent's"
                calling = asyncio.create_task(InferenceGateway(provider, cache).resolve({"q": "same"}))
                while not os.path.exists(ledger):
                    await asyncio.sleep(0.005)
                pid = os.fork()
                if pid == 0:
                    try:
                        os._exit(0 if asyncio.run(child_main()) == (0, "child's") else 7)
                    finally:
                        os._exit(8)
                assert os.waitpid(pid, 0)[1] == 0, "the child failed"
                may_end.set()
                assert await calling == "parent's"
                await cache.aclose()

            asyncio.run(main())
            print("fine")
            """
        )
        assert child.finish() == "fine\n"
        assert len(ledger()) == 2

    def test_a_program_that_does_not_close_the_cache_ends_without_a_warning(
        self, children: Callable[..., Child]
    ):
        child = children(
            """
            import threading
            cache = ResponseCache.from_url(url, **settings)

            async def provider(query):
                if query["q"] == "for ever":
                    await asyncio.Event().wait()
                return query["q"]

            async def returns():
                gateway = InferenceGateway(provider, cache)
                for question in ("a", "b", "a"):
                    assert await gateway.resolve({"q": question}) == question

            async def raises():
                await returns()
                raise ZeroDivisionError

            async def leaves_calls_behind():
                await returns()
                gateway = InferenceGateway(provider, cache)
                cache.left = [asyncio.create_task(gateway.resolve({"q": "for ever"})) for _ in range(3)]
                await asyncio.sleep(0.05)

            async def leaves_at_once():
                gateway = InferenceGateway(provider, cache)
                cache.left = [asyncio.create_task(gateway.resolve({"q": n})) for n in range(3)]
                for _ in range(turns):
                    await asyncio.sleep(0)

            def run():
                asyncio.run(returns())
                try:
                    asyncio.run(raises())
                except ZeroDivisionError:
                    pass
                asyncio.run(leaves_calls_behind())
                asyncio.run(returns())

            threads = [threading.Thread(target=run) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            run()
            for turns in range(30):
                asyncio.run(leaves_at_once())
            """,
            options=DEVMODE,
        )
        out, err = child.process.communicate(timeout=20)
        assert child.process.returncode == 0, err
        assert (out, complaints_of(err)) == ("", [])

    def test_nor_does_one_whose_server_is_away(self, children: Callable[..., Child], valkey: Server):
        child = children(
            """
            cache = ResponseCache.from_url(url, **{**settings, "lookup_budget": 0.05, "socket_timeout": 0.25})
            may_go_on = sys.stdin.readline

            async def provider(query):
                return query["q"]

            async def main():
                gateway = InferenceGateway(provider, cache)
                cache.left = [asyncio.create_task(gateway.resolve({"q": i})) for i in range(3)]
                print("ready", flush=True)
                await asyncio.to_thread(may_go_on)
                for question in ("a", "b", "c"):
                    assert await gateway.resolve({"q": question}) == question
                cache.left += [asyncio.create_task(gateway.resolve({"q": i})) for i in range(3, 6)]
                await asyncio.sleep(0.02)

            for _ in range(2):
                asyncio.run(main())
            """,
            options=DEVMODE,
        )
        child.await_ready()
        valkey.pause()
        child.go()
        child.await_ready()
        valkey.kill()
        child.go()
        _, err = child.process.communicate(timeout=20)
        assert child.process.returncode == 0, err
        assert all(line.startswith("the ") for line in complaints_of(err)), err


async def test_who_leaves_as_a_timeout_of_the_flight_fires_still_ends_it():
    """A task that a timeout of its own has cancelled looks cancelled, and goes on a moment later.

    1. the last caller is cancelled; 2. a timeout inside the flight fires; 3. the caller leaves; 4. the flight
    deals with its timeout, and would go on for ever.
    """
    flights: Flights[str, None] = Flights()
    limits: asyncio.Queue[asyncio.Timeout] = asyncio.Queue()
    others = asyncio.all_tasks()

    async def work() -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None) as limit:
                    limits.put_nowait(limit)
                    await asyncio.Event().wait()

    caller = asyncio.create_task(flights.join("key", work))
    limit = await limits.get()
    loop = asyncio.get_running_loop()
    loop.call_soon(caller.cancel)
    limit.reschedule(0.0)
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert flights.count() == 0
    assert asyncio.all_tasks() == others
