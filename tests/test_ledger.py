"""The ledger of savings: exact to the cent, whoever flushes, however often, and whatever becomes of Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from command import environment
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_until_async

from llmcache_plugins import CacheConfig, CachePolicy, ConfigError, Price, ResponseCache, ResponseRepository
from llmcache_plugins.models import Outcome, Usage
from llmcache_plugins.repository import ledger as ledger_module
from llmcache_plugins.savings import OTHER, Savings, SavingsRow, Tally, row_of

if TYPE_CHECKING:
    from servers import Cluster, Server

    from llmcache_plugins.savings import Amounts
    from llmcache_plugins.testing.provider_server import ProviderServer

PRICES = {"big": Price(input=2.50, output=10.0), "small": Price(input=0.15, output=0.60)}
PATIENT: dict[str, Any] = {"lookup_budget": 10.0, "commit_budget": 10.0, "socket_timeout": 10.0}


def query(number: int, *, model: str = "big") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": f"question {number}"}]}


def answer(model: str = "big", *, spent: int = 1000, produced: int = 200) -> dict[str, Any]:
    return {
        "model": f"{model}-2026-01-01",
        "choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": spent, "completion_tokens": produced},
    }


def make(url: str, namespace: str, **more: Any) -> ResponseCache:
    return ResponseCache.from_url(url, namespace=namespace, prices=PRICES, **{**PATIENT, **more})


def ours(savings: Savings, namespace: str) -> Savings:
    return Savings(rows=tuple(row for row in savings.rows if row.namespace == namespace))


async def read(url: str, namespace: str) -> SavingsRow:
    """Return what a stranger finds: another connection, which has counted nothing."""
    repository = ResponseRepository(url, config=CacheConfig(namespace="stranger"))
    try:
        return ours(await repository.ledger.read(), namespace).total
    finally:
        await repository.aclose()


class Provider:
    """Answers like a model; a call ends when it is let go, if it is held."""

    def __init__(self) -> None:
        self.calls = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, model: str = "big", **usage: int) -> dict[str, Any]:
        self.calls += 1
        await self.may_answer.wait()
        return answer(model, **usage)


class TestTheMoney:
    async def test_a_scripted_run_saves_what_one_computes_by_hand(
        self, server: Server | Cluster, namespace: str
    ):
        provider = Provider()
        async with make(server.url, namespace) as cache:
            for number in range(3):  # three misses, of 1000 + 200 tokens of the big model
                await cache.get_or_call(query(number), provider)
            for number in (0, 1, 2, 0):  # four hits
                await cache.get_or_call(query(number), provider)
            small = {"model": "small", "spent": 400, "produced": 100}
            for _ in range(3):  # a miss and two hits of the small one
                await cache.get_or_call(query(9, model="small"), lambda: provider(**small))
            provider.may_answer.clear()
            five = asyncio.gather(*(cache.get_or_call(query(7), provider) for _ in range(5)))
            await wait_until_async(lambda: provider.calls == 5, description="the fifth call is under way")
            provider.may_answer.set()
            await five  # a miss and four that were coalesced
            stats = await cache.stats()
        # 8 x (1000 x 2.50 + 200 x 10.00) + 2 x (400 x 0.15 + 100 x 0.60), for a million.
        cents = round(100 * (8 * 0.0045 + 2 * 0.00012), 6)
        total = await read(server.url, namespace)
        assert round(100 * total.cost_saved, 6) == cents == 3.624
        assert round(100 * stats.net_cost, 6) == cents
        assert (total.hits, total.coalesced, total.misses) == (6, 4, 5)
        assert total.tokens_saved == 8 * 1200 + 2 * 500
        assert total.unpriced == 0

    async def test_rows_are_by_day_namespace_and_model(self, valkey: Server, namespace: str):
        provider = Provider()
        async with make(valkey.url, namespace) as cache:
            for model in ("big", "small", "big"):
                await cache.get_or_call(query(0, model=model), lambda model=model: provider(model))
            other = f"{namespace}-other"
            await cache.get_or_call(query(0), provider, namespace=other)
            await cache.get_or_call(query(0), provider, namespace=other)
            savings = await cache.savings()
        mine, others = ours(savings, namespace), ours(savings, other)
        assert {(row.model, row.hits, row.misses) for row in mine.rows} == {("big", 1, 1), ("small", 0, 1)}
        assert [(row.model, row.hits) for row in others.rows] == [("big", 1)]
        assert [row.model for row in mine.by_model()] == ["big", "small"]
        assert len({row.day for row in savings.rows}) == 1

    async def test_a_model_without_a_price_saves_tokens_and_no_known_money(
        self, valkey: Server, namespace: str
    ):
        async with make(valkey.url, namespace) as cache:
            for _ in range(3):
                await cache.get_or_call(query(0, model="in-house"), lambda: Provider()("in-house"))
        total = await read(valkey.url, namespace)
        assert (total.tokens_saved, total.cost_saved, total.unpriced) == (2400, None, 2)

    async def test_what_is_known_is_not_hidden_by_what_is_not(self, valkey: Server, namespace: str):
        provider = Provider()
        async with make(valkey.url, namespace) as cache:
            for model in ("big", "in-house"):
                for _ in range(2):
                    await cache.get_or_call(query(0, model=model), lambda model=model: provider(model))
        total = await read(valkey.url, namespace)
        assert (round(total.cost_saved or 0, 9), total.unpriced) == (0.0045, 1)

    async def test_a_text_has_no_usage_and_is_a_call_of_unknown_price(self, valkey: Server, namespace: str):
        async def text() -> str:
            return "a text"

        async with make(valkey.url, namespace) as cache:
            for _ in range(2):
                await cache.get_or_call("a prompt", text)
        total = await read(valkey.url, namespace)
        assert (total.hits, total.tokens_saved, total.cost_saved, total.unpriced) == (1, 0, None, 1)

    async def test_a_refresh_in_the_background_is_taken_off(self, valkey: Server, namespace: str):
        provider = Provider()
        policy = CachePolicy(ttl=0.05, stale_while_revalidate=60.0)
        async with make(valkey.url, namespace, policy=policy) as cache:
            await cache.get_or_call(query(0), provider)
            await wait_until_async(
                lambda: _is_stale(cache, provider), description="a stale answer was served"
            )
            await wait_until_async(lambda: provider.calls == 2, description="another was brought")
        total = await read(valkey.url, namespace)
        assert total.outcomes["stale"] == 1
        hits = total.hits
        assert round(total.cost_saved or 0, 9) == round((hits - 1) * 0.0045, 9)
        assert total.tokens_spent == 1200

    async def test_streams_save_too_those_that_follow_as_well(
        self, valkey: Server, namespace: str, stand_in: ProviderServer
    ):
        import openai

        from llmcache_plugins import InferenceGateway
        from llmcache_plugins.providers import OpenAIProvider

        asked = query(0, model="small") | {"stream_options": {"include_usage": True}}
        async with openai.AsyncOpenAI(base_url=stand_in.base_url, api_key="none") as client:
            near, far = (
                InferenceGateway(OpenAIProvider(client), make(valkey.url, namespace)) for _ in range(2)
            )

            async def ask(gateway: InferenceGateway) -> None:
                async for _ in gateway.stream(asked):
                    pass

            async with near, far:
                await asyncio.gather(ask(near), ask(near), ask(far))
                await ask(far)
        total = await read(valkey.url, namespace)
        assert stand_in.calls == 1
        assert (total.misses, total.hits + total.coalesced) == (1, 3)
        assert total.saved_input_tokens == 3 * stand_in.input_tokens
        assert total.saved_output_tokens == 3 * stand_in.output_tokens


async def _is_stale(cache: ResponseCache, provider: Provider) -> bool:
    return (await cache.resolve(query(0), provider)).outcome is Outcome.STALE


class TestFlushing:
    async def test_hits_make_no_further_round_trip(self, valkey: Server, namespace: str):
        provider = Provider()
        async with make(valkey.url, namespace) as cache:
            await cache.get_or_call(query(0), provider)
            await cache.savings()  # with this, what came before is sent
            before = _commands(valkey)
            for _ in range(20):
                await cache.get_or_call(query(0), provider)
            sent = _commands(valkey) - before
        assert sent["mget"] == 20
        assert sent["hincrby"] == 0

    async def test_within_two_seconds_others_see_it(self, server: Server | Cluster, namespace: str):
        provider = Provider()
        async with make(server.url, namespace) as cache:
            await cache.get_or_call(query(0), provider)
            await cache.get_or_call(query(0), provider)

            async def is_told() -> bool:
                return (await read(server.url, namespace)).hits == 1

            await wait_until_async(is_told, description="the ledger has the hit")

    async def test_closing_flushes(self, valkey: Server, namespace: str):
        async with make(valkey.url, namespace) as cache:
            await cache.get_or_call(query(0), Provider())
        assert (await read(valkey.url, namespace)).misses == 1

    def test_a_program_that_forgets_to_close_has_flushed(self, valkey: Server, namespace: str):
        _run(
            f"""
            import asyncio
            from llmcache_plugins import ResponseCache

            async def main():
                cache = ResponseCache.from_url({valkey.url!r}, namespace={namespace!r}, lookup_budget=10.0)
                async def call(): return "answer"
                await cache.get_or_call("q", call)
                await cache.get_or_call("q", call)

            asyncio.run(main())
            """
        )
        total = asyncio.run(read(valkey.url, namespace))
        assert (total.misses, total.hits) == (1, 1)

    def test_a_killed_process_loses_a_second_s_at_most(self, valkey: Server, namespace: str):
        program = f"""
            import asyncio, sys
            from llmcache_plugins import ResponseCache

            async def main():
                cache = ResponseCache.from_url({valkey.url!r}, namespace={namespace!r}, lookup_budget=10.0)
                async def call(): return "answer"
                async with cache:
                    for number in range(7):
                        await cache.get_or_call(str(number), call)
                    print("asked", flush=True)
                    await asyncio.sleep(60)

            asyncio.run(main())
        """
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)], env=environment(), stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == b"asked"

            async def is_told() -> bool:
                return (await read(valkey.url, namespace)).misses == 7

            asyncio.run(wait_until_async(is_told, description="the ledger has all seven", timeout=3.0))
            process.send_signal(signal.SIGKILL)
        assert asyncio.run(read(valkey.url, namespace)).misses == 7

    async def test_several_processes_and_loops_add_up(self, valkey: Server, namespace: str):
        provider = Provider()
        caches = [make(valkey.url, namespace) for _ in range(4)]
        await caches[0].get_or_call(query(0), provider)
        await asyncio.gather(*(c.get_or_call(query(0), provider) for c in caches for _ in range(25)))
        in_threads = [asyncio.to_thread(asyncio.run, c.get_or_call(query(0), provider)) for c in caches]
        await asyncio.gather(*in_threads)
        await asyncio.gather(*(cache.aclose() for cache in caches))
        total = await read(valkey.url, namespace)
        assert total.hits + total.coalesced == 104
        assert round(total.cost_saved or 0, 9) == round(104 * 0.0045, 9)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_child_does_not_send_what_is_its_parent_s(self, valkey: Server, namespace: str):
        _run(
            f"""
            import asyncio, os
            from llmcache_plugins import ResponseCache

            cache = ResponseCache.from_url({valkey.url!r}, namespace={namespace!r}, lookup_budget=10.0)
            async def call(): return "answer"
            async def main(name):
                async with cache:
                    await cache.get_or_call(name, call)
                    if name == "parent":
                        # What it has counted it has not sent yet.
                        if os.fork() == 0:
                            asyncio._set_running_loop(None)
                            asyncio.set_event_loop(asyncio.new_event_loop())
                            asyncio.get_event_loop().run_until_complete(main("child"))
                            os._exit(0)
                        os.wait()

            asyncio.run(main("parent"))
            """
        )
        assert asyncio.run(read(valkey.url, namespace)).misses == 2

    async def test_nothing_is_kept_when_it_is_switched_off(self, valkey: Server, namespace: str):
        async with make(valkey.url, namespace, ledger_days=0) as cache:
            await cache.get_or_call(query(0), Provider())
            assert (await cache.savings()).rows == ()
        assert (await read(valkey.url, namespace)).requests == 0

    @pytest.mark.parametrize("days", [-1, 1.5, True, 10_000])
    def test_days_that_cannot_be(self, days: Any):
        with pytest.raises(ConfigError, match="ledger_days"):
            CacheConfig(ledger_days=days)


class TestFaults:
    async def test_a_reply_that_is_lost_is_not_counted_twice(self, valkey: Server, namespace: str):
        async with make(valkey.url, namespace, connect_timeout=0.5, socket_timeout=0.5) as cache:
            await cache.get_or_call(query(0), Provider())
            ledger = cache.repository.ledger
            link = cache.repository._links.current()
            batch = ledger._next()
            assert batch is not None
            ledger._desk.failed.append(batch)
            await ledger.flush(link)
            # As if nobody had heard: the same batch, once more.
            ledger._desk.failed.append(batch)
            await ledger.flush(link)
        assert (await read(valkey.url, namespace)).misses == 1

    async def test_what_was_counted_during_an_outage_arrives_after_it(self, valkey: Server, namespace: str):
        provider = Provider()
        async with make(valkey.url, namespace, lookup_budget=0.05, socket_timeout=0.1) as cache:
            await cache.get_or_call(query(0), provider)
            await cache.savings()
            valkey.pause()
            for _ in range(5):
                await cache.get_or_call(query(0), provider)
            valkey.resume()

            async def is_told() -> bool:
                await cache.get_or_call(query(1), provider)
                return (await read(valkey.url, namespace)).outcomes.get("unavailable", 0) >= 5

            await wait_until_async(is_told, description="the outage is in the ledger", timeout=20.0)

    async def test_a_server_that_refuses_costs_no_call_and_no_flood(
        self, valkey: Server, namespace: str, caplog: pytest.LogCaptureFixture
    ):
        valkey.command("ACL", "SETUSER", "default", "-hincrby")
        try:
            async with make(valkey.url, namespace) as cache:
                for _ in range(3):
                    await cache.get_or_call(query(0), Provider())
                with pytest.raises(Exception, match="refused"):
                    await cache.savings()
                assert (await cache.stats()).outcomes[Outcome.HIT] == 2
        finally:
            valkey.command("ACL", "SETUSER", "default", "+hincrby")
        assert len([r for r in caplog.records if "refused" in r.message]) <= 1


class TestBounds:
    async def test_days_and_batches_expire(self, server: Server | Cluster, namespace: str):
        async with make(server.url, namespace, ledger_days=7) as cache:
            await cache.get_or_call(query(0), Provider())
        keys = [key for node in server.nodes for key in node.command("KEYS", "*{ledger}*")]
        assert len(keys) == 2
        for key in keys:
            assert 0 < server.command("PTTL", key) <= 7 * 86_400_000

    async def test_a_day_has_room_for_so_many_and_the_rest_is_not_lost(
        self, valkey: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(ledger_module, "MOST_FIELDS", 8)
        async with make(valkey.url, namespace) as cache:
            for number in range(30):
                await cache.get_or_call(query(0), Provider(), namespace=f"{namespace}-{number}")
                await cache.savings()
            savings = await cache.savings()
        assert sum(row.misses for row in savings.rows) == 30
        assert {row.namespace for row in savings.rows} > {OTHER}
        assert len(savings.rows) <= 8 + 1

    async def test_a_process_that_sees_ten_thousand_tenants_keeps_a_thousand_rows(self):
        tally = Tally(most=1000)
        for number in range(10_000):
            tally.resolved((f"tenant-{number}", "m"), Outcome.HIT, usage=None, cost=None, seconds=0.0)
        rows = tally.take()
        assert len(rows) == 1001
        assert sum(row["hit"] for row in rows.values()) == 10_000

    async def test_names_of_any_kind_come_back(self, valkey: Server, namespace: str):
        odd = f'{namespace} "quotes", {{braces}}, \n and \ud83d\ude00'
        async with make(valkey.url, namespace) as cache:
            await cache.get_or_call(query(0, model='a "model"\x00'), Provider(), namespace=odd)
            savings = await cache.savings()
        (row,) = (row for row in savings.rows if row.model == 'a "model"\x00')
        assert row.misses == 1

    async def test_clearing_a_namespace_leaves_what_it_has_saved(self, valkey: Server, namespace: str):
        async with make(valkey.url, namespace) as cache:
            for _ in range(2):
                await cache.get_or_call(query(0), Provider())
            await cache.clear()
            assert ours(await cache.savings(), namespace).total.hits == 1


AMOUNTS = st.dictionaries(
    st.sampled_from(["hit", "miss", "coalesced", "saved_input_tokens", "saved_nano_usd", "saved_unpriced"]),
    st.integers(0, 10**12),
)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), AMOUNTS), max_size=8))
def test_every_way_to_sum_comes_to_the_same(rows: list[tuple[str, str, Amounts]]):
    savings = Savings(rows=tuple(row_of("2026-11-26", (n, m), amounts) for n, m, amounts in rows))
    for parts in (savings.by_model(), savings.by_namespace(), savings.by_day()):
        assert sum(part.saved_nano_usd for part in parts) == savings.total.saved_nano_usd
        assert sum(part.hits for part in parts) == savings.total.hits


def test_a_row_of_a_later_version_is_read():
    row = row_of("2026-11-26", ("n", "m"), {"hit": 2, "saved_input_tokens": 5, "of_the_future": 7})
    assert (row.hits, row.saved_input_tokens) == (2, 5)


def test_money_is_exact_in_whatever_order_it_is_added():
    one, other = Tally(most=9), Tally(most=9)
    costs = [0.1, 0.2, 0.3] * 1000
    usage = Usage(input_tokens=1)
    for tally, order in ((one, costs), (other, sorted(costs))):
        for cost in order:
            tally.resolved(("n", "m"), Outcome.HIT, usage=usage, cost=cost, seconds=0.0)
    assert (
        one.take()
        == other.take()
        == {
            ("n", "m"): {
                "hit": 3000,
                "saved_input_tokens": 3000,
                "saved_nano_usd": 600 * 10**9,
            }
        }
    )


def _commands(server: Server) -> Counter[str]:
    stats = server.command("INFO", "commandstats")
    return Counter({name.removeprefix("cmdstat_"): said["calls"] for name, said in stats.items()})


def _run(program: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
