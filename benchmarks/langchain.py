"""LangChain's `ainvoke` beside the caches there are for it: what a hit costs, and what identical calls cost.

The hits are of one run on one server, in turns: what else the machine does is shared by all, and a ratio is
that of two stretches of one turn. The identical calls are each in a process and on a server of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks import peers
from benchmarks.herd import Orders, herd
from benchmarks.peers import Peer
from benchmarks.processes import ChildFailedError
from benchmarks.provider import provider
from benchmarks.servers import own_server
from benchmarks.tables import percentile, print_table
from benchmarks.timing import Stretch, take_turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

LEASE = 10.0
_TTL = 3600
"""Seconds that answers live while hits are measured: none may end."""
_CHAT = ("langchain_openai",)
NO_CACHE = Peer(label="no cache", module="langchain_cache", arguments=("nothing",), packages=_CHAT)
IN_PROCESS = (
    Peer(
        label="langchain-core InMemoryCache",
        module="langchain_cache",
        arguments=("InMemoryCache",),
        packages=_CHAT,
    ),
    Peer(
        label="langchain-community SQLiteCache",
        module="langchain_cache",
        arguments=("SQLiteCache",),
        packages=(*_CHAT, "langchain_community"),
    ),
)
ON_REDIS = (
    Peer(
        label="langchain-community AsyncRedisCache",
        module="langchain_cache",
        arguments=("AsyncRedisCache",),
        packages=(*_CHAT, "langchain_community"),
    ),
    peers.LANGCHAIN_REDIS,
)
OURS = Peer(
    label="llmcache_plugins LangChainCache",
    module="langchain_cache",
    arguments=("LangChainCache",),
    packages=_CHAT,
)
# No cache is no contender for hits: a call without one measures the model's HTTP client. What LangChain does
# for any call is the row of InMemoryCache, a dict that gives all callers the same object.
WITH_CACHE = (*IN_PROCESS, *ON_REDIS, OURS)

PROMISED = {1: 1.0, 64: 1.5}
"""Hits per second of ours, as a multiple of the best other one on Redis, by how many there are at a time."""
QUESTIONS = 64
_TOOL_EVERY = 8
"""One question in so many is put to a model with a tool, and answered with a call of it."""
_SYSTEM = (
    "You are the assistant of a shop for mountain bikes. Answer in the language of the question, in at most"
    " ten sentences, and name the article number of each product that you mention. When you are asked for a"
    " price, a delivery time or the state of an order, look it up and do not guess. Never speak of other"
    " shops. If somebody is angry, say that you are sorry once, and offer to connect them with a colleague."
)
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Search the catalogue and the orders of the customer.",
        "parameters": {
            "type": "object",
            "properties": {"topic": {"type": "string"}, "limit": {"type": "integer"}},
            "required": ["topic"],
        },
    },
}


# --- Hits ---------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Hits:
    """What was measured. `stretches` by how many calls there were at a time, and by contender."""

    stretches: dict[int, dict[str, list[Stretch]]] = field(default_factory=dict)
    answer_bytes: float = 0.0
    misses: int = 0
    failed: dict[str, str] = field(default_factory=dict)


async def hits(url: str, contenders: Sequence[Peer], *, calls: int, turns: int) -> Hits:
    """Fill every cache, and then let them answer in turns."""
    # Of the package, so that answers look as they do in life: usage with its details, tool calls, metadata.
    from llmcache_plugins.testing.provider_server import ProviderServer

    measured = Hits()
    async with contextlib.AsyncExitStack() as stack:
        source = await stack.enter_async_context(ProviderServer())
        place = peers.Place(url=url, provider_url=source.base_url, lease=LEASE)
        callers: dict[str, Callable[[int], Awaitable[Any]]] = {}
        for peer in contenders:
            call = _asking(await stack.enter_async_context(_open_model(place, peer)))
            try:
                answers = [await call(i) for i in range(QUESTIONS)]
            except Exception as error:  # noqa: BLE001 - that a contender breaks is a result
                measured.failed[peer.label] = f"failed: {type(error).__name__}: {error}"[:200]
                continue
            callers[peer.label] = call
            measured.answer_bytes = sum(len(str(one.content)) for one in answers) / QUESTIONS
        filled = source.calls
        for concurrency in PROMISED:
            # A lone call takes as long as one of 64 has of the processor: a quarter of them is enough.
            number = calls if concurrency > 1 else max(1, calls // 4)
            measured.stretches[concurrency] = await take_turns(
                callers, concurrency=concurrency, calls=number, turns=turns
            )
        measured.misses = source.calls - filled
    return measured


def _open_model(place: peers.Place, peer: Peer) -> Any:
    from benchmarks.peers.langchain_cache import open_model

    return open_model(place, *peer.arguments, ttl=_TTL)


def _asking(model: Any) -> Callable[[int], Awaitable[Any]]:
    """Return what asks one of the questions.

    A real ChatOpenAI, and no minimal model of our own. A hit calls neither, and what LangChain does for one
    differs by a few microseconds; but what a cache has to digest is the description of the model, its tools
    and the messages, and what it has to restore is what the integration made of a provider's answer. Both
    would be a fraction of that for a model made up here.
    """
    from langchain_core.messages import HumanMessage, SystemMessage

    with_tool = model.bind_tools([_TOOL])
    chats = [
        [SystemMessage(_SYSTEM), HumanMessage(f"Which tyres fit article {i:05d}, and when can I have them?")]
        for i in range(QUESTIONS)
    ]

    def call(i: int) -> Awaitable[Any]:
        number = i % QUESTIONS
        asked = model if number % _TOOL_EVERY else with_tool
        answer: Awaitable[Any] = asked.ainvoke(chats[number])
        return answer

    return call


def best_on_redis(stretches: dict[str, list[Stretch]]) -> str | None:
    """Return the name of the fastest other one on Redis."""
    rates = {
        peer.label: percentile([one.per_second for one in stretches[peer.label]], 50)
        for peer in ON_REDIS
        if peer.label in stretches
    }
    return max(rates, key=lambda name: rates[name], default=None)


def _ratios(ours: list[Stretch], others: list[Stretch]) -> list[float]:
    return [one.per_second / other.per_second for one, other in zip(ours, others, strict=True)]


def _row(name: str, stretches: list[Stretch], baseline: list[Stretch]) -> list[str]:
    ratios = _ratios(stretches, baseline)
    seconds = list(itertools.chain.from_iterable(one.calls for one in stretches))
    return [
        name,
        f"{percentile([one.per_second for one in stretches], 50):,.0f}",
        f"{percentile(ratios, 50):.2f}",
        f"{percentile(ratios, 25):.2f}-{percentile(ratios, 75):.2f}",
        f"{percentile(seconds, 50) * 1e6:,.0f}",
        f"{percentile(seconds, 99) * 1e6:,.0f}",
        f"{percentile([one.cpu / len(one.calls) for one in stretches], 50) * 1e6:,.0f}",
    ]


def _print_hits(measured: Hits, contenders: Sequence[Peer]) -> None:
    for concurrency, stretches in measured.stretches.items():
        best = best_on_redis(stretches)
        baseline = best or next(iter(stretches), None)
        rows = [
            _row(peer.label, stretches[peer.label], stretches[baseline or ""])
            if peer.label in stretches
            else [peer.label, measured.failed.get(peer.label, f"not installed: {', '.join(peer.missing)}")]
            for peer in contenders
        ]
        print_table(
            f"LangChain: ainvoke hits, {measured.answer_bytes:,.0f} bytes of text, {concurrency} at a time;"
            f" ratios to {baseline}",
            ["", "hits/s", "ratio", "quartiles", "p50 us", "p99 us", "CPU us"],
            rows,
        )
        if best and OURS.label in stretches:
            ratio = percentile(_ratios(stretches[OURS.label], stretches[best]), 50)
            verdict = "holds" if ratio >= PROMISED[concurrency] else "DOES NOT HOLD"
            print(f"  promised: at least {PROMISED[concurrency]:g} times {best}; {ratio:.2f}: {verdict}")
    if measured.misses:
        print(f"  NOT ALL WERE HITS: the provider was called {measured.misses} times")


# --- Identical calls ----------------------------------------------------------------------------------------


def identical(peer: Peer, options: argparse.Namespace) -> list[str]:
    """Let many ask one thing that nobody has the answer to; return a row."""
    with own_server(with_json=peer.needs_json) as server, provider(seconds=options.seconds) as source:
        orders = Orders(
            peer=peer,
            place=peers.Place(url=server.url, provider_url=source.url, lease=LEASE),
            question=f"Which tyres fit? {uuid.uuid4()}",
            callers=options.callers,
            patience=options.seconds + 60.0,
        )
        with herd(orders, processes=1) as processes:
            processes.go()
            (report,) = processes.reports()
            processes.leave()
        return [
            peer.label,
            f"{len(source.calls()):,}",
            f"{len(report.seconds):,}",
            f"{percentile(report.seconds, 50):.2f}",
            f"{percentile(report.seconds, 100):.2f}",
            ", ".join(f"{count} x {name}" for name, count in report.errors.items()) or "-",
        ]


def _print_identical(contenders: Sequence[Peer], options: argparse.Namespace) -> None:
    rows = []
    for peer in contenders:
        if peer.missing:
            rows.append([peer.label, f"not installed: {', '.join(peer.missing)}"])
            continue
        try:
            rows.append(identical(peer, options))
        except ChildFailedError as error:
            rows.append([peer.label, f"failed: {error}"])
    print_table(
        f"LangChain: {options.callers:,} identical ainvoke at once, cold, in one process; the provider takes"
        f" {options.seconds:g} s",
        ["", "provider calls", "served", "p50 s", "all after s", "errors"],
        rows,
    )


def main(arguments: Sequence[str] = ()) -> None:
    """Print the tables."""
    options = _parse(arguments)
    chosen = [peer for peer in (NO_CACHE, *WITH_CACHE) if peer.label.startswith(options.only)]
    contenders = [peer for peer in chosen if peer is not NO_CACHE]
    installed = [peer for peer in contenders if not peer.missing]
    if installed and options.turns:
        with own_server(with_json=any(peer.needs_json for peer in installed)) as server:
            measured = asyncio.run(hits(server.url, installed, calls=options.hits, turns=options.turns))
        _print_hits(measured, contenders)
    if options.callers:
        _print_identical(chosen, options)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks langchain", description=__doc__)
    parser.add_argument("--turns", type=int, default=40, help="stretches of hits of each; 0: no hits")
    parser.add_argument("--hits", type=int, default=256, help="in a stretch")
    parser.add_argument("--callers", type=int, default=200, help="who ask at once; 0: nobody")
    parser.add_argument("--seconds", type=float, default=0.5, help="what the provider takes")
    parser.add_argument("--only", default="", help="the beginning of a contender's name; default: all")
    return parser.parse_args(arguments)
