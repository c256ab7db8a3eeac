"""Those who wait for a lease are woken by a message, over one connection per event loop, on every server.

What is not heard is only late: a follower also looks every `poll_interval` by itself. So nothing of this may
raise, hang, spin, or leave anything behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import ssl
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio as aioredis
import trustme
from devmode import DEVMODE, complaints_of
from entries import answer_in, entry_of, key_of
from faultproxy import FaultProxy
from redis.asyncio.cluster import RedisCluster
from servers import Cluster, redis_cluster, valkey_server
from waiting import wait_until_async

from llmcache_plugins import CacheConfig, ResponseRepository
from llmcache_plugins.models import Lease, Wait
from llmcache_plugins.repository import new_token, wakes
from llmcache_plugins.repository.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator

    from servers import Server

    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.repository import Ear
    from llmcache_plugins.repository.wakes import Wakes

SOON = 0.5
"""Seconds: far more than a message takes, half of what a follower waits before it looks by itself."""
A_WHILE = 0.15
"""Seconds in which a message would have come."""


@contextlib.asynccontextmanager
async def opened(
    url: str | None, namespace: str, *, client: object = None, patience: float = 5.0, **settings: Any
) -> AsyncIterator[ResponseRepository]:
    config = CacheConfig(namespace=namespace, socket_timeout=patience, **settings)
    async with ResponseRepository(url, client=client, config=config) as repository:
        yield repository


@pytest.fixture
async def repository(server: Server | Cluster, namespace: str) -> AsyncIterator[ResponseRepository]:
    async with opened(server.url, namespace) as repository:
        yield repository
    await nobody_is_subscribed(server)


@pytest.fixture
async def proxy(valkey: Server) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(valkey.url) as proxy:
        yield proxy


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that only this test knows."""
    with valkey_server(tmp_path, "--requirepass", "right", tcp=True) as server:
        yield server


def channel_of(repository: ResponseRepository, key: CacheKey) -> str:
    return repository._locate(key)[1]["wake"]


def wakes_of(repository: ResponseRepository) -> Wakes:
    return repository._links.current().wakes


def publish(server: Server | Cluster, channel: str) -> None:
    server.nodes[0].command("PUBLISH", channel, "")


def clients(server: Server | Cluster, *which: str) -> list[dict[str, str]]:
    found = []
    for node in server.nodes:
        lines = node.command("CLIENT", "LIST", *which).decode().splitlines()
        found += [dict(field.split("=", 1) for field in line.split() if "=" in field) for line in lines]
    return found


def subscribed(server: Server | Cluster) -> list[dict[str, str]]:
    """The connections of the server that have a subscription."""
    return clients(server, "TYPE", "pubsub")


def channels_of(server: Server | Cluster) -> set[str]:
    return {name.decode() for node in server.nodes for name in node.command("PUBSUB", "CHANNELS")}


def listeners_of(server: Server | Cluster, channel: str) -> int:
    return sum(node.command("PUBSUB", "NUMSUB", channel)[1] for node in server.nodes)


def connections_made(server: Server) -> int:
    return int(server.command("INFO", "stats")["total_connections_received"])


async def nobody_is_subscribed(server: Server | Cluster) -> None:
    await wait_until_async(lambda: not subscribed(server), description="no connection is subscribed")
    assert channels_of(server) == set()


async def no_task_listens() -> None:
    def tasks() -> list[str]:
        return [repr(task) for task in asyncio.all_tasks() if "wakes.py" in repr(task.get_coro())]

    await wait_until_async(lambda: not tasks(), description="no task listens")


async def is_woken(ear: Ear, *, within: float = SOON) -> bool:
    clock = asyncio.get_running_loop().time
    until = clock() + within
    await ear.wait(within)
    return clock() < until


async def hears(server: Server | Cluster, channel: str, ear: Ear) -> bool:
    """Whether a message comes through now."""
    await asyncio.to_thread(publish, server, channel)
    return await is_woken(ear)


async def until_heard(server: Server | Cluster, channel: str, *ears: Ear, timeout: float = 8.0) -> None:
    async def all_hear() -> bool:
        while any([await is_woken(ear, within=0.01) for ear in ears]):
            pass  # said before
        return all([await hears(server, channel, ear) for ear in ears])

    await wait_until_async(all_hear, description="messages are heard", timeout=timeout)


class TestWaking:
    @pytest.mark.parametrize("how", ["commit", "fail", "delete"])
    async def test_who_waits_for_a_key_is_woken_when_there_is_something_to_see(
        self, server: Server | Cluster, repository: ResponseRepository, namespace: str, how: str
    ):
        key, other = key_of("led", namespace=namespace), key_of("another", namespace=namespace)
        token = new_token()
        async with opened(server.url, namespace) as elsewhere:
            lease = await elsewhere.leases.acquire(key, token=token)
            assert isinstance(lease, Lease)
            async with repository.leases.listen(key) as ear, repository.leases.listen(other) as other_ear:
                assert isinstance(await repository.leases.acquire(key, token=new_token()), Wait)
                assert not await is_woken(ear, within=A_WHILE)
                if how == "commit":
                    await elsewhere.leases.commit(key, entry_of("x"), ttl=60, lease=lease)
                elif how == "fail":
                    await elsewhere.leases.fail(key, token=token, lease=lease)
                else:
                    await elsewhere.delete(key)
                assert await is_woken(ear)
                assert not await is_woken(other_ear, within=A_WHILE)

    async def test_what_was_said_before_the_last_look_does_not_wake(
        self, server: Server | Cluster, repository: ResponseRepository, namespace: str
    ):
        key = key_of("a", namespace=namespace)
        async with repository.leases.listen(key) as ear:
            assert await hears(server, channel_of(repository, key), ear)
            assert not await is_woken(ear, within=A_WHILE)

    async def test_a_message_between_two_waits_is_not_lost(
        self, server: Server | Cluster, repository: ResponseRepository, namespace: str
    ):
        key = key_of("a", namespace=namespace)
        async with repository.leases.listen(key) as ear, repository.leases.listen(key) as another:
            await asyncio.to_thread(publish, server, channel_of(repository, key))
            assert await is_woken(another)  # so it has come
            assert await is_woken(ear, within=A_WHILE)

    async def test_to_wait_for_no_time_at_all_returns_at_once(
        self, repository: ResponseRepository, namespace: str
    ):
        async with repository.leases.listen(key_of("a", namespace=namespace)) as ear:
            for timeout in (0, -1):
                await asyncio.wait_for(ear.wait(timeout), SOON)


class TestOneConnection:
    async def test_five_hundred_listeners_for_fifty_keys_are_one_connection(
        self, server: Server | Cluster, repository: ResponseRepository, namespace: str
    ):
        keys = [key_of(str(i), namespace=namespace) for i in range(50)]
        channels = [channel_of(repository, key) for key in keys]
        async with contextlib.AsyncExitStack() as stack:
            ears = await asyncio.gather(
                *(stack.enter_async_context(repository.leases.listen(key)) for key in keys * 10)
            )
            (one,) = subscribed(server)
            assert one["sub"] == "50"
            assert [listeners_of(server, channel) for channel in channels] == [1] * 50
            # On a busy machine a confirmation may come late, and then it wakes, too.
            await asyncio.gather(*(is_woken(ear, within=A_WHILE) for ear in ears))
            await asyncio.to_thread(publish, server, channels[7])
            assert all(await asyncio.gather(*map(is_woken, ears[7::50])))
            assert not any(
                await asyncio.gather(*(is_woken(ear, within=A_WHILE) for ear in ears[8::50] + ears[6::50]))
            )
        await nobody_is_subscribed(server)
        await no_task_listens()

    def test_each_event_loop_has_a_connection_of_its_own(self, server: Server | Cluster, namespace: str):
        repository = ResponseRepository(server.url, config=CacheConfig(namespace=namespace, socket_timeout=5))
        key = key_of("same", namespace=namespace)
        together = threading.Barrier(3)
        woken: list[bool] = []

        async def listen() -> None:
            async with repository.leases.listen(key) as ear, repository.leases.listen(key):
                await asyncio.to_thread(together.wait, 10)
                woken.append(await is_woken(ear, within=5))
            await repository.aclose()

        threads = [threading.Thread(target=asyncio.run, args=(listen(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        together.wait(10)
        assert len(subscribed(server)) == 2
        (channel,) = channels_of(server)
        assert listeners_of(server, channel) == 2
        publish(server, channel)
        for thread in threads:
            thread.join(10)
        assert woken == [True, True]
        asyncio.run(nobody_is_subscribed(server))

    async def test_many_listeners_that_come_and_go_leave_no_memory_behind(
        self, valkey: Server, namespace: str
    ):
        async with opened(valkey.url, namespace) as repository:

            async def visit(name: int) -> None:
                async with repository.leases.listen(key_of(str(name), namespace=namespace)):
                    pass

            async with repository.leases.listen(key_of("stays", namespace=namespace)):
                for turn in range(10):
                    await asyncio.gather(*map(visit, range(turn * 100, turn * 100 + 100)))
                await wait_until_async(lambda: len(channels_of(valkey)) == 1, description="one is left")
                line = wakes_of(repository)._line
                assert line is not None
                await wait_until_async(lambda: not line._under_way, description="all is confirmed")
                assert len(line._held) == wakes_of(repository).channels == 1
                assert not line._to_look_at


class _CancelledAt:
    """Runs a coroutine as its task and cancels that task at its k-th suspension (0 = the first)."""

    def __init__(self, point: int, work: Any) -> None:
        self.point = point
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
            if suspended == self.point:
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


class TestCancellation:
    @pytest.mark.parametrize("others", [0, 1])
    async def test_wherever_a_listener_is_cancelled_nothing_is_left_behind(
        self, valkey: Server, namespace: str, others: int
    ):
        async with opened(valkey.url, namespace) as repository:
            await repository.fetch(key_of("a", namespace=namespace))
            before = len(clients(valkey))

            async def visit() -> None:
                async with repository.leases.listen(key_of("a", namespace=namespace)) as ear:
                    await ear.wait(0.01)

            async with contextlib.AsyncExitStack() as stack:
                for i in range(others):
                    await stack.enter_async_context(
                        repository.leases.listen(key_of(f"other {i}", namespace=namespace))
                    )
                for point in range(20):
                    call = _CancelledAt(point, visit())
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.create_task(call.run())
                    await wait_until_async(
                        lambda: len(channels_of(valkey)) == others, description="nothing is subscribed to"
                    )
                    await wait_until_async(
                        lambda: len(clients(valkey)) == before + others, description="all are closed"
                    )
                    if not call.cancelled:
                        break
                else:
                    pytest.fail("the visit never came to its end")
                assert point > 0
            await no_task_listens()

    async def test_whenever_a_listener_leaves_nothing_is_left_behind(self, valkey: Server, namespace: str):
        """At each turn of the loop, so that the line is cut at every await of connecting and subscribing."""
        async with opened(valkey.tcp_url, namespace) as repository:
            key = key_of("a", namespace=namespace)
            await repository.fetch(key)
            before = len(clients(valkey))
            is_in = asyncio.Event()

            async def visit() -> None:
                async with repository.leases.listen(key):
                    is_in.set()
                    await asyncio.sleep(10)

            turns = 0
            while not is_in.is_set():
                task = asyncio.create_task(visit())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait((task,))
                if turns % 10 == 0:
                    await wait_until_async(
                        lambda: len(clients(valkey)) == before, description="the connection is closed"
                    )
                turns += 1
            assert turns > 5
            await wait_until_async(lambda: len(clients(valkey)) == before, description="all are closed")
            await no_task_listens()

    async def test_wherever_the_tasks_are_ended_nothing_is_left_behind(
        self, valkey: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
    ):
        """As when the repository is closed or the loop shuts down: at each await of each of the three."""
        async with opened(valkey.tcp_url, namespace) as repository:
            key = key_of("a", namespace=namespace)
            await repository.fetch(key)
            before = len(clients(valkey))
            listening = wakes_of(repository)
            spawn = listening._spawn
            for which in range(3):
                for point in range(60):
                    cut: list[_CancelledAt] = []

                    def cutting_spawn(
                        work: Coroutine[Any, Any, None],
                        cut: list[_CancelledAt] = cut,
                        at: tuple[int, int] = (which, point),
                    ) -> asyncio.Task[None]:
                        cut.append(_CancelledAt(at[1] if len(cut) == at[0] else -1, work))
                        return spawn(cut[-1].run())

                    monkeypatch.setattr(listening, "_spawn", cutting_spawn)
                    monkeypatch.setattr(listening, "_patience", 0.05)
                    async with repository.leases.listen(key) as ear:
                        await ear.wait(0.01)
                    await wait_until_async(
                        lambda: len(clients(valkey)) == before, description="the connection is closed"
                    )
                    if not any(part.cancelled for part in cut):
                        break
                else:
                    pytest.fail("the line never came to its end")
                assert point > 0
            await no_task_listens()

    @pytest.mark.parametrize("close", [False, True])
    @pytest.mark.parametrize("fails", [False, True])
    @pytest.mark.parametrize("step", ["connect", "subscribe", "unsubscribe", "ping"])
    async def test_a_cancellation_that_the_client_loses_is_not_lost(
        self,
        valkey: Server,
        namespace: str,
        monkeypatch: pytest.MonkeyPatch,
        step: str,
        fails: bool,
        close: bool,
    ):
        """It sends with `asyncio.wait_for`, which does so on Python 3.11 when it ends in that moment."""
        monkeypatch.setattr(wakes, "_PING_EVERY", 0.02)
        reached, goes_on = asyncio.Event(), asyncio.Event()
        original = getattr(aioredis.client.PubSub, step)

        async def losing(*arguments: Any) -> None:
            await original(*arguments)
            reached.set()
            with contextlib.suppress(asyncio.CancelledError):
                await goes_on.wait()
            if fails:
                raise ConnectionResetError

        async with opened(valkey.url, namespace, patience=0.1) as repository:
            key = key_of("a", namespace=namespace)
            await repository.fetch(key)
            before = len(clients(valkey))
            async with repository.leases.listen(key_of("other", namespace=namespace)):
                with monkeypatch.context() as patched:
                    if step == "connect":
                        await repository.aclose()
                        await repository.fetch(key)
                    patched.setattr(aioredis.client.PubSub, step, losing)
                    async with repository.leases.listen(key):
                        if step != "unsubscribe":
                            await asyncio.wait_for(reached.wait(), 5)
                    await asyncio.wait_for(reached.wait(), 5)
                    if close:
                        await asyncio.wait_for(repository.aclose(), 5)
            left = 0 if close else before
            await wait_until_async(lambda: len(clients(valkey)) <= left + 1, description="all are closed")
            await nobody_is_subscribed(valkey)
            await no_task_listens()


class TestComingAndGoing:
    async def test_who_leaves_one_channel_while_others_stay_is_unsubscribed(
        self, server: Server | Cluster, repository: ResponseRepository, namespace: str
    ):
        stays, goes = key_of("stays", namespace=namespace), key_of("goes", namespace=namespace)
        async with repository.leases.listen(stays) as ear:
            async with repository.leases.listen(goes), repository.leases.listen(goes):
                assert channels_of(server) == {channel_of(repository, stays), channel_of(repository, goes)}
            await wait_until_async(
                lambda: channels_of(server) == {channel_of(repository, stays)}, description="it has gone"
            )
            assert await hears(server, channel_of(repository, stays), ear)
            assert len(subscribed(server)) == 1

    @pytest.mark.parametrize("others", [0, 1])
    @pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
    async def test_who_leaves_and_comes_back_at_once_hears(
        self, valkey: Server, namespace: str, others: int, turns: int
    ):
        async with opened(valkey.url, namespace) as repository, contextlib.AsyncExitStack() as stack:
            for i in range(others):
                other = key_of(f"other {i}", namespace=namespace)
                await stack.enter_async_context(repository.leases.listen(other))
            key = key_of("a", namespace=namespace)
            for _ in range(5):
                async with repository.leases.listen(key) as ear:
                    assert await hears(valkey, channel_of(repository, key), ear)
                for _ in range(turns):
                    await asyncio.sleep(0)
            await stack.aclose()
            await nobody_is_subscribed(valkey)

    @pytest.mark.parametrize("moments", [(0.0, 0.0), (0.02, 0.0), (0.02, 0.02), (0.08, 0.02), (0.02, 0.08)])
    async def test_to_be_let_in_means_to_hear_though_the_network_is_slow(
        self, valkey: Server, proxy: FaultProxy, namespace: str, moments: tuple[float, float]
    ):
        """1. SUBSCRIBE, 2. left: UNSUBSCRIBE, 3. back: SUBSCRIBE. The answer to 1 is not that to 3."""
        async with opened(proxy.url, namespace) as repository:
            key = key_of("a", namespace=namespace)
            channel = channel_of(repository, key)

            async def visit() -> None:
                async with repository.leases.listen(key):
                    await asyncio.sleep(10)

            async with repository.leases.listen(key_of("other", namespace=namespace)):
                proxy.delay = 0.05
                stays, away = moments
                visitor = asyncio.create_task(visit())
                await asyncio.sleep(stays)
                visitor.cancel()
                await asyncio.wait((visitor,))
                await asyncio.sleep(away)
                async with repository.leases.listen(key) as ear:
                    for _ in range(5):  # that the server hears it now does not mean that it goes on to
                        assert await hears(valkey, channel, ear)
                proxy.delay = 0.0

    async def test_everything_published_after_one_was_let_in_is_heard_whoever_comes_and_goes(
        self, server: Server | Cluster, repository: ResponseRepository, namespace: str
    ):
        keys = [key_of(str(i), namespace=namespace) for i in range(3)]
        clock = asyncio.get_running_loop().time
        until = clock() + 2.0
        dice = random.Random(namespace)
        counts = {"heard": 0}
        # One node publishes: the messages of another reach a listener's node later than its confirmation.
        url = server.nodes[0].url

        async def come_and_go(publisher: aioredis.Redis) -> None:
            while clock() < until:
                key = dice.choice(keys)
                async with repository.leases.listen(key) as ear:
                    for _ in range(dice.randrange(3)):
                        await ear.wait(0)  # so that what others have published does not pass for ours
                        await publisher.publish(channel_of(repository, key), "")
                        assert await is_woken(ear, within=5), "a message was lost"
                        counts["heard"] += 1
                if dice.random() < 0.5:
                    await asyncio.sleep(dice.choice((0, 0, 0.001, 0.01)))

        async with aioredis.Redis.from_url(url) as publisher:
            await asyncio.gather(*(come_and_go(publisher) for _ in range(8)))
        assert counts["heard"] > 100
        await nobody_is_subscribed(server)
        await no_task_listens()


class TestLosses:
    async def test_who_was_cut_off_is_woken_and_hears_again(
        self, server: Server | Cluster, repository: ResponseRepository, namespace: str
    ):
        key = key_of("a", namespace=namespace)
        async with repository.leases.listen(key) as one, repository.leases.listen(key) as two:
            (listening,) = subscribed(server)
            for node in server.nodes:
                node.command("CLIENT", "KILL", "TYPE", "pubsub")
            assert await is_woken(one)
            assert await is_woken(two)
            await until_heard(server, channel_of(repository, key), one, two)
            (again,) = subscribed(server)
            assert again["id"] != listening["id"] or again["laddr"] != listening["laddr"]

    async def test_a_server_that_was_killed_is_heard_again_when_it_is_back(
        self, valkey: Server, namespace: str
    ):
        async with opened(valkey.tcp_url, namespace, patience=0.25) as repository:
            key = key_of("a", namespace=namespace)
            async with repository.leases.listen(key) as one, repository.leases.listen(key) as two:
                valkey.kill()
                assert await is_woken(one)
                assert await is_woken(two)
                assert not await is_woken(one, within=1.5)  # it is woken once, though it tries again
                await asyncio.to_thread(valkey.heal)
                await until_heard(valkey, channel_of(repository, key), one, two)
                assert len(subscribed(valkey)) == 1
        await nobody_is_subscribed(valkey)

    async def test_what_was_said_while_nobody_heard_wakes_as_soon_as_it_is_heard_again(
        self, valkey: Server, proxy: FaultProxy, namespace: str
    ):
        async with opened(proxy.url, namespace, patience=0.25) as repository:
            key = key_of("a", namespace=namespace)
            async with repository.leases.listen(key) as ear:
                await proxy.refuse()
                assert await is_woken(ear)
                await asyncio.to_thread(publish, valkey, channel_of(repository, key))
                await proxy.restore()
                assert await is_woken(ear, within=3.0)

    async def test_who_was_let_in_before_the_server_confirmed_is_woken_when_it_does(
        self, proxy: FaultProxy, namespace: str
    ):
        async with opened(proxy.url, namespace) as repository:
            await repository.ping()
            wakes_of(repository)._patience = 0.05
            proxy.delay = 0.1
            async with repository.leases.listen(key_of("a", namespace=namespace)) as ear:
                assert await is_woken(ear, within=3.0)
                assert not await is_woken(ear, within=A_WHILE)
            proxy.delay = 0.0

    async def test_a_connection_that_has_gone_deaf_is_found_and_replaced(
        self, valkey: Server, proxy: FaultProxy, namespace: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(wakes, "_PING_EVERY", 0.1)
        async with opened(proxy.url, namespace, patience=0.25, connect_timeout=0.25) as repository:
            key = key_of("a", namespace=namespace)
            channel = channel_of(repository, key)
            async with repository.leases.listen(key) as ear:
                assert not await is_woken(ear, within=0.5)  # a silence that is answered is none
                (before,) = subscribed(valkey)
                proxy.mode = "black_hole"
                assert await is_woken(ear, within=3.0)
                assert not await hears(valkey, channel, ear)
                proxy.mode = "pass"
                await until_heard(valkey, channel, ear)
                await wait_until_async(lambda: len(subscribed(valkey)) == 1, description="one is left")
                assert subscribed(valkey)[0]["id"] != before["id"]
        await nobody_is_subscribed(valkey)

    @pytest.mark.parametrize("protocol", [2, 3])
    @pytest.mark.parametrize("decode", [False, True])
    async def test_silence_is_no_loss(
        self,
        valkey: Server,
        namespace: str,
        monkeypatch: pytest.MonkeyPatch,
        protocol: int,
        decode: bool,
    ):
        monkeypatch.setattr(wakes, "_PING_EVERY", 0.03)
        client = aioredis.Redis.from_url(valkey.url, protocol=protocol, decode_responses=decode)
        async with client, opened(None, namespace, client=client) as repository:
            key = key_of("a", namespace=namespace)
            async with repository.leases.listen(key) as ear:
                before = subscribed(valkey)
                assert not await is_woken(ear, within=0.5)
                assert await hears(valkey, channel_of(repository, key), ear)
                assert [one["id"] for one in subscribed(valkey)] == [one["id"] for one in before]

    async def test_a_server_that_accepts_and_says_nothing_does_not_keep_a_listener_for_ever(
        self, valkey: Server, proxy: FaultProxy, namespace: str, monkeypatch: pytest.MonkeyPatch
    ):
        """With a client that has no timeouts of its own."""
        monkeypatch.setattr(wakes, "_CONNECT_WITHIN", 0.3)
        client = aioredis.Redis.from_url(proxy.url, socket_timeout=None, socket_connect_timeout=None)
        async with client, opened(None, namespace, client=client, patience=0.1) as repository:
            key = key_of("a", namespace=namespace)
            proxy.mode = "black_hole"
            async with asyncio.timeout(2), repository.leases.listen(key) as ear:
                await ear.wait(0.01)
            async with repository.leases.listen(key) as ear:
                proxy.mode = "pass"
                await until_heard(valkey, channel_of(repository, key), ear)

    async def test_in_a_cluster_another_node_is_listened_to_when_one_is_killed(
        self, tmp_path: Path, namespace: str
    ):
        with redis_cluster(tmp_path) as cluster:
            async with opened(cluster.url, namespace, patience=0.25) as repository:
                key = key_of("a", namespace=namespace)
                channel = channel_of(repository, key)
                async with repository.leases.listen(key) as one, repository.leases.listen(key) as two:
                    (heard_by,) = [node for node in cluster.nodes if subscribed(node)]
                    heard_by.kill()
                    assert await is_woken(one)
                    assert await is_woken(two)
                    cluster.nodes.remove(heard_by)
                    await until_heard(cluster, channel, one, two, timeout=20)
                    assert len(subscribed(cluster)) == 1
                await nobody_is_subscribed(cluster)

    async def test_a_cluster_that_was_not_connected_to_yet_is_listened_to(
        self, cluster: Cluster, namespace: str
    ):
        config = CacheConfig(namespace=namespace, socket_timeout=5)
        repository = ResponseRepository(cluster.url, config=config)
        key = key_of("a", namespace=namespace)
        async with repository.leases.listen(key) as ear:
            assert await hears(cluster, channel_of(repository, key), ear)
        await repository.aclose()
        await nobody_is_subscribed(cluster)

    @pytest.mark.parametrize("error", [AttributeError, RuntimeError, KeyError, OSError])
    async def test_whatever_the_client_raises_it_is_tried_again(
        self,
        valkey: Server,
        namespace: str,
        monkeypatch: pytest.MonkeyPatch,
        error: type[Exception],
    ):
        """A closed transport of Python 3.13.0, written to, raises an AttributeError."""
        async with opened(valkey.url, namespace) as repository:
            key = key_of("a", namespace=namespace)
            async with repository.leases.listen(key) as ear:
                with monkeypatch.context() as patched:
                    patched.setattr(aioredis.client.PubSub, "get_message", _raising(error))
                    await asyncio.to_thread(publish, valkey, channel_of(repository, key))
                    assert await is_woken(ear)  # this line reads no other
                await until_heard(valkey, channel_of(repository, key), ear)


def _raising(error: type[Exception]) -> Any:
    async def get_message(*_: Any, **__: Any) -> None:
        raise error("of the client's")

    return get_message


class TestDenied:
    """Where listening does not work, those who wait look by themselves, and nothing else is disturbed."""

    @pytest.fixture
    def attempts(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """When a connection for messages was tried."""
        tried: list[float] = []
        connect = aioredis.client.PubSub.connect

        async def counted(pubsub: aioredis.client.PubSub) -> None:
            if pubsub.connection is None:
                tried.append(asyncio.get_running_loop().time())
            await connect(pubsub)

        monkeypatch.setattr(aioredis.client.PubSub, "connect", counted)
        return tried

    async def _listening_is_only_slow(
        self, repository: ResponseRepository, namespace: str, attempts: list[float]
    ) -> None:
        """Many listeners for a second and a half, at once and one after another: two or three attempts."""
        key = key_of("a", namespace=namespace)
        clock = asyncio.get_running_loop().time

        async def wait_in_turns() -> None:
            until = clock() + 1.5
            while clock() < until:
                async with repository.leases.listen(key) as ear:
                    before = clock()
                    await ear.wait(0.05)
                    assert clock() - before >= 0.04

        began = clock()
        await asyncio.gather(*(wait_in_turns() for _ in range(20)))
        assert clock() - began < 4
        assert 1 <= len([at for at in attempts if at < began + 1.0]) <= 2
        assert len(attempts) <= 4
        await no_task_listens()

    async def test_without_the_right_to_subscribe(
        self, own_server: Server, namespace: str, attempts: list[float], caplog: pytest.LogCaptureFixture
    ):
        own_server.command("ACL", "SETUSER", "dumb", "on", ">pw", "~*", "&*", "+@all", "-subscribe")
        url = f"redis://dumb:pw@127.0.0.1:{own_server.port}"
        with caplog.at_level(logging.WARNING, "llmcache_plugins"):
            async with opened(url, namespace) as repository:
                key = key_of("stored", namespace=namespace)
                await repository.persist(key, entry_of("x"))
                await self._listening_is_only_slow(repository, namespace, attempts)
                assert answer_in(await repository.fetch(key)) == "x"
                assert not repository._links.current().is_known_bad
                assert repository.telemetry.snapshot().breaker_openings == 0
        assert len(caplog.records) == 1
        assert "subscribe" in caplog.text.lower()

    async def test_without_the_right_to_these_channels(
        self, own_server: Server, namespace: str, attempts: list[float], caplog: pytest.LogCaptureFixture
    ):
        own_server.command("ACL", "SETUSER", "dumb", "on", ">pw", "~*", "resetchannels", "+@all")
        url = f"redis://dumb:pw@127.0.0.1:{own_server.port}"
        with caplog.at_level(logging.WARNING, "llmcache_plugins"):
            async with opened(url, namespace) as repository:
                await self._listening_is_only_slow(repository, namespace, attempts)
                assert not repository._links.current().is_known_bad
        assert len(caplog.records) == 1

    async def test_when_the_server_is_full(
        self, own_server: Server, namespace: str, attempts: list[float], caplog: pytest.LogCaptureFixture
    ):
        with caplog.at_level(logging.WARNING, "llmcache_plugins"):
            async with opened(own_server.url, namespace) as repository:
                key = key_of("stored", namespace=namespace)
                await repository.persist(key, entry_of("x"))
                # One for the helper that asks the server, which is closed again and taken by nobody.
                own_server.command("CONFIG", "SET", "maxclients", 1)
                await self._listening_is_only_slow(repository, namespace, attempts)
                assert answer_in(await repository.fetch(key)) == "x"
                assert not repository._links.current().is_known_bad
        # Its refusal is read, or it has closed the connection before the client could write.
        assert len(caplog.records) == len({record.getMessage() for record in caplog.records}) <= 2

    async def test_when_nobody_listens_on_the_port(
        self, namespace: str, attempts: list[float], caplog: pytest.LogCaptureFixture
    ):
        with caplog.at_level(logging.WARNING, "llmcache_plugins"):
            config = CacheConfig(namespace=namespace)
            repository = ResponseRepository("redis://127.0.0.1:1", config=config)
            await self._listening_is_only_slow(repository, namespace, attempts)
            await repository.aclose()
        assert len(caplog.records) == 1

    async def test_who_comes_while_it_does_not_work_is_let_in_at_once(self, namespace: str):
        config = CacheConfig(namespace=namespace, socket_timeout=10.0)
        repository = ResponseRepository("redis://127.0.0.1:1", config=config)
        key = key_of("a", namespace=namespace)
        async with asyncio.timeout(3), repository.leases.listen(key), repository.leases.listen(key):
            pass
        await repository.aclose()


class TestClientsHandedIn:
    @pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"max_connections": 1}])
    async def test_a_client_is_not_used_for_listening_and_not_closed(
        self, valkey: Server, namespace: str, options: dict[str, Any]
    ):
        async with aioredis.Redis.from_url(valkey.url, **options) as client:
            await self._is_spared(client, valkey, namespace)
            pool = client.connection_pool
            assert not pool._in_use_connections
            assert await client.ping()
            assert len(pool._available_connections) >= 1

    async def test_a_blocking_pool_of_one_is_not_used_up(self, valkey: Server, namespace: str):
        pool = aioredis.BlockingConnectionPool.from_url(valkey.url, max_connections=1, timeout=1)
        async with aioredis.Redis(connection_pool=pool) as client:
            await self._is_spared(client, valkey, namespace)
        await pool.aclose()

    @pytest.mark.parametrize("decode", [False, True])
    async def test_a_cluster_client_is_not_used_for_listening_and_not_closed(
        self, cluster: Cluster, namespace: str, decode: bool
    ):
        url = cluster.url.replace("redis+cluster", "redis")
        async with RedisCluster.from_url(url, decode_responses=decode) as client:
            await self._is_spared(client, cluster, namespace)
            for node in client.get_nodes():
                assert len(node._free) == len(node._connections)
            assert await client.set("x", "y", px=60_000)

    async def _is_spared(self, client: Any, server: Server | Cluster, namespace: str) -> None:
        async with opened(None, namespace, client=client) as repository:
            key = key_of("a", namespace=namespace)
            token = new_token()
            lease = await repository.leases.acquire(key, token=token)
            assert isinstance(lease, Lease)
            async with repository.leases.listen(key) as ear:
                before = subscribed(server)
                assert len(before) == 1
                await asyncio.gather(*(repository.fetch(key) for _ in range(10)))
                await repository.leases.commit(key, entry_of("x"), ttl=60, lease=lease)
                assert await is_woken(ear)
                assert subscribed(server)[0]["id"] == before[0]["id"]
        await nobody_is_subscribed(server)


class TestUrls:
    async def _works(self, url: str, server: Server, namespace: str, **settings: Any) -> None:
        async with opened(url, namespace, **settings) as repository:
            key = key_of("a", namespace=namespace)
            async with repository.leases.listen(key) as ear:
                assert await hears(server, channel_of(repository, key), ear)
                lease = await repository.leases.acquire(key, token=new_token())
                assert isinstance(lease, Lease)
                await repository.leases.commit(key, entry_of("x"), ttl=60, lease=lease)
                assert await is_woken(ear)
        await nobody_is_subscribed(server)

    @pytest.mark.parametrize("query", ["", "/5", "?protocol=2", "?protocol=3", "/5?client_name=mine"])
    async def test_options_of_a_url_hold_for_listening_too(
        self, valkey: Server, redis8: Server, namespace: str, query: str
    ):
        for server in (valkey, redis8):
            await self._works(server.tcp_url + query, server, namespace)

    async def test_with_a_password(self, own_server: Server, namespace: str):
        own_server.command("CONFIG", "SET", "requirepass", "p@ss/w")
        for end in ("", "?protocol=2", "?protocol=3"):
            url = f"redis://:p%40ss%2Fw@127.0.0.1:{own_server.port}{end}"
            async with opened(url, namespace) as repository:
                key = key_of("a", namespace=namespace)
                async with repository.leases.listen(key) as ear:
                    await repository.delete(key)
                    assert await is_woken(ear)

    async def test_over_a_socket_file(self, valkey: Server, namespace: str):
        await self._works(valkey.url, valkey, namespace)
        await self._works(valkey.url + "?db=3", valkey, namespace)

    async def test_over_tls(self, valkey: Server, tmp_path: Path, namespace: str):
        async with _behind_tls(valkey, tmp_path / "ca.pem") as port:
            url = f"rediss://localhost:{port}?ssl_ca_certs={tmp_path / 'ca.pem'}"
            await self._works(url, valkey, namespace)

    async def test_on_the_embedded_server_even_before_it_runs(self, tmp_path: Path, namespace: str):
        directory = tmp_path / "s"
        config = CacheConfig(namespace=namespace, socket_timeout=10.0)
        repository = ResponseRepository(f"embedded://{directory}", config=config)
        key = key_of("a", namespace=namespace)
        try:
            async with repository.leases.listen(key) as ear:
                await repository.delete(key)
                assert await is_woken(ear)
        finally:
            await repository.aclose()
            await asyncio.to_thread(EmbeddedServer(directory).stop)


@contextlib.asynccontextmanager
async def _behind_tls(server: Server, ca: Path) -> AsyncIterator[int]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    tasks: set[asyncio.Task[Any]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(server.socket_path)
        with contextlib.suppress(OSError, ssl.SSLError):
            await asyncio.gather(pump(reader, back), pump(there, writer))

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    yield listening.sockets[0].getsockname()[1]
    listening.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


PROLOGUE = """
import asyncio, os, sys, warnings
from llmcache_plugins import CacheConfig, ResponseRepository
from entries import key_of

url, namespace = sys.argv[1:3]
key = key_of("a", namespace=namespace)
config = CacheConfig(namespace=namespace, socket_timeout=5.0)
repository = ResponseRepository(url, config=config)
"""


def run_child(program: str, server: Server | Cluster, namespace: str) -> str:
    """Run a program in a process of its own, where every warning is an error; return what it says."""
    tests = str(Path(__file__).parent)
    path = os.pathsep.join([tests, os.environ.get("PYTHONPATH", ""), str(Path(tests).parent)])
    done = subprocess.run(
        [
            *(sys.executable, *DEVMODE, "-c", PROLOGUE + textwrap.dedent(program)),
            *(server.url, namespace),
        ],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not complaints_of(done.stderr)
    return done.stdout


class TestEnds:
    async def test_closing_the_repository_while_somebody_listens_neither_hangs_nor_raises(
        self, server: Server | Cluster, namespace: str
    ):
        async with opened(server.url, namespace) as repository:
            key = key_of("a", namespace=namespace)
            async with repository.leases.listen(key) as ear, repository.leases.listen(key) as another:
                waiting = asyncio.create_task(another.wait(0.3))
                await asyncio.wait_for(repository.aclose(), 5)
                await waiting
                await ear.wait(0.1)
                await nobody_is_subscribed(server)
                await no_task_listens()

    async def test_closing_lets_in_who_waits_for_the_server_to_confirm(self, valkey: Server, namespace: str):
        async with FaultProxy(valkey.tcp_url) as proxy:
            config = CacheConfig(namespace=namespace, socket_timeout=60.0)
            async with ResponseRepository(proxy.url, config=config) as repository:
                await repository.ping()
                proxy.mode = "black_hole"
                entered = asyncio.Event()

                async def visit() -> None:
                    async with repository.leases.listen(key_of("a", namespace=namespace)):
                        entered.set()

                for turns in (0, 1, 5, 20):
                    entered.clear()
                    visitor = asyncio.create_task(visit())
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    await asyncio.wait_for(repository.aclose(), 5)
                    if turns:
                        await asyncio.wait_for(entered.wait(), 5)
                    visitor.cancel()
                    await asyncio.wait((visitor,))

    @pytest.mark.parametrize("turns", range(0, 40, 3))
    async def test_closing_at_any_moment_leaves_nothing_behind(
        self, valkey: Server, namespace: str, turns: int
    ):
        async with opened(valkey.tcp_url, namespace) as repository:
            key = key_of("a", namespace=namespace)
            await repository.fetch(key)

            async def visit() -> None:
                async with repository.leases.listen(key) as ear:
                    await ear.wait(0.05)

            visitor = asyncio.create_task(visit())
            for _ in range(turns):
                await asyncio.sleep(0)
            await asyncio.wait_for(repository.aclose(), 5)
            visitor.cancel()
            await asyncio.wait((visitor,))
        await nobody_is_subscribed(valkey)
        await no_task_listens()

    def test_a_loop_that_ends_while_somebody_listens_has_nothing_to_complain_about(
        self, server: Server | Cluster, namespace: str
    ):
        said = run_child(
            """
            async def listen(started):
                async with repository.leases.listen(key) as ear:
                    started.set()
                    await ear.wait(10)

            async def main(fetch, turns):
                if fetch:
                    await repository.fetch(key)
                started = asyncio.Event()
                main.task = asyncio.create_task(listen(started))
                if turns is None:
                    await started.wait()
                for _ in range(turns or 0):
                    await asyncio.sleep(0)

            for fetch in (True, False):
                for turns in (None, 0, 1, 2, 5, 10, 20):
                    asyncio.run(main(fetch, turns))
            print("fine")
            """,
            server,
            namespace,
        )
        assert said == "fine\n"
        asyncio.run(nobody_is_subscribed(server))

    def test_a_loop_that_ends_right_after_the_last_has_left_has_nothing_to_complain_about(
        self, server: Server | Cluster, namespace: str
    ):
        said = run_child(
            """
            async def main():
                async with repository.leases.listen(key) as ear:
                    await ear.wait(0.01)

            async def closing():
                await main()
                await repository.aclose()

            for _ in range(5):
                asyncio.run(main())
                asyncio.run(closing())
            print("fine")
            """,
            server,
            namespace,
        )
        assert said == "fine\n"
        asyncio.run(nobody_is_subscribed(server))

    def test_a_forked_process_has_a_connection_of_its_own_and_leaves_its_parent_s_alone(
        self, valkey: Server, namespace: str
    ):
        said = run_child(
            """
            warnings.simplefilter("ignore")  # the parent's loop lies unclosed in the child
            import redis
            server = redis.Redis.from_url(url)

            def listening():
                return {one["id"] for one in server.client_list(_type="pubsub")}

            async def child():
                async with repository.leases.listen(key) as ear:
                    assert len(listening()) == 2, listening()
                    server.publish(repository._locate(key)[1]["wake"], "")
                    began = asyncio.get_running_loop().time()
                    await ear.wait(5)
                    assert asyncio.get_running_loop().time() - began < 4
                await repository.aclose()

            async def enter():
                listener = repository.leases.listen(key)
                return listener, await listener.__aenter__()

            loop = asyncio.new_event_loop()
            listener, ear = loop.run_until_complete(enter())
            before = listening()
            assert len(before) == 1
            pid = os.fork()
            if pid == 0:
                server.connection_pool.reset()
                asyncio.run(child())
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0, "the child failed"
            assert listening() == before, "the parent had to connect again"
            began = loop.time()
            loop.run_until_complete(ear.wait(5))
            assert loop.time() - began < 4, "the parent did not hear the child's message"
            loop.run_until_complete(listener.__aexit__(None, None, None))
            loop.run_until_complete(repository.aclose())
            loop.close()
            server.close()
            print("fine")
            """,
            valkey,
            namespace,
        )
        assert said == "fine\n"
