"""LiteLLM's reports of failed calls, for the caches of this process that have calls under way.

Owns one listener in LiteLLM's lists of callbacks, which it joins when a cache needs it, again when an
application has replaced the lists, and leaves with the last cache.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import litellm
from litellm.integrations.custom_logger import CustomLogger

if TYPE_CHECKING:
    from llmcache_plugins.adapters.litellm.calls import Calls

__all__ = ["listen", "stop_listening"]

_lock = threading.Lock()
_all_calls: WeakSet[Calls] = WeakSet()


class _Failures(CustomLogger):
    """Hears of failures only. LiteLLM passes these names as keywords."""

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        _report(kwargs)

    async def async_log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        _report(kwargs)


def _report(details: Any) -> None:
    error = details.get("exception")
    error = error if isinstance(error, Exception) else None
    inner = (details.get("litellm_params") or {}).get("litellm_call_id")
    for call_id in {inner, details.get("litellm_call_id")}:
        if isinstance(call_id, str):
            for calls in list(_all_calls):
                calls.end(call_id, error)


_failures = _Failures()
_LISTS = ("failure_callback", "_async_failure_callback")


def listen(calls: Calls) -> None:
    """Hear of failed calls from now on. Cheap when it is done already."""
    if calls not in _all_calls:
        with _lock:
            _all_calls.add(calls)
    for name in _LISTS:
        if not any(callback is _failures for callback in getattr(litellm, name, None) or ()):
            _join(name)


def _join(name: str) -> None:
    with _lock:
        callbacks = getattr(litellm, name, None)
        if not isinstance(callbacks, list):
            setattr(litellm, name, [_failures])
        elif not any(callback is _failures for callback in callbacks):
            callbacks.append(_failures)


def stop_listening(calls: Calls) -> None:
    """Hear of them no more."""
    with _lock:
        _all_calls.discard(calls)
        if _all_calls:
            return
        for name in _LISTS:
            with suppress(ValueError):
                getattr(litellm, name, []).remove(_failures)
