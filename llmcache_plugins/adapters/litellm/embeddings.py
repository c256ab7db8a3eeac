"""Lists of inputs to embed: LiteLLM asks for each of them, and calls for those that are missing.

An item is never waited for: two lists in opposite order would wait for each other. Owns the form of an
item, which vector belongs to which key, and what older versions of LiteLLM make of a list that is known in
part. Imports nothing of LiteLLM.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmcache_plugins.adapters.litellm.plans import CarriedKey, Draft, Plan

__all__ = ["Lists", "items_of"]

Wire = dict[str, Any]

_FORMAT = 2
"""Of an item as LiteLLM reads it."""


class _List:
    """The items that one call has asked for, in their order."""

    def __init__(self) -> None:
        self.plans: list[Plan | Draft] = []
        self.missing: set[int] = set()
        self.looking = 0
        self.all_known = asyncio.Event()


class Lists:
    """Knows which items of which call were missing. Usable from any thread.

    `whole_only` for a LiteLLM that mixes up the vectors of a list of which only some are known.
    """

    def __init__(self, *, whole_only: bool) -> None:
        self._whole_only = whole_only
        self._lock = threading.RLock()
        self._lists: dict[str, _List] = {}
        self._records: dict[str, weakref.ref[Any]] = {}

    async def look(self, key: CarriedKey, plan: Plan | Draft, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Return what `ask` returns for one item, noted; None for all of a list that must be whole."""
        items = self._list_of(plan, key)
        if items is None:
            return await ask()
        place = len(items.plans)
        items.plans.append(plan)
        items.looking += 1
        if self._whole_only:
            await asyncio.sleep(0)  # all items of the list are noted before the first is known
        found = None
        try:
            found = await ask()
        finally:
            if found is None:
                items.missing.add(place)
            items.looking -= 1
            if not items.looking:
                items.all_known.set()
        if not self._whole_only:
            return found
        await items.all_known.wait()
        return None if items.missing else found

    def take(self, call_id: str, *, count: int) -> list[Plan | Draft] | None:
        """Return the plans of the items to which `count` vectors belong; None if they cannot be told."""
        with self._lock:
            items = self._lists.pop(call_id, None)
            self._records.pop(call_id, None)
        if items is None:
            return None
        missing = [plan for place, plan in enumerate(items.plans) if place in items.missing]
        return next((plans for plans in (missing, items.plans) if len(plans) == count), [])

    def count(self) -> int:
        """Return how many lists are noted."""
        return len(self._lists)

    def _list_of(self, plan: Plan | Draft, key: CarriedKey) -> _List | None:
        if plan.call_id is None or key.record is None or (record := key.record()) is None:
            return None
        call_id = plan.call_id
        with self._lock:
            known = self._records.get(call_id)
            if known is None or known() is not record:
                here = weakref.ref(self)
                self._lists[call_id] = _List()
                self._records[call_id] = weakref.ref(record, lambda gone: _forget(here, call_id, gone))
            return self._lists[call_id]

    def forget(self, call_id: str, record: weakref.ref[Any]) -> None:
        """Forget the list of a call whose record has gone."""
        with self._lock:
            if self._records.get(call_id) is record:
                del self._records[call_id], self._lists[call_id]


def _forget(lists: weakref.ref[Lists], call_id: str, record: weakref.ref[Any]) -> None:
    if (here := lists()) is not None:
        here.forget(call_id, record)


def items_of(answer: Wire) -> list[Wire]:
    """Return the items of an answer as LiteLLM reads them; the tokens are shared out among them."""
    data = [item for item in answer.get("data") or () if isinstance(item, dict)]
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    tokens = _shares(usage.get("prompt_tokens"), len(data))
    details = usage.get("prompt_tokens_details")
    shared = {
        name: _shares(value, len(data))
        for name, value in (details.items() if isinstance(details, dict) else ())
        if value is not None
    }
    return [
        {
            "embedding": item.get("embedding"),
            "index": item.get("index"),
            "object": item.get("object"),
            "model": answer.get("model"),
            "prompt_tokens": tokens[place],
            "prompt_tokens_details": {name: values[place] for name, values in shared.items()} or None,
            "format_version": _FORMAT,
        }
        for place, item in enumerate(data)
    ]


def _shares(total: Any, count: int) -> list[Any]:
    """Return equal parts that add up to a total."""
    if type(total) is int:
        whole, rest = divmod(total, count) if count else (0, 0)
        return [whole + (place < rest) for place in range(count)]
    return [total / count if isinstance(total, float) else total] * count
