"""LangChain's `ainvoke` beside the caches there are for it: what hits cost, and what identical calls cost."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from benchmarks import peers
from benchmarks.faces import (
    LEASE,
    QUESTIONS,
    SYSTEM,
    TOOL,
    TOOL_EVERY,
    TTL,
    Hits,
    best_of,
    options_of,
    print_hits,
    print_identical,
    print_promise,
    question,
)
from benchmarks.peers import Peer
from benchmarks.servers import own_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

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
NEAR = Peer(
    label="llmcache_plugins LangChainCache, near_cache=True",
    module="langchain_cache",
    arguments=("near LangChainCache",),
    packages=_CHAT,
)
# No cache is no contender for hits: a call without one measures the model's HTTP client. What LangChain does
# for any call is the row of InMemoryCache, a dict that gives all callers the same object.
WITH_CACHE = (*IN_PROCESS, *ON_REDIS, OURS, NEAR)

PROMISED = {1: 1.0, 64: 1.5}
"""Hits per second of ours, as a multiple of the best other one on Redis, by how many there are at a time."""


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
        await measured.measure(callers, at_a_time=PROMISED, calls=calls, turns=turns)
        measured.misses = source.calls - filled
    return measured


def _open_model(place: peers.Place, peer: Peer) -> Any:
    from benchmarks.peers.langchain_cache import open_model

    return open_model(place, *peer.arguments, ttl=TTL)


def _asking(model: Any) -> Callable[[int], Awaitable[Any]]:
    """Return what asks one of the questions.

    A real ChatOpenAI, and no minimal model of our own. A hit calls neither, and what LangChain does for one
    differs by a few microseconds; but what a cache has to digest is the description of the model, its tools
    and the messages, and what it has to restore is what the integration made of a provider's answer. Both
    would be a fraction of that for a model made up here.
    """
    from langchain_core.messages import HumanMessage, SystemMessage

    with_tool = model.bind_tools([TOOL])
    chats = [[SystemMessage(SYSTEM), HumanMessage(question(i))] for i in range(QUESTIONS)]

    def call(i: int) -> Awaitable[Any]:
        number = i % QUESTIONS
        asked = model if number % TOOL_EVERY else with_tool
        answer: Awaitable[Any] = asked.ainvoke(chats[number])
        return answer

    return call


def _print_hits(measured: Hits, contenders: Sequence[Peer]) -> None:
    for concurrency, stretches in measured.stretches.items():
        best = best_of(stretches, ON_REDIS) or next(iter(stretches))
        print_hits("LangChain: ainvoke hits", measured, concurrency, rows=contenders, baseline=best)
        for ours in (OURS, NEAR):
            print_promise(measured, concurrency, ours=ours, other=best, least=PROMISED[concurrency])
    if measured.misses:
        print(f"  NOT ALL WERE HITS: the provider was called {measured.misses} times")


def main(arguments: Sequence[str] = ()) -> None:
    """Print the tables."""
    options = options_of("langchain", __doc__, arguments)
    chosen = [peer for peer in (NO_CACHE, *WITH_CACHE) if peer.label.startswith(options.only)]
    contenders = [peer for peer in chosen if peer is not NO_CACHE]
    installed = [peer for peer in contenders if not peer.missing]
    if installed and options.turns:
        with own_server(with_json=any(peer.needs_json for peer in installed)) as server:
            measured = asyncio.run(hits(server.url, installed, calls=options.hits, turns=options.turns))
        _print_hits(measured, contenders)
    if options.callers:
        print_identical("ainvoke of LangChain", chosen, options)
