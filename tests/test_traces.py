"""Spans as an SDK gets them: one for each call, nothing twice that is billed, nothing of what was asked."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracer, NoOpTracerProvider, SpanKind, StatusCode
from waiting import wait_until_async

from llmcache_plugins import CachePolicy, OpenTelemetry, ResponseCache
from llmcache_plugins.cache import Errand
from llmcache_plugins.telemetry import LeaseEvent, LeaseStep

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from servers import Server

    from llmcache_plugins.telemetry import Event

PATIENT: dict[str, Any] = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
OURS = "llmcache.resolve"
ANSWER = {
    "object": "chat.completion",
    "model": "m-2026",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "A secret."}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}
ASKED = {"model": "m", "messages": [{"role": "user", "content": "What is the password?"}]}


class Spans:
    """An SDK that keeps what it is given, and a provider that makes a span, as instrumented ones do."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("the application")
        self.observer = OpenTelemetry(tracer_provider=self.provider)
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.called = asyncio.Event()

    def cache(self, server: Server, namespace: str, *observers: Any, **settings: Any) -> ResponseCache:
        return ResponseCache.from_url(
            server.url, namespace=namespace, observers=[self.observer, *observers], **{**PATIENT, **settings}
        )

    async def call(self) -> Any:
        with self.tracer.start_as_current_span("chat m"):
            self.calls += 1
            self.called.set()
            await self.gate.wait()
            return ANSWER

    async def narrate(self) -> AsyncGenerator[str, None]:
        with self.tracer.start_as_current_span("chat m"):
            self.calls += 1
        self.called.set()
        yield "once "
        await self.gate.wait()
        yield "upon a time"

    def done(self, name: str = OURS) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def children(self, parent: ReadableSpan) -> list[ReadableSpan]:
        return [
            span
            for span in self.exporter.get_finished_spans()
            if span.parent is not None and span.parent.span_id == parent.context.span_id
        ]

    def by_outcome(self) -> dict[Any, ReadableSpan]:
        return {span.attributes["llmcache.outcome"]: span for span in self.done()}


@pytest.fixture
async def spans() -> Spans:
    return Spans()


def events(span: ReadableSpan) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name, dict(event.attributes)) for event in span.events]


async def joined() -> None:
    """Let who has just called join what is under way."""
    for _ in range(20):
        await asyncio.sleep(0)


class TestCalls:
    async def test_a_miss_is_the_parent_of_the_providers_span_and_a_hit_has_no_child(
        self, valkey: Server, namespace: str, spans: Spans
    ):
        async with spans.cache(valkey, namespace) as cache:
            with spans.tracer.start_as_current_span("a request") as request:
                for _ in range(2):
                    await cache.get_or_call(ASKED, spans.call)
        miss, hit = spans.done()
        assert [span.parent.span_id for span in (miss, hit)] == [request.context.span_id] * 2
        assert {span.kind for span in (miss, hit)} == {SpanKind.INTERNAL}
        assert [child.name for child in spans.children(miss)] == ["chat m"]
        assert spans.children(hit) == []
        assert dict(miss.attributes) == {
            "llmcache.outcome": "miss",
            "llmcache.face": "cache",
            "gen_ai.request.model": "m",
        }
        assert dict(hit.attributes) == dict(miss.attributes) | {"llmcache.outcome": "hit"}
        assert events(miss) == [
            ("llmcache.lookup", {"llmcache.lookup.result": "miss"}),
            ("llmcache.lease", {"llmcache.lease.step": "led"}),
            ("llmcache.provider", {"llmcache.provider.result": "ok"}),
        ]
        assert events(hit) == []

    async def test_who_joins_has_a_span_without_a_child(self, valkey: Server, namespace: str, spans: Spans):
        spans.gate.clear()
        async with spans.cache(valkey, namespace) as cache:
            leader = asyncio.create_task(cache.get_or_call(ASKED, spans.call))
            await spans.called.wait()
            others = [asyncio.create_task(cache.get_or_call(ASKED, spans.call)) for _ in range(3)]
            await joined()
            spans.gate.set()
            await asyncio.gather(leader, *others)
        assert [span.attributes["llmcache.outcome"] for span in spans.done()].count("coalesced") == 3
        for span in spans.done():
            led = span.attributes["llmcache.outcome"] == "miss"
            assert [child.name for child in spans.children(span)] == (["chat m"] if led else [])

    async def test_who_waits_for_another_process_says_so(self, valkey: Server, namespace: str, spans: Spans):
        class Watcher:
            def __init__(self) -> None:
                self.followed = asyncio.Event()

            def on_event(self, event: Event, /) -> None:
                if event == LeaseEvent(step=LeaseStep.FOLLOWED):
                    self.followed.set()

        spans.gate.clear()
        watcher = Watcher()
        async with spans.cache(valkey, namespace) as one, spans.cache(valkey, namespace, watcher) as other:
            leader = asyncio.create_task(one.get_or_call(ASKED, spans.call))
            await spans.called.wait()
            follower = asyncio.create_task(other.get_or_call(ASKED, spans.call))
            await watcher.followed.wait()
            spans.gate.set()
            await asyncio.gather(leader, follower)
        waited = spans.by_outcome()["coalesced"]
        assert ("llmcache.lease", {"llmcache.lease.step": "followed"}) in events(waited)
        assert spans.children(waited) == []

    async def test_the_call_that_refreshes_a_stale_answer_is_a_child_of_its_span(
        self, valkey: Server, namespace: str, spans: Spans
    ):
        policy = CachePolicy(ttl=0.05, stale_while_revalidate=600)
        async with spans.cache(valkey, namespace, policy=policy) as cache:
            await cache.get_or_call(ASKED, spans.call)
            await asyncio.sleep(0.1)  # that is what it is about
            await cache.get_or_call(ASKED, spans.call)
            await wait_until_async(lambda: len(spans.done("chat m")) == 2, description="it is refreshed")
        assert [child.name for child in spans.children(spans.by_outcome()["stale"])] == ["chat m"]

    async def test_a_refusal_and_a_bypass_are_there(self, valkey: Server, namespace: str, spans: Spans):
        async with spans.cache(valkey, namespace, policy=CachePolicy(cacheable=lambda *_: False)) as cache:
            await cache.get_or_call(ASKED, spans.call)
            await cache.get_or_call(ASKED, spans.call, mode="off")
        assert ("llmcache.rejected", {"llmcache.reason": "not_cacheable"}) in events(
            spans.by_outcome()["miss"]
        )
        assert [child.name for child in spans.children(spans.by_outcome()["bypass"])] == ["chat m"]

    async def test_an_errand_ends_its_span_when_it_is_given(
        self, valkey: Server, namespace: str, spans: Spans
    ):
        async with spans.cache(valkey, namespace) as cache:
            errand = await cache.acquire(ASKED)
            assert isinstance(errand, Errand)
            assert [span.attributes["llmcache.outcome"] for span in spans.done()] == ["miss"]
            assert trace.get_current_span() is trace.INVALID_SPAN
            await errand.fulfil(ANSWER)
            await cache.acquire(ASKED)
        assert [span.attributes["llmcache.outcome"] for span in spans.done()] == ["miss", "hit"]


class TestErrors:
    async def test_an_error_leaves_its_class_and_nothing_that_it_says(
        self, valkey: Server, namespace: str, spans: Spans
    ):
        async def fail() -> Any:
            raise ValueError("about your password")

        async def break_off() -> AsyncGenerator[str, None]:
            yield "once "
            raise ValueError("about your password")

        async with spans.cache(valkey, namespace) as cache:
            with pytest.raises(ValueError, match="password"):
                await cache.get_or_call(ASKED, fail)
            with pytest.raises(ValueError, match="password"):
                [chunk async for chunk in cache.stream({"q": 1}, break_off)]
        for span in spans.done():
            assert span.attributes["error.type"] == "ValueError"
            assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
            assert ("llmcache.provider", {"llmcache.provider.result": "error"}) in events(span)
            assert "password" not in span.to_json()
        assert len(spans.done()) == 2

    async def test_one_that_is_cancelled_ends_its_span(self, valkey: Server, namespace: str, spans: Spans):
        spans.gate.clear()
        async with spans.cache(valkey, namespace) as cache:
            call = asyncio.create_task(cache.get_or_call(ASKED, spans.call))
            await spans.called.wait()
            call.cancel()
            await asyncio.wait((call,))
        (span,) = spans.done()
        assert span.attributes["error.type"] == "CancelledError"


class TestStreams:
    async def test_its_span_is_nobodys_while_the_reader_has_a_chunk(
        self, valkey: Server, namespace: str, spans: Spans
    ):
        async with spans.cache(valkey, namespace) as cache:
            with spans.tracer.start_as_current_span("the reader") as reader:
                for _ in range(2):
                    async for _ in cache.stream({"q": 1}, spans.narrate):
                        assert trace.get_current_span() is reader
                        with spans.tracer.start_as_current_span("showing it"):
                            await asyncio.sleep(0)
                assert trace.get_current_span() is reader
        miss, hit = spans.by_outcome()["miss"], spans.by_outcome()["hit"]
        assert [child.name for child in spans.children(miss)] == ["chat m"]
        assert spans.children(hit) == []
        assert {span.parent.span_id for span in spans.done("showing it")} == {reader.context.span_id}
        assert {span.parent.span_id for span in (miss, hit)} == {reader.context.span_id}

    async def test_chunks_may_be_taken_by_one_task_after_the_other(
        self, valkey: Server, namespace: str, spans: Spans, caplog: pytest.LogCaptureFixture
    ):
        async with spans.cache(valkey, namespace) as cache:
            chunks = cache.stream({"q": 1}, spans.narrate)
            taken = [await asyncio.create_task(anext(chunks)) for _ in range(2)]
            with pytest.raises(StopAsyncIteration):
                await asyncio.create_task(anext(chunks))
        assert taken == ["once ", "upon a time"]
        assert [span.attributes["llmcache.outcome"] for span in spans.done()] == ["miss"]
        assert caplog.records == []

    async def test_one_that_is_left_ends_its_span_and_leaves_no_error(
        self, valkey: Server, namespace: str, spans: Spans, caplog: pytest.LogCaptureFixture
    ):
        async with spans.cache(valkey, namespace) as cache:
            async with contextlib.aclosing(cache.stream({"q": 1}, spans.narrate)) as chunks:
                async for _ in chunks:
                    break
            (span,) = spans.done()
            assert span.status.status_code is StatusCode.UNSET
            assert "error.type" not in span.attributes
        assert caplog.records == []

    async def test_readers_of_one_stream_have_a_span_each(self, valkey: Server, namespace: str, spans: Spans):
        spans.gate.clear()
        async with spans.cache(valkey, namespace) as cache:

            async def read() -> list[str]:
                return [chunk async for chunk in cache.stream({"q": 1}, spans.narrate)]

            leader = asyncio.create_task(read())
            await spans.called.wait()
            other = cache.stream({"q": 1}, spans.narrate)
            assert await anext(other) == "once "
            spans.gate.set()
            assert [chunk async for chunk in other] == ["upon a time"]
            await leader
        assert spans.children(spans.by_outcome()["coalesced"]) == []
        assert [child.name for child in spans.children(spans.by_outcome()["miss"])] == ["chat m"]


class TestWhatIsLeftOut:
    async def test_nothing_of_what_was_asked_or_said_and_nothing_that_is_billed(
        self, valkey: Server, namespace: str, spans: Spans
    ):
        async with spans.cache(valkey, namespace) as cache:
            for _ in range(2):
                await cache.get_or_call(ASKED, spans.call, tenant="acme", tags=["document 7"])
                [chunk async for chunk in cache.stream(ASKED, spans.narrate, mode="refresh", tenant="acme")]
        assert len(spans.done()) == 4
        for span in spans.done():
            told = span.to_json()
            for secret in (namespace, "acme", "password", "secret", "document", "once"):
                assert secret not in told
            assert not [name for name in span.attributes if name.startswith("gen_ai.usage")]

    async def test_without_an_sdk_there_is_no_span(self, valkey: Server, namespace: str):
        async def call() -> str:
            return "" if trace.get_current_span() is trace.INVALID_SPAN else "a span"

        async with ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT) as cache:
            assert await cache.get_or_call({"q": 1}, call) == ""


async def test_what_goes_on_when_its_caller_is_gone_disturbs_no_span(
    valkey: Server, namespace: str, spans: Spans, caplog: pytest.LogCaptureFixture
):
    spans.gate.clear()
    async with spans.cache(valkey, namespace, on_abandon="finish") as cache:
        call = asyncio.create_task(cache.get_or_call(ASKED, spans.call))
        await spans.called.wait()
        call.cancel()
        await asyncio.wait((call,))
        (ended,) = spans.done()
        told = len(ended.events)
        spans.gate.set()

        async def is_stored() -> bool:
            return (await cache.stats()).entries == 1

        await wait_until_async(is_stored, description="the answer is stored all the same")
        assert (await cache.stats()).provider_calls == 1
    # An SDK complains about whoever adds to what has ended.
    assert [record.message for record in caplog.records] == []
    assert [len(span.events) for span in spans.done()] == [told]


class BrokenSpan(trace.NonRecordingSpan):
    """A span that raises whatever is done with it."""

    def is_recording(self) -> bool:
        raise ZeroDivisionError

    set_attribute = set_status = add_event = end = is_recording  # type: ignore[assignment]


class BrokenTracer(NoOpTracer):
    def start_span(self, *_args: Any, **_kwargs: Any) -> Any:
        return BrokenSpan(trace.INVALID_SPAN_CONTEXT)


class Unable(NoOpTracer):
    def start_span(self, *_args: Any, **_kwargs: Any) -> Any:
        raise ZeroDivisionError


class Given(NoOpTracerProvider):
    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer

    def get_tracer(self, *_args: Any, **_kwargs: Any) -> Any:
        return self._tracer


@pytest.mark.parametrize("tracer", [BrokenTracer(), Unable(), None])
async def test_a_tracer_that_raises_is_nothing_to_the_caller(
    valkey: Server, namespace: str, caplog: pytest.LogCaptureFixture, tracer: Any
):
    async def answer() -> str:
        return "an answer"

    async def narrate() -> AsyncGenerator[str, None]:
        yield "an answer"

    async def fail() -> str:
        raise LookupError("the provider's own")

    observer = OpenTelemetry(tracer_provider=Given(tracer))
    async with ResponseCache.from_url(
        valkey.url, namespace=namespace, observers=[observer], **PATIENT
    ) as cache:
        for _ in range(2):
            assert await cache.get_or_call({"q": 1}, answer) == "an answer"
            assert [chunk async for chunk in cache.stream({"q": 2}, narrate)] == ["an answer"]
        errand = await cache.acquire({"q": 3})
        assert isinstance(errand, Errand)
        errand.abandon()
        with pytest.raises(LookupError, match="own"):
            await cache.get_or_call({"q": 4}, fail)
        assert (await cache.stats()).requests == 5
    assert len(caplog.records) == 1


@pytest.fixture(autouse=True)
def _no_span_is_left_current() -> Iterator[None]:
    yield
    assert trace.get_current_span() is trace.INVALID_SPAN
