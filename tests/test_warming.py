"""`seed_cache`: pays once for each answer, keeps to its limits, says what failed, and stops where it must."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_until_async

from llmcache_plugins import (
    CachePolicy,
    ConfigError,
    InferenceGateway,
    Price,
    RepositoryUnavailable,
    ResponseCache,
    SeedingStopped,
    seed_cache,
)
from llmcache_plugins.providers import OpenAIProvider
from llmcache_plugins.testing.provider_server import (
    Behaviour,
    content_filter,
    hanging,
    rate_limited,
    server_error,
    truncated,
)
from llmcache_plugins.warming import Line, estimate_seed
from llmcache_plugins.warming.pace import Bucket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from servers import Cluster, Server

    from llmcache_plugins.testing.provider_server import Call, ProviderServer

MODEL = "gpt-4o-mini"
PRICES = {MODEL: Price(input=1.0, output=2.0)}


def request(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **more}


def requests(number: int) -> list[dict[str, Any]]:
    return [request(f"question {i}") for i in range(number)]


@asynccontextmanager
async def open_gateway(
    url: str, provider: ProviderServer, namespace: str, **settings: Any
) -> AsyncIterator[InferenceGateway]:
    settings = {"lookup_budget": 5.0, "socket_timeout": 5.0, "prices": PRICES, **settings}
    async with (
        openai.AsyncOpenAI(base_url=provider.base_url, api_key="test", max_retries=0) as client,
        ResponseCache.from_url(url, namespace=namespace, **settings) as cache,
    ):
        yield InferenceGateway(OpenAIProvider(client), cache)


@pytest.fixture
async def gateway(
    valkey: Server, stand_in: ProviderServer, namespace: str
) -> AsyncIterator[InferenceGateway]:
    async with open_gateway(valkey.url, stand_in, namespace) as opened:
        yield opened


# -- what is paid ----------------------------------------------------------------------------------------


async def test_every_query_is_paid_once_whatever_the_server(
    server: Server | Cluster, stand_in: ProviderServer, namespace: str
):
    queries = [*requests(20), *requests(20), *requests(10)]
    async with open_gateway(server.url, stand_in, namespace) as gateway:
        report = await seed_cache(gateway, queries)

        assert stand_in.calls == report.calls == 20
        assert set(stand_in.calls_by_prompt.values()) == {1}
        assert (report.seeded, report.failed, report.done) == (20, 0, 50)
        assert report.skipped + report.coalesced == 30
        assert report.input_tokens == stand_in.input_tokens
        assert report.output_tokens == stand_in.output_tokens
        assert report.cost == pytest.approx((stand_in.input_tokens + 2 * stand_in.output_tokens) / 1e6)

        again = await seed_cache(gateway, queries)
        assert (again.skipped, again.calls, again.cost) == (50, 0, 0.0)
        resolution = await gateway.resolve_detailed(queries[0])
        assert resolution.outcome == "hit"
        assert stand_in.calls == 20


async def test_what_is_not_asked_is_nobodys_saving(gateway: InferenceGateway):
    await seed_cache(gateway, requests(5) * 9)
    before = await gateway.cache.stats()
    assert set(before.outcomes) == {"miss"}
    await seed_cache(gateway, requests(5))
    after = await gateway.cache.stats()

    assert after.outcomes == before.outcomes


async def test_two_that_warm_at_once_pay_once(
    server: Server | Cluster, stand_in: ProviderServer, namespace: str
):
    stand_in.median_seconds = 0.02
    async with (
        open_gateway(server.url, stand_in, namespace) as one,
        open_gateway(server.url, stand_in, namespace) as other,
    ):
        reports = await asyncio.gather(seed_cache(one, requests(30)), seed_cache(other, requests(30)))

    assert set(stand_in.calls_by_prompt.values()) == {1}
    assert sum(report.calls for report in reports) == 30
    assert sum(report.seeded for report in reports) == 30
    assert sum(report.skipped + report.coalesced for report in reports) == 30


async def test_no_more_than_so_many_run_at_once(gateway: InferenceGateway, stand_in: ProviderServer):
    stand_in.median_seconds = 0.02
    await seed_cache(gateway, requests(30), concurrency=3)

    assert stand_in.most_running == 3


async def test_what_is_to_expire_soon_is_asked_again_once(
    gateway: InferenceGateway, stand_in: ProviderServer
):
    await seed_cache(gateway, requests(3), ttl=100)

    assert (await seed_cache(gateway, requests(3), refresh_below=50)).skipped == 3
    report = await seed_cache(gateway, [*requests(3), *requests(3)], ttl=100, refresh_below=math.inf)
    assert (report.seeded, report.skipped + report.coalesced) == (3, 3)
    assert stand_in.calls == 6
    assert (await gateway.resolve_detailed(requests(1)[0])).age < 5


async def test_a_stale_answer_is_not_fresh(gateway: InferenceGateway, stand_in: ProviderServer):
    policy = CachePolicy(ttl=0.05, stale_while_revalidate=60)
    await seed_cache(gateway, requests(2), policy=policy)
    await asyncio.sleep(0.06)
    report = await seed_cache(gateway, requests(2), policy=policy)

    assert (report.seeded, stand_in.calls) == (2, 4)


# -- where queries come from -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["list", "generator", "async generator"])
async def test_queries_come_from_anywhere(gateway: InferenceGateway, stand_in: ProviderServer, kind: str):
    async def later() -> AsyncIterator[Any]:
        for query in requests(5):
            await asyncio.sleep(0)
            yield query

    sources: dict[str, Any] = {
        "list": requests(5),
        "generator": iter(requests(5)),
        "async generator": later(),
    }
    report = await seed_cache(gateway, sources[kind])
    assert (report.seeded, stand_in.calls) == (5, 5)


async def test_a_slow_source_holds_up_nothing_that_has_come(
    gateway: InferenceGateway, stand_in: ProviderServer
):
    async def live() -> AsyncIterator[Any]:
        for number, query in enumerate(requests(3), start=1):
            yield query
            await stand_in.called(number)

    assert (await seed_cache(gateway, live())).seeded == 3


async def test_a_source_that_breaks_off_loses_nothing_that_was_begun(
    gateway: InferenceGateway, stand_in: ProviderServer
):
    def broken() -> Iterator[Any]:
        yield from requests(200)
        raise OSError("the disk is gone")

    seen = []
    with pytest.raises(OSError, match="the disk is gone"):
        await seed_cache(gateway, broken(), on_progress=seen.append)
    assert seen[-1].seeded == stand_in.calls
    assert "OSError" in seen[-1].stopped


async def test_queries_are_read_as_they_are_needed(gateway: InferenceGateway, stand_in: ProviderServer):
    stand_in.behave(lambda _call: hanging())
    read = itertools.count()

    def endless() -> Iterator[Any]:
        while True:
            yield request(f"question {next(read)}")

    before = asyncio.all_tasks()
    warming = asyncio.create_task(seed_cache(gateway, endless(), concurrency=4))
    await stand_in.called(4)
    assert next(read) <= 256
    assert len(asyncio.all_tasks() - before) < 40
    warming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await warming


# -- what fails ------------------------------------------------------------------------------------------


async def test_failures_are_told_by_cause_with_their_positions(
    gateway: InferenceGateway, stand_in: ProviderServer
):
    def script(call: Call) -> Behaviour | None:
        return {"cut": truncated(), "bad": content_filter()}.get(call.prompt)

    stand_in.behave(script)
    queries = [
        request("fine"),
        request("cut"),
        {"model": MODEL, "messages": [{"role": "user", "content": {1, 2}}]},
        request("bad"),
        request("cut"),
        Line(position=70, error="not JSON"),
        "a string is no request of this provider",
        request("cut"),
    ]
    report = await seed_cache(gateway, queries)

    assert (report.seeded, report.failed) == (1, 7)
    assert stand_in.calls_by_prompt == Counter(fine=1, cut=1, bad=1)
    causes = {failure.cause: failure.positions for failure in report.failures}
    assert causes["not stored: truncated"] == (2, 5, 8)
    assert causes["400 BadRequestError"] == (4,)
    assert causes["not JSON"] == (70,)
    assert causes["TypeError"] == (7,)
    assert next(cause for cause, where in causes.items() if where == (3,)).startswith("no key: ")
    assert report.failures[0].cause == "not stored: truncated"


async def test_a_later_line_does_not_pay_for_what_has_failed_before(
    gateway: InferenceGateway, stand_in: ProviderServer
):
    stand_in.behave(lambda _call: truncated())

    async def one_after_the_other() -> AsyncIterator[Any]:
        yield request("cut")
        await stand_in.called(1)
        await stand_in.idle()
        await wait_until_async(lambda: gateway.cache.in_flight() == 0, description="it has landed")
        yield request("cut")

    report = await seed_cache(gateway, one_after_the_other())
    assert (report.failed, report.calls, stand_in.calls) == (2, 1, 1)


async def test_memory_for_failures_is_bounded(gateway: InferenceGateway):
    lines = (Line(position=i, error=f"cause {i % 1000}") for i in range(1, 5001))
    report = await seed_cache(gateway, lines)

    assert report.failed == sum(failure.lines for failure in report.failures) == 5000
    assert len(report.failures) <= 51
    assert all(len(failure.positions) <= 20 for failure in report.failures)


async def test_what_may_pass_is_tried_again(gateway: InferenceGateway, stand_in: ProviderServer):
    stand_in.script(server_error(), server_error(status=503))
    report = await seed_cache(gateway, requests(1), backoff=0.01)

    assert (report.seeded, report.calls, stand_in.calls) == (1, 1, 3)


async def test_attempts_are_bounded(gateway: InferenceGateway, stand_in: ProviderServer):
    stand_in.behave(lambda _call: server_error())
    report = await seed_cache(gateway, requests(1), attempts=3, backoff=0.01)

    assert (report.failed, stand_in.calls) == (1, 3)
    assert report.failures[0].cause == "500 InternalServerError"


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_refused_request_is_not_tried_again(
    gateway: InferenceGateway, stand_in: ProviderServer, status: int
):
    stand_in.behave(lambda _call: Behaviour(status=status))
    report = await seed_cache(gateway, requests(3), backoff=0.01)

    assert (report.failed, stand_in.calls, report.stopped) == (3, 3, "")


async def test_a_rate_limit_is_waited_out_by_all(gateway: InferenceGateway, stand_in: ProviderServer):
    arrived: list[float] = []

    def script(call: Call) -> Behaviour | None:
        arrived.append(time.monotonic())
        return rate_limited(retry_after=0.5) if call.serial == 2 else None

    stand_in.median_seconds = 0.02
    stand_in.behave(script)
    report = await seed_cache(gateway, requests(60), concurrency=2, backoff=0.01)

    assert (report.seeded, report.failed, stand_in.calls) == (60, 0, 61)
    # One call may have begun while the answer was on its way.
    pauses = sorted((later - earlier for earlier, later in itertools.pairwise(arrived)), reverse=True)
    assert pauses[0] > 0.4
    assert sum(at < arrived[1] + 0.45 for at in arrived) <= 4


async def test_a_rate_limit_that_another_process_was_told_is_waited_out(
    valkey: Server, stand_in: ProviderServer, namespace: str, gateway: InferenceGateway
):
    stand_in.script(rate_limited(retry_after=1))
    async with open_gateway(valkey.url, stand_in, namespace) as other:
        with pytest.raises(openai.RateLimitError):
            await other.resolve(requests(1)[0])
    report = await seed_cache(gateway, requests(1), attempts=1, backoff=0.01)

    assert (report.seeded, stand_in.calls) == (1, 2)


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_stop_the_run_at_once(
    gateway: InferenceGateway, stand_in: ProviderServer, status: int
):
    stand_in.behave(lambda _call: Behaviour(status=status))
    with pytest.raises(SeedingStopped, match=f"credentials.*{status}") as stopped:
        await seed_cache(gateway, requests(500), concurrency=4)

    assert stand_in.calls <= 4
    assert stopped.value.report.seeded == 0
    assert 1 <= stopped.value.report.failed <= 4


async def test_an_exhausted_account_stops_the_run(gateway: InferenceGateway, stand_in: ProviderServer):
    stand_in.behave(lambda _call: Behaviour(status=429, error_code="insufficient_quota"))
    with pytest.raises(SeedingStopped, match="exhausted"):
        await seed_cache(gateway, requests(50), concurrency=2)

    assert stand_in.calls <= 2


async def test_a_provider_that_wants_an_hour_of_rest_gets_it(
    gateway: InferenceGateway, stand_in: ProviderServer
):
    stand_in.behave(lambda _call: rate_limited(retry_after=3600))
    with pytest.raises(SeedingStopped, match="3,600 s"):
        await seed_cache(gateway, requests(50), concurrency=2)

    assert stand_in.calls <= 2


# -- money and pace --------------------------------------------------------------------------------------


async def test_a_budget_ends_the_run_before_it_is_exceeded(
    gateway: InferenceGateway, stand_in: ProviderServer
):
    queries = [request(f"question {i}", max_tokens=400) for i in range(50)]
    report = await seed_cache(gateway, queries, budget=0.01)

    assert report.stopped == "budget"
    assert 0.007 < report.cost <= 0.01
    assert report.seeded == report.calls == stand_in.calls < 50
    assert report.failed == 0
    more = await seed_cache(gateway, queries, budget=1.0)
    assert (more.stopped, more.seeded + report.seeded, stand_in.calls) == ("", 50, 50)


async def test_a_budget_needs_prices(gateway: InferenceGateway, stand_in: ProviderServer):
    with pytest.raises(ConfigError, match=r"'nobody-s-model' is not known; give prices="):
        await seed_cache(gateway, [{**requests(1)[0], "model": "nobody-s-model"}], budget=1.0)

    assert stand_in.calls == 0


async def test_a_price_that_is_not_known_is_not_zero(gateway: InferenceGateway):
    report = await seed_cache(gateway, [{**request("x"), "model": "nobody-s-model"}])

    assert (report.cost, report.unpriced) == (None, 1)
    assert "cost unknown" in str(report)


async def test_requests_begin_at_their_pace(gateway: InferenceGateway, stand_in: ProviderServer):
    arrived: list[float] = []
    stand_in.behave(lambda _call: arrived.append(time.monotonic()))
    # Ten at once, which is five seconds' worth, and then two each second.
    await seed_cache(gateway, requests(12), requests_per_minute=120, concurrency=12)

    assert arrived[9] - arrived[0] < 0.45
    assert arrived[11] - arrived[0] > 0.8


async def test_tokens_are_settled_when_they_are_known(gateway: InferenceGateway, stand_in: ProviderServer):
    # Each is guessed at 6,000 and needs some 100: without the correction the second would wait for a minute.
    stand_in.behave(lambda _call: Behaviour(text="short"))
    queries = [request(f"question {i}", max_tokens=6000) for i in range(3)]
    began = time.monotonic()
    report = await seed_cache(gateway, queries, tokens_per_minute=6000, concurrency=1)

    assert report.seeded == 3
    assert time.monotonic() - began < 10


@given(
    per_minute=st.floats(1, 1e6),
    amounts=st.lists(st.floats(0, 1e5), min_size=1, max_size=30),
    gaps=st.lists(st.floats(0, 30), min_size=30, max_size=30),
)
def test_a_bucket_never_gives_more_than_its_rate_and_its_burst(
    per_minute: float, amounts: list[float], gaps: list[float]
):
    now = 0.0
    bucket = Bucket(per_minute, clock=lambda: now)
    taken: list[tuple[float, float]] = []
    for amount, gap in zip(amounts, gaps, strict=False):
        now += gap
        now += bucket.wait()
        assert bucket.wait() < 1e-6
        bucket.take(amount)
        taken.append((now, amount))
    burst = max(1.0, per_minute / 12)
    for first, (since, _) in enumerate(taken):
        for last in range(first, len(taken)):
            given_out = sum(amount for _, amount in taken[first:last])
            assert given_out <= (taken[last][0] - since) * per_minute / 60 + burst + 1e-3 + per_minute * 1e-9


# -- the repository --------------------------------------------------------------------------------------


async def test_nothing_is_paid_for_without_a_server(stand_in: ProviderServer, namespace: str):
    async with open_gateway("redis://127.0.0.1:1", stand_in, namespace) as gateway:
        with pytest.raises(RepositoryUnavailable):
            await seed_cache(gateway, requests(10))
        with pytest.raises(RepositoryUnavailable):
            await estimate_seed(gateway, requests(10))

    assert stand_in.calls == 0


async def test_a_server_that_dies_stops_the_run_before_much_is_paid(
    valkey: Server, stand_in: ProviderServer, namespace: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("llmcache_plugins.warming.run._SERVER_PATIENCE", 1.0)
    stand_in.median_seconds = 0.02
    async with open_gateway(valkey.url, stand_in, namespace, socket_timeout=0.25) as gateway:
        warming = asyncio.create_task(seed_cache(gateway, requests(2000), concurrency=4))
        await stand_in.called(20)
        valkey.kill()
        at_the_end = stand_in.calls
        with pytest.raises(SeedingStopped, match="repository does not answer") as stopped:
            await warming

    assert stand_in.calls <= at_the_end + 8
    report = stopped.value.report
    assert report.seeded + report.failed == report.calls <= stand_in.calls
    assert all(failure.cause.startswith("not stored: ") for failure in report.failures)


async def test_a_server_that_comes_back_is_waited_for(
    valkey: Server, stand_in: ProviderServer, namespace: str
):
    stand_in.median_seconds = 0.02
    async with open_gateway(
        valkey.url, stand_in, namespace, socket_timeout=0.25, lookup_budget=0.5
    ) as gateway:
        warming = asyncio.create_task(seed_cache(gateway, requests(300), concurrency=4))
        await stand_in.called(50)
        valkey.pause()
        await asyncio.sleep(1.5)
        during = stand_in.calls
        valkey.resume()
        report = await warming

        assert during <= 50 + 12
        assert report.stopped == ""
        assert report.seeded + report.failed == 300
        assert report.failed <= 4
        assert report.calls == stand_in.calls


async def test_a_server_that_stores_nothing_stops_the_run(
    valkey: Server, stand_in: ProviderServer, namespace: str
):
    async with open_gateway(valkey.url, stand_in, namespace, max_entry_bytes=10) as gateway:
        with pytest.raises(SeedingStopped, match=r"50 answers in a row.*too_big"):
            await seed_cache(gateway, requests(500), concurrency=2)
    assert stand_in.calls <= 52


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"attempts": True},
        {"backoff": 0},
        {"budget": -1.0},
        {"requests_per_minute": 0},
        {"tokens_per_minute": math.inf},
        {"refresh_below": -1},
        {"mode": "read_only"},
        {"ttl": 0},
    ],
)
async def test_what_cannot_work_is_said_before_anything_is_asked(
    gateway: InferenceGateway, stand_in: ProviderServer, wrong: dict[str, Any]
):
    with pytest.raises(ConfigError, match=r"warming has one mode" if "mode" in wrong else min(wrong)):
        await seed_cache(gateway, requests(1), **wrong)
    for queries in ("a question", 7):
        with pytest.raises(ConfigError, match="queries is a list"):
            await seed_cache(gateway, queries)
    assert stand_in.calls == 0


# -- its end ---------------------------------------------------------------------------------------------


async def test_a_cancelled_run_leaves_nothing_behind(
    valkey: Server, gateway: InferenceGateway, stand_in: ProviderServer
):
    stand_in.behave(lambda call: None if call.serial <= 2 else hanging())
    seen = []
    warming = asyncio.create_task(seed_cache(gateway, requests(100), concurrency=3, on_progress=seen.append))
    await stand_in.called(5)
    warming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await warming

    await wait_until_async(lambda: not valkey.command("KEYS", "*:lease:*"), description="no lease is left")
    await stand_in.idle()
    assert (seen[-1].seeded, seen[-1].stopped) == (2, "interrupted")


async def test_progress_is_told_at_the_end_too(gateway: InferenceGateway):
    seen = []
    report = await seed_cache(gateway, requests(3), on_progress=seen.append)

    assert seen[-1].done == report.done == 3
    assert seen[-1].cost == report.cost


async def test_an_estimate_asks_nobody(gateway: InferenceGateway, stand_in: ProviderServer):
    await seed_cache(gateway, requests(4))
    asked = stand_in.calls
    queries = [
        *requests(6),
        request("question 5"),
        request("long", max_tokens=1000),
        {**request("other"), "model": "nobody-s-model"},
        Line(position=9, error="not JSON"),
    ]
    said = await estimate_seed(gateway, queries)

    assert stand_in.calls == asked
    assert (said.calls, said.fresh, said.duplicates, said.failed, said.unpriced) == (4, 4, 1, 1, 1)
    mean = stand_in.output_tokens / asked
    assert said.output_tokens == 1000 + 3 * math.ceil(mean)
    priced = 1000 + 2 * math.ceil(mean)
    assert 2 * priced / 1e6 < said.cost < (2 * priced + said.input_tokens) / 1e6
