"""OpenTelemetry traces: one span for each call of the cache, `llmcache.resolve`, with events.

Owns what is in a span: outcome, face, and what happened on the way; never a prompt, a key, a tenant or a
message of an error. The provider's own span, where the application has one, is a child of a miss's; a hit has
none, and reports no `gen_ai` usage: it would be billed twice.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from opentelemetry import context, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from llmcache_plugins.telemetry.events import (
    FoundNear,
    LeaseEvent,
    Missed,
    ProviderCalled,
    Refused,
    Resolved,
    SemanticLooked,
    VerifierAsked,
)
from llmcache_plugins.telemetry.listening import Listening

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from contextlib import AbstractContextManager

    from opentelemetry.trace import Span, TracerProvider

    from llmcache_plugins.telemetry.events import Event

__all__ = ["NO_SPAN", "StreamSpan", "Traces"]

_log = logging.getLogger("llmcache_plugins")

_NAME = "llmcache.resolve"
_current: ContextVar[Span | None] = ContextVar("llmcache_span", default=None)


class StreamSpan:
    """The span of a stream. Nobody's span while the reader has a chunk: only while one is being brought."""

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def attached(self) -> AbstractContextManager[None]:
        """Make it the current span for what is done inside, without a pause of the generator in between."""
        return nullcontext() if self._span is None else _attached(self._span)

    def over(self, chunks: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        """Return the chunks, each of them brought under this span."""
        return chunks if self._span is None else self._over(chunks)

    async def _over(self, chunks: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        while True:
            with self.attached():
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
            yield chunk


NO_SPAN = StreamSpan(None)


class Traces:
    """Spans by one tracer provider, by default the process's. An `Observer`."""

    def __init__(self, tracer_provider: TracerProvider | None = None, *, version: str = "") -> None:
        self._given = tracer_provider
        self._version = version
        self._has_complained = False
        self._is_listened_to = Listening(_is_there)

    @property
    def is_on(self) -> bool:
        """Whether anybody listens: without an SDK a span is not worth its time."""
        return self._given is not None or self._is_listened_to()

    @contextmanager
    def span(self) -> Iterator[None]:
        """Open a span for what is done inside."""
        if (span := self._start()) is None:
            yield
            return
        with _ended(span), _attached(span):
            yield

    @contextmanager
    def stream_span(self) -> Iterator[StreamSpan]:
        """Open a span for a stream, if anybody listens; it ends with what is done inside."""
        if not self.is_on or (span := self._start()) is None:
            yield NO_SPAN
            return
        with _ended(span):
            yield StreamSpan(span)

    def on_event(self, event: Event, /) -> None:
        """Add one event to the span of the call in which it happens, if that has not ended."""
        span = _current.get()
        if span is None or not span.is_recording():
            return
        match event:
            case Resolved():
                span.set_attribute("llmcache.outcome", event.outcome.value)
                span.set_attribute("llmcache.face", event.face.value)
                if event.model is not None:
                    span.set_attribute("gen_ai.request.model", event.model)
            case Missed():
                span.add_event("llmcache.lookup", {"llmcache.lookup.result": "miss"})
            case FoundNear():
                span.add_event("llmcache.near")
            case SemanticLooked():
                found: dict[str, Any] = {"llmcache.semantic.result": str(event.result)}
                if event.similarity is not None:
                    found["llmcache.semantic.similarity"] = event.similarity
                span.add_event("llmcache.semantic", found)
            case VerifierAsked():
                span.add_event("llmcache.verifier")
            case LeaseEvent():
                span.add_event("llmcache.lease", {"llmcache.lease.step": event.step.value})
            case ProviderCalled():
                result = "error" if event.failed else "ok"
                span.add_event("llmcache.provider", {"llmcache.provider.result": result})
            case Refused():
                span.add_event("llmcache.rejected", {"llmcache.reason": str(event.reason)})
            case _:
                pass

    def _start(self) -> Span | None:
        """Return a new span; None from a provider that raises, for the caller is not to hear of that."""
        try:
            provider = trace.get_tracer_provider() if self._given is None else self._given
            tracer = provider.get_tracer("llmcache_plugins", self._version)
            return tracer.start_span(_NAME, kind=SpanKind.INTERNAL)
        except Exception as error:  # noqa: BLE001 - any SDK's
            if not self._has_complained:
                self._has_complained = True
                _log.warning("a span could not be started (%s); there are none", type(error).__name__)
            return None


def _is_there() -> bool:
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def _ended(span: Span) -> Iterator[None]:
    """End a span; an error leaves its class, for what it says may be of the prompt."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, GeneratorExit):
            with suppress(Exception):
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(Status(StatusCode.ERROR))
        raise
    finally:
        with suppress(Exception):  # any SDK's
            span.end()


@contextmanager
def _attached(span: Span) -> Iterator[None]:
    token = context.attach(trace.set_span_in_context(span))
    ours = _current.set(span)
    try:
        yield
    finally:
        _current.reset(ours)
        context.detach(token)
