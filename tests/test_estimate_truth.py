"""What `estimate` says a log would have saved is what a gateway then saves that is asked the same.

The log is replayed in its order, not in its time: a call is made when the log says so, and its answer, which
the provider has given at once, is held back until the log says so. Answers live in a real server; its clock
is put forward: an entry goes when the time has come that the TTL it was stored with means in the log.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import openai
import pytest
from waiting import wait_until_async

from llmcache_plugins import (
    CachePolicy,
    InferenceGateway,
    Outcome,
    Price,
    ResponseCache,
    SemanticCacheLayer,
)
from llmcache_plugins.estimate import Amount, Estimate, Estimator, LoggedCall
from llmcache_plugins.estimate.similar import QuestionSample, with_semantic
from llmcache_plugins.models import AnswerFacts, Usage
from llmcache_plugins.prices import Prices
from llmcache_plugins.providers import OpenAIProvider
from llmcache_plugins.testing.provider_server import ProviderServer, truncated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from servers import Server

PRICES = {"big": Price(input=2.50, output=10.0), "small": Price(input=0.15, output=0.60)}
TTL = 600.0
RULES = ("uuid",)
CUT_OFF = "cut off"


@dataclass(frozen=True)
class Line:
    at: int
    seconds: int
    request: dict[str, Any]

    @property
    def end(self) -> int:
        return self.at + self.seconds


@dataclass
class Replayed:
    """What the provider and the cache say after a replay."""

    billed: Amount = field(default_factory=Amount)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    saved: tuple[int, ...] = ()
    """Calls, tokens in and out, billionths of a dollar, as `cache.savings()` has them."""


def a_log(seed: int, *, volatile: bool) -> list[Line]:
    """Return calls at different times, all even, whose answers come at odd ones: one thing at a time."""
    rng = random.Random(seed)
    times = sorted(rng.sample(range(0, 3_600, 2), 60))
    lines = []
    for at in times:
        text = f"question {min(int(rng.expovariate(0.7)), 6)}"
        if volatile and rng.random() < 0.6:
            text += f" (request {uuid.UUID(int=rng.getrandbits(128), version=4)})"
        if rng.random() < 0.1:
            text = CUT_OFF
        request = {
            "model": rng.choice(("big", "big", "small")),
            "messages": [{"role": "user", "content": text}],
            "temperature": rng.choice((0, 1)) if text == "question 0" else 0.5,
        }
        lines.append(Line(at, rng.choice((1, 41, 301)), request))
    return lines


def cuts_off(call: Any) -> Any:
    return truncated() if call.prompt == CUT_OFF else None


async def usages(lines: Sequence[Line], provider: ProviderServer) -> list[tuple[Usage, str]]:
    """Return what the provider says of each line without a cache: tokens and finish reason."""
    found = []
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="none", max_retries=0) as client:
        for line in lines:
            answer = await client.chat.completions.create(**line.request)
            usage = Usage(
                input_tokens=answer.usage.prompt_tokens, output_tokens=answer.usage.completion_tokens
            )
            found.append((usage, answer.choices[0].finish_reason))
    return found


async def estimated(lines: Sequence[Line], rules: Sequence[str]) -> Estimate:
    estimator = Estimator(ttl=TTL, normalizers=rules, prices=Prices(PRICES))
    async with ProviderServer() as provider:
        provider.behave(cuts_off)
        said = await usages(lines, provider)
    for line, (usage, finish) in zip(lines, said, strict=True):
        estimator.add(
            LoggedCall(
                request=line.request,
                kind="openai.chat",
                at=float(line.at),
                seconds=float(line.seconds),
                facts=AnswerFacts(model=line.request["model"], usage=usage, finish_reasons=(finish,)),
            )
        )
    return estimator.result()


class Held:
    """A provider for one line: asked at once, heard when the log says so."""

    def __init__(self, provider: OpenAIProvider) -> None:
        self._provider = provider
        self.codec, self.scope = provider.codec, provider.scope
        self.is_asked = False
        self.may_answer = asyncio.Event()

    @property
    def holds(self) -> bool:
        return self.is_asked and not self.may_answer.is_set()

    async def complete(self, query: Mapping[str, Any]) -> Any:
        answer = await self._provider.complete(query)
        self.is_asked = True
        await self.may_answer.wait()
        return answer


class Clock:
    """The log's time, kept by a server that knows another: what is over in the log goes from the server."""

    def __init__(self, server: Server, namespace: str) -> None:
        self._server = server
        self._pattern = f"*{namespace}*:resp:*"
        self._seen: dict[bytes, bytes] = {}
        self._until: dict[bytes, float] = {}
        self.now = 0

    def note(self) -> None:
        """See what was stored just now, and for how long."""
        for key in self._server.command("KEYS", self._pattern):
            value = self._server.command("GET", key)
            if value != self._seen.get(key):
                seconds = round(int(self._server.command("PTTL", key)) / 1000)
                self._seen[key], self._until[key] = value, self.now + seconds

    def put_forward(self, now: int) -> None:
        self.now = now
        for key in [key for key, until in self._until.items() if until <= now]:
            self._server.command("DEL", key)
            del self._until[key], self._seen[key]


async def replayed(
    lines: Sequence[Line], server: Server, namespace: str, *, coalesce: bool, rules: Sequence[str]
) -> Replayed:
    found, clock = Replayed(), Clock(server, namespace)
    cache = ResponseCache.from_url(
        server.url,
        namespace=namespace,
        policy=CachePolicy(ttl=TTL, coalesce=coalesce),
        normalizers=rules,
        prices=PRICES,
        lookup_budget=10.0,
        commit_budget=10.0,
    )
    events = sorted(
        [(line.at, "ask", n) for n, line in enumerate(lines)]
        + [(line.end, "answer", n) for n, line in enumerate(lines)]
    )
    async with (
        ProviderServer() as provider,
        openai.AsyncOpenAI(base_url=provider.base_url, api_key="none", max_retries=0) as client,
        cache,
    ):
        provider.behave(cuts_off)
        asked = OpenAIProvider(client)
        gateway = InferenceGateway(asked, cache)

        def key_of(number: int) -> str:
            return gateway.key_of(lines[number].request).digest

        sources: dict[int, Held] = {}
        tasks: dict[int, asyncio.Task[Any]] = {}
        for at, what, number in events:
            clock.put_forward(at)
            if what == "ask":
                joins = coalesce and key_of(number) in {key_of(n) for n, one in sources.items() if one.holds}
                source = sources[number] = Held(asked)
                task = tasks[number] = asyncio.create_task(
                    gateway.resolve_detailed(lines[number].request, provider=source)
                )
                if joins:
                    # It is in nobody's books that it waits; that it joins needs no answer from anywhere.
                    for _ in range(10):
                        await asyncio.sleep(0)
                    continue
                await wait_until_async(
                    lambda task=task, source=source: task.done() or source.is_asked,
                    description="a call is answered, or reaches the provider",
                )
            elif sources[number].is_asked:
                sources[number].may_answer.set()
                await tasks[number]
                clock.note()
        results = await asyncio.gather(*tasks.values())
        found.billed = Amount(
            calls=provider.calls,
            input_tokens=provider.input_tokens,
            output_tokens=provider.output_tokens,
            nano_usd=sum(
                round(PRICES[result.model].of(result.usage) * 1e9)
                for number, result in zip(tasks, results, strict=True)
                if sources[number].is_asked
            ),
        )
        total = (await cache.savings()).total
    found.outcomes.update(result.outcome for result in results)
    found.saved = (
        total.hits + total.coalesced,
        total.saved_input_tokens,
        total.saved_output_tokens,
        total.saved_nano_usd,
    )
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("mechanism", "coalesce", "rules"),
    [(0, False, ()), (1, False, RULES), (2, True, ()), (2, True, RULES)],
    ids=["exact", "normalized", "single-flight", "all"],
)
async def test_a_replay_saves_what_the_estimate_says(
    valkey: Server, namespace: str, seed: int, mechanism: int, coalesce: bool, rules: Sequence[str]
):
    lines = a_log(seed, volatile=bool(rules))
    said = await estimated(lines, rules)
    found = await replayed(lines, valkey, namespace, coalesce=coalesce, rules=rules)
    avoided = said.mechanisms[mechanism].avoided
    # At the provider: what it has not been asked is what was avoided.
    assert said.total.calls == len(lines)
    assert said.total - avoided == found.billed
    assert sum(number for outcome, number in found.outcomes.items() if outcome.is_spared) == avoided.calls
    # In the cache's own books. They have what the stored answers had cost, as nobody knows what another would
    # have: the same, where requests are the same.
    if not rules:
        assert (avoided.calls, avoided.input_tokens, avoided.output_tokens, avoided.nano_usd) == found.saved
    # Each has something to do in such a log, or nothing would be shown.
    assert said.mechanisms[0].avoided.calls > 0
    assert said.not_stored > 0
    assert said.mechanisms[1].added.calls > 0 or not rules
    assert found.outcomes.get(Outcome.COALESCED, 0) > 0 or not coalesce


ASKING = ("How do I {}?", "Could you please tell me how I can {}", "I want to {}. How?", "How can I not {}?")
ACTIONS = ("reset my password", "cancel my order", "track a delivery", "get a refund", "add a user")


async def test_equivalent_questions_are_found_as_the_cache_finds_them(valkey: Server, namespace: str):
    rng = random.Random(7)
    requests = [
        {"model": "big", "messages": [{"role": "user", "content": rng.choice(ASKING).format(action)}]}
        for action in rng.choices(ACTIONS, k=60)
    ]
    sample = QuestionSample()
    estimator = Estimator(normalizers=(), prices=Prices(PRICES), sample=sample)
    for at, request in enumerate(requests):
        estimator.add(LoggedCall(request=request, kind="openai.chat", at=10.0 * at, seconds=1.0))
    said = (await with_semantic(estimator.result(), sample, target_error=0.02)).semantic

    async def call() -> dict[str, Any]:
        return {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}

    layer = SemanticCacheLayer(target_error=0.02, budget=30.0)
    cache = ResponseCache.from_url(
        valkey.url, namespace=namespace, semantic=layer, lookup_budget=10.0, commit_budget=10.0
    )
    async with cache:
        await layer.embedding.open()
        outcomes = Counter([(await cache.resolve(request, call)).outcome for request in requests])
    assert said is not None
    assert (said.hits, said.calls - said.fewer) == (outcomes[Outcome.SEMANTIC_HIT], outcomes[Outcome.MISS])
    assert outcomes[Outcome.SEMANTIC_HIT] > 3
