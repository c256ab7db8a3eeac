"""The ledger of savings: by day, namespace and model, in Redis, added to in the background.

Owns its keys, its bounds, and that a batch is added exactly once: it has a number in a lane, and the server
remembers the last number of each lane, so that a batch whose reply was lost may be sent again. What a process
has not sent when it is killed is lost; that is a second's.

    <prefix>:{ledger}:<day>              a hash: namespace, model and amount -> a whole number
    <prefix>:{ledger}:flushed:<lane>     the number of the last batch, for ten minutes

One hash for a day, whatever the number of namespaces: nobody has to look for them. It has at most
`MOST_FIELDS` fields, and what finds no room goes to `_other`. If the server evicts it, its day is forgotten:
flushes read the other days' from time to time so that they are not the ones that were not used for longest.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from llmcache_plugins.errors import ConfigError, RepositoryError
from llmcache_plugins.keys import encode_name
from llmcache_plugins.loops import tell_of_forks
from llmcache_plugins.repository.leases import new_token
from llmcache_plugins.savings import OTHER, UNKNOWN_MODEL, Savings, Tally, row_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmcache_plugins.config import CacheConfig
    from llmcache_plugins.loops import PerLoop
    from llmcache_plugins.models import Outcome, Usage
    from llmcache_plugins.repository.link import Link
    from llmcache_plugins.repository.scripts import Argument
    from llmcache_plugins.savings import Amounts, Place, SavingsRow

__all__ = ["Ledger", "spelled"]

MOST_FIELDS = 20_000
"""Of a day: some 2,000 pairs of namespace and model, 2 MB."""
_MOST_PLACES = 1000
"""That a process counts between two flushes."""
_LONGEST_NAME = 128
"""Characters of a name: anybody may send any model."""
_FLUSHED_MS = 600_000
_DAY_MS = 86_400_000
_TRIAL_MS = 1000
_TOUCH_EVERY = 300.0
_LONGEST_PAUSE = 60.0


@dataclass(slots=True)
class _Lane:
    """Batches of one lane are sent one after the other."""

    token: str
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class _Batch:
    lane: _Lane
    sequence: int
    day: str
    rows: dict[Place, Amounts]

    def arguments(self) -> list[str]:
        """Return name, amount, name without room, for each amount."""
        flat: list[str] = []
        for place, amounts in self.rows.items():
            for name, amount in amounts.items():
                flat += (_field(place, name), str(amount), _field((OTHER, OTHER), name))
        return flat


class _Keys:
    """The keys of a day and a lane, as scripts ask for them."""

    def __init__(self, root: str, *, day: str, lane: str = "") -> None:
        self.root = root
        self._names = {"day": root + day, "flushed": f"{root}flushed:{lane}"}

    def __getitem__(self, what: str) -> str:
        return self._names[what]


@dataclass(slots=True)
class _Desk:
    """What a process has not sent yet. Its child after a fork begins with an empty one."""

    tally: Tally = field(default_factory=lambda: Tally(most=_MOST_PLACES))
    lock: threading.Lock = field(default_factory=threading.Lock)
    failed: deque[_Batch] = field(default_factory=deque)
    lanes: list[_Lane] = field(default_factory=list)


class Ledger:
    """The savings of all namespaces under a prefix. Adding is for any thread; the rest needs a loop.

    `on_change` is called after something was added.
    """

    def __init__(
        self, *, links: PerLoop[Link], config: CacheConfig, on_change: Callable[[], None] = lambda: None
    ) -> None:
        tell_of_forks(self)
        self._links = links
        self._namespace = config.namespace
        self._days = config.ledger_days
        self._root = f"{encode_name(config.prefix)}:{{ledger}}:"
        self._on_change = on_change
        self._touched_at = -_TOUCH_EVERY
        self._pause, self._not_before = 0.0, 0.0
        self._desk = _Desk()

    def has_forked(self) -> None:
        """Forget what was not sent: in a child after a fork, where it is the parent's."""
        self._desk = _Desk()

    # -- adding ----------------------------------------------------------------------------------------

    def resolved(
        self,
        *,
        namespace: str | None,
        model: str | None,
        outcome: Outcome,
        usage: Usage | None,
        cost: float | None,
        seconds: float,
    ) -> None:
        """Add an answered call; `namespace` is None for one without a key: then it is the cache's own."""
        if not self._days:
            return
        place, desk = self._place(namespace, model), self._desk
        with desk.lock:
            desk.tally.resolved(place, outcome, usage=usage, cost=cost, seconds=seconds)
        self._on_change()

    def spent(self, *, namespace: str, model: str | None, usage: Usage, cost: float | None) -> None:
        """Add what the cache has spent."""
        if not self._days:
            return
        place, desk = self._place(namespace, model), self._desk
        with desk.lock:
            desk.tally.spent(place, usage=usage, cost=cost)
        self._on_change()

    # -- sending ---------------------------------------------------------------------------------------

    @property
    def has_news(self) -> bool:
        """Whether there is something to send, and a server to send it to that has not just refused."""
        desk = self._desk
        return bool(desk.tally or desk.failed) and time.monotonic() >= self._not_before

    async def flush(self, link: Link) -> None:
        """Send what there is. Raises what the repository raises; then it is sent again later."""
        if not self._days:
            return
        while (batch := self._next()) is not None:
            keys = _Keys(self._root, day=batch.day, lane=batch.lane.token)
            arguments: dict[str, Argument] = {
                "keep_ms": self._days * _DAY_MS,
                "flushed_ms": _FLUSHED_MS,
                "sequence": str(batch.sequence),
                "most": MOST_FIELDS,
            }
            try:
                await link.run("account", keys, arguments, batch.arguments())
            except BaseException as error:
                self._desk.failed.append(batch)
                if isinstance(error, RepositoryError | ConfigError):
                    self._pause = min(2 * self._pause + 1.0, _LONGEST_PAUSE)
                    self._not_before = time.monotonic() + self._pause
                raise
            self._desk.lanes.append(batch.lane)
            self._pause = 0.0
        await self._touch(link)

    def _next(self) -> _Batch | None:
        desk = self._desk
        with desk.lock:
            if desk.failed:
                return desk.failed.popleft()
            if not desk.tally:
                return None
            lane = desk.lanes.pop() if desk.lanes else _Lane(new_token())
            lane.sequence += 1
            return _Batch(lane, lane.sequence, _today(), desk.tally.take())

    async def _touch(self, link: Link) -> None:
        now = time.monotonic()
        if now - self._touched_at >= _TOUCH_EVERY:
            self._touched_at = now
            await link.send(self._root, ("TOUCH", *(self._root + day for day in _days(self._days))))

    async def try_out(self) -> None:
        """Do all that with a batch of nothing, on a day that is none. Raises what `flush` does."""
        link = self._links.current()
        keys = _Keys(self._root, day="trial", lane=new_token())
        arguments: dict[str, Argument] = {
            "keep_ms": _TRIAL_MS,
            "flushed_ms": _TRIAL_MS,
            "sequence": "1",
            "most": MOST_FIELDS,
        }
        nothing = _field((OTHER, OTHER), "hit")
        await link.run("account", keys, arguments, [nothing, "0", nothing])
        await link.run("accounted", keys, {})
        await link.send(self._root, ("TOUCH", keys["day"]))
        await link.send(self._root, ("UNLINK", keys["day"], keys["flushed"]))

    # -- reading ---------------------------------------------------------------------------------------

    async def read(self, *, days: int | None = None) -> Savings:
        """Return the rows of the last `days` days, today's (UTC) among them; None = all that are kept.

        What this process has counted is sent before. Raises what the repository raises.
        """
        link = self._links.current()
        await self.flush(link)
        wanted = _days(self._days if days is None else min(days, self._days))
        calls: list[Any] = [(_Keys(self._root, day=day), {}, ()) for day in wanted]
        replies = await link.run_apart("accounted", calls) if calls else []
        rows = [row for day, reply in zip(wanted, replies, strict=True) for row in _rows(day, reply)]
        return Savings(rows=tuple(rows))

    def _place(self, namespace: str | None, model: str | None) -> Place:
        name = self._namespace if namespace is None else namespace
        return spelled(name), (model or UNKNOWN_MODEL)[:_LONGEST_NAME]


def spelled(namespace: str) -> str:
    """Return a namespace as the ledger has it: as it is, unless it is very long."""
    return namespace if len(namespace) <= _LONGEST_NAME else encode_name(namespace)


def _field(place: Place, amount: str) -> str:
    return json.dumps((*place, amount), ensure_ascii=True, separators=(",", ":"))


def _rows(day: str, reply: list[bytes]) -> list[SavingsRow]:
    places: dict[Place, Amounts] = defaultdict(dict)
    for name, amount in zip(reply[::2], reply[1::2], strict=True):
        namespace, model, what = json.loads(name)
        places[namespace, model][what] = int(amount)
    return [row_of(day, place, amounts) for place, amounts in sorted(places.items())]


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _days(count: int) -> list[str]:
    today = datetime.now(UTC).date()
    return [(today - timedelta(days=n)).isoformat() for n in range(count)]
