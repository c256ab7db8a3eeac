"""Calls that frameworks make: a lookup, and later, perhaps, an answer. Two caches stand for two processes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from waiting import wait_until_async

from llmcache_plugins import CacheMiss, InferenceGateway, Outcome, ResponseCache, StreamInterrupted
from llmcache_plugins.answers import PlainCodec
from llmcache_plugins.cache.errands import Errand
from llmcache_plugins.policy import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from servers import Server

PATIENT = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
QUERY = {"model": "m", "prompt": "the same for everybody"}


class StatusError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__("secret")
        self.status_code = status


@pytest.fixture
async def caches(valkey: Server, namespace: str) -> AsyncIterator[Callable[..., ResponseCache]]:
    made: list[ResponseCache] = []

    def make(**settings: Any) -> ResponseCache:
        made.append(ResponseCache.from_url(valkey.url, namespace=namespace, **{**PATIENT, **settings}))
        return made[-1]

    yield make
    for cache in made:
        await cache.aclose()


async def ask(cache: ResponseCache, query: Any = QUERY, **options: Any) -> Any:
    """Look up as a framework does, in a task of its own: the answer, or the errand."""
    found = await cache.acquire(query, **options)
    return found if found is None or isinstance(found, Errand) else found.answer


def asking(cache: ResponseCache, query: Any = QUERY, **options: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(ask(cache, query, **options))


async def errand(cache: ResponseCache, query: Any = QUERY) -> Errand:
    """Be sent, by a task that has ended meanwhile."""
    found = await asking(cache, query)
    assert isinstance(found, Errand)
    return found


async def waits(task: asyncio.Task[Any]) -> None:
    """Let everything happen that could: it is still waiting."""
    await asyncio.wait((task,), timeout=0.1)
    assert not task.done()


def leases(server: Server, namespace: str) -> list[bytes]:
    return list(server.command("KEYS", f"llm:{{{namespace}.*}}:lease:*"))


class TestSharing:
    async def test_the_first_one_is_sent_and_all_get_what_it_brings(
        self, caches: Callable[..., ResponseCache]
    ):
        here, there = caches(), caches()
        sent = await errand(here)
        others = [asking(here) for _ in range(5)] + [asking(there) for _ in range(5)]
        for other in others:
            await waits(other)
        await sent.fulfil(["an answer"])
        answers = await asyncio.gather(*others)
        assert answers == [["an answer"]] * 10
        assert len({id(answer) for answer in answers}) == 10
        assert await ask(there) == ["an answer"]
        assert here.in_flight() == there.in_flight() == 0

    async def test_a_call_through_the_gateway_waits_for_it_too(self, caches: Callable[..., ResponseCache]):
        sent = await errand(caches())

        async def never(_query: Any) -> str:
            raise AssertionError("nobody else calls")

        call = asyncio.create_task(InferenceGateway(never, caches()).resolve(QUERY))
        await waits(call)
        await sent.fulfil("an answer")
        assert await call == "an answer"

    async def test_what_was_brought_is_a_hit_for_the_next(self, caches: Callable[..., ResponseCache]):
        cache = caches()
        await (await errand(cache)).fulfil("an answer")
        found = await cache.acquire(QUERY)
        assert found is not None
        assert not isinstance(found, Errand)
        assert (found.answer, found.outcome) == ("an answer", Outcome.HIT)
        assert (await cache.stats()).outcomes == {Outcome.MISS: 1, Outcome.HIT: 1}

    async def test_an_answer_may_be_brought_as_bytes(self, caches: Callable[..., ResponseCache]):
        here, there = caches(), caches()
        sent = await errand(here)
        others = [asking(here), asking(there)]
        for other in others:
            await waits(other)
        encoded = PlainCodec().encode(["an answer"])
        await sent.fulfil(encoded)
        assert await asyncio.gather(*others) == [["an answer"]] * 2
        assert await here.put({"q": "another"}, encoded)
        assert await ask(there, {"q": "another"}) == ["an answer"]

    async def test_an_answer_that_cannot_be_stored_is_nobody_else_s(
        self, caches: Callable[..., ResponseCache]
    ):
        here, there = caches(), caches()
        sent = await errand(here)
        others = [asking(here) for _ in range(3)] + [asking(there) for _ in range(3)]
        for other in others:
            await waits(other)

        async def bring(other: asyncio.Task[Errand]) -> None:
            await (await other).fulfil(object())

        await sent.fulfil(object())
        await asyncio.wait_for(asyncio.gather(*map(bring, others)), 5)
        refusals = (await here.stats()).refusals + (await there.stats()).refusals
        assert refusals == {Refusal.NO_CODEC: 7}


class TestEmptyHands:
    @pytest.mark.parametrize("error", [None, StatusError(500), StatusError(401), asyncio.CancelledError()])
    async def test_one_other_is_sent_when_the_first_comes_back_with_nothing(
        self, caches: Callable[..., ResponseCache], error: BaseException | None
    ):
        cache = caches()
        sent = await errand(cache)
        others = [asking(cache) for _ in range(3)]
        await waits(others[0])
        sent.abandon(error)
        done, waiting = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        second = done.pop().result()
        assert isinstance(second, Errand)
        for other in waiting:
            await waits(other)
        await second.fulfil("an answer")
        assert await asyncio.gather(*waiting) == ["an answer"] * 2

    async def test_another_process_is_sent_at_once(
        self, caches: Callable[..., ResponseCache], valkey: Server, namespace: str
    ):
        here, there = caches(poll_interval=30.0), caches(poll_interval=30.0)
        sent = await errand(here)
        other = asking(there)
        await waits(other)
        sent.abandon(StatusError(503))
        second = await asyncio.wait_for(other, 5)
        assert isinstance(second, Errand)
        second.abandon()
        await wait_until_async(lambda: not leases(valkey, namespace), description="no lease is left")

    async def test_who_has_seen_two_fail_waits_no_more(self, caches: Callable[..., ResponseCache]):
        cache = caches()
        sent = await errand(cache)
        others = [asking(cache) for _ in range(4)]
        await waits(others[0])

        def under_way() -> list[Errand]:
            return [other.result() for other in others if other.done() and not other.result().is_over]

        for _ in range(2):
            sent.abandon(StatusError(500))
            await wait_until_async(under_way, description="another one is sent")
            sent = under_way()[0]
        everybody = await asyncio.wait_for(asyncio.gather(*others), 5)
        assert all(isinstance(one, Errand) for one in everybody)
        for one in everybody:
            one.abandon()

    async def test_a_rate_limit_is_the_framework_s_affair(self, caches: Callable[..., ResponseCache]):
        here, there = caches(), caches()
        (await errand(here)).abandon(StatusError(429))
        await wait_until_async(lambda: not here.in_flight(), description="it is over")
        sent = await asyncio.wait_for(ask(there), 5)
        assert isinstance(sent, Errand)
        await sent.fulfil("an answer")
        assert await ask(here) == "an answer"

    async def test_one_that_never_comes_back_holds_the_others_no_longer_than_max_lead(
        self, caches: Callable[..., ResponseCache]
    ):
        cache = caches(lease_ttl=0.2, max_lead=0.3)
        lost = await errand(cache)
        second = await asyncio.wait_for(asking(cache), 5)
        assert isinstance(second, Errand)
        assert lost.is_over
        await lost.fulfil("too late")  # nobody minds
        await second.fulfil("an answer")
        assert await ask(cache) == "an answer"


class TestNoDeadlock:
    async def test_who_is_under_way_waits_for_nobody(self, caches: Callable[..., ResponseCache]):
        """Two that look up A and B, and B and A, before either asks the provider."""
        cache, both_have_looked_up = caches(), asyncio.Barrier(2)

        async def batch(*names: str) -> dict[str, Any]:
            found = {}
            for name in names:
                found[name] = await ask(cache, {"q": name})
                await both_have_looked_up.wait()
            for name, one in found.items():
                if isinstance(one, Errand):
                    await one.fulfil(f"answer to {name}")
                    found[name] = f"answer to {name}"
            return found

        expected = {"A": "answer to A", "B": "answer to B"}
        both = await asyncio.wait_for(asyncio.gather(batch("A", "B"), batch("B", "A")), 5)
        assert both == [expected, expected]

    async def test_nor_for_itself(self, caches: Callable[..., ResponseCache]):
        cache = caches()

        async def twice() -> list[Any]:
            first, second = await ask(cache), await ask(cache)
            for one in (first, second):
                await one.fulfil("an answer")
            return [first, second]

        assert len(await asyncio.wait_for(asyncio.create_task(twice()), 5)) == 2
        assert await ask(cache) == "an answer"

    async def test_a_caller_that_may_not_wait_does_not(self, caches: Callable[..., ResponseCache]):
        cache = caches()
        sent = await errand(cache)
        other = await asyncio.wait_for(asking(cache, may_wait=False), 5)
        assert isinstance(other, Errand)
        other.abandon()
        await sent.fulfil("an answer")
        assert await ask(cache, may_wait=False) == "an answer"


class TestLeaving:
    async def test_who_gives_up_waiting_disturbs_nobody(self, caches: Callable[..., ResponseCache]):
        cache = caches()
        sent = await errand(cache)
        leaving, staying = asking(cache), asking(cache)
        await waits(leaving)
        leaving.cancel()
        await asyncio.wait((leaving,))
        await sent.fulfil("an answer")
        assert await staying == "an answer"

    async def test_one_of_the_others_is_sent_although_the_one_they_came_with_has_left(
        self, caches: Callable[..., ResponseCache]
    ):
        here, there = caches(), caches()
        sent = await errand(there)
        leaving = asking(here)
        await waits(leaving)
        staying = [asking(here), asking(here)]
        await waits(staying[0])
        leaving.cancel()
        await asyncio.wait((leaving,))
        sent.abandon()
        (first,), others = await asyncio.wait(staying, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        await first.result().fulfil("an answer")
        assert [await other for other in others] == ["an answer"]

    async def test_a_lookup_cancelled_at_any_moment_leaves_no_lease(
        self, caches: Callable[..., ResponseCache], valkey: Server, namespace: str
    ):
        cache = caches()
        for turns in range(60):
            task = asking(cache, {"q": turns})
            for _ in range(turns):
                await asyncio.sleep(0)
            if not task.cancel():
                task.result().abandon()
            await asyncio.wait((task,))
        await wait_until_async(lambda: not leases(valkey, namespace), description="no lease is left")
        await wait_until_async(lambda: not cache.in_flight(), description="nothing is under way")

    async def test_after_an_invalidation_newcomers_do_not_wait_for_the_old_errand(
        self, caches: Callable[..., ResponseCache]
    ):
        cache = caches()
        sent = await errand(cache)
        await cache.delete(cache.key_of(QUERY))
        second = await asyncio.wait_for(asking(cache), 5)
        assert isinstance(second, Errand)
        await sent.fulfil("old")
        await second.fulfil("new")
        assert await ask(cache) == "new"


class Narrator:
    """Gives its chunks one by one, each when it is told to; the first `gated` calls."""

    def __init__(self, *, gated: int = 1, fails_at: int | None = None) -> None:
        self.gated = gated
        self.fails_at = fails_at
        self.gates = [asyncio.Event() for _ in range(4)]
        self.calls = 0

    def give(self, count: int) -> None:
        for gate in self.gates[:count]:
            gate.set()

    async def stream(self) -> AsyncGenerator[str, None]:
        self.calls += 1
        call = self.calls
        for number, gate in enumerate(self.gates):
            if call <= self.gated:
                await gate.wait()
            if call == 1 and number == self.fails_at:
                raise StatusError(500)
            if number < 3:
                yield "abc"[number]


async def followed(cache: ResponseCache, times: int = 1) -> None:
    async def is_so() -> bool:
        return (await cache.stats()).leases["followed"] >= times

    await wait_until_async(is_so, description="it waits for another process")


class TestLive:
    """Those who can do with chunks get those of a stream that somebody else has under way."""

    @pytest.fixture
    async def narrator(self) -> Narrator:
        return Narrator()

    def leading(self, cache: ResponseCache, narrator: Narrator) -> asyncio.Task[list[str]]:
        async def read() -> list[str]:
            return [chunk async for chunk in cache.stream(QUERY, narrator.stream)]

        return asyncio.create_task(read())

    @pytest.mark.parametrize("place", ["the same cache", "another process"])
    async def test_each_chunk_as_it_comes(
        self, caches: Callable[..., ResponseCache], narrator: Narrator, place: str
    ):
        here = caches()
        leader = self.leading(here if place == "the same cache" else caches(), narrator)
        await wait_until_async(lambda: narrator.calls, description="the provider is called")
        early = [asking(here, live=PlainCodec()) for _ in range(3)]
        await followed(here)
        narrator.give(1)
        streams = [*[await task for task in early], await ask(here, live=PlainCodec())]
        assert [await anext(chunks) for chunks in streams] == ["a"] * 4
        narrator.give(2)
        assert [await anext(chunks) for chunks in streams] == ["b"] * 4
        narrator.give(4)
        assert [[chunk async for chunk in chunks] for chunks in streams] == [["c"]] * 4
        assert await leader == ["a", "b", "c"]
        assert await ask(here, live=PlainCodec()) == "abc"
        assert narrator.calls == 1
        outcomes = (await here.stats()).outcomes
        assert (outcomes[Outcome.COALESCED], outcomes[Outcome.HIT]) == (4, 1)
        await wait_until_async(lambda: not here.in_flight(), description="nothing is under way")

    async def test_whoever_wants_the_answer_itself_waits_for_it_beside_them(
        self, caches: Callable[..., ResponseCache], narrator: Narrator
    ):
        here = caches()
        leader = self.leading(caches(), narrator)
        await wait_until_async(lambda: narrator.calls, description="the provider is called")
        plain = [asking(here) for _ in range(2)]
        await followed(here)
        reading = asking(here, live=PlainCodec())
        narrator.give(1)
        chunks = await asyncio.wait_for(reading, 5)
        await waits(plain[0])
        narrator.give(4)
        assert [chunk async for chunk in chunks] == ["a", "b", "c"]
        assert await asyncio.gather(*plain) == ["abc"] * 2
        await leader
        assert narrator.calls == 1

    async def test_a_stream_that_breaks_off_is_interrupted_and_the_others_are_served(
        self, caches: Callable[..., ResponseCache]
    ):
        narrator = Narrator(fails_at=1)
        here = caches()
        leader = self.leading(caches(), narrator)
        await wait_until_async(lambda: narrator.calls, description="the provider is called")
        reading = asking(here, live=PlainCodec())
        await followed(here)
        plain = asking(here)
        narrator.give(1)
        chunks = await reading
        assert await anext(chunks) == "a"
        narrator.give(2)
        with pytest.raises(StreamInterrupted):
            await anext(chunks)
        sent = await asyncio.wait_for(plain, 5)
        assert isinstance(sent, Errand)
        await sent.fulfil("an answer")
        assert await ask(here, live=PlainCodec()) == "an answer"
        with pytest.raises(StatusError):
            await leader

    @pytest.mark.parametrize("place", ["the same cache", "another process"])
    async def test_who_was_given_nothing_is_sent_when_the_stream_fails(
        self, caches: Callable[..., ResponseCache], place: str
    ):
        narrator = Narrator(fails_at=0)
        here = caches()
        leader = self.leading(here if place == "the same cache" else caches(), narrator)
        await wait_until_async(lambda: narrator.calls, description="the provider is called")
        reading = [asking(here, live=PlainCodec()) for _ in range(2)]
        await followed(here)
        narrator.give(1)
        (first,), (other,) = await asyncio.wait(reading, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        await first.result().fulfil("an answer")
        assert await other == "an answer"
        with pytest.raises(StatusError):
            await leader

    @pytest.mark.parametrize("way", ["closed", "dropped", "dropped unread", "cancelled before"])
    async def test_who_leaves_takes_everything_along_and_disturbs_nobody(
        self,
        caches: Callable[..., ResponseCache],
        narrator: Narrator,
        valkey: Server,
        way: str,
    ):
        here = caches()
        leader = self.leading(caches(), narrator)
        await wait_until_async(lambda: narrator.calls, description="the provider is called")
        reading = asking(here, live=PlainCodec())
        await followed(here)
        if way == "cancelled before":
            reading.cancel()
            await asyncio.wait((reading,))
        else:
            narrator.give(1)
            chunks = await reading
            if way != "dropped unread":
                await anext(chunks)
            if way == "closed":
                await chunks.aclose()
            del chunks, reading
        await wait_until_async(lambda: not here.in_flight(), description="nothing is under way")
        await wait_until_async(
            lambda: not valkey.command("PUBSUB", "CHANNELS"), description="no subscription is left"
        )
        narrator.give(4)
        assert await leader == ["a", "b", "c"]

    async def test_a_lookup_cancelled_at_any_moment_leaves_nothing(
        self, caches: Callable[..., ResponseCache], narrator: Narrator, valkey: Server, namespace: str
    ):
        here = caches()
        leader = self.leading(caches(), narrator)
        narrator.give(1)
        await wait_until_async(lambda: narrator.calls, description="the provider is called")
        for turns in range(60):
            reading = asking(here, live=PlainCodec())
            for _ in range(turns):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait((reading,))
            del reading
        await wait_until_async(lambda: not here.in_flight(), description="nothing is under way")
        await wait_until_async(
            lambda: not valkey.command("PUBSUB", "CHANNELS"), description="no subscription is left"
        )
        narrator.give(4)
        assert await leader == ["a", "b", "c"]
        await wait_until_async(lambda: not leases(valkey, namespace), description="no lease is left")

    async def test_after_an_invalidation_newcomers_are_not_given_the_old_chunks(
        self, caches: Callable[..., ResponseCache], narrator: Narrator
    ):
        here, there = caches(), caches()
        leader = self.leading(there, narrator)
        await wait_until_async(lambda: narrator.calls, description="the provider is called")
        reading = asking(here, live=PlainCodec())
        await followed(here)
        narrator.give(1)
        old = await reading
        await there.delete(there.key_of(QUERY))
        new = await asyncio.wait_for(asking(here, live=PlainCodec()), 5)
        assert isinstance(new, Errand)
        narrator.give(4)
        assert [chunk async for chunk in old] == ["a", "b", "c"]
        await leader
        await new.fulfil("new")
        assert await ask(here, live=PlainCodec()) == "new"

    async def test_a_context_that_has_an_errand_waits_for_no_chunks(
        self, caches: Callable[..., ResponseCache], narrator: Narrator
    ):
        here = caches()

        async def inside() -> Any:
            sent = await ask(here, {"q": "another"})
            leader = self.leading(caches(), narrator)
            narrator.give(1)
            await wait_until_async(lambda: narrator.calls, description="the provider is called")
            found = await asyncio.wait_for(ask(here, live=PlainCodec()), 5)
            narrator.give(4)
            await leader
            await sent.fulfil("an answer")
            return found

        found = await asyncio.create_task(inside())
        assert isinstance(found, Errand)
        found.abandon()


class TestBypass:
    async def test_what_is_not_to_be_cached_is_counted(self, caches: Callable[..., ResponseCache]):
        cache = caches()
        assert await cache.acquire({"q": object()}) is None
        assert await cache.acquire(QUERY, mode="off") is None
        cache.bypass("names an object")
        assert (await cache.stats()).outcomes == {Outcome.BYPASS: 3}
        with pytest.raises(CacheMiss, match="names an object"):
            cache.bypass("names an object", mode="read_only")
        with pytest.raises(CacheMiss):
            caches(mode="read_only").bypass("names an object")


class TestModes:
    async def test_read_only_says_a_miss_and_off_and_zero_bring_nothing(
        self, caches: Callable[..., ResponseCache]
    ):
        cache = caches()
        with pytest.raises(CacheMiss):
            await ask(cache, mode="read_only")
        assert await ask(cache, mode="off") is None
        assert await ask(cache, ttl=0) is None
        await (await errand(cache)).fulfil("an answer")
        assert await ask(cache, mode="read_only") == "an answer"
        assert await ask(cache, ttl=0) == "an answer"
        refreshing = await ask(cache, mode="refresh")
        assert isinstance(refreshing, Errand)
        await refreshing.fulfil("newer")
        assert await ask(cache) == "newer"

    async def test_a_server_that_is_away_costs_nobody_anything(self, namespace: str):
        async with ResponseCache.from_url("redis://127.0.0.1:1", namespace=namespace) as cache:
            sent = await ask(cache)
            assert isinstance(sent, Errand)
            await sent.fulfil("an answer")
