"""Leases: who may fetch the answer of a key, what the others are told, and the chunks they may follow.

Each call is one script and safe to repeat. Owns what the scripts' replies mean; whom to ask the provider,
when to ask again and whom to wake is the cache's affair.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from llmcache_plugins.errors import RepositoryUnavailable
from llmcache_plugins.models import (
    UNKNOWN,
    Absent,
    Batch,
    Commit,
    FailureReport,
    Found,
    Lease,
    Provenance,
    SharedFailure,
    Tail,
    Wait,
    WriteStatus,
)
from llmcache_plugins.repository.reading import subjects
from llmcache_plugins.repository.timings import milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from llmcache_plugins.keys import BucketKeys, CacheKey
    from llmcache_plugins.models import Entry, Record
    from llmcache_plugins.repository.link import Link
    from llmcache_plugins.repository.reading import Judge
    from llmcache_plugins.repository.scripts import Argument
    from llmcache_plugins.repository.timings import Timings
    from llmcache_plugins.repository.wakes import Ear
    from llmcache_plugins.repository.writing import Writer

__all__ = ["Acquired", "Ask", "Leases", "new_token"]

Acquired = Found | Lease | Wait | SharedFailure | Absent
Ask = Literal["lead", "follow", "fence", "refresh"]

_MOST_ROUNDS = 4


def new_token() -> str:
    """Return the name of a new owner of leases: 32 hexadecimal digits."""
    return secrets.token_hex(16)


class Leases:
    """The leases of one repository. Calls raise what those of the repository do."""

    def __init__(
        self,
        *,
        locate: Callable[[CacheKey], tuple[Link, BucketKeys]],
        judge: Judge,
        writer: Writer,
        timings: Timings,
    ) -> None:
        self._locate = locate
        self._judge = judge
        self._writer = writer
        self._timings = timings

    async def acquire(
        self,
        key: CacheKey,
        *,
        token: str,
        mode: Ask = "lead",
        seen: str = "",
        since: str = "",
        live: bool = False,
        provenance: Provenance = UNKNOWN,
    ) -> Acquired:
        """Look again, and take the lease of a key if nobody has it.

        `token` names the caller; asking again with the same one is safe. `mode="follow"` never takes the
        lease and is told `Absent` when nobody has it; `mode="fence"` gives the right to store without the
        lease: others may call the provider too. `mode="refresh"` takes the lease, and is told `Absent` when
        somebody has it or the provider has failed in the last `error_ttl` seconds.

        `seen` is the fence of an entry that was read and could not be used, or is to be replaced; "*" is
        whatever is there. `since` is the `time` of the first `Wait` this caller was told: what a failing
        leader leaves is for those who were waiting. `live` asks for a stream's chunks. `provenance` is what
        the answer will be made from: whoever invalidates that voids the flight.
        """
        link, names = self._locate(key)
        for _ in range(_MOST_ROUNDS):
            arguments: dict[str, Argument] = {
                "token": token,
                "mode": mode,
                "seen": seen,
                "since": since,
                "live": int(live),
                "lease_ms": self._timings.lease_ms,
                "marks_ms": self._timings.marks_ms(),
                "pause_ms": self._timings.error_ms,
            }
            reply = await link.run("acquire", names, arguments, subjects(key.digest, provenance))
            if reply[0] != b"HIT":
                return _acquired(reply, token=token, mode=mode, provenance=provenance)
            found = await self._judge.judge(link, names, reply[1], reply[2])
            if isinstance(found, Found):
                return found
            seen = found.seen
        raise RepositoryUnavailable("the entry changed faster than it could be judged")

    async def renew(self, key: CacheKey, lease: Lease) -> bool:
        """Keep a lease for another `lease_ttl`; False when another holds it or the flight is void."""
        link, names = self._locate(key)
        arguments: dict[str, Argument] = {
            **_owner(lease),
            "lease_ms": self._timings.lease_ms,
            "marks_ms": self._timings.marks_ms(),
            "root": names.root,
            "digest": key.digest,
        }
        about = subjects(key.digest, lease.provenance)
        return bool(await link.run("renew", names, arguments, about) == b"OK")

    async def commit(self, key: CacheKey, entry: Entry, *, ttl: float, lease: Lease) -> Commit:
        """Store the answer of a flight and release its lease; `ttl` in seconds.

        Never over a newer answer, never past an invalidation, and safe to repeat.
        """
        return await self._writer.write(key, entry, ttl=ttl, lease=lease)

    async def fail(
        self, key: CacheKey, *, token: str, lease: Lease | None = None, record: Record | None = None
    ) -> WriteStatus:
        """Give a lease up without storing, if it is still held by this token.

        `record` is left to those who wait. Returns OK, or why nobody else must get the answer of `lease`.
        """
        link, names = self._locate(key)
        lease = lease or Lease(token=token, fence="", birth="")
        arguments: dict[str, Argument] = {
            **_owner(lease),
            "kind": record.kind if record else "",
            "report": msgspec.json.encode(record.report) if record else b"",
            "keep_ms": milliseconds(record.seconds) if record else 0,
            "root": names.root,
            "digest": key.digest,
        }
        about = subjects(key.digest, lease.provenance)
        said = (await link.run("fail", names, arguments, about)).decode()
        return WriteStatus.OK if said == "VALID" else WriteStatus(said)

    # -- streams under way -----------------------------------------------------------------------------

    async def publish(
        self, key: CacheKey, lease: Lease, *, first: int, last: int, data: bytes, is_end: bool, most: int
    ) -> bool:
        """Send the chunks `first` to `last`, counted from 1, on to those who follow; none keeps them alive.

        `most` is how many batches are kept. False: what came before is lost, or the flight is void; nobody
        can follow any more.
        """
        link, names = self._locate(key)
        arguments: dict[str, Argument] = {
            "fence": lease.fence,
            "first": first,
            "last": last,
            "data": data,
            "is_end": int(is_end),
            "most": most,
            "keep_ms": self._timings.chunks_ms,
            "root": names.root,
            "digest": key.digest,
        }
        return bool(await link.run("publish", names, arguments, subjects(key.digest, lease.provenance)))

    async def tail(self, key: CacheKey, *, fence: str, count: int) -> Tail:
        """Return what follows the first `count` chunks of the flight of this fence."""
        link, names = self._locate(key)
        is_there, rows = await link.run("tail", names, {"fence": fence, "count": count})
        return Tail(is_there=bool(is_there), batches=_batches(rows))

    # -- waking ----------------------------------------------------------------------------------------

    def listen(self, key: CacheKey) -> AbstractAsyncContextManager[Ear]:
        """Listen for "look again" while the context is open. Never raises: what is not heard is polled for.

        All that listen on one event loop share one connection.
        """
        link, names = self._locate(key)
        return link.wakes.listen(names["wake"])


def _owner(lease: Lease) -> dict[str, Argument]:
    return {"token": lease.token, "fence": lease.fence, "birth": lease.birth}


def _acquired(reply: Sequence[Any], *, token: str, mode: Ask, provenance: Provenance) -> Acquired:
    match reply[0]:
        case b"LEAD" | b"ALONE":
            return Lease(
                token=token,
                fence=reply[1].decode(),
                birth=reply[2].decode(),
                is_held=mode in ("lead", "refresh") and reply[0] == b"LEAD",
                provenance=provenance,
            )
        case b"WAIT":
            return Wait(
                seconds=max(reply[1], 0) / 1000,
                time=reply[2].decode(),
                fence=reply[3].decode(),
                batches=_batches(reply[4]),
            )
        case b"ERROR":
            return SharedFailure(report=_report(reply[1]), age=reply[2] / 1000)
    return Absent()


def _batches(rows: Sequence[Sequence[Any]]) -> tuple[Batch, ...]:
    return tuple(Batch(last=last, data=data, is_end=is_end == b"1") for last, data, is_end in rows)


def _report(data: bytes) -> FailureReport:
    try:
        return msgspec.json.decode(data, type=FailureReport)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return FailureReport()
