"""Live fan-out: whoever reads a stream under way gets all of it as it comes, wherever it is fetched.

Two caches on one server stand for two processes. Providers are gated: they give a chunk when the test says
so, and "live" is a matter of order here, never of time.
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
from typing import TYPE_CHECKING, Any, ClassVar

import openai
import pytest
import pytest_asyncio
from devmode import DEVMODE, complaints_of
from faultproxy import FaultProxy
from servers import valkey_server
from waiting import wait_until_async

from llmcache_plugins import InferenceGateway, Outcome, ResponseCache
from llmcache_plugins.answers import PlainCodec
from llmcache_plugins.errors import (
    CacheMiss,
    CorruptEntry,
    SharedProviderError,
    StreamInterrupted,
    WaitTimeout,
)
from llmcache_plugins.providers import OpenAIProvider
from llmcache_plugins.repository.scripts import SCRIPTS
from llmcache_plugins.testing.provider_server import ProviderServer, truncated

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from servers import Cluster, Server

PATIENT = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
"""Most of these tests are about who gets what, not about time: a busy machine must not make an outage."""
QUERY = {"model": "m", "prompt": "the same for everybody"}
CHUNKS = ("a", "b", "c", "d")
FIRST, SECOND = ["1a", "1b", "1c", "1d"], ["2a", "2b", "2c", "2d"]
"""What the first and the second call of a `Narrator` say."""


class HttpError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status_code = status


class Narrator:
    """Streams its chunks, each with the number of the call; the first `gated` calls wait before each chunk.

    `give(n)` lets the first n chunks pass, `finish()` all and the end. `error` says in place of which chunk
    (counted from 0) of the first call to raise what.
    """

    def __init__(self, *chunks: Any, gated: int = 1, error: tuple[int, BaseException] | None = None) -> None:
        self.chunks = chunks or CHUNKS
        self.gated = gated
        self.error = error
        self.gates = [asyncio.Event() for _ in range(len(self.chunks) + 1)]
        self.answer_gate = asyncio.Event()
        self.streams = self.calls = self.closed = 0

    def give(self, count: int) -> None:
        for gate in self.gates[:count]:
            gate.set()

    def finish(self) -> None:
        self.give(len(self.gates))

    async def complete(self, _query: Any) -> str:
        self.calls += 1
        await self.answer_gate.wait()
        return "whole"

    async def stream(self, _query: Any) -> AsyncIterator[Any]:
        self.streams += 1
        call = self.streams
        try:
            for number in range(len(self.chunks) + 1):
                if call <= self.gated:
                    await self.gates[number].wait()
                if call == 1 and self.error is not None and self.error[0] == number:
                    raise self.error[1]
                if number < len(self.chunks):
                    chunk = self.chunks[number]
                    yield f"{call}{chunk}" if isinstance(chunk, str) else chunk
        finally:
            self.closed += 1


class Reader:
    """Reads a stream in a task; a `paced` one stops after the first chunk until it is `allowed`."""

    tasks: ClassVar[list[asyncio.Task[Any]]] = []

    def __init__(self, chunks: AsyncIterator[Any], *, paced: bool = False) -> None:
        self.chunks: list[Any] = []
        self.allowed = asyncio.Event()
        if not paced:
            self.allowed.set()
        self.task = asyncio.create_task(self._run(chunks))
        self.tasks.append(self.task)

    async def _run(self, chunks: AsyncIterator[Any]) -> list[Any]:
        async with contextlib.aclosing(chunks):  # type: ignore[type-var]
            async for chunk in chunks:
                self.chunks.append(chunk)
                await self.allowed.wait()
        return self.chunks

    async def has(self, count: int) -> list[Any]:
        await wait_until_async(
            lambda: len(self.chunks) >= count or self.task.done(), description=f"{count} chunks are read"
        )
        if self.task.done():
            self.task.result()
        assert len(self.chunks) == count
        return self.chunks

    async def end(self, timeout: float = 5.0) -> list[Any]:
        return await asyncio.wait_for(self.task, timeout)

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait((self.task,))


@pytest.fixture(autouse=True)
async def _no_reader_stays() -> AsyncIterator[None]:
    """A test that fails must not fail for its readers too."""
    yield
    for task in Reader.tasks:
        task.cancel()
    await asyncio.gather(*Reader.tasks, return_exceptions=True)
    Reader.tasks.clear()


@pytest.fixture
async def narrator() -> Narrator:
    return Narrator()


@pytest.fixture
async def caches() -> AsyncIterator[Callable[..., Awaitable[ResponseCache]]]:
    """Open caches, and close them at the end, the last first."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_cache(url: str, namespace: str, **settings: Any) -> ResponseCache:
            cache = ResponseCache.from_url(url, namespace=namespace, **{**PATIENT, **settings})
            return await stack.enter_async_context(cache)

        yield open_cache


@pytest.fixture
async def pair(
    valkey: Server, namespace: str, narrator: Narrator, caches: Callable[..., Awaitable[ResponseCache]]
) -> list[InferenceGateway]:
    """Return two gateways that stand for two processes."""
    return [InferenceGateway(narrator, await caches(valkey.url, namespace)) for _ in range(2)]


def keys_of(server: Server, namespace: str, what: str) -> list[bytes]:
    return list(server.command("KEYS", f"llm:{{{namespace}.*}}:{what}:*"))


def digests(server: Server, namespace: str, what: str) -> set[bytes]:
    return {
        key.split(b":" + what.encode() + b":")[1].split(b":")[0] for key in keys_of(server, namespace, what)
    }


def in_use(cache: ResponseCache) -> int:
    """Connections that somebody has taken out of the pool and not given back."""
    topology: Any = cache.repository._links.current().topology
    return len(topology._client.connection_pool._in_use_connections)


async def follows(cache: ResponseCache, times: int = 1) -> None:
    """Wait until so many flights of a cache have come to wait for another process."""

    async def is_so() -> bool:
        return (await cache.stats()).leases["followed"] >= times

    await wait_until_async(is_so, description="the other cache follows")


async def called(narrator: Narrator, times: int = 1) -> None:
    await wait_until_async(lambda: narrator.streams >= times, description="the provider is called")


async def nobody_listens(server: Server) -> None:
    await wait_until_async(
        lambda: not server.command("PUBSUB", "CHANNELS"), description="no subscription is left"
    )


async def gone(server: Server, namespace: str, what: str) -> None:
    await wait_until_async(lambda: not keys_of(server, namespace, what), description=f"no {what} key is left")


class TestLive:
    """Followers read while the leader does."""

    async def test_followers_have_each_chunk_before_the_next_one_is_given(
        self,
        server: Server | Cluster,
        namespace: str,
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        near, far = [InferenceGateway(narrator, await caches(server.url, namespace)) for _ in range(2)]
        readers = [Reader(near.stream(QUERY))]
        await called(narrator)
        readers += [Reader(gateway.stream(QUERY)) for gateway in (near, far)]
        for count in range(1, len(CHUNKS) + 1):
            narrator.give(count)
            for reader in readers:
                assert await reader.has(count) == FIRST[:count]
        # Whoever comes late begins with the first chunk too, while the provider still has not ended.
        late = [Reader(gateway.stream(QUERY)) for gateway in (near, far)]
        for reader in late:
            assert await reader.has(len(CHUNKS)) == FIRST
        assert not any(reader.task.done() for reader in readers + late)
        narrator.finish()
        assert [await reader.end() for reader in readers + late] == [FIRST] * 5
        assert (narrator.streams, narrator.calls) == (1, 0)
        assert [c async for c in far.stream(QUERY)] == ["1a1b1c1d"]

    async def test_a_stream_without_chunks_ends_for_all(
        self, pair: list[InferenceGateway], narrator: Narrator
    ):
        narrator.chunks = ()
        readers = [Reader(pair[0].stream(QUERY))]
        await called(narrator)
        readers += [Reader(gateway.stream(QUERY)) for gateway in pair]
        await follows(pair[1].cache)
        narrator.finish()
        assert ["".join(await reader.end()) for reader in readers] == [""] * 3
        assert narrator.streams == 1

    async def test_a_thinking_provider_is_not_taken_for_a_dead_one(
        self,
        valkey: Server,
        namespace: str,
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        near, far = [
            InferenceGateway(narrator, await caches(valkey.url, namespace, lease_ttl=0.3, poll_interval=0.05))
            for _ in range(2)
        ]
        leader = Reader(near.stream(QUERY))
        narrator.give(1)
        await leader.has(1)
        follower = Reader(far.stream(QUERY))
        await follower.has(1)
        (key,) = keys_of(valkey, namespace, "chunks")
        idle = asyncio.get_running_loop().time() + 3 * 0.3  # the one thing here that is about time
        while asyncio.get_running_loop().time() < idle:
            assert 0 < valkey.command("PTTL", key) <= 300
            await asyncio.sleep(0.02)
        narrator.finish()
        assert await follower.end() == await leader.end() == FIRST

    async def test_chunks_keys_have_a_ttl_at_every_moment_and_go(
        self,
        valkey: Server,
        namespace: str,
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        gateway = InferenceGateway(narrator, await caches(valkey.url, namespace, lease_ttl=1.5))
        leader = Reader(gateway.stream(QUERY))
        for count in range(1, len(CHUNKS) + 1):
            narrator.give(count)
            await leader.has(count)

            def published(count: int = count) -> bool:
                keys = keys_of(valkey, namespace, "chunks")
                assert all(0 < valkey.command("PTTL", key) <= 1500 for key in keys)
                return bool(keys) and valkey.command("XLEN", keys[0]) == count

            await wait_until_async(published, description="the chunk is published")
        narrator.finish()
        await leader.end()
        (key,) = keys_of(valkey, namespace, "chunks")
        assert 0 < valkey.command("PTTL", key) <= 1500
        await gone(valkey, namespace, "chunks")

    async def test_200_readers_in_4_caches_lose_nothing_and_cost_one_call(
        self,
        valkey: Server,
        namespace: str,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        narrator = Narrator(*map(str, range(30)))
        expected = [f"1{number}" for number in range(30)]
        gateways = [InferenceGateway(narrator, await caches(valkey.url, namespace)) for _ in range(4)]
        readers = [Reader(gateways[0].stream(QUERY))]
        await called(narrator)
        readers += [Reader(gateways[number % 4].stream(QUERY)) for number in range(150)]
        for given in range(5, 30, 5):
            narrator.give(given)
            await readers[0].has(given)
            readers += [Reader(gateways[number % 4].stream(QUERY)) for number in range(10)]
            await readers[-1].has(given)
        narrator.finish()
        assert len(readers) == 201
        for reader in readers:
            assert await reader.end(20) == expected
        assert narrator.streams == 1
        outcomes = sum(
            [(await gateway.cache.stats()).outcomes for gateway in gateways[1:]],
            start=(await gateways[0].cache.stats()).outcomes,
        )
        assert outcomes == {Outcome.MISS: 1, Outcome.COALESCED: 200}

    async def test_a_slow_follower_slows_nobody_and_gets_everything(
        self, pair: list[InferenceGateway], narrator: Narrator
    ):
        near, far = pair
        leader = Reader(near.stream(QUERY))
        await called(narrator)
        slow = [Reader(gateway.stream(QUERY), paced=True) for gateway in pair]
        quick = [Reader(gateway.stream(QUERY)) for gateway in pair]
        narrator.give(1)
        for reader in (*slow, *quick):
            await reader.has(1)
        narrator.finish()
        for reader in (leader, *quick):
            assert await reader.end() == FIRST
        assert [reader.chunks for reader in slow] == [FIRST[:1]] * 2
        for reader in slow:
            reader.allowed.set()
            assert await reader.end() == FIRST
        assert near.cache.in_flight() == far.cache.in_flight() == 0

    async def test_a_slow_leader_s_caller_slows_nobody(
        self, pair: list[InferenceGateway], narrator: Narrator
    ):
        leader = Reader(pair[0].stream(QUERY), paced=True)
        await called(narrator)
        others = [Reader(gateway.stream(QUERY)) for gateway in pair]
        narrator.give(1)
        for reader in others:
            await reader.has(1)
        narrator.finish()
        for reader in others:
            assert await reader.end() == FIRST
        leader.allowed.set()
        assert await leader.end() == FIRST


class TestRoundTrips:
    async def test_a_remote_follower_has_its_first_chunk_after_two_commands(
        self, pair: list[InferenceGateway], narrator: Narrator, valkey: Server
    ):
        leader = Reader(pair[0].stream(QUERY))
        narrator.give(1)
        await leader.has(1)
        await self._published(valkey)
        before = commands(valkey)
        chunks = pair[1].stream(QUERY)
        assert await anext(chunks) == FIRST[0]
        # The test's own commands and the subscription, which is not waited for, are not counted.
        after = commands(valkey)
        assert {name: after[name] - before[name] for name in ("mget", "evalsha")} == {"mget": 1, "evalsha": 1}
        await chunks.aclose()
        narrator.finish()
        await leader.end()

    async def test_local_followers_have_theirs_after_one_check_for_all_at_most(
        self, pair: list[InferenceGateway], narrator: Narrator, valkey: Server
    ):
        leader = Reader(pair[0].stream(QUERY))
        narrator.give(1)
        await leader.has(1)
        await self._published(valkey)
        before = commands(valkey)
        followers = [Reader(pair[0].stream(QUERY)) for _ in range(20)]
        for reader in followers:
            await reader.has(1)
        after = commands(valkey)
        assert (after["mget"] - before["mget"], after["evalsha"] - before["evalsha"]) == (0, 1)
        narrator.finish()
        for reader in (leader, *followers):
            assert await reader.end() == FIRST

    async def _published(self, valkey: Server) -> None:
        await wait_until_async(
            lambda: commands(valkey).get("xadd") == 1, description="the first chunk is published"
        )

    @pytest.fixture(autouse=True)
    def _from_zero(self, valkey: Server) -> None:
        valkey.command("CONFIG", "RESETSTAT")


def commands(server: Server) -> dict[str, int]:
    stats = server.command("INFO", "commandstats")
    return {name.removeprefix("cmdstat_"): said["calls"] for name, said in stats.items()}


class TestLeaving:
    async def test_the_stream_goes_on_for_those_in_this_process_and_elsewhere(
        self, pair: list[InferenceGateway], narrator: Narrator
    ):
        leader = Reader(pair[0].stream(QUERY))
        await called(narrator)
        others = [Reader(gateway.stream(QUERY)) for gateway in pair]
        await follows(pair[1].cache)
        narrator.give(1)
        for reader in (leader, *others):
            await reader.has(1)
        await leader.leave()
        narrator.finish()
        assert [await reader.end() for reader in others] == [FIRST] * 2
        assert (narrator.streams, narrator.closed) == (1, 1)
        assert await pair[0].resolve(QUERY) == "".join(FIRST)

    async def test_when_nobody_is_left_the_provider_s_stream_is_closed_and_nothing_stays(
        self, pair: list[InferenceGateway], narrator: Narrator, valkey: Server, namespace: str
    ):
        readers = [Reader(pair[0].stream(QUERY)) for _ in range(3)]
        narrator.give(1)
        for reader in readers:
            await reader.has(1)
        await wait_until_async(lambda: keys_of(valkey, namespace, "chunks"), description="a chunk is there")
        for reader in readers:
            await reader.leave()
        assert narrator.closed == 1
        for what in ("lease", "chunks", "resp", "error"):
            assert not keys_of(valkey, namespace, what)

    async def test_a_remote_follower_that_was_given_chunks_is_told_at_once(
        self, pair: list[InferenceGateway], narrator: Narrator, valkey: Server, namespace: str
    ):
        leader = Reader(pair[0].stream(QUERY))
        narrator.give(2)
        await leader.has(2)
        follower = Reader(pair[1].stream(QUERY))
        await follower.has(2)
        await leader.leave()
        with pytest.raises(StreamInterrupted):
            await follower.end(3)  # far less than a lease
        assert follower.chunks == FIRST[:2]
        assert not keys_of(valkey, namespace, "resp")

    async def test_remote_followers_that_were_given_none_get_a_whole_new_stream(
        self, pair: list[InferenceGateway], narrator: Narrator
    ):
        leader = Reader(pair[0].stream(QUERY))
        await called(narrator)
        followers = [Reader(pair[1].stream(QUERY)) for _ in range(3)]
        await follows(pair[1].cache)
        await leader.leave()
        assert [await reader.end(3) for reader in followers] == [SECOND] * 3
        assert narrator.streams == 2

    async def test_a_reader_that_drops_its_stream_unclosed_has_left_too(
        self, pair: list[InferenceGateway], narrator: Narrator, valkey: Server, namespace: str
    ):
        async def first_chunk() -> Any:
            async for chunk in pair[0].stream(QUERY):
                return chunk
            return None

        narrator.give(1)
        assert await first_chunk() == FIRST[0]
        gc.collect()
        await wait_until_async(lambda: narrator.closed, description="the provider's stream is closed")
        await gone(valkey, namespace, "lease")
        await gone(valkey, namespace, "chunks")

    async def test_with_finish_it_goes_on_to_its_end_and_is_stored(
        self,
        valkey: Server,
        namespace: str,
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        near, far = [
            InferenceGateway(narrator, await caches(valkey.url, namespace, on_abandon="finish"))
            for _ in range(2)
        ]
        leader = Reader(near.stream(QUERY))
        narrator.give(1)
        await leader.has(1)
        follower = Reader(far.stream(QUERY))
        await follower.has(1)
        await leader.leave()
        assert narrator.closed == 0
        joined = Reader(near.stream(QUERY))
        await joined.has(1)
        narrator.finish()
        assert await follower.end() == await joined.end() == FIRST
        assert await near.resolve(QUERY) == "".join(FIRST)
        assert (narrator.streams, narrator.calls) == (1, 0)

    async def test_who_leaves_after_the_provider_s_end_keeps_nobody_from_it(
        self,
        valkey: Server,
        namespace: str,
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        async with FaultProxy(valkey.tcp_url) as proxy:
            near = InferenceGateway(narrator, await caches(proxy.url, namespace))
            far = InferenceGateway(narrator, await caches(valkey.url, namespace, poll_interval=0.05))
            leader = Reader(near.stream(QUERY))
            narrator.give(1)
            await leader.has(1)
            follower = Reader(far.stream(QUERY))
            await follower.has(1)
            proxy.delay = 0.05  # what is sent now is under way when the caller leaves
            narrator.give(len(CHUNKS))
            await leader.has(len(CHUNKS))
            await asyncio.sleep(0.06)  # longer than a batch is collected
            narrator.finish()
            await wait_until_async(lambda: narrator.closed, description="the provider has ended")
            await leader.leave()
            assert await follower.end(3) == FIRST
            await near.aclose()
        assert await far.resolve(QUERY) == "".join(FIRST)

    async def test_a_follower_that_leaves_takes_its_subscription_along(
        self, pair: list[InferenceGateway], narrator: Narrator, valkey: Server
    ):
        leader = Reader(pair[0].stream(QUERY))
        narrator.give(1)
        await leader.has(1)
        follower = Reader(pair[1].stream(QUERY))
        await follower.has(1)
        await wait_until_async(lambda: valkey.command("PUBSUB", "CHANNELS"), description="it listens")
        await follower.leave()
        await nobody_listens(valkey)
        narrator.finish()
        assert await leader.end() == FIRST

    async def test_closing_either_cache_ends_no_stream(
        self, pair: list[InferenceGateway], narrator: Narrator
    ):
        leader = Reader(pair[0].stream(QUERY))
        narrator.give(1)
        await leader.has(1)
        follower = Reader(pair[1].stream(QUERY))
        await follower.has(1)
        for gateway in pair:
            await gateway.aclose()
        narrator.give(2)
        await leader.has(2)
        await follower.has(2)
        narrator.finish()
        assert await leader.end() == await follower.end() == FIRST
        for gateway in pair:
            await gateway.aclose()


class TestCancellation:
    """At each turn of the loop, so that it meets every await."""

    @pytest.mark.parametrize("gated", [0, 1])
    async def test_a_leader_leaves_nothing_behind(
        self, valkey: Server, namespace: str, gated: int, caches: Callable[..., Awaitable[ResponseCache]]
    ):
        cache = await caches(valkey.url, namespace)
        was_cancelled = True
        for turns in range(400):
            narrator = Narrator(gated=gated)
            narrator.give(2)
            gateway = InferenceGateway(narrator, cache)
            task = asyncio.ensure_future(_read(gateway.stream({"q": turns})))
            for _ in range(turns):
                await asyncio.sleep(0)
            was_cancelled = task.cancel()
            await asyncio.wait((task,))
            assert narrator.closed == narrator.streams
            await self._nothing_is_left(cache)
            await gone(valkey, namespace, "lease")
            # What the provider had ended is kept.
            assert digests(valkey, namespace, "chunks") <= digests(valkey, namespace, "resp")
            if not was_cancelled or (gated and turns > 80):
                break
        assert was_cancelled == bool(gated)
        await nobody_listens(valkey)

    async def test_a_follower_leaves_nothing_behind_and_disturbs_nobody(
        self, pair: list[InferenceGateway], narrator: Narrator, valkey: Server, namespace: str
    ):
        leader = Reader(pair[0].stream(QUERY))
        narrator.give(2)
        await leader.has(2)
        await wait_until_async(lambda: keys_of(valkey, namespace, "chunks"), description="a chunk is there")
        (lease,) = keys_of(valkey, namespace, "lease")
        held = valkey.command("GET", lease)
        for turns in range(60):
            task = asyncio.ensure_future(_read(pair[1].stream(QUERY)))
            for _ in range(turns):
                await asyncio.sleep(0)
            assert task.cancel()
            await asyncio.wait((task,))
            await self._nothing_is_left(pair[1].cache, but=pair[0].cache)
            assert valkey.command("GET", lease) == held
        await nobody_listens(valkey)
        narrator.finish()
        assert await leader.end() == FIRST
        assert narrator.streams == 1

    async def _nothing_is_left(self, cache: ResponseCache, *, but: ResponseCache | None = None) -> None:
        def tasks() -> list[asyncio.Task[Any]]:
            return list(filter(_is_of_the_cache, asyncio.all_tasks()))

        # The leader's: its flight, its heartbeat and its publisher.
        await wait_until_async(
            lambda: len(tasks()) <= (3 if but else 0), description="no task of the cache is left", timeout=3
        )
        await wait_until_async(lambda: in_use(cache) == 0, description="no connection is in use", timeout=3)
        assert cache.in_flight() == 0
        assert cache.repository._links.current().wakes.channels == 0


async def _read(chunks: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in chunks]


def _is_of_the_cache(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and "llmcache_plugins" in code.co_filename


LEADS = """
import asyncio, json, sys
from llmcache_plugins import InferenceGateway, ResponseCache

class Provider:
    async def complete(self, query):
        raise NotImplementedError

    async def stream(self, query):
        for number in range(int(sys.argv[2])):
            yield f"1{number}"
        print("given", flush=True)
        await asyncio.Event().wait()

async def main():
    async with ResponseCache.from_url(sys.argv[1], **json.loads(sys.argv[3])) as cache:
        async for _ in InferenceGateway(Provider(), cache).stream(json.loads(sys.argv[4])):
            pass

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def leading_process(url: str, *, chunks: int, **settings: Any) -> AsyncGenerator[Any, None]:
    """Run a process whose provider gives some chunks and then nothing, for ever."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(LEADS),
        *(url, str(chunks), json.dumps({**PATIENT, **settings}), json.dumps(QUERY)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"given\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


ENDS = """
import asyncio, json, sys
from llmcache_plugins import InferenceGateway, ResponseCache

class Provider:
    async def complete(self, query):
        raise NotImplementedError

    async def stream(self, query):
        yield "1"
        await asyncio.Event().wait()

near, far = [ResponseCache.from_url(sys.argv[1], **json.loads(sys.argv[2])) for _ in range(2)]

async def read(cache, begun):
    async for _ in InferenceGateway(Provider(), cache).stream("q"):
        begun.set()

async def leaves_in_mid_stream(turns):
    for cache in (near, near, far):
        begun = asyncio.Event()
        near.left = asyncio.create_task(read(cache, begun))
        await begun.wait()
    for _ in range(turns):
        await asyncio.sleep(0)

async def leaves_at_once(turns):
    near.left = [asyncio.create_task(read(cache, asyncio.Event())) for cache in (near, near, far)]
    for _ in range(turns):
        await asyncio.sleep(0)

for turns in range(12):
    asyncio.run(leaves_in_mid_stream(turns))
for turns in range(30):
    asyncio.run(leaves_at_once(turns))
"""


async def test_a_program_that_ends_in_mid_stream_ends_without_a_warning(valkey: Server, namespace: str):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *DEVMODE, "-c", ENDS),
        *(valkey.url, json.dumps({**PATIENT, "namespace": namespace})),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    try:
        _, err = await asyncio.wait_for(process.communicate(), 30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert (complaints_of(err.decode()), process.returncode) == ([], 0)
    assert not keys_of(valkey, namespace, "lease")


class TestDeath:
    """The leader's process is killed."""

    lease = 0.5

    async def test_who_was_given_chunks_is_interrupted_within_a_lease(
        self,
        valkey: Server,
        namespace: str,
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        settings = {"namespace": namespace, "lease_ttl": self.lease, "poll_interval": 0.05}
        far = InferenceGateway(narrator, await caches(valkey.url, **settings))
        async with leading_process(valkey.url, chunks=2, **settings) as process:
            follower = Reader(far.stream(QUERY))
            await follower.has(2)
            process.kill()
            killed_at = asyncio.get_running_loop().time()
            with pytest.raises(StreamInterrupted):
                await follower.end()
            assert asyncio.get_running_loop().time() - killed_at < self.lease + 0.5
        assert follower.chunks == ["10", "11"]
        assert not keys_of(valkey, namespace, "resp")
        assert narrator.streams == 0

    async def test_who_was_given_none_is_served_by_a_new_call(
        self,
        valkey: Server,
        namespace: str,
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        settings = {"namespace": namespace, "lease_ttl": self.lease, "poll_interval": 0.05}
        cache = await caches(valkey.url, **settings)
        narrator.finish()
        async with leading_process(valkey.url, chunks=0, **settings) as process:
            followers = [Reader(InferenceGateway(narrator, cache).stream(QUERY)) for _ in range(5)]
            await follows(cache)
            assert narrator.streams == 0
            process.kill()
            assert [await reader.end() for reader in followers] == [FIRST] * 5
        assert narrator.streams == 1
        assert await InferenceGateway(narrator, cache).resolve(QUERY) == "".join(FIRST)


class TestBreakingOff:
    """The provider's stream breaks off."""

    async def test_local_readers_get_the_error_itself_and_remote_ones_are_interrupted(
        self, pair: list[InferenceGateway], narrator: Narrator, valkey: Server, namespace: str
    ):
        narrator.error = (2, HttpError(503))
        local = [Reader(pair[0].stream(QUERY)) for _ in range(3)]
        await called(narrator)
        remote = [Reader(pair[1].stream(QUERY)) for _ in range(3)]
        narrator.give(2)
        for reader in (*local, *remote):
            await reader.has(2)
        narrator.give(3)
        for reader in local:
            with pytest.raises(HttpError) as caught:
                await reader.end()
            assert caught.value is narrator.error[1]
        for reader in remote:
            with pytest.raises(StreamInterrupted):
                await reader.end(3)
            assert reader.chunks == FIRST[:2]
        for what in ("resp", "lease", "chunks"):
            assert not keys_of(valkey, namespace, what)

    async def test_a_server_error_before_the_first_chunk_elects_one_new_leader(
        self, pair: list[InferenceGateway], narrator: Narrator
    ):
        narrator.error = (0, HttpError(503))
        leader = Reader(pair[0].stream(QUERY))
        await called(narrator)
        remote = [Reader(pair[1].stream(QUERY)) for _ in range(5)]
        await follows(pair[1].cache)
        narrator.give(1)
        with pytest.raises(HttpError):
            await leader.end()
        assert [await reader.end() for reader in remote] == [SECOND] * 5
        assert narrator.streams == 2

    async def test_a_rate_limit_before_the_first_chunk_is_shared(
        self, pair: list[InferenceGateway], narrator: Narrator
    ):
        narrator.error = (0, HttpError(429))
        leader = Reader(pair[0].stream(QUERY))
        await called(narrator)
        remote = [Reader(pair[1].stream(QUERY)) for _ in range(5)]
        await follows(pair[1].cache)
        narrator.give(1)
        with pytest.raises(HttpError):
            await leader.end()
        for reader in remote:
            with pytest.raises(SharedProviderError) as caught:
                await reader.end()
            assert caught.value.status == 429
        assert narrator.streams == 1

    async def test_who_reads_only_gets_a_miss_for_it(self, pair: list[InferenceGateway], narrator: Narrator):
        narrator.error = (0, HttpError(429))
        leader = Reader(pair[0].stream(QUERY))
        await called(narrator)
        only_read = [Reader(gateway.stream(QUERY, mode="read_only")) for gateway in pair]
        await follows(pair[1].cache)
        narrator.give(1)
        for reader in only_read:
            with pytest.raises(CacheMiss):
                await reader.end()
        with pytest.raises(HttpError):
            await leader.end()

    async def test_credentials_are_not_for_the_others_in_this_process(
        self, pair: list[InferenceGateway], narrator: Narrator
    ):
        narrator.error = (0, HttpError(401))
        leader = Reader(pair[0].stream(QUERY))
        await called(narrator)
        others = [Reader(gateway.stream(QUERY)) for gateway in pair]
        await follows(pair[1].cache)
        narrator.give(1)
        with pytest.raises(HttpError):
            await leader.end()
        for reader in others:
            assert "".join(await reader.end()).replace("3", "2") == "".join(SECOND)

    async def test_a_cancellation_inside_the_provider_is_not_shared(
        self, pair: list[InferenceGateway], narrator: Narrator
    ):
        narrator.error = (0, asyncio.CancelledError())
        leader = Reader(pair[0].stream(QUERY))
        await called(narrator)
        others = [Reader(gateway.stream(QUERY)) for gateway in pair]
        await follows(pair[1].cache)
        narrator.give(1)
        with pytest.raises(asyncio.CancelledError):
            await leader.end()
        assert ["".join(await reader.end()) for reader in others] == ["".join(SECOND)] * 2
        assert narrator.streams == 2

    async def test_chunks_that_cannot_travel_reach_those_in_this_process_only(
        self, valkey: Server, namespace: str, caches: Callable[..., Awaitable[ResponseCache]]
    ):
        chunk = object()
        narrator = Narrator(chunk, "b")
        near, far = [InferenceGateway(narrator, await caches(valkey.url, namespace)) for _ in range(2)]
        local = [Reader(near.stream(QUERY)) for _ in range(2)]
        await called(narrator)
        remote = Reader(far.stream(QUERY))
        await follows(far.cache)
        narrator.give(1)
        assert await local[0].has(1) == await local[1].has(1) == [chunk]
        narrator.finish()
        assert [await reader.end() for reader in local] == [[chunk, "1b"]] * 2
        assert await remote.end() == [chunk, "2b"]
        assert not keys_of(valkey, namespace, "resp")


class Garbled(PlainCodec):
    """Writes chunks that it cannot read: another version's, for one."""

    error: Exception = CorruptEntry("another version's")

    def unpack_chunk(self, data: bytes, *, query: Any) -> list[Any]:
        raise self.error


@pytest.mark.parametrize("error", [CorruptEntry("of another version"), ValueError("a codec of the user's")])
async def test_chunks_that_cannot_be_read_cost_nobody_the_answer(
    pair: list[InferenceGateway], narrator: Narrator, error: Exception
):
    narrator.codec = Garbled()  # type: ignore[attr-defined]
    narrator.codec.error = error  # type: ignore[attr-defined]
    near, far = [InferenceGateway(narrator, gateway.cache) for gateway in pair]
    leader = Reader(near.stream(QUERY))
    narrator.give(1)
    await leader.has(1)
    local, remote = Reader(near.stream(QUERY)), Reader(far.stream(QUERY))
    assert await local.has(1) == FIRST[:1]
    assert await remote.end() == SECOND
    narrator.finish()
    assert await leader.end() == await local.end() == FIRST


class TestFaults:
    """Messages, replies and servers get lost."""

    @pytest.fixture
    def deaf_url(self, valkey: Server) -> AsyncIterator[str]:
        valkey.command("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "+@all", "resetchannels")
        yield valkey.tcp_url.replace("redis://", "redis://deaf:pw@")
        valkey.command("ACL", "DELUSER", "deaf")

    async def test_without_messages_a_follower_gets_everything_all_the_same(
        self,
        valkey: Server,
        namespace: str,
        narrator: Narrator,
        deaf_url: str,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        leader = Reader(InferenceGateway(narrator, await caches(valkey.url, namespace)).stream(QUERY))
        await called(narrator)
        deaf = await caches(deaf_url, namespace, poll_interval=0.02)
        follower = Reader(InferenceGateway(narrator, deaf).stream(QUERY))
        await follows(deaf)
        for count in range(1, len(CHUNKS) + 1):
            narrator.give(count)
            assert await follower.has(count) == FIRST[:count]
        narrator.finish()
        assert await follower.end() == await leader.end() == FIRST
        assert narrator.streams == 1
        assert not valkey.command("PUBSUB", "CHANNELS")

    async def test_a_repeated_publish_duplicates_nothing(
        self,
        valkey: Server,
        namespace: str,
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        far = InferenceGateway(narrator, await caches(valkey.url, namespace, poll_interval=0.02))
        async with FaultProxy(valkey.tcp_url) as proxy:
            cache = await caches(
                proxy.url, namespace, socket_timeout=0.1, connect_timeout=0.1, stream_batch=0.01
            )
            leader = Reader(InferenceGateway(narrator, cache).stream(QUERY))
            await called(narrator)
            follower = Reader(far.stream(QUERY))
            for count in range(1, len(CHUNKS) + 1):
                proxy.drop_reply(SCRIPTS["publish"].sha.encode())
                dropped = proxy.dropped
                narrator.give(count)
                assert await follower.has(count) == FIRST[:count]
                assert proxy.dropped > dropped
                proxy.drop_reply(lambda _request: False)
            narrator.finish()
            assert await leader.end() == await follower.end() == FIRST
            await cache.aclose()
        assert narrator.streams == 1

    async def test_what_was_trimmed_interrupts_only_who_has_fallen_behind(
        self,
        valkey: Server,
        namespace: str,
        narrator: Narrator,
        deaf_url: str,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        small = {"max_stream_bytes": 1, "stream_batch": 0.001}
        leader_s, follower_s, late_s = [
            await caches(valkey.url, namespace, poll_interval=5.0, **small) for _ in range(3)
        ]
        leader = Reader(InferenceGateway(narrator, leader_s).stream(QUERY))
        await called(narrator)
        keeps_up = Reader(InferenceGateway(narrator, follower_s).stream(QUERY))
        narrator.give(1)
        await keeps_up.has(1)
        # Looks again only when it is too late.
        deaf = await caches(deaf_url, namespace, poll_interval=0.5)
        valkey.command("CONFIG", "RESETSTAT")
        behind = Reader(InferenceGateway(narrator, deaf).stream(QUERY))
        await wait_until_async(
            lambda: commands(valkey).get("xrange", 0) >= 2, description="it has looked for more, and waits"
        )
        for count in (2, 3):
            narrator.give(count)
            await keeps_up.has(count)
        late = Reader(InferenceGateway(narrator, late_s).stream(QUERY))
        await follows(late_s)
        with pytest.raises(StreamInterrupted):
            await behind.end()
        assert behind.chunks == FIRST[:1]
        assert not late.chunks
        narrator.finish()
        assert await leader.end() == await keeps_up.end() == FIRST
        assert await late.end() == ["".join(FIRST)]
        assert narrator.streams == 1

    async def test_a_server_that_dies_takes_nothing_from_the_leader_s_callers(
        self, tmp_path: Path, namespace: str, caches: Callable[..., Awaitable[ResponseCache]]
    ):
        narrator = Narrator(gated=1)
        quick = {"lease_ttl": 0.6, "poll_interval": 0.05, "lookup_budget": 0.5, "socket_timeout": 0.25}
        quick["commit_budget"] = 0.5  # closing tries for so long to store what a dead server will not take
        with valkey_server(tmp_path) as server:
            near, far, late = [
                InferenceGateway(narrator, await caches(server.url, namespace, **quick)) for _ in range(3)
            ]
            local = [Reader(near.stream(QUERY)) for _ in range(2)]
            narrator.give(1)
            await local[0].has(1)
            given = Reader(far.stream(QUERY))
            for reader in (*local, given):
                await reader.has(1)
            server.kill()
            narrator.give(3)
            for reader in local:
                assert await reader.has(3) == FIRST[:3]
            assert await Reader(late.stream(QUERY)).end() == SECOND
            # In this process it is still known, but no more whether it is valid: newcomers share another one.
            joined = [Reader(near.stream(QUERY)) for _ in range(2)]
            assert await joined[0].end() == await joined[1].end() != FIRST
            with pytest.raises(StreamInterrupted):
                await given.end(0.6 + 1.0)
            narrator.finish()
            for reader in local:
                assert await reader.end() == FIRST
            assert narrator.streams == 3

    async def test_a_server_that_starts_anew_interrupts_those_elsewhere_only(
        self, tmp_path: Path, namespace: str, caches: Callable[..., Awaitable[ResponseCache]]
    ):
        narrator = Narrator(gated=1)
        with valkey_server(tmp_path) as server:
            near, far = [
                InferenceGateway(narrator, await caches(server.url, namespace, poll_interval=0.05))
                for _ in range(2)
            ]
            leader = Reader(near.stream(QUERY))
            narrator.give(1)
            await leader.has(1)
            follower = Reader(far.stream(QUERY))
            await follower.has(1)
            server.restart()
            narrator.give(2)
            assert await leader.has(2) == FIRST[:2]
            with pytest.raises(StreamInterrupted):
                await follower.end(3)
            # What it has forgotten may have been invalidated.
            assert await Reader(near.stream(QUERY)).end() == SECOND
            narrator.finish()
            assert await leader.end() == FIRST
            assert await far.resolve(QUERY) == "".join(SECOND)
            assert narrator.streams == 2

    async def test_an_end_that_could_not_be_sent_at_once_is_sent_again(
        self,
        valkey: Server,
        namespace: str,
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        far = InferenceGateway(narrator, await caches(valkey.url, namespace, poll_interval=0.05))
        async with FaultProxy(valkey.tcp_url) as proxy:
            near = InferenceGateway(narrator, await caches(proxy.url, namespace))
            leader = Reader(near.stream(QUERY))
            narrator.give(len(CHUNKS))
            await leader.has(len(CHUNKS))
            follower = Reader(far.stream(QUERY))
            await follower.has(len(CHUNKS))
            await proxy.refuse()
            narrator.finish()
            await wait_until_async(lambda: narrator.closed, description="the provider has ended")
            assert await leader.end() == FIRST
            await proxy.restore()
            assert await follower.end(4) == FIRST
            await near.aclose()

    async def test_a_follower_that_was_given_nothing_when_the_server_dies_calls_itself(
        self, tmp_path: Path, namespace: str, caches: Callable[..., Awaitable[ResponseCache]]
    ):
        narrator = Narrator(gated=1)
        quick = {"poll_interval": 0.05, "lookup_budget": 0.5, "socket_timeout": 0.25}
        quick["commit_budget"] = 0.5  # closing tries for so long to store what a dead server will not take
        with valkey_server(tmp_path) as server:
            near, far = [
                InferenceGateway(narrator, await caches(server.url, namespace, **quick)) for _ in range(2)
            ]
            leader = Reader(near.stream(QUERY))
            await called(narrator)
            followers = [Reader(far.stream(QUERY)) for _ in range(3)]
            await follows(far.cache)
            server.kill()
            assert [await reader.end(2) for reader in followers] == [SECOND] * 3
            narrator.finish()
            assert await leader.end() == FIRST
            assert narrator.streams == 2

    async def test_a_server_that_hangs_for_a_moment_loses_no_chunk(
        self,
        valkey: Server,
        namespace: str,
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        usual = {"lookup_budget": 0.05, "socket_timeout": 0.25, "commit_budget": 0.5}
        near, far = [
            InferenceGateway(narrator, await caches(valkey.url, namespace, **usual)) for _ in range(2)
        ]
        leader = Reader(near.stream(QUERY))
        narrator.give(1)
        await leader.has(1)
        await wait_until_async(lambda: keys_of(valkey, namespace, "chunks"), description="it is published")
        follower = Reader(far.stream(QUERY))
        await follower.has(1)
        valkey.pause()
        try:
            narrator.give(3)
            assert await leader.has(3) == FIRST[:3]
            await asyncio.sleep(0.3)  # how long the server hangs
        finally:
            valkey.resume()
        assert await follower.has(3) == FIRST[:3]
        narrator.finish()
        assert await leader.end() == await follower.end() == FIRST
        assert narrator.streams == 1

    async def test_a_newcomer_in_the_leader_s_process_waits_for_a_hung_server_no_longer_than_its_budget(
        self,
        valkey: Server,
        namespace: str,
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        gateway = InferenceGateway(narrator, await caches(valkey.url, namespace, lookup_budget=0.05))
        leader = Reader(gateway.stream(QUERY))
        narrator.give(1)
        await leader.has(1)
        valkey.pause()
        try:
            began = asyncio.get_running_loop().time()
            # Whether the stream was invalidated cannot be told: it gets a call of its own.
            newcomer = Reader(gateway.stream(QUERY))
            assert await newcomer.end() == SECOND
            assert asyncio.get_running_loop().time() - began < 4.0  # the socket's timeout is 5
        finally:
            valkey.resume()
        narrator.finish()
        assert await leader.end() == FIRST

    async def test_a_provider_that_hangs_holds_its_followers_no_longer_than_a_leader_may_lead(
        self,
        valkey: Server,
        namespace: str,
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        settings = {"lease_ttl": 0.3, "max_lead": 0.3, "poll_interval": 0.05}
        near, far = [
            InferenceGateway(narrator, await caches(valkey.url, namespace, **settings)) for _ in range(2)
        ]
        leader = Reader(near.stream(QUERY))
        narrator.give(1)
        await leader.has(1)
        follower = Reader(far.stream(QUERY))
        await follower.has(1)
        with pytest.raises(StreamInterrupted):
            await follower.end(3)
        # Whoever leads waits for its provider as long as it likes.
        narrator.finish()
        assert await leader.end() == FIRST


class TestInvalidation:
    """After an invalidation was acknowledged, nobody who comes is given an older chunk."""

    async def test_newcomers_anywhere_get_a_new_call_s_and_who_reads_already_goes_on(
        self,
        valkey: Server,
        namespace: str,
        pair: list[InferenceGateway],
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        near, far = pair
        readers = [Reader(near.stream(QUERY)), Reader(near.stream(QUERY))]
        await called(narrator)
        readers.append(Reader(far.stream(QUERY)))
        narrator.give(2)
        for reader in readers:
            await reader.has(2)
        elsewhere = await caches(valkey.url, namespace)
        await elsewhere.delete(near.key_of(QUERY))
        newcomers = [Reader(gateway.stream(QUERY)) for gateway in (near, far) for _ in range(5)]
        for reader in newcomers:
            assert await reader.end() == SECOND or reader.chunks == ["".join(SECOND)]
        # All of them together cost one call.
        assert narrator.streams == 2
        narrator.finish()
        assert [await reader.end() for reader in readers] == [FIRST] * 3
        assert await near.resolve(QUERY) == "".join(SECOND)

    async def test_by_the_leader_s_own_process(self, pair: list[InferenceGateway], narrator: Narrator):
        leader = Reader(pair[0].stream(QUERY))
        narrator.give(1)
        await leader.has(1)
        await pair[0].invalidate(QUERY)
        assert await Reader(pair[0].stream(QUERY)).end() == SECOND
        narrator.finish()
        assert await leader.end() == FIRST
        assert await pair[1].resolve(QUERY) == "".join(SECOND)

    async def test_who_waits_for_the_first_chunk_when_it_comes_starts_anew_too(
        self,
        valkey: Server,
        namespace: str,
        pair: list[InferenceGateway],
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        leader = Reader(pair[0].stream(QUERY))
        await called(narrator)
        elsewhere = await caches(valkey.url, namespace)
        await elsewhere.delete(pair[0].key_of(QUERY))
        newcomer = Reader(pair[0].stream(QUERY))
        narrator.finish()
        assert await leader.end() == FIRST
        assert (await newcomer.end())[0].startswith("2")

    async def test_an_old_stream_without_chunks_is_not_for_newcomers_either(
        self,
        valkey: Server,
        namespace: str,
        pair: list[InferenceGateway],
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        narrator.chunks = ()
        leader = Reader(pair[0].stream(QUERY))
        await called(narrator)
        elsewhere = await caches(valkey.url, namespace)
        await elsewhere.delete(pair[0].key_of(QUERY))
        newcomer = Reader(pair[0].stream(QUERY))
        await asyncio.sleep(0)  # it boards the flight of the leader
        narrator.finish()
        assert await leader.end() == await newcomer.end() == []
        assert narrator.streams == 2

    async def test_a_stream_begun_without_the_server_is_not_exempt(
        self,
        valkey: Server,
        namespace: str,
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        gateway = InferenceGateway(narrator, await caches(valkey.url, namespace, lookup_budget=0.5))
        elsewhere = await caches(valkey.url, namespace)
        valkey.pause()
        leader = Reader(gateway.stream(QUERY))
        narrator.give(1)
        await leader.has(1)
        together = Reader(gateway.stream(QUERY))
        assert await together.has(1) == FIRST[:1]
        valkey.resume()
        await elsewhere.delete(gateway.key_of(QUERY))
        newcomer = Reader(gateway.stream(QUERY))
        # It may find the lease that the first one has got meanwhile, and wait for that.
        narrator.give(2)
        await leader.has(2)
        narrator.finish()
        assert "".join(await newcomer.end()) == "".join(SECOND)
        assert await leader.end() == await together.end() == FIRST

    async def test_clearing_the_namespace_counts_too(
        self,
        server: Server | Cluster,
        namespace: str,
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        near, far, elsewhere = [
            InferenceGateway(narrator, await caches(server.url, namespace)) for _ in range(3)
        ]
        readers = [Reader(near.stream(QUERY))]
        await called(narrator)
        readers.append(Reader(far.stream(QUERY)))
        narrator.give(1)
        for reader in readers:
            await reader.has(1)
        await elsewhere.cache.clear()
        for gateway in (near, far):
            assert "".join(await Reader(gateway.stream(QUERY)).end()) == "".join(SECOND)
        narrator.finish()
        await readers[0].end()
        assert await far.resolve(QUERY) == "".join(SECOND)
        with contextlib.suppress(StreamInterrupted):  # the sweep takes chunks too
            await readers[1].end()


class TestModes:
    async def test_who_reads_only_follows_and_never_calls(
        self, pair: list[InferenceGateway], narrator: Narrator
    ):
        for gateway in pair:
            with pytest.raises(CacheMiss):
                await Reader(gateway.stream(QUERY, mode="read_only")).end()
        assert narrator.streams == 0
        leader = Reader(pair[0].stream(QUERY))
        narrator.give(1)
        await leader.has(1)
        only_read = [Reader(gateway.stream(QUERY, mode="read_only")) for gateway in pair]
        for reader in only_read:
            assert await reader.has(1) == FIRST[:1]
        narrator.finish()
        for reader in (leader, *only_read):
            assert await reader.end() == FIRST
        assert narrator.streams == 1

    async def test_nobody_follows_one_that_reads_only(self, pair: list[InferenceGateway], narrator: Narrator):
        narrator.finish()
        only_read = Reader(pair[0].stream(QUERY, mode="read_only"))
        leader = Reader(pair[0].stream(QUERY))
        assert await leader.end() == FIRST
        with contextlib.suppress(CacheMiss):
            assert await only_read.end() == FIRST

    async def test_a_refresh_never_joins_and_replaces(self, pair: list[InferenceGateway], narrator: Narrator):
        leader = Reader(pair[0].stream(QUERY))
        narrator.give(1)
        await leader.has(1)
        for gateway in pair:
            assert (await Reader(gateway.stream(QUERY, mode="refresh")).end())[0][0] == str(narrator.streams)
        assert narrator.streams == 3
        assert await pair[0].resolve(QUERY, mode="read_only") == "3a3b3c3d"
        narrator.finish()
        assert await leader.end() == FIRST
        assert await pair[0].resolve(QUERY) == "3a3b3c3d"

    async def test_off_touches_nothing(
        self, pair: list[InferenceGateway], narrator: Narrator, valkey: Server, namespace: str
    ):
        narrator.finish()
        await pair[0].cache.stats()
        valkey.command("CONFIG", "RESETSTAT")
        assert await Reader(pair[0].stream(QUERY, mode="off")).end() == FIRST
        assert not {"mget", "evalsha"} & commands(valkey).keys()
        assert not keys_of(valkey, namespace, "*")

    async def test_ttl_0_neither_leads_nor_joins(
        self, pair: list[InferenceGateway], narrator: Narrator, valkey: Server, namespace: str
    ):
        unshared = Reader(pair[0].stream(QUERY, ttl=0))
        narrator.give(1)
        await unshared.has(1)
        assert not keys_of(valkey, namespace, "*")
        leader = Reader(pair[0].stream(QUERY))
        assert await leader.end() == SECOND
        assert narrator.streams == 2
        assert await Reader(pair[0].stream(QUERY, ttl=0)).end() == ["".join(SECOND)]
        narrator.finish()
        assert await unshared.end() == FIRST

    async def test_ttl_0_does_not_join_a_stream_under_way(
        self, pair: list[InferenceGateway], narrator: Narrator
    ):
        leader = Reader(pair[0].stream(QUERY))
        narrator.give(1)
        await leader.has(1)
        assert await Reader(pair[0].stream(QUERY, ttl=0)).end() == SECOND
        narrator.finish()
        assert await leader.end() == FIRST

    @pytest.mark.parametrize("mode", ["default", "read_only"])
    async def test_nobody_waits_longer_than_it_was_told_to(
        self,
        valkey: Server,
        namespace: str,
        narrator: Narrator,
        mode: str,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        settings = {"wait_timeout": 0.1, "on_wait_timeout": "raise"}
        near, far = [
            InferenceGateway(narrator, await caches(valkey.url, namespace, **settings)) for _ in range(2)
        ]
        leader = Reader(near.stream(QUERY))
        await called(narrator)
        for gateway in (near, far):
            with pytest.raises(WaitTimeout):
                await Reader(gateway.stream(QUERY, mode=mode)).end(3)
        narrator.finish()
        assert await leader.end() == FIRST

    async def test_with_call_who_waited_long_enough_calls_once_per_process(
        self,
        valkey: Server,
        namespace: str,
        narrator: Narrator,
        caches: Callable[..., Awaitable[ResponseCache]],
    ):
        near, far = [
            InferenceGateway(narrator, await caches(valkey.url, namespace, wait_timeout=0.1))
            for _ in range(2)
        ]
        leader = Reader(near.stream(QUERY))
        await called(narrator)
        followers = [Reader(far.stream(QUERY)) for _ in range(3)]
        assert [await reader.end() for reader in followers] == [SECOND] * 3
        narrator.finish()
        assert await leader.end() == FIRST
        assert narrator.streams == 2


class TestOnHit:
    async def test_who_asks_is_told_of_a_stored_answer_before_its_first_chunk(
        self, valkey: Server, namespace: str
    ):
        async def provider() -> AsyncGenerator[str, None]:
            for chunk in CHUNKS:
                yield chunk

        for options in ({}, {"ttl": 0}):
            told: list[Any] = []
            async with ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT) as cache:
                asked = {"q": "x"}
                async for _ in cache.stream(asked, provider, on_hit=told.append):
                    pass
                told.clear()
                async for _ in cache.stream(asked, provider, on_hit=told.append, **options):
                    assert [(hit.outcome, hit.answer) for hit in told] == [(Outcome.HIT, None)]
                    assert told[0].age >= 0
                async for _ in cache.stream({"q": options}, provider, on_hit=told.append):
                    pass
                assert len(told) == 1


class TestBesideResolve:
    @pytest.mark.parametrize("where", [0, 1])
    async def test_a_resolve_caller_waits_for_the_whole_of_a_stream(
        self, pair: list[InferenceGateway], narrator: Narrator, where: int
    ):
        leader = Reader(pair[0].stream(QUERY))
        narrator.give(1)
        await leader.has(1)
        resolving = asyncio.create_task(pair[where].resolve_detailed(QUERY))
        await follows(pair[where].cache)
        narrator.finish()
        resolution = await asyncio.wait_for(resolving, 5)
        assert (resolution.answer, resolution.outcome) == ("".join(FIRST), Outcome.COALESCED)
        assert await leader.end() == FIRST
        assert (narrator.streams, narrator.calls) == (1, 0)

    @pytest.mark.parametrize("where", [0, 1])
    async def test_a_stream_caller_gets_the_answer_of_a_call_in_chunks(
        self, pair: list[InferenceGateway], narrator: Narrator, where: int
    ):
        resolving = asyncio.create_task(pair[0].resolve(QUERY))
        await wait_until_async(lambda: narrator.calls, description="the provider is called")
        readers = [Reader(pair[where].stream(QUERY)) for _ in range(3)]
        await follows(pair[where].cache)
        narrator.answer_gate.set()
        assert [await reader.end() for reader in readers] == [["whole"]] * 3
        assert await resolving == "whole"
        assert (narrator.streams, narrator.calls) == (0, 1)

    async def test_resolving_the_same_inside_the_loop_body_does_not_hang(
        self, pair: list[InferenceGateway], narrator: Narrator
    ):
        narrator.finish()

        async def consume() -> list[Any]:
            return [(c, await pair[0].resolve(QUERY)) async for c in pair[0].stream(QUERY)]

        assert await asyncio.wait_for(consume(), 5) == [(chunk, "".join(FIRST)) for chunk in FIRST]
        assert (narrator.streams, narrator.calls) == (1, 0)

    @pytest.mark.parametrize("inner", ["stream", "resolve"])
    async def test_a_provider_that_asks_for_its_own_answer_does_not_wait_for_itself(
        self, pair: list[InferenceGateway], inner: str
    ):
        class Nested:
            asked = 0

            async def complete(self, _query: Any) -> str:
                return "inner"

            async def stream(self, query: Any) -> AsyncIterator[str]:
                self.asked += 1
                if self.asked == 2:
                    yield "inner"
                    return
                yield "outer of "
                if inner == "resolve":
                    yield await gateway.resolve(query)
                    return
                async for chunk in gateway.stream(query):
                    yield chunk

        gateway = InferenceGateway(Nested(), pair[0].cache)
        assert await Reader(gateway.stream(QUERY)).end() == ["outer of ", "inner"]


# -- with a real SDK --------------------------------------------------------------------------------------

MESSAGES = [{"role": "user", "content": "What is a cache?"}]
CHAT: dict[str, Any] = {"model": "stand-in", "messages": MESSAGES}
USAGE = {"stream_options": {"include_usage": True}}


class Gated:
    """A provider whose chunks pass the first gate, and the rest the second."""

    def __init__(self, provider: OpenAIProvider) -> None:
        self._provider = provider
        self.codec, self.scope = provider.codec, provider.scope
        self.complete = provider.complete
        self.gates = [asyncio.Event(), asyncio.Event()]

    async def stream(self, query: Any) -> AsyncIterator[Any]:
        number = 0
        async for chunk in self._provider.stream(query):
            await self.gates[min(number, 1)].wait()
            yield chunk
            number += 1


class TestOpenAI:
    @pytest_asyncio.fixture
    async def gated(self, stand_in: ProviderServer) -> AsyncIterator[Gated]:
        async with openai.AsyncOpenAI(base_url=stand_in.base_url, api_key="test", max_retries=0) as sdk:
            yield Gated(OpenAIProvider(sdk))

    async def test_followers_get_equal_chunks_and_objects_of_their_own(
        self, pair: list[InferenceGateway], gated: Gated, stand_in: ProviderServer
    ):
        near, far = [InferenceGateway(gated, gateway.cache) for gateway in pair]
        readers = [Reader(near.stream(CHAT))]
        await stand_in.called()
        readers += [Reader(near.stream(CHAT)), Reader(far.stream(CHAT)), Reader(far.stream(CHAT))]
        gated.gates[0].set()
        for reader in readers:
            await reader.has(1)
        gated.gates[1].set()
        leader, *followers = [await reader.end() for reader in readers]
        assert len(leader) > 2
        for chunks in followers:
            assert chunks == leader
            assert [type(chunk) for chunk in chunks] == [type(chunk) for chunk in leader]
            assert [chunk.model_fields_set for chunk in chunks] == [c.model_fields_set for c in leader]
        ids = [id(chunk) for chunks in (leader, *followers) for chunk in chunks]
        assert len(ids) == len(set(ids))
        assert stand_in.calls == 1

    @pytest.mark.parametrize("leader_asks", [True, False])
    async def test_usage_is_for_who_has_asked_for_it(
        self, pair: list[InferenceGateway], gated: Gated, stand_in: ProviderServer, leader_asks: bool
    ):
        near, far = [InferenceGateway(gated, gateway.cache) for gateway in pair]
        assert near.key_of(CHAT) == near.key_of({**CHAT, **USAGE})
        leader = Reader(near.stream({**CHAT, **(USAGE if leader_asks else {})}))
        await stand_in.called()
        asking = [Reader(gateway.stream({**CHAT, **USAGE})) for gateway in (near, far)]
        plain = [Reader(gateway.stream(CHAT)) for gateway in (near, far)]
        gated.gates[0].set()
        for reader in (leader, *asking, *plain):
            await reader.has(1)
        gated.gates[1].set()
        told = [any(c.usage for c in await reader.end()) for reader in (leader, *asking, *plain)]
        assert told == [leader_asks, *[leader_asks] * 2, False, False]
        assert stand_in.calls == 1

    async def test_a_truncated_stream_reaches_who_follows_and_is_not_stored(
        self,
        pair: list[InferenceGateway],
        gated: Gated,
        stand_in: ProviderServer,
        valkey: Server,
        namespace: str,
    ):
        stand_in.script(truncated())
        near, far = [InferenceGateway(gated, gateway.cache) for gateway in pair]
        leader = Reader(near.stream(CHAT))
        await stand_in.called()
        followers = [Reader(near.stream(CHAT)), Reader(far.stream(CHAT))]
        gated.gates[0].set()
        for reader in (leader, *followers):
            await reader.has(1)
        gated.gates[1].set()
        said = await leader.end()
        assert said[-1].choices[0].finish_reason == "length"
        for reader in followers:
            assert await reader.end() == said
        assert not keys_of(valkey, namespace, "resp")
        assert stand_in.calls == 1
