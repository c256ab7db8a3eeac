"""The fault proxy itself: a fault test proves nothing if its fault does not happen."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import redis.asyncio as aioredis
from faultproxy import FaultProxy
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from servers import Server


@pytest.fixture
async def proxy(valkey: Server) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(valkey.url) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[aioredis.Redis]:
    async with aioredis.Redis.from_url(
        proxy.url, retry=Retry(NoBackoff(), 0), socket_timeout=0.1, socket_connect_timeout=0.1
    ) as client:
        yield client


async def test_without_a_fault_it_is_not_there(client: aioredis.Redis, namespace: str):
    value = b"x" * 300_000
    await client.set(namespace, value, ex=60)
    assert await client.get(namespace) == value


async def test_it_slows_each_way(client: aioredis.Redis, proxy: FaultProxy):
    await client.ping()
    proxy.delay = 0.03
    loop = asyncio.get_running_loop()
    started = loop.time()
    await client.ping()
    assert loop.time() - started >= 0.06


async def test_a_black_hole_accepts_and_never_answers(client: aioredis.Redis, proxy: FaultProxy):
    proxy.mode = "black_hole"
    with pytest.raises(RedisTimeoutError):
        await client.ping()
    await proxy.restore()
    assert await client.ping()


async def test_a_reset_breaks_open_connections(client: aioredis.Redis, proxy: FaultProxy):
    await client.ping()
    proxy.mode = "reset"
    # A closed transport of Python 3.13.0, written to, raises an AttributeError, which redis-py passes on.
    with pytest.raises((RedisConnectionError, AttributeError)):
        await client.ping()
    await proxy.restore()
    assert await client.ping()


async def test_it_refuses_and_returns_at_the_same_address(client: aioredis.Redis, proxy: FaultProxy):
    await client.ping()
    await proxy.refuse()
    # A closed transport of Python 3.13.0, written to, raises an AttributeError, which redis-py passes on.
    with pytest.raises((RedisConnectionError, AttributeError)):
        await client.ping()
    await proxy.restore()
    assert await client.ping()


async def test_a_dropped_reply_belongs_to_a_command_that_was_executed(
    client: aioredis.Redis, proxy: FaultProxy, valkey: Server, namespace: str
):
    proxy.drop_reply(namespace.encode())
    with pytest.raises(RedisTimeoutError):
        await client.set(namespace, "stored", ex=60)
    assert valkey.command("GET", namespace) == b"stored"
    assert proxy.dropped == 1
