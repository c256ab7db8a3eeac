"""Leases, answers, records and marks against a model, step by step on real servers.

Hypothesis walks over everything that callers, crashes and evictions can do to two keys. A model in Python
says beforehand what each call must be told, and after each step the server must hold what the model says.
Time is counted in steps, and age in invalidations: the model knows no clocks. What may be served is asserted
from the answer alone, whatever else the model thinks: an answer belongs to the invalidation it began after.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import redis
from entries import answer_in, entry_of, key_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llmcache_plugins import CacheConfig, ResponseRepository
from llmcache_plugins.models import (
    Absent,
    FailureReport,
    Found,
    Lease,
    Record,
    RecordKind,
    SharedFailure,
    Wait,
    WriteStatus,
)
from llmcache_plugins.repository import new_token

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from servers import Server

    from llmcache_plugins.repository import Acquired, Ask

T = TypeVar("T")

NAMES = ("one", "two")
OF_BUCKET = ("marks", "epoch", "log", "size")
OF_REQUEST = ("entry", "lease", "record")
MOST_REMEMBERED = 6

# One of many keys is hardly ever asked for twice: the second is there to be left alone.
names = st.sampled_from(("one", "one", "one", "two"))
picks = st.integers(0, MOST_REMEMBERED - 1)
kinds = st.sampled_from((None, *RecordKind))
leading_modes: st.SearchStrategy[Ask] = st.sampled_from(("lead", "lead", "lead", "follow", "fence"))

walks = settings(
    deadline=None,
    max_examples=60,
    stateful_step_count=30,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)


# --- The model ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Flight:
    """A right to store that somebody was given; `generation` is how often its key had been invalidated."""

    name: str
    lease: Lease
    generation: int
    marks: int


@dataclass(frozen=True)
class Stored:
    """An entry: whose, what it says, and the epoch it was last found valid in."""

    flight: Flight
    answer: str
    checked: int
    body: bytes = b""

    @property
    def fence(self) -> str:
        return self.flight.lease.fence


@dataclass(frozen=True)
class Left:
    """What a failing flight left at a step, and the step of the failure before it that counts with it."""

    kind: RecordKind
    at: int
    before: int | None
    report: FailureReport
    number: int


@dataclass
class Waiter:
    """Somebody who was told to wait: by the model's clock, and by the server's."""

    name: str
    token: str
    at: int
    since: str


class Model:
    """What a server must hold and say. Marks and epochs are numbers: the next one is another one."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.step = 0
        self.marks: int | None = None
        self.current = 0
        self.epoch: int | None = None
        self.generations = dict.fromkeys(NAMES, 0)
        self.entries: dict[str, Stored | None] = dict.fromkeys(NAMES)
        self.holders: dict[str, Flight | None] = dict.fromkeys(NAMES)
        self.records: dict[str, Left | None] = dict.fromkeys(NAMES)
        self.marked: dict[str, int] = {}

    def open_marks(self) -> int:
        """Every script that judges finds marks, or makes new ones and a new epoch."""
        if self.marks is None:
            self.marks = next(self._numbers)
            self.current = next(self._numbers)
            self.epoch = self.current
        elif self.epoch is None:
            self.epoch = self.current
        return self.marks

    def void(self, flight: Flight) -> WriteStatus | None:
        if flight.marks != self.marks:
            return WriteStatus.FORGOTTEN
        if flight.generation != self.generations[flight.name]:
            return WriteStatus.INVALIDATED
        return None

    def read(self, name: str) -> tuple[Stored | None, int | None]:
        return self.entries[name], self.epoch

    def judge(self, name: str, value: Stored | None, epoch: int | None) -> Stored | None:
        """What was read is served as it is if its epoch is the one that was read with it."""
        while value is not None and value.checked != epoch:
            self.open_marks()
            stored = self.entries[name]
            if stored is None:
                return None
            if stored.flight is value.flight:
                is_void = self.void(stored.flight) is not None
                self.entries[name] = None if is_void else replace(stored, checked=self.current)
                return None if is_void else value
            value, epoch = stored, self.current
        return value

    def told(self, name: str, since: int | None) -> str | None:
        """What the record of a key says to one who has waited since a step, or to a newcomer."""
        left = self.records[name]
        if left is None or left.number < self.marked.get(name, 0):
            return None
        until = left.at
        match left.kind:
            case RecordKind.RATE_LIMITED:
                return "error"
            case RecordKind.PASSING | RecordKind.OWN:
                if left.before is None:
                    return None
                until = left.before
        if since is None or since > until:
            return None
        return "error" if left.kind in (RecordKind.REFUSED, RecordKind.PASSING) else "alone"

    def acquire(
        self, name: str, *, token: str, mode: Ask, seen: str, since: int | None
    ) -> tuple[str, Stored | Flight | FailureReport | None]:
        self.open_marks()
        stored = self.entries[name]
        if stored is not None and seen not in ("*", stored.fence):
            found = self.judge(name, stored, self.current)
            if found is not None:
                return "found", found
        verdict = None
        if mode != "fence":
            holder = self.holders[name]
            if holder is not None and self.void(holder):
                holder = self.holders[name] = None
            if holder is not None and holder.lease.token == token:
                return "own", holder
            verdict = self.told(name, since)
            if verdict == "error":
                left = self.records[name]
                assert left is not None
                return "error", left.report
            if verdict is None and holder is not None:
                return "wait", holder
            if mode == "follow":
                return "absent", None
        return ("alone" if verdict or mode == "fence" else "lead"), None

    def renew(self, flight: Flight) -> bool:
        self.open_marks()
        holder = self.holders[flight.name]
        if self.void(flight):
            self.release(flight.name, flight.lease.token)
            return False
        if holder is None:
            self.holders[flight.name] = flight
            return True
        return holder.lease.token == flight.lease.token

    def release(self, name: str, token: str) -> bool:
        holder = self.holders[name]
        if holder is None or holder.lease.token != token:
            return False
        self.holders[name] = None
        return True

    def commit(self, flight: Flight, answer: str) -> WriteStatus:
        self.open_marks()
        self.release(flight.name, flight.lease.token)
        stored = self.entries[flight.name]
        if reason := self.void(flight):
            return reason
        if stored is not None and stored.fence > flight.lease.fence:
            return WriteStatus.SUPERSEDED
        if stored is None or stored.fence != flight.lease.fence:
            self.entries[flight.name] = Stored(flight, answer, checked=self.current)
        self.records[flight.name] = None
        return WriteStatus.OK

    def fail(self, flight: Flight, kind: RecordKind | None, report: FailureReport) -> WriteStatus:
        name, counted = flight.name, (RecordKind.PASSING, RecordKind.OWN)
        if self.release(name, flight.lease.token) and kind is not None and not self.void(flight):
            last = self.records[name]
            is_second = last is not None and last.kind in counted and kind in counted
            self.records[name] = Left(
                kind,
                self.step,
                last.at if last and is_second else None,
                report,
                number=next(self._numbers),
            )
        return self.void(flight) or WriteStatus.OK

    def delete(self, name: str) -> None:
        self.open_marks()
        self.generations[name] += 1
        self.marked[name] = next(self._numbers)
        self.entries[name] = self.holders[name] = self.records[name] = None

    def clear(self, *, is_swept: bool) -> None:
        self.open_marks()
        for name in NAMES:
            self.generations[name] += 1
            self.marked[name] = next(self._numbers)
            if is_swept:
                self.entries[name] = self.holders[name] = self.records[name] = None
        self.current = next(self._numbers)
        self.epoch = self.current

    def lose(self, what: str, name: str) -> None:
        match what:
            case "marks":
                self.marks = None
                self.marked.clear()
            case "epoch":
                self.epoch = None
            case "entry":
                self.entries[name] = None
            case "lease":
                self.holders[name] = None
            case "record":
                self.records[name] = None


# --- The walk -----------------------------------------------------------------------------------------------


class Walk(RuleBasedStateMachine):
    """One walk in a namespace of its own: what one caller after the other is told."""

    def __init__(self, server: Server, raw: redis.Redis, counts: collections.Counter[str]) -> None:
        super().__init__()
        self.raw = raw
        self.counts = counts
        self.runner = asyncio.Runner()
        self.namespace = f"walk-{uuid.uuid4().hex}"
        # Nothing ends by itself within a walk, however slow the machine: ends are steps.
        config = CacheConfig(namespace=self.namespace, lease_ttl=120.0, socket_timeout=20.0)
        self.repository = ResponseRepository(server.url, config=config)
        self.keys = {name: key_of(name, namespace=self.namespace) for name in NAMES}
        self.places = {name: self.locate(name)[1] for name in NAMES}
        self.model = Model()
        self.flights: list[Flight] = []
        self.waiters: list[Waiter] = []
        self.reads: list[tuple[str, Stored | None, int | None, Any, int]] = []
        self.seen = dict.fromkeys(NAMES, "")
        self.latest = dict.fromkeys(NAMES, "")
        self.births: dict[int, str] = {}
        self.made_in: dict[str, tuple[str, int]] = {}

    def teardown(self) -> None:
        self.runner.run(self.repository.aclose())
        self.runner.close()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        self.model.step += 1
        return self.runner.run(call)

    def locate(self, name: str) -> tuple[Any, Any]:
        async def here() -> tuple[Any, Any]:
            return self.repository._locate(self.keys[name])

        return self.runner.run(here())

    # -- what may be said ------------------------------------------------------------------------------

    def check_served(self, name: str, found: Found, *, generation: int | None = None) -> str:
        """No answer of another key, none whose flight began before the last invalidation was acknowledged.

        `generation` is for a reader that had begun before it.
        """
        answer = str(answer_in(found))
        asked, made_in = self.made_in[answer]
        assert asked == name, f"{name} was answered with {answer!r}"
        least = self.model.generations[name] if generation is None else generation
        assert made_in >= least, f"{answer!r} is of generation {made_in}, asked for in {least}: stale"
        self.seen[name] = found.fence
        return answer

    def check_granted(self, name: str, lease: Lease) -> Flight:
        """A new fence is later than all there were, and than all marks."""
        assert lease.fence > self.latest[name], "a fence that is not newer than an earlier one or a mark"
        assert self.model.marks is not None
        assert self.births.setdefault(self.model.marks, lease.birth) == lease.birth
        self.latest[name] = lease.fence
        flight = Flight(name, lease, self.model.generations[name], self.model.marks)
        self.flights = [*self.flights, flight][-MOST_REMEMBERED:]
        return flight

    def new_answer(self, flight: Flight) -> str:
        answer = f"answer {len(self.made_in)} to {flight.name}"
        self.made_in[answer] = (flight.name, flight.generation)
        return answer

    def ask(
        self, name: str, token: str, *, mode: Ask = "lead", seen: str = "", waiter: Waiter | None = None
    ) -> None:
        was_held = self.model.holders[name]
        expected, what = self.model.acquire(
            name, token=token, mode=mode, seen=seen, since=waiter.at if waiter else None
        )
        reply = self.run(
            self.repository.leases.acquire(
                self.keys[name], token=token, mode=mode, seen=seen, since=waiter.since if waiter else ""
            )
        )
        self.counts[f"asked: {expected}"] += 1
        told, said = self.describe(name, reply)
        if told == "lease":
            assert isinstance(reply, Lease)
            if expected == "own":
                assert isinstance(what, Flight)
                assert reply == replace(what.lease, is_held=mode == "lead")
                return
            assert expected in ("lead", "alone"), f"expected {expected}, but may store: {reply}"
            assert reply.token == token
            assert reply.is_held == (expected == "lead")
            flight = self.check_granted(name, reply)
            if expected == "lead":
                assert was_held is None or self.model.void(was_held), "two valid leases"
                self.model.holders[name] = flight
            return
        assert told == expected, f"expected {expected}, was told {reply}"
        match what:
            case Stored():
                assert (said, self.seen[name]) == (what.answer, what.fence)
            case Flight():
                assert isinstance(reply, Wait)
                assert said == what.lease.fence
                if waiter is None:
                    newcomer = Waiter(name, token, self.model.step, reply.time)
                    self.waiters = [*self.waiters, newcomer][-MOST_REMEMBERED:]
            case _:
                assert said == what

    def describe(self, name: str, reply: Acquired) -> tuple[str, object]:
        match reply:
            case Found():
                return "found", self.check_served(name, reply)
            case Lease():
                return "lease", reply.fence
            case Wait():
                assert 0 < reply.seconds <= 120
                assert reply.batches == ()
                return "wait", reply.fence
            case SharedFailure():
                assert 0 <= reply.age < 120
                return "error", reply.report
            case Absent():
                return "absent", None

    # -- callers ---------------------------------------------------------------------------------------

    @rule(name=names, mode=leading_modes, seen=st.sampled_from(("", "", "what was fetched", "*")))
    def a_newcomer_asks(self, name: str, mode: Ask, seen: str) -> None:
        if seen == "what was fetched":
            seen = self.seen[name]
        self.ask(name, new_token(), mode=mode, seen=seen)

    @rule(name=names)
    def two_newcomers_ask(self, name: str) -> None:
        """Without a look at what is there: one of them leads and one waits, or something is told to both."""
        for _ in range(2):
            self.ask(name, new_token(), seen=self.seen[name])

    @precondition(lambda self: self.waiters)
    @rule(pick=picks, mode=leading_modes, seen=st.sampled_from(("", "*")))
    def a_waiter_asks_again(self, pick: int, mode: Ask, seen: str) -> None:
        waiter = self.waiters[-1 - pick % len(self.waiters)]
        self.ask(waiter.name, waiter.token, mode=mode, seen=seen, waiter=waiter)

    @precondition(lambda self: self.waiters)
    @rule()
    def all_waiters_ask_again(self) -> None:
        for waiter in self.waiters:
            self.ask(waiter.name, waiter.token, waiter=waiter)

    @precondition(lambda self: self.flights)
    @rule(pick=picks, seen=st.sampled_from(("", "*")))
    def a_leader_asks_again(self, pick: int, seen: str) -> None:
        """Its reply was lost, or it is asked for another round."""
        flight = self.flights[-1 - pick % len(self.flights)]
        self.ask(flight.name, flight.lease.token, seen=seen)

    @precondition(lambda self: self.flights)
    @rule(pick=picks)
    def renew(self, pick: int) -> None:
        self._renew(self.flights[-1 - pick % len(self.flights)])

    def _renew(self, flight: Flight) -> None:
        expected = self.model.renew(flight)
        assert self.run(self.repository.leases.renew(self.keys[flight.name], flight.lease)) == expected
        self.counts[f"renewed: {expected}"] += 1

    @precondition(lambda self: self.flights)
    @rule(pick=picks, times=st.sampled_from((1, 1, 2)))
    def commit(self, pick: int, times: int) -> None:
        """By a leader, by one that has lost its lease, again at once or much later."""
        self._commit(self.flights[-1 - pick % len(self.flights)], times)

    def _commit(self, flight: Flight, times: int = 1) -> None:
        for _ in range(times):
            answer = self.new_answer(flight)
            before = self.model.entries[flight.name]
            expected = self.model.commit(flight, answer)
            fence_before = self.fence_of(flight.name)
            commit = self.run(
                self.repository.leases.commit(
                    self.keys[flight.name], entry_of(answer), ttl=3600.0, lease=flight.lease
                )
            )
            is_repeated = before is not None and before.flight is flight
            self.counts[f"committed: {expected}{' again' if is_repeated else ''}"] += 1
            assert commit.status is expected, commit
            assert fence_before <= self.fence_of(flight.name), "an older answer replaced a newer one"
            if commit.status is WriteStatus.OK:
                assert flight.generation == self.model.generations[flight.name], "stale, and stored"
            self.note_body(flight.name)

    @rule(name=names)
    def persist(self, name: str) -> None:
        """A plain write: its fence is made by the server."""
        marks = self.model.open_marks()
        flight = Flight(name, Lease(token="", fence="", birth=""), self.model.generations[name], marks)
        answer = self.new_answer(flight)
        commit = self.run(self.repository.persist(self.keys[name], entry_of(answer)))
        assert commit.status is WriteStatus.OK
        assert commit.detail > self.latest[name]
        self.latest[name] = commit.detail
        flight = replace(flight, lease=replace(flight.lease, fence=commit.detail))
        self.model.commit(flight, answer)
        self.note_body(name)

    def fence_of(self, name: str) -> bytes:
        fence = self.raw.getrange(self.places[name]["entry"], 16, 31)
        assert isinstance(fence, bytes)
        return fence

    def note_body(self, name: str) -> None:
        stored = self.model.entries[name]
        if stored is not None and not stored.body:
            self.model.entries[name] = replace(stored, body=self.get(name, "entry")[64:])

    @precondition(lambda self: self.flights)
    @rule(pick=st.sampled_from((0, 0, 0, *range(MOST_REMEMBERED))), kind=kinds)
    def fail(self, pick: int, kind: RecordKind | None) -> None:
        self._fail(self.flights[-1 - pick % len(self.flights)], kind)

    @precondition(lambda self: any(self.model.holders.values()))
    @rule(name=names, kind=kinds)
    def the_leader_fails(self, name: str, kind: RecordKind | None) -> None:
        holder = self.model.holders[name]
        if holder is not None:
            self._fail(holder, kind)

    def _fail(self, flight: Flight, kind: RecordKind | None) -> None:
        number = self.model.step
        report = FailureReport(status=number, retry_after=number / 2, error_class=f"Error{number}")
        record = None if kind is None else Record(kind=kind, seconds=120.0, report=report)
        token = flight.lease.token
        failing = self.repository.leases.fail(
            self.keys[flight.name], token=token, lease=flight.lease, record=record
        )
        status = self.run(failing)
        assert status is self.model.fail(flight, kind, report)
        self.counts[f"failed: {status}"] += 1

    @rule(name=names, first=kinds, second=kinds)
    def two_leaders_fail_in_turn(
        self, name: str, first: RecordKind | None, second: RecordKind | None
    ) -> None:
        """Some have waited through both, some through one, some come when it is over."""
        for kind in (first, second):
            self.two_newcomers_ask(name)
            self.the_leader_fails(name, kind)
        self.ask(name, new_token(), mode="follow", seen="*")
        self.all_waiters_ask_again()
        self.two_newcomers_ask(name)

    @rule(name=names)
    def a_leader_is_overtaken(self, name: str) -> None:
        """It was paused for longer than its lease lives, and another has led and stored since."""
        self.two_newcomers_ask(name)
        late = self.model.holders[name]
        if late is not None:
            self.ask(name, late.lease.token, seen="*")
        self.lose(name, "lease")
        self.two_newcomers_ask(name)
        newer = self.model.holders[name]
        if late is not None and newer is not None:
            self._renew(newer)
            self._commit(newer)
            self._commit(late)
            self._commit(newer)

    @rule(name=names, how=st.sampled_from(("delete", "clear", "marks")), asks=st.booleans())
    def a_flight_becomes_void(self, name: str, how: str, *, asks: bool) -> None:
        """It stores nothing, keeps no lease, and nobody waits for it."""
        self.two_newcomers_ask(name)
        flight = self.model.holders[name]
        if how == "marks":
            self.lose(name, "marks")
        elif how == "delete":
            self.delete(name)
        else:
            self.clear()
        if asks:
            self.two_newcomers_ask(name)
        if flight is not None:
            self._renew(flight)
            self._commit(flight)

    @precondition(lambda self: self.flights)
    @rule(pick=picks)
    def crash(self, pick: int) -> None:
        """Whoever holds this will not be heard of again; its lease stays until it expires."""
        self.flights.pop(-1 - pick % len(self.flights))

    # -- readers ---------------------------------------------------------------------------------------

    @rule(name=names)
    def fetch(self, name: str) -> None:
        expected = self.model.judge(name, *self.model.read(name))
        found = self.run(self.repository.fetch(self.keys[name]))
        answer = None if found is None else self.check_served(name, found)
        self.counts["fetched" if found else "missed"] += 1
        assert answer == (None if expected is None else expected.answer)

    @rule(name=names)
    def begin_to_read(self, name: str) -> None:
        """A reader has its bytes, and is slow to judge them."""
        place = self.places[name]
        raw = self.raw.mget([place["entry"], place["epoch"]])
        read = (name, *self.model.read(name), raw, self.model.generations[name])
        self.reads = [*self.reads, read][-MOST_REMEMBERED:]

    @rule(
        name=names,
        lost=st.sampled_from(("epoch", "epoch", "marks", "nothing")),
        first=st.sampled_from(("nothing", "nothing", "delete", "clear", "entry")),
    )
    def a_reader_is_overtaken(self, name: str, lost: str, first: str) -> None:
        """What it has read is invalidated, replaced, both or neither, before it is judged."""
        for then in ("nothing", "persist", "commit"):
            if self.model.entries[name] is None:
                self.persist(name)
            self.lose(name, lost)
            self.begin_to_read(name)
            if first == "delete":
                self.delete(name)
            elif first == "clear":
                self.clear()
            else:
                self.lose(name, first)
            if then == "persist":
                self.persist(name)
            elif then == "commit" and self.flights:
                self.commit(0, 1)
            self.end_reading(0)
            self.fetch(name)

    @precondition(lambda self: self.reads)
    @rule(pick=picks)
    def end_reading(self, pick: int) -> None:
        name, value, epoch, raw, generation = self.reads.pop(-1 - pick % len(self.reads))
        expected = self.model.judge(name, value, epoch)
        link, place = self.locate(name)
        found = self.run(self.repository._judge.judge(link, place, *raw))
        assert (expected is not None) == isinstance(found, Found), f"expected {expected}, was told {found}"
        if isinstance(found, Found):
            assert expected is not None
            needed_a_check = value is None or value.checked != epoch
            answer = self.check_served(name, found, generation=None if needed_a_check else generation)
            assert answer == expected.answer
            self.counts["read slowly" if value is expected else "read another"] += 1

    # -- invalidations and losses ----------------------------------------------------------------------

    @rule(name=names)
    def delete(self, name: str) -> None:
        was_there = self.model.entries[name] is not None
        assert self.run(self.repository.delete(self.keys[name])) == was_there
        self.model.delete(name)
        self.note_mark(f"k:{self.keys[name].digest}", [name])

    @rule()
    def clear(self) -> None:
        expected = sum(stored is not None for stored in self.model.entries.values())
        assert self.run(self.repository.clear()) == expected
        self.model.clear(is_swept=True)
        self.note_mark("n", NAMES)

    @rule()
    def clear_cut_short(self) -> None:
        """The process that clears dies before it has removed the entries: they are void all the same."""
        self.run(self.repository.invalidate(everything=True))
        self.model.clear(is_swept=False)
        self.note_mark("n", NAMES)
        for name in NAMES:
            self.fetch(name)

    def note_mark(self, subject: str, invalidated: Sequence[str]) -> None:
        mark = self.raw.hget(self.places["one"]["marks"], subject)
        assert isinstance(mark, bytes)
        for name in invalidated:
            assert mark.decode() > self.latest[name], "a mark that is not newer than a fence it voids"
            self.latest[name] = mark.decode()

    @rule(name=names, what=st.sampled_from(("lease", "entry", "record")))
    def expire(self, name: str, what: str) -> None:
        self.lose(name, what)

    @rule(what=st.sampled_from(OF_BUCKET))
    def evict(self, what: str) -> None:
        self.lose("one", what)

    def lose(self, name: str, what: str) -> None:
        if what != "nothing":
            self.counts[f"lost: {what}"] += int(bool(self.raw.unlink(self.places[name][what])))
            self.model.lose(what, name)

    # -- what the server holds -------------------------------------------------------------------------

    def get(self, name: str, what: str) -> bytes:
        value = self.raw.get(self.places[name][what])
        assert isinstance(value, bytes)
        return value

    @invariant()
    def the_server_holds_what_the_model_says_and_nothing_for_ever(self) -> None:
        place = self.places["one"]
        request_keys = [self.places[name][what] for name in NAMES for what in OF_REQUEST]
        all_keys = [*request_keys, *(place[what] for what in OF_BUCKET)]
        pipeline = self.raw.pipeline(transaction=False)
        pipeline.mget(request_keys)
        pipeline.mget([place["epoch"]])
        pipeline.hmget(place["marks"], ["birth", "epoch"])
        for key in all_keys:
            pipeline.pttl(key)
        values, [epoch], [birth, current], *ttls = pipeline.execute()

        immortal = [key for key, ttl in zip(all_keys, ttls, strict=True) if ttl == -1]
        assert not immortal, f"keys that never expire: {immortal}"
        assert (birth is None) == (self.model.marks is None)
        if birth is not None and self.model.marks is not None:
            assert self.births.setdefault(self.model.marks, birth.decode()) == birth.decode()
        assert (epoch is None) == (self.model.epoch is None)
        if birth is not None and epoch is not None:
            assert epoch == current
        for index, name in enumerate(NAMES):
            self.compare(name, *values[index * 3 : index * 3 + 3])
            stored, entry = self.model.entries[name], values[index * 3]
            if stored is not None and current is not None:
                # So that it is judged once, and not by every reader.
                assert (entry[48:64] == current) == (stored.checked == self.model.current)

    def compare(self, name: str, entry: bytes | None, lease: bytes | None, record: bytes | None) -> None:
        stored, holder, left = (
            self.model.entries[name],
            self.model.holders[name],
            self.model.records[name],
        )
        fence = entry[16:32].decode() if entry else ""
        assert (fence, entry[64:] if entry else b"") == ((stored.fence, stored.body) if stored else ("", b""))
        held = holder.lease if holder else None
        assert (lease or b"").decode() == (held.token + held.fence + held.birth if held else "")
        assert (record or b"")[:1].decode() == (left.kind if left else "")


HAPPENS = {
    *(f"asked: {told}" for told in ("absent", "alone", "error", "found", "lead", "own", "wait")),
    *(f"committed: {status}" for status in ("OK", "OK again", "SUPERSEDED", "INVALIDATED", "FORGOTTEN")),
    *(f"renewed: {is_kept}" for is_kept in (True, False)),
    *("failed: OK", "fetched", "missed", "read slowly", "read another"),
    *(f"lost: {what}" for what in ("marks", "epoch", "lease", "entry")),
}


@pytest.mark.timeout(600)  # when it fails it takes its time to find out why
@pytest.mark.parametrize("kind", ["valkey", "redis8"])
def test_whatever_callers_crashes_and_evictions_do_everybody_is_told_what_is_promised(
    kind: str, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(kind)
    counts: collections.Counter[str] = collections.Counter()
    with redis.Redis.from_url(server.url) as raw:

        class WalkHere(Walk):
            def __init__(self) -> None:
                super().__init__(server, raw, counts)

        run_state_machine_as_test(WalkHere, settings=walks)
    # Walks on which nothing happens prove nothing.
    missing = HAPPENS - {what for what, count in counts.items() if count}
    assert not missing, f"no walk came across {missing}"
