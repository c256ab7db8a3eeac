"""Where LiteLLM's calls ask and bring: who leads, who waits, and to which lookup an answer belongs.

Knows LiteLLM's words only through `plans`, and nothing of what its answers look like.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from llmcache_plugins.adapters.litellm.calls import Calls, Pending
from llmcache_plugins.adapters.litellm.controls import mode_said, was_looked_up
from llmcache_plugins.adapters.litellm.embeddings import Lists, items_of
from llmcache_plugins.adapters.litellm.failures import listen
from llmcache_plugins.adapters.litellm.live import live_stream
from llmcache_plugins.adapters.litellm.plans import Bypass, CarriedKey, Draft, Plan, Planner, carried_by
from llmcache_plugins.adapters.litellm.values import kind_of_answer, wire_of
from llmcache_plugins.adapters.litellm.versions import MIXES_UP_LISTS, NOTICES_CUT_STREAMS
from llmcache_plugins.adapters.sync_half import SyncHalf
from llmcache_plugins.adapters.under_way import is_under_way, note
from llmcache_plugins.answers.kinds import Kind
from llmcache_plugins.cache import Errand, Explanation, brought
from llmcache_plugins.loops import running_loop
from llmcache_plugins.models import Mode, Outcome, Resolution
from llmcache_plugins.providers.litellm import REPLAYED_CODEC
from llmcache_plugins.telemetry import Face

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmcache_plugins.adapters.litellm.controls import Rules
    from llmcache_plugins.answers import StreamCodec
    from llmcache_plugins.cache import ResponseCache
    from llmcache_plugins.models import Lease

__all__ = ["Desk"]

_log = logging.getLogger("llmcache_plugins")
_AT_ONCE = 64
"""Items of a list that are written at one time."""
_NOT_FOR_READERS = {"ttl", "tags", "namespace", "tenant"}
"""What a call may say and be given whatever fresh answer its key has: names are in the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Delivery:
    """An answer, where it goes, and who was sent for it."""

    plan: Plan
    answer: Any
    pending: Pending | None

    @property
    def asked_at(self) -> float | None:
        """When (its loop's clock) who was sent for it, too long ago, had been sent."""
        pending = self.pending
        if pending is None or pending.errand is None or pending.loop is not running_loop():
            return None
        return pending.errand.asked_at


class Desk:
    """One cache's. Usable from any thread and any event loop."""

    def __init__(self, cache: ResponseCache, rules: Rules) -> None:
        self.calls = Calls()
        self.sync = SyncHalf(cache)
        self._cache = cache
        self._planner = Planner(cache, rules, trusts_streams=NOTICES_CUT_STREAMS)
        self._lists = Lists(whole_only=MIXES_UP_LISTS)
        self._complaints: set[str] = set()
        listen(self.calls)

    def key_of(self, arguments: Mapping[str, Any]) -> CarriedKey:
        """Return the key of a call, which brings its plan along. Never raises."""
        return self._planner.carry(arguments)

    # -- asking ----------------------------------------------------------------------------------------

    async def look(self, arguments: Mapping[str, Any]) -> Any:
        """Return the stored answer, or None."""
        plan = self._plan_of(arguments)
        if not isinstance(plan, Bypass) and plan.kind is Kind.EMBEDDING:
            key = arguments["cache_key"] if "cache_key" in arguments else self.key_of(arguments)
            return await self._lists.look(key, plan, partial(self._look_once, plan, arguments))
        if isinstance(plan, Draft):
            plan = await plan.finished()
        if isinstance(plan, Bypass):
            return self._bypass(plan, arguments)
        if (near := self._at_hand(plan)) is not None:
            return near.answer
        record = arguments.get("litellm_logging_obj")
        if is_under_way():
            await asyncio.sleep(0)  # the answer may be there and its write only about to begin
        live = REPLAYED_CODEC if plan.takes_chunks and record is not None else None
        found = await self._acquire(plan, record, asyncio.current_task(), not is_under_way(), live=live)
        if isinstance(found, Errand):
            note(found)
        answer = _answer_of(found)
        return live_stream(answer, arguments) if isinstance(answer, AsyncGenerator) else answer

    async def _look_once(self, plan: Plan | Draft, arguments: Mapping[str, Any]) -> Any:
        settled = await plan.finished() if isinstance(plan, Draft) else plan
        if isinstance(settled, Bypass):
            return self._bypass(settled, arguments)
        answer = _answer_of(await self._read(settled))
        if answer is None and (lease := await self._fence(settled)) is not None:
            settled.fences.append(lease)
        return answer

    async def _fence(self, plan: Plan) -> Lease | None:
        return await self._cache.fence(plan.key, codec=plan.codec, **plan.options)

    def look_from_thread(self, arguments: Mapping[str, Any]) -> Any:
        """Like `look`, for synchronous calls."""
        plan = self._plan_of(arguments)
        if isinstance(plan, Draft):
            plan = plan.finish()
        if isinstance(plan, Bypass):
            return self._bypass(plan, arguments)
        if (near := self._at_hand(plan)) is not None:
            return near.answer
        record = arguments.get("litellm_logging_obj")
        return _answer_of(self.sync.acquire(partial(self._acquire, plan, record, None)))

    def _at_hand(self, plan: Plan) -> Resolution | None:
        if plan.options.keys() - _NOT_FOR_READERS:
            return None
        return self._cache.at_hand(plan.key, codec=plan.codec, face=Face.LITELLM)

    async def _acquire(
        self,
        plan: Plan,
        record: object | None,
        task: asyncio.Task[Any] | None,
        may_wait: bool,
        *,
        live: StreamCodec | None = None,
    ) -> Resolution | Errand | None:
        listen(self.calls)
        call_id = plan.call_id
        if call_id is None:
            return await self._read(plan)
        # A call that asks again while it is under way, through another of LiteLLM's functions, waits for
        # itself; so does one that will ask for the same with the next model at hand.
        leads = plan.may_lead and not self.calls.is_open(call_id)
        asking = self._ask(plan, may_wait=may_wait, live=live) if leads else self._read(plan)
        found = await asking
        if not isinstance(found, Resolution):
            errand = found if isinstance(found, Errand) else None
            self.calls.begin(Pending(call_id, plan, errand), record=record, task=task)
        return found

    async def _read(self, plan: Plan) -> Resolution | Errand | None:
        return await self._ask(plan, may_wait=False, may_lead=False)

    async def _ask(
        self, plan: Plan, *, may_wait: bool, may_lead: bool = True, live: StreamCodec | None = None
    ) -> Resolution | Errand | None:
        refreshes = plan.options.get("mode") == Mode.REFRESH
        return await self._cache.acquire(
            plan.key,
            codec=plan.codec,
            may_wait=may_wait and not refreshes,
            may_lead=may_lead,
            live=live,
            request=plan.request,
            whole=plan.request,
            face=Face.LITELLM,
            **plan.options,
        )

    def _plan_of(self, arguments: Mapping[str, Any]) -> Plan | Bypass | Draft:
        return carried_by(arguments) or self._planner.plan(arguments)

    def _bypass(self, bypass: Bypass, arguments: Mapping[str, Any]) -> None:
        if bypass.reason:
            self.complain(f"a call of LiteLLM is not cached: it {bypass.reason}")
            # Who only reads is not to call the provider instead.
            self._cache.bypass(bypass.reason, face=Face.LITELLM, mode=mode_said(arguments))

    async def explain(self, arguments: Mapping[str, Any]) -> Explanation:
        """Say why a call with these arguments hits or misses."""
        plan = self._planner.plan(arguments)
        if isinstance(plan, Draft):
            plan = await plan.finished()
        if isinstance(plan, Bypass):
            return Explanation(outcome=Outcome.BYPASS, reason=f"it {plan.reason or 'is not to be cached'}")
        return await self._cache.explain(plan.body, codec=plan.codec, **plan.options)

    # -- bringing --------------------------------------------------------------------------------------

    async def bring(self, answer: Any, arguments: Mapping[str, Any]) -> None:
        """Store an answer, and give it to those who wait."""
        # Before anything is awaited: the application goes on to change its message.
        wire = wire_of(answer)
        if wire is None:
            return
        plan = self._plan_of_answer(wire, arguments)
        if isinstance(plan, Draft):
            plan = await plan.finished()
        delivery = self._delivery_of(wire, plan, arguments)
        if delivery is not None:
            await self._deliver(delivery)

    def bring_from_thread(self, answer: Any, arguments: Mapping[str, Any]) -> None:
        """Like `bring`, for synchronous calls."""
        wire = wire_of(answer)
        if wire is None:
            return
        plan = self._plan_of_answer(wire, arguments)
        settled = plan.finish() if isinstance(plan, Draft) else plan
        delivery = self._delivery_of(wire, settled, arguments)
        if delivery is not None:
            self.sync.store(self._deliver(delivery))

    async def bring_list(self, answer: Any, arguments: Mapping[str, Any]) -> None:
        """Store the items of a list, each for itself."""
        items = items_of(wire_of(answer) or {})
        plans = await self._plans_of_list(arguments, count=len(items))
        deliveries = [
            _Delivery(plan=plan, answer=brought(plan.codec, item), pending=None)
            for plan, item in zip(plans, items, strict=False)
        ]
        for first in range(0, len(deliveries), _AT_ONCE):
            await asyncio.gather(*map(self._deliver, deliveries[first : first + _AT_ONCE]))

    async def _plans_of_list(self, arguments: Mapping[str, Any], *, count: int) -> list[Plan]:
        call_id, inputs = arguments.get("litellm_call_id"), arguments.get("input")
        noted = self._lists.take(call_id, count=count) if isinstance(call_id, str) else None
        if noted is not None:
            return await _settled(noted)
        inputs = inputs if isinstance(inputs, list) else [inputs]
        if len(inputs) != count:
            return []
        plans = [self._planner.plan({**arguments, "input": one}, kind=Kind.EMBEDDING) for one in inputs]
        return await _settled(plans)

    def _plan_of_answer(self, wire: dict[str, Any], arguments: Mapping[str, Any]) -> Plan | Bypass | Draft:
        return carried_by(arguments) or self._planner.plan(arguments, kind=_kind_of(wire, arguments))

    def _delivery_of(
        self, wire: dict[str, Any], plan: Plan | Bypass, arguments: Mapping[str, Any]
    ) -> _Delivery | None:
        """Return where an answer goes; None if it goes nowhere."""
        call_id = arguments.get("litellm_call_id")
        if not isinstance(call_id, str):
            pending = None
        elif isinstance(plan, Bypass) and plan.is_nested:
            # Of the two halves of such a call only the inner one hands over what was streamed.
            pending = self.calls.last_open(call_id) if arguments.get("stream") else None
        else:
            pending = self._pending_for(plan, call_id, arguments)
            if arguments.get("fallbacks"):
                return None  # it may be another model's; what the first one said was brought already
        if pending is not None:
            plan = pending.plan
        elif isinstance(plan, Bypass) or self._came_before(plan, arguments):
            return None
        return _Delivery(plan=plan, answer=brought(plan.codec, wire), pending=pending)

    def _pending_for(self, plan: Plan | Bypass, call_id: str, arguments: Mapping[str, Any]) -> Pending | None:
        if not was_looked_up(arguments):
            return None
        key = plan.key if isinstance(plan, Plan) else None
        record = arguments.get("litellm_logging_obj")
        return self.calls.take(call_id, key, record=record, may_guess=True)

    def _came_before(self, plan: Plan, arguments: Mapping[str, Any]) -> bool:
        if plan.call_id is None or not was_looked_up(arguments):
            return False
        return self.calls.was_brought(plan.call_id, plan.key)

    async def _deliver(self, delivery: _Delivery) -> None:
        pending = delivery.pending
        errand = pending.errand if pending is not None and pending.is_open else None
        if errand is None or pending is None or pending.loop.is_closed():
            await self._put(delivery)
        elif pending.loop is asyncio.get_running_loop():
            await self._fulfil(errand, delivery)
        else:
            fulfilling = asyncio.run_coroutine_threadsafe(errand.fulfil(delivery.answer), pending.loop)
            await asyncio.wait((asyncio.wrap_future(fulfilling),), timeout=self._cache.config.commit_budget)

    async def _fulfil(self, errand: Errand, delivery: _Delivery) -> None:
        ride = errand.ride
        try:
            await errand.fulfil(delivery.answer)
        except asyncio.CancelledError:
            # The loop ends: it has cancelled everything on it. LiteLLM calls again, or not at all.
            if ride is None or not ride.done() or ride.cancelled() or ride.exception() is not None:
                self.sync.store(self._put(delivery), at_end=True)
            raise

    async def _put(self, delivery: _Delivery) -> None:
        plan = delivery.plan
        await self._cache.put(
            plan.key,
            delivery.answer,
            codec=plan.codec,
            request=plan.request,
            whole=plan.request,
            was_looked_up=True,
            lease=plan.fences[0] if plan.fences else None,
            asked_at=delivery.asked_at,
            **plan.options,
        )

    def complain(self, text: str) -> None:
        """Say each thing once."""
        if text not in self._complaints and len(self._complaints) < 100:
            self._complaints.add(text)
            _log.warning("%s", text)


def _answer_of(found: Resolution | Errand | None) -> Any:
    return found.answer if isinstance(found, Resolution) else None


def _kind_of(wire: dict[str, Any], arguments: Mapping[str, Any]) -> Kind | None:
    kind = kind_of_answer(wire)
    if kind is Kind.CHAT and "prompt" in arguments and "messages" not in arguments:
        return Kind.COMPLETIONS
    return kind


async def _settled(plans: Sequence[Plan | Bypass | Draft]) -> list[Plan]:
    """Return the plans of a list, or none of them when one cannot be stored: the others would not fit."""
    ended = [await plan.finished() if isinstance(plan, Draft) else plan for plan in plans]
    settled = [plan for plan in ended if isinstance(plan, Plan)]
    return settled if len(settled) == len(ended) else []
