"""One server or a Cluster: the few commands the repository needs of either.

Owns the redis-py clients and their traps. Knows nothing of keys, scripts' meaning, budgets or breakers.
Every reply is bytes, even from a client that was made with `decode_responses=True`.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import redis.asyncio as aioredis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.client import NEVER_DECODE
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.exceptions import AskError, MovedError, NoPermissionError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from llmcache_plugins.errors import ConfigError, RepositoryUnavailable
from llmcache_plugins.keys import BUCKETS_IN_CLUSTER, BUCKETS_ON_SERVER
from llmcache_plugins.repository.embedded import EmbeddedServer
from llmcache_plugins.repository.express import Express
from llmcache_plugins.repository.faults import FAULTS
from llmcache_plugins.repository.urls import redact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterable, Sequence

    from redis.asyncio.client import PubSub

    from llmcache_plugins.repository.urls import Target

__all__ = ["Node", "Topology", "connect", "wrap"]

Group = list[bytes | None]
MOST_CONNECTIONS = 64
"""More than the batches that may be under way at once, so the pool never runs dry."""
_RAW = {NEVER_DECODE: True}
_SCAN_PAGE = 500
_PATIENCE = 1.0
"""Seconds for a connection whose URL says that it may take for ever."""


@dataclass(frozen=True, slots=True)
class Node:
    """One server: `ask` sends it a command. `address` is empty where there is only one."""

    address: str
    ask: Callable[..., Coroutine[Any, Any, Any]]


class Topology(Protocol):
    """A server as the repository sees it."""

    buckets: int

    async def open(self) -> None:
        """Connect; raise `ConfigError` if the server is of the other kind."""

    async def ping(self) -> None:
        """Ask for a sign of life."""

    async def load(self, sources: Iterable[str]) -> None:
        """Make scripts known to every server that may run them."""

    async def run(self, commands: Sequence[Sequence[Any]]) -> Sequence[Any]:
        """Run single-slot commands in one round trip; a reply is a value or what the server refused."""

    async def run_replicated(
        self, command: Sequence[Any], *, replicas: int, patience: float
    ) -> tuple[Any, int]:
        """Run a command, and wait until so many replicas have it, at most `patience` seconds.

        Returns the reply, and how many replicas had acknowledged it by then.
        """

    async def read(self, groups: Sequence[Sequence[str]]) -> Sequence[Group | Exception]:
        """MGET each group of keys (one slot each) in one round trip; all of one lane."""

    def express(self) -> Express | None:
        """Return the connection for reads that go well, if there is one now."""

    @property
    def lacks_express(self) -> bool:
        """Whether there is none, and there could be."""

    async def open_express(self) -> None:
        """Open one, where there could be one. Raises nothing: there is `read`."""

    def lane(self, key: str) -> Hashable:
        """Say which keys can be read in one round trip: those of one lane."""

    def scan(self, pattern: str) -> AsyncIterator[list[str]]:
        """Yield pages of the keys that match."""

    def subscriber(self) -> PubSub:
        """Return a subscription with a connection of its own, to one server; closing it closes that."""

    def nodes(self) -> Sequence[Node]:
        """Return every server there is, replicas too."""

    def uncovered_slots(self) -> list[int]:
        """Return the slots of a Cluster that nobody serves, ascending."""

    async def aclose(self) -> None:
        """Close what this object opened."""


class _Server:
    """One Redis or Valkey."""

    buckets = BUCKETS_ON_SERVER

    def __init__(self, client: aioredis.Redis, *, owned: bool) -> None:
        self._client: Any = client  # redis-py types only some of what is used here
        self._owned = owned
        self._express: Express | None = None

    async def open(self) -> None:
        try:
            info = await self._client.execute_command("INFO", "server")
        except NoPermissionError:
            return  # then a node of a Cluster is found out by its first redirection
        if isinstance(info, dict) and str(info.get("redis_mode")) == "cluster":
            raise ConfigError("this server is a node of a Cluster: use a redis+cluster:// URL")

    async def ping(self) -> None:
        # A user who may not PING is told so by a server that lives.
        with suppress(NoPermissionError):
            await self._client.execute_command("PING")

    async def load(self, sources: Iterable[str]) -> None:
        async with self._client.pipeline(transaction=False) as pipeline:
            for source in sources:
                pipeline.execute_command("SCRIPT LOAD", source)
            await pipeline.execute()

    async def run(self, commands: Sequence[Sequence[Any]]) -> Sequence[Any]:
        return await _run(self._client, commands)

    async def run_replicated(
        self, command: Sequence[Any], *, replicas: int, patience: float
    ) -> tuple[Any, int]:
        pool = self._client.connection_pool
        return await _run_replicated(
            pool.connection_class, pool.connection_kwargs, command, replicas=replicas, patience=patience
        )

    async def read(self, groups: Sequence[Sequence[str]]) -> Sequence[Group | Exception]:
        values = await self._client.execute_command("MGET", *(k for group in groups for k in group), **_RAW)
        replies: list[Group | Exception] = []
        start = 0
        for group in groups:
            replies.append(values[start : start + len(group)])
            start += len(group)
        return replies

    def express(self) -> Express | None:
        return self._express if self._express is not None and self._express.is_open else None

    @property
    def lacks_express(self) -> bool:
        # Not of a caller's client: it may have reasons of its own for each connection it makes.
        return self._owned and self.express() is None

    async def open_express(self) -> None:
        if not self.lacks_express:
            return
        pool = self._client.connection_pool
        options = pool.connection_kwargs
        # With a timeout of its own the client sends by `asyncio.wait_for`, which on Python 3.11 loses a
        # cancellation that comes as it ends.
        connection = pool.connection_class(**{**options, "socket_timeout": None})
        express = Express(connection, timeout=options.get("socket_timeout") or _PATIENCE)
        # Whatever goes wrong, the ordinary way meets it too, and says so.
        with suppress(Exception):
            async with asyncio.timeout(options.get("socket_connect_timeout") or _PATIENCE):
                await express.open()
            self._express = express

    def lane(self, key: str) -> Hashable:
        return None

    async def scan(self, pattern: str) -> AsyncIterator[list[str]]:
        async for page in _scan(self._client, pattern):
            yield page

    def subscriber(self) -> PubSub:
        pool = self._client.connection_pool
        return _subscriber(pool.connection_class, pool.connection_kwargs)

    def nodes(self) -> Sequence[Node]:
        return [Node("", self._client.execute_command)]

    def uncovered_slots(self) -> list[int]:
        return []

    async def aclose(self) -> None:
        if self._express is not None:
            self._express.close()
        if self._owned:
            await self._client.aclose()
            await self._client.connection_pool.aclose()


class _Cluster:
    """A Redis or Valkey Cluster."""

    buckets = BUCKETS_IN_CLUSTER

    def __init__(self, client: RedisCluster, *, owned: bool) -> None:
        self._client: Any = client  # redis-py types only some of what is used here
        self._owned = owned

    async def open(self) -> None:
        await self._client.initialize()

    async def ping(self) -> None:
        # One answer will do: what lies on the other nodes is to be had even if one of them is away.
        nodes = self._client.get_primaries()
        signs = await asyncio.gather(*map(_ping_node, nodes), return_exceptions=True)
        failed = [sign for sign in signs if isinstance(sign, BaseException)]
        if failed and len(failed) == len(signs):
            raise failed[0]

    async def load(self, sources: Iterable[str]) -> None:
        for source in sources:
            await self._client.script_load(source)

    async def run(self, commands: Sequence[Sequence[Any]]) -> Sequence[Any]:
        return await _run(self._client, commands)

    async def run_replicated(
        self, command: Sequence[Any], *, replicas: int, patience: float
    ) -> tuple[Any, int]:
        # EVALSHA sha numkeys key ...
        node = self._client.get_node_from_key(command[3])
        reply, acknowledged = await _run_replicated(
            node.connection_class, node.connection_kwargs, command, replicas=replicas, patience=patience
        )
        if isinstance(reply, MovedError | AskError):
            # The node is asked past the client, which follows such replies: it has to look again.
            await self._client.nodes_manager.initialize()
            raise RepositoryUnavailable("a slot of the Cluster has moved")
        return reply, acknowledged

    async def read(self, groups: Sequence[Sequence[str]]) -> Sequence[Group | Exception]:
        return await _run(self._client, [("MGET", *group) for group in groups])

    def express(self) -> Express | None:
        return None

    @property
    def lacks_express(self) -> bool:
        # Which node has a slot, and that it has moved, is the client's knowledge.
        return False

    async def open_express(self) -> None:
        pass

    def lane(self, key: str) -> Hashable:
        try:
            node = self._client.get_node_from_key(key)
        except FAULTS:
            # Not connected yet, or nobody owns the slot just now: the client will find out when it reads.
            return None
        return node.name if node is not None else None

    async def scan(self, pattern: str) -> AsyncIterator[list[str]]:
        for node in self._client.get_primaries():
            async for page in _scan(node, pattern):
                yield page

    def subscriber(self) -> PubSub:
        # A plain message reaches every node, so any will do: another one each time, in case one is away.
        known = self._client.get_primaries() or [*self._client.nodes_manager.startup_nodes.values()]
        node = random.choice(known)  # noqa: S311
        return _subscriber(node.connection_class, node.connection_kwargs)

    def nodes(self) -> Sequence[Node]:
        return [Node(node.name, node.execute_command) for node in self._client.get_nodes()]

    def uncovered_slots(self) -> list[int]:
        served = self._client.nodes_manager.slots_cache
        return [slot for slot in range(REDIS_CLUSTER_HASH_SLOTS) if not served.get(slot)]

    async def aclose(self) -> None:
        if self._owned:
            await self._client.aclose()
            # A client that has lost a node, and is to look for the others anew, has closed nothing.
            await self._client.nodes_manager.aclose("nodes_cache")
            await self._client.nodes_manager.aclose("startup_nodes")


def _subscriber(connection_class: Any, options: dict[str, Any]) -> PubSub:
    return _alone(connection_class, options).pubsub()


def _alone(connection_class: Any, options: dict[str, Any], **changes: Any) -> aioredis.Redis:
    """Return a client with one connection of its own.

    A caller's client may have none to spare, and waiting takes one out for long. Nothing is sent twice: with
    an error to retry, even without retries, redis-py connects once more before it says that a connection was
    lost.
    """
    own = {
        **options,
        "retry": Retry(NoBackoff(), 0, supported_errors=()),
        "retry_on_error": [],
        "retry_on_timeout": False,
        "health_check_interval": 0,
        **changes,
    }
    pool = aioredis.ConnectionPool(connection_class=connection_class, max_connections=1, **own)
    return aioredis.Redis(connection_pool=pool)


async def _run_replicated(
    connection_class: Any,
    options: dict[str, Any],
    command: Sequence[Any],
    *,
    replicas: int,
    patience: float,
) -> tuple[Any, int]:
    # WAIT speaks of the writes of its own connection, so both travel on one. It answers late on purpose.
    usual = options.get("socket_timeout") or _PATIENCE
    client = _alone(connection_class, options, socket_timeout=usual + patience)
    try:
        pipeline = client.pipeline(transaction=False)
        for one in (command, ("WAIT", replicas, max(1, round(patience * 1000)))):
            pipeline.execute_command(*one, **_RAW)
        reply, acknowledged = await pipeline.execute(raise_on_error=False)
    finally:
        await client.connection_pool.aclose()
    if isinstance(acknowledged, Exception):
        raise acknowledged
    return reply, int(acknowledged)


async def _ping_node(node: Any) -> None:
    with suppress(NoPermissionError):
        await node.execute_command("PING")


async def _run(client: Any, commands: Sequence[Sequence[Any]]) -> Sequence[Any]:
    if len(commands) == 1:
        try:
            return [await client.execute_command(*commands[0], **_RAW)]
        except ResponseError as error:
            return [error]
    pipeline = client.pipeline(transaction=False) if isinstance(client, aioredis.Redis) else client.pipeline()
    async with pipeline:
        for command in commands:
            pipeline.execute_command(*command, **_RAW)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
    return replies


async def _scan(client: Any, pattern: str) -> AsyncIterator[list[str]]:
    cursor: int | None = None
    while cursor != 0:
        cursor, keys = await client.execute_command(
            "SCAN", cursor or 0, "MATCH", pattern, "COUNT", _SCAN_PAGE, **_RAW
        )
        if keys:
            yield [key.decode(errors="replace") if isinstance(key, bytes) else key for key in keys]


class _Embedded(_Server):
    """The embedded server: started when it does not run, and kept from stopping idle while in use."""

    def __init__(self, server: EmbeddedServer, client: aioredis.Redis) -> None:
        super().__init__(client, owned=True)
        self._server = server

    async def open(self) -> None:
        await asyncio.to_thread(self._server.ensure)
        await super().open()


class _EmbeddedConnection(UnixDomainSocketConnection):
    """Starts the embedded server when nobody answers on its socket."""

    def __init__(self, *, server: EmbeddedServer, **options: Any) -> None:
        super().__init__(path=str(server.socket_path), **options)
        self._server = server

    async def connect(self) -> None:
        try:
            await super().connect()  # type: ignore[no-untyped-call]
        except RedisConnectionError:
            await asyncio.to_thread(self._server.ensure)
            await super().connect()  # type: ignore[no-untyped-call]


def connect(
    target: Target, *, socket_timeout: float, connect_timeout: float, is_whole: bool = True
) -> Topology:
    """Return the server a URL names; nothing is opened yet. Raises `ConfigError`.

    Without `is_whole` a Cluster is opened too when there are slots that nobody serves.
    """
    options: dict[str, Any] = {
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": connect_timeout,
        # The client's own retries take 4.5 s for a refused port and 58 s for a hung server.
        "retry": Retry(NoBackoff(), 0),
    }
    if target.kind == "embedded":
        server = EmbeddedServer(target.directory) if target.directory else EmbeddedServer()
        server.check_installed()
        pool = aioredis.ConnectionPool(
            connection_class=_EmbeddedConnection, max_connections=MOST_CONNECTIONS, server=server, **options
        )
        return _Embedded(server, aioredis.Redis(connection_pool=pool))
    try:
        if target.kind == "cluster":
            client = RedisCluster.from_url(target.url, require_full_coverage=is_whole, **options)
            return _Cluster(client, owned=True)
        return _Server(
            aioredis.Redis.from_url(target.url, max_connections=MOST_CONNECTIONS, **options), owned=True
        )
    except (ValueError, TypeError, *FAULTS) as error:
        raise ConfigError(
            f"{redact(target.url)} cannot be used: {type(error).__name__}; check its query options"
        ) from None


def wrap(client: object) -> Topology:
    """Use a client of the caller's as it is; it is never closed or reconfigured. Raises `ConfigError`."""
    if isinstance(client, RedisCluster):
        return _Cluster(client, owned=False)
    if isinstance(client, aioredis.Redis):
        return _Server(client, owned=False)
    raise ConfigError(
        f"client must be a redis.asyncio.Redis or redis.asyncio.RedisCluster, not {type(client).__module__}."
        f"{type(client).__qualname__}: a synchronous client would block the event loop"
    )
