"""`llmcache bench`: the load it promises, counted where it arrives, on every face."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from browser import look_at
from command import llmcache
from hypothesis import given
from hypothesis import strategies as st

from llmcache_plugins import Outcome, Price
from llmcache_plugins.cli.bench.figures import Report, Share, Side, findings_of, percentile, to_json
from llmcache_plugins.cli.bench.load import arrivals, ask_all, draw
from llmcache_plugins.models import Usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers import Server

    Called = Callable[..., tuple[int, str, str]]

SMALL = ("--calls", "120", "--questions", "20", "--median", "0.02", "--json")


class TestTheCommand:
    # Importing LiteLLM takes seconds, in each process, on each side.
    @pytest.mark.parametrize(
        ("face", "processes", "compares"),
        [("gateway", 2, True), ("langchain", 2, False), ("litellm", 1, False)],
    )
    def test_each_question_is_paid_for_once_whatever_the_face_and_the_processes(
        self, valkey: Server, face: str, processes: int, compares: bool
    ):
        options = ["--face", face, "--processes", str(processes), *([] if compares else ["--no-baseline"])]
        ended = llmcache("bench", "--url", valkey.url, *options, *SMALL)
        assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
        said = json.loads(ended.stdout)
        distinct, cached = said["load"]["distinct"], said["cached"]
        assert 1 < distinct <= 20
        if compares:
            assert (said["without"]["calls"], said["without"]["provider_calls"]) == (120, 120)
        assert (cached["calls"], cached["provider_calls"]) == (120, distinct)
        assert cached["hit_rate"] == pytest.approx(1 - distinct / 120)
        assert sum(cached["outcomes"].values()) == 120
        assert list(cached["latency"]) == ["p50", "p90", "p95", "p99", "max"]
        assert cached["redis_commands"]["mget"] > 0
        assert said["saved"]["dollars"] > 0
        assert said["findings"] == []
        assert _left(valkey) == set()

    def test_a_rate_without_a_baseline(self, called: Called, valkey: Server):
        code, out, _ = called("bench", "--url", valkey.url, "--rate", "200", "--no-baseline", *SMALL)
        said = json.loads(out)
        # A busy machine may not keep the times, and then it says so.
        assert all("began late" in finding for finding in said["findings"])
        assert code == bool(said["findings"])
        assert (said["without"], said["speedup"]) == (None, None)
        assert said["cached"]["per_second"] < 400

    def test_people_read_the_money_first(self, called: Called, valkey: Server):
        options = [word for word in SMALL if word != "--json"]
        code, out, _ = called("bench", "--url", valkey.url, "--near-cache", *options)
        lines = out.splitlines()
        assert code == 0
        assert lines[0].startswith("Saved $0.0")
        assert "instead of 120" in lines[1]
        assert "without the cache" in out

    def test_a_model_without_a_price_has_saved_tokens(self, called: Called, valkey: Server):
        _, out, _ = called("bench", "--url", valkey.url, "--model", "in-house", "--no-baseline", *SMALL)
        said = json.loads(out)
        assert said["saved"]["dollars"] is None
        assert said["saved"]["output_tokens"] > 0

    def test_a_server_that_is_not_there_is_a_sentence(self, called: Called):
        code, _, err = called("bench", "--url", "redis://:hush@127.0.0.1:1", "--no-baseline", *SMALL)
        assert code == 2
        assert "llmcache bench:" in err
        assert "hush" not in err

    def test_a_browser_shows_the_report(self, called: Called, valkey: Server, tmp_path: Path):
        report = tmp_path / "out.html"
        options = ("--url", valkey.url, "--no-baseline", "--report", str(report))
        code, out, _ = called("bench", *options, *SMALL)
        seen = look_at(report, tmp_path)
        assert code == 0
        assert (seen.console, seen.asked_for) == ([], [])
        assert f"{json.loads(out)['cached']['hit_rate']:.1%}" in seen.dom
        assert seen.dom.count("</svg>") == 5

    def test_a_report_that_cannot_be_written_is_said_before_the_load(self, called: Called, tmp_path: Path):
        code, _, err = called("bench", "--report", str(tmp_path / "no" / "out.html"), *SMALL)
        assert code == 2
        assert "cannot be written" in err

    def test_a_real_provider_needs_a_key(self, called: Called, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        code, _, err = called("bench", "--api-base", "https://api.example.com/v1", *SMALL)
        assert code == 2
        assert "OPENAI_API_KEY" in err
        assert "OPENAI_API_KEY" not in os.environ


def _left(server: Server) -> set[str]:
    """Return what there is of a bench's namespace, but for marks that go by themselves."""
    keys = {key.decode().rpartition("}:")[2] for key in server.command("KEYS", "*bench*")}
    return {key for key in keys if key not in ("marks", "epoch")}


class TestTheLoad:
    def test_the_same_seed_asks_the_same(self):
        one, other = (draw(100, questions=50, zipf=1.0, seed=3) for _ in range(2))
        assert one == other != draw(100, questions=50, zipf=1.0, seed=4)

    def test_the_first_is_asked_twice_as_often_as_the_second(self):
        asked = Counter(draw(60_000, questions=100, zipf=1.0, seed=1))
        assert asked[0] / asked[1] == pytest.approx(2.0, rel=0.05)

    def test_without_a_power_all_are_asked_alike(self):
        asked = Counter(draw(60_000, questions=10, zipf=0.0, seed=1))
        assert max(asked.values()) / min(asked.values()) < 1.1

    def test_calls_come_at_their_rate(self):
        *_, last = arrivals(20_000, rate=100.0, seed=1)
        assert last == pytest.approx(200.0, rel=0.05)

    @pytest.mark.parametrize("due", [None, [0.0] * 21])
    async def test_at_most_so_many_are_under_way(self, due: list[float] | None):
        running, seen, full = 0, [], asyncio.Event()

        async def ask(_: int) -> None:
            nonlocal running
            running += 1
            seen.append(running)
            if running == 7:
                full.set()
            await full.wait()
            running -= 1

        times = None if due is None else iter(due)
        measured = await ask_all(range(21), ask, concurrency=7, due=times)
        assert (max(seen), len(measured.latencies)) == (7, 21)

    @pytest.mark.parametrize("due", [None, [0.0] * 10])
    async def test_a_call_that_fails_is_counted_and_the_others_go_on(self, due: list[float] | None):
        async def ask(number: int) -> None:
            if number % 5 == 0:
                raise ConnectionError

        measured = await ask_all(range(10), ask, concurrency=2, due=None if due is None else iter(due))
        assert (len(measured.latencies), measured.failures) == (8, {"ConnectionError": 2})

    async def test_what_waits_for_its_turn_is_not_left_out(self):
        gate = asyncio.Event()

        async def ask(number: int) -> None:
            if number == 0:
                await asyncio.sleep(0.2)
                gate.set()

        measured = await ask_all(range(3), ask, concurrency=1, due=iter([0.0, 0.0, 0.0]))
        assert gate.is_set()
        assert min(measured.latencies) > 0.19
        assert measured.late == 2


class TestTheFigures:
    @given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.01, 1.0))
    def test_a_percentile_is_one_of_the_values_and_so_many_are_not_above_it(
        self, values: list[float], share: float
    ):
        found = percentile(sorted(values), share)
        assert found in values
        assert sum(value <= found for value in values) >= share * len(values) - 1e-9

    @pytest.mark.parametrize(
        ("changes", "finding"),
        [
            ({"provider_calls": 3}, "3 provider calls for 2 different questions"),
            ({"provider_calls": 1}, "1 provider calls for 2 different questions"),
            ({"failures": Counter({"TimeoutError": 4})}, "4 of 14 calls failed (4 TimeoutError)"),
            ({"late": 5}, "5 calls began late"),
            ({"outcomes": Counter({Outcome.HIT: 9, Outcome.UNAVAILABLE: 1})}, "1 calls went to the provider"),
        ],
    )
    def test_what_is_not_as_it_should_be_is_said(self, changes: dict[str, Any], finding: str):
        assert findings_of(report()) == []
        (said,) = findings_of(report(**changes))
        assert finding in said
        assert to_json(report(**changes))["findings"] == [said]


def report(*, provider_calls: int = 2, **share: Any) -> Report:
    facts = {"latencies": [0.1] * 10, "outcomes": Counter({Outcome.HIT: 8, Outcome.MISS: 2}), **share}
    side = Side(
        name="with the cache",
        shares=[Share(saved=Usage(input_tokens=10), **facts)],
        seconds=1.0,
        provider_calls=provider_calls,
    )
    return Report(
        face="gateway",
        provider="p",
        is_stand_in=True,
        server="s",
        model="m",
        price=Price(input=1.0),
        questions=2,
        distinct=2,
        zipf=1.0,
        rate=None,
        concurrency=1,
        processes=1,
        without=None,
        cached=side,
    )
