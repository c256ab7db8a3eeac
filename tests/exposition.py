"""A run in which everything that is measured happens, and the page that Prometheus reads of it.

Owns the calls, against a real server, a real provider on loopback and a real SDK with its exporter, scraped
over HTTP. What must come of them is said in the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import openai
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, parser, start_http_server
from waiting import wait_until_async

from llmcache_plugins import (
    CachePolicy,
    InferenceGateway,
    OpenTelemetry,
    Price,
    ResponseCache,
    SemanticCacheLayer,
    Usage,
)
from llmcache_plugins.providers import OpenAIProvider
from llmcache_plugins.repository import invalidating
from llmcache_plugins.semantic import Verdict
from llmcache_plugins.telemetry import (
    BreakerChanged,
    Event,
    LeaseEvent,
    LeaseStep,
    Measured,
    Purpose,
    ShadowCompared,
    Spent,
)
from llmcache_plugins.testing.provider_server import Behaviour, ProviderServer, truncated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from servers import Server

Sample = tuple[str, dict[str, str], float]

MODEL, UNPRICED, JUDGE = "gpt-4o-mini", "nobody-knows-its-price", "judge-1"
PRICES = {MODEL: Price(input=1000, output=2000), JUDGE: Price(input=100, output=100)}
"""US dollars for a million tokens, so that a cent is a few tokens."""
TEXT = "A short promise."
"""What the provider says: 3 words, which it bills as 4 tokens."""
HELD = Behaviour(text=TEXT, hang=True)
PATIENT: dict[str, Any] = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}


# -- the page ----------------------------------------------------------------------------------------------


class Exposition:
    """An SDK of the application's, with its `/metrics`."""

    def __init__(self, port: int, provider: MeterProvider) -> None:
        self.provider = provider
        self.observer = OpenTelemetry(meter_provider=provider)
        self._url = f"http://127.0.0.1:{port}/metrics"

    def page(self) -> str:
        with urllib.request.urlopen(self._url, timeout=10) as answer:
            return answer.read().decode()

    def samples(self) -> list[Sample]:
        return samples_of(self.page())


def samples_of(page: str) -> list[Sample]:
    """Return name, labels and value of each series, without what says who measures."""
    return [
        (sample.name, {k: v for k, v in sample.labels.items() if not k.startswith("otel_")}, sample.value)
        for family in parser.text_string_to_metric_families(page)
        for sample in family.samples
    ]


@contextlib.contextmanager
def exposed() -> Iterator[Exposition]:
    registry = CollectorRegistry()
    provider = MeterProvider(
        metric_readers=[PrometheusMetricReader(registry=registry)], shutdown_on_exit=False
    )
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield Exposition(server.server_port, provider)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        provider.shutdown()


# -- the run -----------------------------------------------------------------------------------------------


class Watcher:
    """Keeps the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event, /) -> None:
        self.events.append(event)

    async def until(self, seen: Callable[[Event], bool], description: str) -> None:
        await wait_until_async(lambda: any(map(seen, self.events)), description=description, timeout=20)

    async def step(self, step: LeaseStep, times: int = 1) -> None:
        """Wait until a lease has come so far for the so manieth time."""
        wanted = LeaseEvent(step=step)
        await wait_until_async(
            lambda: self.events.count(wanted) >= times, description=f"{times} x {step}", timeout=20
        )


class Meanings:
    """An embedder for which all texts of as many words mean about the same."""

    name, dim, max_tokens = "meanings", 32, 100

    async def embed(self, texts: Sequence[str]) -> Any:
        rows = np.eye(self.dim, dtype=np.float32)
        return np.stack([0.98 * rows[len(t.split())] + 0.199 * rows[-1 - len(t) % 8] for t in texts])


@dataclass(slots=True)
class Run:
    """What the run's parts have in common."""

    server: Server
    provider: ProviderServer
    client: openai.AsyncOpenAI
    observer: OpenTelemetry
    watcher: Watcher = field(default_factory=Watcher)
    held: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def gateway(self, namespace: str, **settings: Any) -> InferenceGateway:
        """Return a gateway as another process would have it: with a cache and connections of its own."""
        cache = ResponseCache.from_url(
            self.server.tcp_url,
            namespace=namespace,
            prices=PRICES,
            observers=[self.observer, self.watcher],
            **{**PATIENT, **settings},
        )
        gateway = InferenceGateway(OpenAIProvider(self.client), cache)
        return await self.held.enter_async_context(gateway)


def ask(text: str = "What is a lease?", *, model: str = MODEL, **more: Any) -> dict[str, Any]:
    """Return a request; that text is billed as 6 tokens."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


STREAMED: dict[str, Any] = {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}}


async def read(chunks: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in chunks]


async def turns_of_the_loop() -> None:
    """Let those who have just called join the flight that is under way: they ask no server before."""
    for _ in range(20):
        await asyncio.sleep(0)


async def plain(run: Run) -> None:
    """3 misses, 5 hits, of which 1 is near and 1 has no price; 1 bypass; 1 entry that is none."""
    gateway = await run.gateway("plain")
    for _ in range(3):
        await gateway.resolve(ask())
    await gateway.resolve(ask(), mode="off")
    for _ in range(2):
        await gateway.resolve(ask(model=UNPRICED))
    near = await run.gateway("plain", near_cache=True)
    await near.resolve(ask())
    await near.resolve(ask())
    name = gateway.cache.repository.redis_key(gateway.key_of(ask("Is it broken?")))
    run.server.command("SET", name, "no entry of ours", "EX", "60")
    await gateway.resolve(ask("Is it broken?"))


async def at_once(run: Run) -> None:
    """1 miss and 2 coalesced in one process; 1 miss and 1 coalesced, and 1 hit, of streams."""
    gateway = await run.gateway("at-once")
    run.provider.script(HELD)
    calls = run.provider.calls
    leader = asyncio.create_task(gateway.resolve(ask()))
    await run.provider.called(calls + 1)
    others = [asyncio.create_task(gateway.resolve(ask())) for _ in range(2)]
    await turns_of_the_loop()
    run.provider.release()
    await asyncio.gather(leader, *others)

    # It must last: who comes while it is under way has the server asked whether it still may be shared.
    run.provider.median_seconds = 0.5
    first = asyncio.create_task(read(gateway.stream(ask(**STREAMED))))
    await run.provider.called(calls + 2)
    await asyncio.gather(first, read(gateway.stream(ask(**STREAMED))))
    run.provider.median_seconds = 0.0
    await read(gateway.stream(ask(**STREAMED)))


async def leases(run: Run) -> None:
    """1 coalesced across processes; an error that is told, a lease taken over, one timed out, one lost.

    5 misses: three leaders, for of the other two one is told an error and one is cancelled; who takes over;
    and who goes alone.
    """
    one, other = await run.gateway("leases"), await run.gateway("leases")
    hasty = await run.gateway("leases", wait_timeout=0.2)
    short = await run.gateway("leases", lease_ttl=0.3)

    async def lead(text: str, behaviour: Behaviour, gateway: InferenceGateway = one) -> asyncio.Task[Any]:
        calls = run.provider.calls
        run.provider.script(behaviour)
        leader = asyncio.create_task(gateway.resolve(ask(text)))
        await run.provider.called(calls + 1)
        return leader

    async def follow(text: str, times: int) -> asyncio.Task[Any]:
        follower = asyncio.create_task(other.resolve(ask(text)))
        await run.watcher.step(LeaseStep.FOLLOWED, times)
        return follower

    leader = await lead("Who leads?", HELD)
    follower = await follow("Who leads?", 1)
    run.provider.release()
    await asyncio.gather(leader, follower)

    leader = await lead("Who errs?", Behaviour(status=429, error_code="rate_limit_exceeded", hang=True))
    follower = await follow("Who errs?", 2)
    run.provider.release()
    errors = await asyncio.gather(leader, follower, return_exceptions=True)
    assert [type(error) for error in errors] == [openai.RateLimitError] * 2

    leader = await lead("Who goes?", HELD)
    follower = await follow("Who goes?", 3)
    leader.cancel()
    await asyncio.wait((leader,))
    await follower

    leader = await lead("Who waits?", HELD)
    await hasty.resolve(ask("Who waits?"))
    run.provider.release()
    await leader

    leader = await lead("Who loses?", HELD, short)
    await one.invalidate(ask("Who loses?"))
    await run.watcher.step(LeaseStep.LOST)
    run.provider.release()
    await leader


async def stale(run: Run) -> None:
    """1 miss, 1 stale answer, and what its refresh has cost."""
    gateway = await run.gateway("stale", policy=CachePolicy(ttl=0.05, stale_while_revalidate=600))
    await gateway.resolve(ask())
    await asyncio.sleep(0.1)  # that is what it is about
    await gateway.resolve(ask())
    await run.watcher.until(
        lambda event: isinstance(event, Spent) and event.purpose is Purpose.REFRESH, "it is refreshed"
    )


async def refused(run: Run) -> None:
    """2 misses of which nothing is kept, and 1 bypass."""
    gateway = await run.gateway("refused")
    run.provider.script(truncated())
    await gateway.resolve(ask())
    await gateway.resolve(ask(), policy=CachePolicy(max_entry_bytes=10))
    await gateway.resolve(ask(temperature=1.5), policy=CachePolicy(max_temperature=1.0))


async def full(run: Run) -> None:
    """5 misses, 3 evictions."""
    gateway = await run.gateway("full", max_entries=2)
    for number in range(5):
        await gateway.resolve(ask(f"What is lease {number}?"))


async def forgotten(run: Run) -> None:
    """More invalidations than a namespace keeps marks of: of few, to be quick."""
    gateway = await run.gateway("forgotten")
    with mock.patch.object(invalidating, "MOST_MARKS", 5):
        for number in range(11):
            await gateway.cache.invalidate(tags=[f"document {number}"])


async def semantic(run: Run) -> None:
    """5 misses, 2 semantic hits, one of them verified; 1 question kept back; 1 shadow."""

    async def judge(_one: str, _other: str) -> Verdict:
        return Verdict(ok=True, usage=Usage(input_tokens=90, output_tokens=10), model=JUDGE)

    def layer(**settings: Any) -> SemanticCacheLayer:
        return SemanticCacheLayer(
            Meanings(), **{"similarity_threshold": 0.9, "guards": ["numbers"], "budget": 10.0, **settings}
        )

    gateway = await run.gateway("semantic", semantic=layer())
    await gateway.resolve(ask("How do I reset my password?"))
    await gateway.resolve(ask("How can I reset my password?"))
    await gateway.resolve(ask("How do 12 reset my password?"))

    verified = await run.gateway(
        "verified", semantic=layer(verifier=judge, accept_above=0.999, reject_below=0.5)
    )
    await verified.resolve(ask("How do I reset my password?"))
    await verified.resolve(ask("Why did I reset my password?"))

    shadow = await run.gateway("shadow", semantic=layer(shadow=True))
    await shadow.resolve(ask("How do I reset my password?"))
    await shadow.resolve(ask("How can I reset my password?"))
    await run.watcher.until(lambda event: isinstance(event, ShadowCompared), "the shadow is compared")


async def away(run: Run) -> None:
    """8 calls without a server, which comes back."""
    gateway = await run.gateway("away", lookup_budget=0.05)
    run.server.kill()
    for _ in range(8):
        await gateway.resolve(ask())
    await run.watcher.until(lambda event: event == BreakerChanged(open=True), "the breaker opens")


async def back(run: Run) -> None:
    run.server.restart()
    opened = run.watcher.events.count(BreakerChanged(open=True))
    await wait_until_async(
        lambda: run.watcher.events.count(BreakerChanged(open=False)) == opened,
        description="the breaker closes",
        timeout=20,
    )


@dataclass(frozen=True, slots=True)
class Told:
    """What was scraped, and the events of which it must be made."""

    run: list[Sample]
    outage: list[Sample]
    after: list[Sample]
    events: list[Event]


async def scripted(server: Server, exposition: Exposition) -> Told:
    """Do all of it; scrape after the run, in an outage, and after that."""
    async with ProviderServer() as provider:
        provider.behave(lambda _call: Behaviour(text=TEXT))
        client = openai.AsyncOpenAI(base_url=provider.base_url, api_key="any", max_retries=0)
        run = Run(server, provider, client, exposition.observer)

        async def scraped() -> list[Sample]:
            return await asyncio.to_thread(exposition.samples)

        async with client, run.held:
            for part in (plain, at_once, leases, stale, refused, full, forgotten, semantic):
                await part(run)
            # Nine namespaces: each is measured within the second that follows its first call.
            measured: Callable[[], int] = lambda: len(  # noqa: E731
                {event.place for event in run.watcher.events if isinstance(event, Measured)}
            )
            await wait_until_async(lambda: measured() >= 9, description="all are measured")
            done = await scraped()
            await away(run)
            outage = await scraped()
            await back(run)
            return Told(done, outage, await scraped(), run.watcher.events)
