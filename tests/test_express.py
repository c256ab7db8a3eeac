"""The connection that all reads share: every reply reaches who asked, and nothing it does is ever missed."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio as aioredis
from entries import answer_in, entry_of, key_of
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import TimeoutError as RedisTimeoutError
from waiting import wait_until_async

from llmcache_plugins import ResponseRepository
from llmcache_plugins.config import CacheConfig
from llmcache_plugins.errors import RepositoryUnavailable
from llmcache_plugins.repository.express import Express, NotThisWay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from servers import Server

    from llmcache_plugins.keys import CacheKey


class Asker:
    """Asks, and keeps what it was told."""

    def __init__(self, express: Express) -> None:
        self._express = express

    async def __call__(self, *command: str) -> Any:
        told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # A second reply to one question would raise here.
        self._express.ask(command, told.set_result)
        return await told


def connection(server: Server, **options: Any) -> Any:
    pool = aioredis.ConnectionPool.from_url(server.tcp_url, retry=Retry(NoBackoff(), 0), **options)
    return pool.connection_class(**pool.connection_kwargs)


@pytest.fixture
async def express(valkey: Server) -> AsyncIterator[Express]:
    express = Express(connection(valkey), timeout=30.0)
    await express.open()
    yield express
    express.close()


async def test_each_of_many_gets_the_reply_to_its_own_question(express: Express):
    ask = Asker(express)
    texts = [f"{n}-" + "x" * (n % 7 * 3000) for n in range(1000)]
    assert await asyncio.gather(*(ask("ECHO", text) for text in texts)) == [text.encode() for text in texts]


async def test_who_goes_away_shifts_nobody_else_s_reply(express: Express):
    ask = Asker(express)
    deserter = asyncio.ensure_future(asyncio.shield(ask("ECHO", "unheard")))
    other = asyncio.ensure_future(ask("ECHO", "heard"))
    await asyncio.sleep(0)
    deserter.cancel()
    assert await other == b"heard"


async def test_a_refusal_is_for_the_ordinary_way_to_tell_and_for_its_asker_alone(express: Express):
    ask = Asker(express)
    before, refused, after = await asyncio.gather(ask("ECHO", "a"), ask("NO-SUCH-COMMAND"), ask("ECHO", "b"))
    assert (before, after) == (b"a", b"b")
    assert isinstance(refused, NotThisWay)


async def test_what_the_server_says_unasked_is_nobody_s_reply(valkey: Server, namespace: str):
    express = Express(connection(valkey, protocol=3), timeout=30.0)
    await express.open()
    ask, key = Asker(express), f"{namespace}-tracked"
    await ask("CLIENT", "TRACKING", "ON")
    await ask("SET", key, "1", "EX", "60")
    await ask("GET", key)
    # The server pushes "invalidate" before its reply to what comes next.
    valkey.command("SET", key, "2", "EX", "60")
    assert await asyncio.gather(ask("GET", key), ask("ECHO", "mine")) == [b"2", b"mine"]
    express.close()


async def test_a_lost_connection_leaves_nobody_waiting(valkey: Server, express: Express):
    ask = Asker(express)
    me = await ask("CLIENT", "ID")
    waiting = [asyncio.ensure_future(ask("BLPOP", "nothing-comes", "0")) for _ in range(3)]
    await asyncio.sleep(0)
    valkey.command("CLIENT", "KILL", "ID", me)
    assert all(isinstance(told, NotThisWay) for told in await asyncio.gather(*waiting))
    assert not express.is_open
    assert isinstance(await ask("PING"), NotThisWay)


async def test_closing_leaves_nobody_waiting(express: Express):
    ask = Asker(express)
    waiting = asyncio.ensure_future(ask("BLPOP", "nothing-comes", "0"))
    await asyncio.sleep(0)
    express.close()
    express.close()
    assert isinstance(await waiting, NotThisWay)


async def test_silence_ends_all_waits_as_a_timeout(valkey: Server):
    express = Express(connection(valkey), timeout=0.05)
    await express.open()
    ask = Asker(express)
    told = await asyncio.gather(ask("BLPOP", "nothing-comes", "0"), ask("ECHO", "behind it"))
    assert all(isinstance(one, RedisTimeoutError) for one in told)
    assert not express.is_open


async def test_a_loop_that_stood_still_takes_the_replies_that_lie_there(valkey: Server):
    express = Express(connection(valkey), timeout=0.05)
    await express.open()
    told = asyncio.ensure_future(Asker(express)("ECHO", "there all the time"))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(time.sleep, 0.2)
    assert await told == b"there all the time"
    express.close()


@pytest.mark.parametrize("received", [b"*oops\r\n", b"+nobody asked\r\n"], ids=["garbage", "one too many"])
async def test_bytes_that_cannot_be_a_reply_end_the_connection(express: Express, received: bytes):
    ask = Asker(express)
    assert await ask("ECHO", "before") == b"before"
    express.data_received(received)
    assert isinstance(await ask("ECHO", "after"), NotThisWay)
    assert not express.is_open


class TestInTheRepository:
    """What an asker sees: the same answers as ever."""

    @pytest.fixture
    async def repository(self, valkey: Server, namespace: str) -> AsyncIterator[ResponseRepository]:
        config = CacheConfig(namespace=namespace, socket_timeout=10.0)
        async with ResponseRepository(valkey.tcp_url, config=config) as repository:
            yield repository

    async def test_reads_take_no_connection_from_the_pool(
        self, repository: ResponseRepository, namespace: str
    ):
        key = key_of("stored", namespace=namespace)
        await repository.persist(key, entry_of("answer"))
        topology = repository._links.current().topology
        await wait_until_async(topology.express, description="it opens")
        pool = topology._client.connection_pool
        await pool.disconnect()
        assert all([answer_in(await repository.fetch(key)) == "answer" for _ in range(5)])
        assert not any(connection.is_connected for connection in pool._available_connections)

    async def test_when_it_is_lost_reads_go_on_and_it_comes_back(
        self, repository: ResponseRepository, valkey: Server, namespace: str
    ):
        key = key_of("stored", namespace=namespace)
        await repository.persist(key, entry_of("answer"))
        topology = repository._links.current().topology
        for _ in range(3):
            lost = await wait_until_async(topology.express, description="it opens")
            valkey.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            found = await asyncio.gather(*(repository.fetch(key) for _ in range(20)), return_exceptions=True)
            # The connections of the pool were lost too: a read may fail of that, as ever.
            assert {answer_in(one) for one in found if not isinstance(one, RepositoryUnavailable)} <= {
                "answer"
            }
            await wait_until_async(partial(reads, repository, key), description="reads go on")
            await wait_until_async(
                lambda lost=lost: topology.express() not in (None, lost), description="it comes back"
            )


async def reads(repository: ResponseRepository, key: CacheKey) -> bool:
    try:
        return answer_in(await repository.fetch(key)) == "answer"
    except RepositoryUnavailable:
        return False
