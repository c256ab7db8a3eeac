"""Using a server as the cache does, step by step, to see what is refused.

The same scripts and commands, in a namespace of its own, once for each bucket: in a Cluster each node has
rights of its own. So a right that is missing shows as the command that was refused, whatever the server can
tell of rights. Keys live for seconds, and are removed at the end.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from llmcache_plugins.config import CacheConfig
from llmcache_plugins.diagnosis import Refusal
from llmcache_plugins.errors import ConfigError, InvalidationIncomplete, RepositoryError
from llmcache_plugins.keys import CacheKey, KeyLayout
from llmcache_plugins.models import EncodedAnswer, Entry, Lease, Record, RecordKind, WriteStatus
from llmcache_plugins.repository.faults import FAULTS, translate
from llmcache_plugins.repository.leases import new_token
from llmcache_plugins.repository.repository import ResponseRepository

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from llmcache_plugins.repository.topology import Topology

__all__ = ["try_out"]

T = TypeVar("T")

_SECONDS = 10.0
"""How long what is written here lives, and the patience for one answer."""
_TIMED = 20
_COMMAND = re.compile(r"'([\w|-]+)' command|(can't run this command)")
_KEY = re.compile(r"permissions? to access (?:a|one of the) keys?|can't access at least one of the keys")
_CHANNEL = re.compile(r"permissions? to access (?:a|one of the) channels?|can't publish")
_WRAPPED = re.compile(r"the server refused a command \(\w+: (.*)\)")
_PLACE = re.compile(r" script: [0-9a-f]{40}, on @user_script.*")
_USER = re.compile(r"[Uu]ser \S+ (?=has )")


async def try_out(
    url: str | None, topology: Topology, *, namespace: str, prefix: str
) -> tuple[list[Refusal], list[float]]:
    """Return what was refused, each thing once, and what some round trips of a script took (seconds)."""
    config = CacheConfig(
        namespace=f"{namespace}.doctor-{secrets.token_hex(4)}",
        prefix=prefix,
        socket_timeout=_SECONDS,
        connect_timeout=_SECONDS,
        # The marks live for twice as long.
        max_lead=_SECONDS,
        lease_ttl=_SECONDS,
    )
    layout = KeyLayout(prefix=prefix, namespace=config.namespace, buckets=topology.buckets)
    if topology.uncovered_slots():
        said = "its client opens no Cluster that lacks slots"
        return [Refusal(what="connect and load the scripts", said=said)], []
    trial = _Trial(url, config)
    try:
        await trial.attempt("connect and load the scripts", trial.repository.ping())
        if trial.refusals:
            # Nothing else can work either, and some of it would be tried for seconds.
            return trial.refusals, []
        await asyncio.gather(*(trial.use(_key(layout, number)) for number in range(layout.buckets)))
        await trial.use_namespace()
        await trial.attempt("wake those who wait", _wake(topology, layout.request("0" * 64)["wake"]))
        return list(dict.fromkeys(trial.refusals)), await trial.time_a_script(_key(layout, 0))
    finally:
        await trial.repository.aclose()


def _key(layout: KeyLayout, number: int) -> CacheKey:
    digest = f"{number:04x}{secrets.token_hex(30)}"
    return CacheKey(digest=digest, namespace=layout.namespace, prefix=layout.prefix)


class _Trial:
    """A repository, and what was refused to it."""

    def __init__(self, url: str | None, config: CacheConfig) -> None:
        self.repository = ResponseRepository(url, config=config)
        self.refusals: list[Refusal] = []
        self._prefix = config.prefix

    async def attempt(self, what: str, work: Awaitable[T]) -> T | None:
        """Do one thing; what is refused is noted."""
        try:
            return await work
        except InvalidationIncomplete as error:
            self.note(what, str(error.__cause__ or error))
        except (RepositoryError, ConfigError) as error:
            self.note(what, str(error))
        except FAULTS as error:
            self.note(what, str(translate(error)))
        return None

    def note(self, what: str, said: str) -> None:
        """Note a refusal, without the user's name and the place in a script."""
        wrapped = _WRAPPED.fullmatch(said)
        said = _PLACE.sub("", _USER.sub("this user ", wrapped[1] if wrapped else said))
        self.refusals.append(Refusal(what=what, command=self._missing(said), said=said))

    def _missing(self, said: str) -> str:
        """Return the right that is missing: a command, or a pattern as ACL SETUSER takes it; or nothing."""
        if "permission" not in said and "executing the script" not in said:
            return ""
        if _KEY.search(said):
            return f"~{self._prefix}:*"
        if _CHANNEL.search(said):
            return f"&{self._prefix}:*"
        command = _COMMAND.search(said)
        return command[1] or "the commands of the scripts" if command else ""

    async def use(self, key: CacheKey) -> None:
        """Do with one key all that the cache does."""
        repository, leases, now = self.repository, self.repository.leases, time.time()
        entry = Entry(
            answer=EncodedAnswer(kind="doctor", payload=b"doctor"), created=now, fresh_until=now + _SECONDS
        )
        commit = await self.attempt("store an answer", repository.persist(key, entry, ttl=_SECONDS))
        if commit is not None and commit.status is WriteStatus.ERR:
            self.note("store an answer", commit.detail)
        await self.attempt("read an answer", repository.fetch(key))
        lease = await self.attempt("take a lease", leases.acquire(key, token=new_token(), seen="*"))
        if isinstance(lease, Lease):
            await self._lead(key, lease)
        await self.attempt("invalidate an answer", repository.delete(key))

    async def _lead(self, key: CacheKey, lease: Lease) -> None:
        leases = self.repository.leases
        await self.attempt("renew a lease", leases.renew(key, lease))
        publishing = leases.publish(key, lease, first=1, last=1, data=b"doctor", is_end=False, most=1)
        if await self.attempt("send chunks of a stream", publishing) is False:
            self.refusals.append(Refusal(what="send chunks of a stream", command="xadd", said="XADD failed"))
        following = leases.acquire(key, token=new_token(), seen="*", live=True)
        await self.attempt("follow a stream", following)
        await self.attempt("follow a stream", leases.tail(key, fence=lease.fence, count=0))
        record = Record(kind=RecordKind.UNSHARED, seconds=_SECONDS)
        await self.attempt("give a lease up", leases.fail(key, token=lease.token, lease=lease, record=record))

    async def use_namespace(self) -> None:
        """Do what concerns all keys, and leave nothing."""
        await self.attempt("count what is stored", self.repository.size())
        await self.attempt("keep account of savings", self.repository.ledger.try_out())
        await self.attempt("evict", self.repository.evict_stale(max_keys=0))
        await self.attempt("clear a namespace", self.repository.clear())

    async def time_a_script(self, key: CacheKey) -> list[float]:
        """Return round trips of a script that does next to nothing."""
        times = []
        with suppress(RepositoryError, ConfigError):  # what is refused is known by now
            for _ in range(_TIMED):
                began = time.perf_counter()
                await self.repository.leases.tail(key, fence="", count=0)
                times.append(time.perf_counter() - began)
        return times


async def _wake(topology: Topology, channel: str) -> None:
    """Subscribe to a channel and send a message there."""
    subscriber = topology.subscriber()
    try:
        async with asyncio.timeout(_SECONDS):
            await subscriber.subscribe(channel)
            await subscriber.parse_response()
        for reply in await topology.run([("PUBLISH", channel, "")]):
            if isinstance(reply, Exception):
                raise reply
    finally:
        await subscriber.aclose()  # type: ignore[no-untyped-call]
        await subscriber.connection_pool.aclose()
