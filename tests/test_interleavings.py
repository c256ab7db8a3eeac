"""Every order in which the loop may run what is ready: flights and broadcasts keep their promises in all.

An event loop that asks at each step which of the ready callbacks goes next, and an explorer that walks the
tree of its answers: all of it where it is small, else its first thousands and as many at random. asyncio
promises first in, first out; code that needs it breaks as soon as an `await` is added somewhere, so nothing
here may. A failure names the choices that led to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any, Literal

import pytest

from llmcache_plugins.cache.streams.broadcast import Broadcast, Chunk
from llmcache_plugins.singleflight import Flights, GaveUp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Scenario = Callable[[], Awaitable[None]]

MOST_WALKS = 600
LONGEST_WALK = 400


class Choices:
    """The answers of one walk: those given, then the first of each, or one at random."""

    def __init__(self, given: list[int], *, rng: random.Random | None = None) -> None:
        self.given = given
        self.rng = rng
        self.made: list[tuple[int, int]] = []

    def choose(self, options: int) -> int:
        step = len(self.made)
        if step < len(self.given):
            chosen = self.given[step]
        elif self.rng is not None:
            chosen = self.rng.randrange(options)
        else:
            chosen = 0
        self.made.append((chosen, options))
        assert step < LONGEST_WALK, "the scenario does not come to an end"
        return chosen

    def next(self) -> list[int] | None:
        """Return the answers that lead to the next leaf of the tree, or None after the last."""
        made = list(self.made)
        while made:
            chosen, options = made.pop()
            if chosen + 1 < options:
                return [*(answer for answer, _ in made), chosen + 1]
        return None


class ChoosingLoop(asyncio.SelectorEventLoop):
    """Runs one ready callback at a time, in the order of the choices."""

    choices: Choices | None = None

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]
        waiting = list(ready)
        if self.choices is not None and len(waiting) > 1:
            chosen = waiting.pop(self.choices.choose(len(waiting)))
            ready.clear()
            ready.append(chosen)
            super()._run_once()  # type: ignore[misc]
            ready.extendleft(reversed(waiting))
        else:
            super()._run_once()  # type: ignore[misc]


def explore(scenario: Scenario) -> int:
    """Run a scenario in every order, or in many; return in how many."""
    walks = 0
    upcoming: list[int] | None = []
    while upcoming is not None and walks < MOST_WALKS:
        choices = Choices(upcoming)
        _walk(scenario, choices)
        walks, upcoming = walks + 1, choices.next()
    if upcoming is not None:
        rng = random.Random(7)
        for _ in range(MOST_WALKS):
            _walk(scenario, Choices([], rng=rng))
            walks += 1
    return walks


def _walk(scenario: Scenario, choices: Choices) -> None:
    loop = ChoosingLoop()
    try:
        task = loop.create_task(_alone(scenario))
        loop.choices = choices
        loop.run_until_complete(task)
    except BaseException as error:
        error.add_note(f"choices: {[chosen for chosen, _ in choices.made]}")
        raise
    finally:
        loop.choices = None
        loop.close()


async def _alone(scenario: Scenario) -> None:
    await scenario()
    for _ in range(5):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks are left: {left}"


class Body:
    """What flies: takes a few turns, counts itself, and says when it has come to its end, whichever."""

    def __init__(self, *, turns: int = 2, error: BaseException | None = None) -> None:
        self.turns = turns
        self.error = error
        self.begun = self.ended = self.finished = 0
        self.at_end = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        self.at_end.clear()
        try:
            for _ in range(self.turns):
                await asyncio.sleep(0)
            if self.error is not None and number == 1:
                raise self.error
            self.finished += 1
            return number
        finally:
            self.ended += 1
            if self.ended == self.begun:
                self.at_end.set()


async def cancel_after(task: asyncio.Task[Any], turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()


async def outcomes(*tasks: asyncio.Task[Any]) -> list[Any]:
    return list(await asyncio.gather(*tasks, return_exceptions=True))


def spawn(*work: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.get_running_loop().create_task(one) for one in work]


def test_the_explorer_meets_every_order() -> None:
    orders = set()

    async def scenario() -> None:
        order: list[str] = []

        async def one(name: str) -> None:
            order.append(name)

        await asyncio.gather(*spawn(one("a"), one("b"), one("c")))
        orders.add("".join(order))

    explore(scenario)
    assert orders == {"abc", "acb", "bac", "bca", "cab", "cba"}


def test_the_explorer_finds_a_race_that_the_usual_order_hides() -> None:
    async def scenario() -> None:
        value = 0

        async def add() -> None:
            nonlocal value
            seen = value
            await asyncio.sleep(0)
            value = seen + 1

        first, second = spawn(add(), add())
        await first
        await second
        assert value == 2

    with pytest.raises(AssertionError):
        explore(scenario)


def test_all_who_join_share_one_flight_and_each_gets_its_answer() -> None:
    async def scenario() -> None:
        flights: Flights[str, int] = Flights()
        body = Body()
        answers = await outcomes(*spawn(*(flights.join("k", body) for _ in range(3))))
        # Whoever comes after the landing starts another.
        assert {number for number, _ in answers} == set(range(1, body.begun + 1))
        assert sum(led for _, led in answers) == body.begun
        assert flights.count() == 0

    assert explore(scenario) > 100


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_one_that_is_cancelled_disturbs_nobody(turns: int) -> None:
    async def scenario() -> None:
        flights: Flights[str, int] = Flights()
        body = Body()
        callers = spawn(*(flights.join("k", body) for _ in range(3)))
        await asyncio.gather(*spawn(cancel_after(callers[0], turns)))
        for answer in (await outcomes(*callers))[1:]:
            assert not isinstance(answer, BaseException)
        assert body.ended == body.begun
        assert flights.count() == 0

    explore(scenario)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("on_abandon", ["cancel", "finish"])
def test_when_the_last_one_leaves_a_newcomer_still_gets_an_answer(
    turns: int, on_abandon: Literal["cancel", "finish"]
) -> None:
    async def scenario() -> None:
        flights: Flights[str, int] = Flights(on_abandon=on_abandon)
        body = Body()
        leaving, newcomer = spawn(flights.join("k", body), flights.join("k", body))
        await asyncio.gather(*spawn(cancel_after(leaving, turns)))
        answer, _ = await newcomer
        assert 1 <= answer <= body.begun <= 2
        await outcomes(leaving)
        await body.at_end.wait()
        if on_abandon == "finish":
            assert body.finished == body.begun

    explore(scenario)


def test_when_all_leave_the_flight_ends_and_nothing_is_left() -> None:
    async def scenario() -> None:
        flights: Flights[str, int] = Flights()
        body = Body(turns=4)
        callers = spawn(*(flights.join("k", body) for _ in range(2)))
        await asyncio.gather(*spawn(*(cancel_after(caller, 1) for caller in callers)))
        await outcomes(*callers)
        assert body.ended == body.begun
        assert flights.count() == 0

    explore(scenario)


def test_an_error_reaches_all_who_wait_and_nobody_who_comes_later() -> None:
    async def scenario() -> None:
        flights: Flights[str, int] = Flights()
        body = Body(error=ValueError("no"))
        answers = await outcomes(*spawn(*(flights.join("k", body) for _ in range(3))))
        failed = [answer for answer in answers if isinstance(answer, ValueError)]
        assert failed
        assert len(failed) == 3 or body.begun > 1
        assert flights.count() == 0

    explore(scenario)


def test_a_call_that_ends_as_cancelled_by_itself_is_only_its_starter_s_affair() -> None:
    async def scenario() -> None:
        flights: Flights[str, int] = Flights()
        body = Body(error=asyncio.CancelledError())

        async def join() -> tuple[int, bool]:
            while True:
                with contextlib.suppress(GaveUp):
                    return await flights.join("k", body)

        answers = await outcomes(*spawn(*(join() for _ in range(3))))
        cancelled = [answer for answer in answers if isinstance(answer, asyncio.CancelledError)]
        assert len(cancelled) == 1
        assert flights.count() == 0

    explore(scenario)


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_who_comes_after_a_detachment_never_gets_the_older_answer(turns: int) -> None:
    async def scenario() -> None:
        flights: Flights[str, int] = Flights()
        body = Body()
        detached_at = 0

        async def detach() -> tuple[int, bool]:
            nonlocal detached_at
            for _ in range(turns):
                await asyncio.sleep(0)
            flights.detach(lambda key: key == "k")
            detached_at = body.begun
            return await flights.join("k", body)

        waiting, newcomer = spawn(flights.join("k", body), detach())
        answer, _ = await newcomer
        assert answer > detached_at
        await waiting
        assert flights.count() == 0

    explore(scenario)


def test_closing_ends_what_nobody_waits_for_even_if_nobody_could_join_it() -> None:
    async def scenario() -> None:
        flights: Flights[str, int] = Flights(on_abandon="finish")
        forever = Body(turns=10_000)
        (left,) = spawn(flights.join("k", forever))
        await asyncio.gather(*spawn(cancel_after(left, 2)))
        flights.detach(lambda key: key == "k")
        await outcomes(left)
        assert flights.count() <= 1
        await flights.aclose()
        assert flights.count() == 0
        assert forever.ended == forever.begun

    explore(scenario)


def test_closing_ends_only_what_nobody_waits_for() -> None:
    async def scenario() -> None:
        flights: Flights[str, int] = Flights(on_abandon="finish")
        body, forever = Body(), Body(turns=10_000)
        left, stays = spawn(flights.join("left", forever), flights.join("stays", body))
        await asyncio.gather(*spawn(cancel_after(left, 2)))
        await outcomes(left)
        await flights.aclose()
        answer, _ = await stays
        assert answer == 1
        assert forever.finished == 0
        assert forever.ended == forever.begun

    explore(scenario)


@pytest.mark.parametrize("leaves_after", [0, 1, 2])
def test_every_reader_of_a_broadcast_gets_every_chunk_in_order_whoever_leaves(leaves_after: int) -> None:
    async def scenario() -> None:
        cast = Broadcast()
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def speak() -> None:
            for number in range(3):
                cast.add(Chunk(str(number).encode()))
                await asyncio.sleep(0)
            end.set_result(None)

        async def read(most: int) -> list[bytes | None]:
            heard: list[bytes | None] = []
            async with contextlib.aclosing(cast.read(end)) as chunks:
                async for chunk in chunks:
                    heard.append(chunk.packed)
                    if len(heard) == most:
                        break
            return heard

        _, early, late, short = await outcomes(*spawn(speak(), read(99), read(99), read(leaves_after + 1)))
        assert early == late == [b"0", b"1", b"2"]
        assert short == early[: leaves_after + 1]
        assert not cast._news

    explore(scenario)
