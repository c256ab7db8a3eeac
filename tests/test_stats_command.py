"""`llmcache stats`: what the cache has saved, for people and for programs, once and again."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from command import COMMAND, environment

from llmcache_plugins import Price, ResponseCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers import Cluster, Server

    Called = Callable[..., tuple[int, str, str]]

PRICES = {"big": Price(input=2.50, output=10.0)}
TOTALS = {"hits", "misses", "coalesced", "tokens_saved", "cost_saved"}


def fill(url: str, namespace: str, *, model: str = "big", hits: int = 3, **more: Any) -> None:
    """Make a call, and so many hits."""

    async def call() -> dict[str, Any]:
        return {
            "model": model,
            "choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 200},
        }

    async def work() -> None:
        cache = ResponseCache.from_url(
            url, namespace=namespace, prices=PRICES, lookup_budget=10.0, commit_budget=10.0
        )
        async with cache:
            for _ in range(1 + hits):
                await cache.get_or_call({"model": model, "messages": []}, call, **more)

    asyncio.run(work())


def test_json_has_the_totals_on_top_over_all_namespaces_and_models(
    called: Called, server: Server | Cluster, namespace: str
):
    fill(server.url, namespace)
    fill(server.url, f"{namespace}-2", hits=1)
    fill(server.url, namespace, model="in-house", hits=2)
    code, out, err = called("stats", "--url", server.url, "--json")
    said = json.loads(out)
    assert (code, err) == (0, "")
    assert said.keys() > TOTALS
    assert {name: said[name] for name in TOTALS} == {
        "hits": 6,
        "misses": 3,
        "coalesced": 0,
        "tokens_saved": 6 * 1200,
        "cost_saved": 4 * 0.0045,
    }
    assert said["unpriced"] == 2
    assert [row["model"] for row in said["by_model"]] == ["big", "in-house"]
    assert said["by_model"][1]["cost_saved"] is None
    assert {row["namespace"]: row["hits"] for row in said["by_namespace"]} == {
        namespace: 5,
        f"{namespace}-2": 1,
    }
    assert [row["hits"] for row in said["by_day"]] == [6]


def test_one_namespace_one_tenant(called: Called, valkey: Server, namespace: str):
    fill(valkey.url, namespace, hits=1)
    fill(valkey.url, namespace, hits=2, tenant="alice")
    hits = {}
    for name, options in {
        "all": (),
        "namespace": ("--namespace", namespace),
        "tenant": ("--namespace", namespace, "--tenant", "alice"),
        "nobody": ("--namespace", namespace, "--tenant", "bob"),
    }.items():
        _, out, _ = called("stats", "--url", valkey.url, "--json", *options)
        hits[name] = json.loads(out)["hits"]
    assert hits == {"all": 3, "namespace": 1, "tenant": 2, "nobody": 0}


def test_people_read_the_money_first(called: Called, valkey: Server, namespace: str):
    fill(valkey.url, namespace, hits=1000)
    fill(valkey.url, namespace, model="in-house", hits=1)
    code, out, _ = called("stats", "--url", valkey.url)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("Saved $4.50, net, at list prices: all namespaces, all days")
    assert "1,201,200 tokens" in lines[1]
    assert "Hit rate 99.8% of 1,003 requests: 1,001 hits, 0 coalesced, 2 misses." in out
    assert "Not in it: 1 call, whose price is not known" in out
    assert "unknown" in next(line for line in lines if line.startswith("in-house"))


def test_of_a_cache_that_was_not_used_there_is_nothing_to_say(called: Called, valkey: Server):
    code, out, _ = called("stats", "--url", valkey.url)
    assert code == 0
    assert "Nothing has been counted yet" in out
    _, out, _ = called("stats", "--url", valkey.url, "--json")
    said = json.loads(out)
    assert {name: said[name] for name in TOTALS} == dict.fromkeys(TOTALS, 0)


def test_an_application_that_knows_no_price_has_saved_an_unknown_sum(
    called: Called, valkey: Server, namespace: str
):
    fill(valkey.url, namespace, model="in-house")
    _, out, _ = called("stats", "--url", valkey.url, "--json")
    assert json.loads(out)["cost_saved"] is None
    assert called("stats", "--url", valkey.url)[1].startswith("Saved an unknown sum")


def test_yesterday_counts_where_it_is_asked_for(called: Called, valkey: Server, namespace: str):
    fill(valkey.url, namespace, hits=1)
    (today,) = (key for key in valkey.command("KEYS", "llm:{ledger}:*") if b"flushed" not in key)
    valkey.command("COPY", today, "llm:{ledger}:" + _yesterday())
    hits = {
        days: json.loads(called("stats", "--url", valkey.url, "--json", *days)[1])["hits"]
        for days in ((), ("--days", "1"), ("--days", "2"))
    }
    assert hits == {(): 2, ("--days", "1"): 1, ("--days", "2"): 2}
    assert _yesterday() in called("stats", "--url", valkey.url)[1]


def _yesterday() -> str:
    from datetime import UTC, datetime, timedelta

    return (datetime.now(UTC).date() - timedelta(days=1)).isoformat()


def test_watching_sees_what_is_saved_meanwhile_and_ends_with_ctrl_c(valkey: Server, namespace: str):
    with subprocess.Popen(
        [*COMMAND, "stats", "--url", valkey.url, "--json", "--watch", "--interval", "0.1"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["hits"] == 0
        fill(valkey.url, namespace, hits=5)
        assert any(json.loads(line)["hits"] == 5 for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_server_that_is_not_there_is_a_sentence(called: Called):
    code, out, err = called("stats", "--url", "redis://:hush@127.0.0.1:1", "--json")
    assert code == 2
    assert "error" in json.loads(out)
    assert "llmcache stats:" in err
    assert "hush" not in out + err


def test_names_that_would_move_a_cursor_do_not(called: Called, valkey: Server, namespace: str):
    fill(valkey.url, f"{namespace}\x1b[2J", model="evil\x1b]0;title\x07")
    fill(valkey.url, namespace)
    _, out, _ = called("stats", "--url", valkey.url)
    assert "\x1b" not in out
    assert "evil\\x1b" in out


@pytest.mark.parametrize("options", [("--days", "0"), ("--interval", "0"), ("--days", "many")])
def test_wrong_options_are_usage(called: Called, options: tuple[str, ...]):
    assert called("stats", *options)[0] == 2
