"""LiteLLM's `acompletion` beside its own caches: what hits cost, and what identical calls cost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Any

from benchmarks import peers
from benchmarks.faces import (
    LEASE,
    QUESTIONS,
    SYSTEM,
    TOOL,
    TOOL_EVERY,
    Hits,
    options_of,
    print_hits,
    print_identical,
    print_promise,
    question,
)
from benchmarks.peers import Peer
from benchmarks.provider import MODEL
from benchmarks.servers import own_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_PACKAGES = ("litellm", "fastapi", "soundfile")
_BACKGROUND_SECONDS = 2.0


def _peer(label: str, *arguments: str) -> Peer:
    return Peer(label=label, module="litellm_cache", arguments=arguments, packages=_PACKAGES)


LOCAL = _peer("litellm Cache(type='local')", "local")
ON_REDIS = _peer("litellm Cache(type='redis')", "redis")
OURS = _peer("llmcache_plugins LiteLLMCache", "ours")
NEAR = _peer("llmcache_plugins LiteLLMCache, near_cache=True", "near ours")
WITH_CACHE = (LOCAL, ON_REDIS, OURS, NEAR)
STREAMS = tuple(_peer(peer.label, *peer.arguments, "stream") for peer in WITH_CACHE)

PROMISED = {LOCAL: 0.9, ON_REDIS: 1.0}
"""Hits per second of ours, as a multiple of another's, at each of:"""
AT_A_TIME = (1, 32)


async def hits(url: str, contenders: Sequence[Peer], *, calls: int, turns: int) -> Hits:
    """Fill every cache, and then let them answer in turns."""
    from benchmarks.peers.litellm_cache import open_cache
    from llmcache_plugins.testing.provider_server import ProviderServer

    measured = Hits()
    async with contextlib.AsyncExitStack() as stack:
        source = await stack.enter_async_context(ProviderServer())
        place = peers.Place(url=url, provider_url=source.base_url, lease=LEASE)
        callers: dict[str, Callable[[int], Awaitable[Any]]] = {}
        for peer in contenders:
            litellm, cache = await stack.enter_async_context(open_cache(place, peer.arguments[0]))
            call = _asking(litellm, cache, place)
            answers = [await call(i) for i in range(QUESTIONS)]
            # It stores in the background, and does not say when it is through.
            await asyncio.sleep(_BACKGROUND_SECONDS)
            callers[peer.label] = call
            texts = [str(answer.choices[0].message.content) for answer in answers]
            measured.answer_bytes = sum(map(len, texts)) / QUESTIONS
        filled = source.calls
        resident = asyncio.all_tasks()
        await measured.measure(
            callers, at_a_time=AT_A_TIME, calls=calls, turns=turns, settle=lambda: _logged(resident)
        )
        measured.misses = source.calls - filled
    return measured


async def _logged(resident: set[asyncio.Task[Any]]) -> None:
    """Wait until LiteLLM has logged its calls, which takes as long again as the calls.

    A cache that never waits for anything lets it do so later: a loop that only makes calls would never get
    round to it, and hits without it are more than it can bear.
    """
    while others := asyncio.all_tasks() - resident - {asyncio.current_task()}:
        await asyncio.wait(others)


def _asking(litellm: Any, cache: Any, place: peers.Place) -> Callable[[int], Awaitable[Any]]:
    asked = {"model": f"openai/{MODEL}", "api_base": place.provider_url, "api_key": "any", "max_retries": 0}
    chats = [
        [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question(i)}]
        for i in range(QUESTIONS)
    ]

    def call(i: int) -> Awaitable[Any]:
        number = i % QUESTIONS
        tools = {} if number % TOOL_EVERY else {"tools": [TOOL]}
        # There is one for the whole process: whoever's turn it is has it.
        litellm.cache = cache
        answer: Awaitable[Any] = litellm.acompletion(messages=chats[number], **asked, **tools)
        return answer

    return call


def main(arguments: Sequence[str] = ()) -> None:
    """Print the tables."""
    options = options_of("litellm", __doc__, arguments)
    contenders = [peer for peer in WITH_CACHE if peer.label.startswith(options.only)]
    installed = [peer for peer in contenders if not peer.missing]
    if installed and options.turns:
        with own_server() as server:
            measured = asyncio.run(hits(server.url, installed, calls=options.hits, turns=options.turns))
        for concurrency in measured.stretches:
            baseline = installed[0].label
            print_hits("LiteLLM: acompletion hits", measured, concurrency, rows=contenders, baseline=baseline)
            for ours, (other, least) in itertools.product((OURS, NEAR), PROMISED.items()):
                print_promise(measured, concurrency, ours=ours, other=other.label, least=least)
        if measured.misses:
            print(f"  NOT ALL WERE HITS: the provider was called {measured.misses} times")
    if options.callers:
        print_identical("acompletion of LiteLLM", contenders, options)
        streams = [peer for peer in STREAMS if peer.label.startswith(options.only)]
        print_identical("acompletion(stream=True) of LiteLLM", streams, options)
