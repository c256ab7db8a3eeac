"""Hands each event to the counters and to every observer. One that raises never reaches the caller."""

from __future__ import annotations

import copy
import logging
from contextlib import nullcontext
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Protocol

from llmcache_plugins.telemetry.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from llmcache_plugins.telemetry.events import Event
    from llmcache_plugins.telemetry.traces import StreamSpan, Traces

__all__ = ["Observer", "OpenTelemetry", "Telemetry"]

_log = logging.getLogger("llmcache_plugins")


class Observer(Protocol):
    """Anything that wants to see events. Called synchronously on the event loop: must be quick."""

    def on_event(self, event: Event, /) -> None:
        """Take note of one event."""


class OpenTelemetry:
    """Metrics and traces for an SDK of the application's: docs/telemetry.md names them.

    Every cache has one for the providers of the process, whenever they are set. Give one of your own as an
    observer, in its place, to name the providers: `observers=[OpenTelemetry(meter_provider=...)]`.
    """

    def __init__(
        self,
        *,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        # Here, for importing the package should not import them.
        from llmcache_plugins.telemetry.metrics import metrics_of
        from llmcache_plugins.telemetry.traces import Traces

        self.traces = Traces(tracer_provider, version=_version())
        self._metrics = metrics_of(meter_provider, version=_version())

    def on_event(self, event: Event, /) -> None:
        """Measure an event, and add it to the span of its call."""
        try:
            self._metrics.on_event(event)
        finally:
            self.traces.on_event(event)


class Telemetry:
    """Counts events, and passes them on to `observers`, and to OpenTelemetry."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self.stats = Stats()
        given = tuple(observers)
        ours = next((one for one in given if isinstance(one, OpenTelemetry)), None)
        self._traces: Traces = (ours or _opentelemetry()).traces
        self._observers = given if ours is not None else (*given, _opentelemetry())
        self._complained = False

    def snapshot(self) -> Stats:
        """Return a copy of the counts."""
        return copy.deepcopy(self.stats)

    def emit(self, event: Event) -> None:
        """Count one event and pass it on. Never raises."""
        self.stats.count(event)
        for observer in self._observers:
            try:
                observer.on_event(event)
            except Exception:  # noqa: BLE001 - a guest in the caller's request: whatever it raises
                self._complain_once(observer)

    def span(self) -> AbstractContextManager[None]:
        """Open a span for what is done inside, if anybody listens."""
        return self._traces.span() if self._traces.is_on else _NOTHING

    def stream_span(self) -> AbstractContextManager[StreamSpan]:
        """Open a span for a stream, which may pause between its chunks."""
        return self._traces.stream_span()

    def _complain_once(self, observer: Observer) -> None:
        if not self._complained:
            self._complained = True
            _log.warning(
                "an observer (%s) raised; its errors are ignored", type(observer).__name__, exc_info=True
            )


_NOTHING = nullcontext()


@cache
def _opentelemetry() -> OpenTelemetry:
    """Return that of the process: gauges of several caches are one sum."""
    return OpenTelemetry()


@cache
def _version() -> str:
    try:
        return metadata.version("llmcache-plugins")
    except metadata.PackageNotFoundError:
        return ""
