"""What happened, and who wants to know: frozen events, the counts of this process, OpenTelemetry.

    whoever does something --> Telemetry.emit(event) --> Stats
                                       |
                                       `--> observers: OpenTelemetry's instruments, the application's own

Knows no repository and no cache.
"""

from llmcache_plugins.telemetry.events import (
    BreakerChanged,
    Event,
    Evicted,
    Face,
    FoundNear,
    LeaseEvent,
    LeaseStep,
    MarksForgotten,
    Measured,
    Missed,
    ProviderCalled,
    Purpose,
    Refused,
    Resolved,
    SemanticLooked,
    ShadowCompared,
    Spent,
    Unreadable,
    VerifierAsked,
)
from llmcache_plugins.telemetry.hub import Observer, OpenTelemetry, Telemetry
from llmcache_plugins.telemetry.stats import Stats

__all__ = [
    "BreakerChanged",
    "Event",
    "Evicted",
    "Face",
    "FoundNear",
    "LeaseEvent",
    "LeaseStep",
    "MarksForgotten",
    "Measured",
    "Missed",
    "Observer",
    "OpenTelemetry",
    "ProviderCalled",
    "Purpose",
    "Refused",
    "Resolved",
    "SemanticLooked",
    "ShadowCompared",
    "Spent",
    "Stats",
    "Telemetry",
    "Unreadable",
    "VerifierAsked",
]
