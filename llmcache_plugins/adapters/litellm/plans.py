"""What a cache makes of one call of LiteLLM: its key, and what may be done with it.

LiteLLM asks for a key first and brings it along to the lookup, and sometimes to the write. The key it is
given is a string that has the plan with it, so that a request is read once.
"""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from llmcache_plugins.adapters.litellm import controls, requests
from llmcache_plugins.adapters.litellm.values import codec_of
from llmcache_plugins.answers.kinds import Kind
from llmcache_plugins.cache import CallOptions
from llmcache_plugins.errors import SignatureError
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.models import Lease
from llmcache_plugins.signature import LEFT_OUT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmcache_plugins.adapters.litellm.controls import Rules
    from llmcache_plugins.adapters.litellm.values import WireCodec
    from llmcache_plugins.cache import ResponseCache
    from llmcache_plugins.signature import Unsigned

__all__ = ["Bypass", "CarriedKey", "Draft", "Plan", "Planner", "carried_by"]


_BUILT_FROM_CHUNKS = (Kind.CHAT, Kind.COMPLETIONS)
"""Whose streams LiteLLM puts together itself; the others say themselves that they are complete."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How one call is cached."""

    key: CacheKey
    kind: Kind
    streams: bool
    body: dict[str, Any]
    """The request, as a policy is shown it."""
    options: CallOptions
    call_id: str | None
    fences: list[Lease] = msgspec.field(default_factory=list)
    """The right to store its answer, of one that was looked up without being sent for it."""
    may_lead: bool
    """Whether others may wait for it."""

    def request(self) -> dict[str, Any]:
        """Return what a policy is shown."""
        return self.body

    @property
    def takes_chunks(self) -> bool:
        """Whether its answer may come in chunks, instead of at once."""
        return self.streams and self.kind is Kind.CHAT

    @property
    def codec(self) -> WireCodec:
        """How its answer becomes bytes and comes back."""
        return codec_of(self.kind, streams=self.streams)


@dataclass(frozen=True, slots=True)
class Bypass:
    """A call that is not cached; without a reason it is nothing to speak of, or to count."""

    reason: str = ""
    call_id: str | None = None
    is_nested: bool = False


class CarriedKey(str):
    """The key of a call as LiteLLM sees it, and the plan for it."""

    __slots__ = ("plan", "record")
    plan: Plan | Bypass | Draft
    record: weakref.ref[Any] | None
    """LiteLLM's own of the call: of a list of inputs it says nothing but their keys."""

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)  # whoever copies or stores it wants the key


class Draft:
    """A plan whose key would hold up an event loop."""

    __slots__ = ("_make", "_unsigned", "call_id", "kind")

    def __init__(
        self, make: Callable[..., Plan], unsigned: Unsigned, kind: Kind, call_id: str | None
    ) -> None:
        self._make = make
        self._unsigned = unsigned
        self.kind = kind
        self.call_id = call_id

    def finish(self) -> Plan | Bypass:
        """Return the plan; in a thread, if there is a loop to wait. Never raises."""
        try:
            return self._make(key=self._unsigned.sign())
        except SignatureError as error:
            return _without_key(error, self.call_id)

    async def finished(self) -> Plan | Bypass:
        """Return the plan, made in a thread."""
        return await asyncio.to_thread(self.finish)


def carried_by(arguments: Mapping[str, Any]) -> Plan | Bypass | Draft | None:
    """Return the plan that LiteLLM has brought along, if it is this call's.

    An application may take the key of one answer and ask with it for another.
    """
    key = arguments.get("cache_key")
    plan = getattr(key, "plan", None) if isinstance(key, CarriedKey) else None
    return plan if plan is None or arguments.get("litellm_call_id") in (None, plan.call_id) else None


class Planner:
    """Makes plans for the calls of one cache. Usable from any thread.

    `trusts_streams` says whether this LiteLLM notices that a stream was cut: else none is kept, though
    those who ask for one get what is stored.
    """

    def __init__(self, cache: ResponseCache, rules: Rules, *, trusts_streams: bool) -> None:
        self._cache = cache
        self._rules = rules
        self._trusts_streams = trusts_streams

    def carry(self, arguments: Mapping[str, Any]) -> CarriedKey:
        """Return the key for LiteLLM, with the plan. Never raises."""
        plan = self.plan(arguments)
        key = CarriedKey(plan.key if isinstance(plan, Plan) else "")
        key.plan, key.record = plan, None
        if not isinstance(plan, Bypass) and plan.kind is Kind.EMBEDDING:
            record = arguments.get("litellm_logging_obj")
            key.record = weakref.ref(record) if record is not None else None
        return key

    def plan(self, arguments: Mapping[str, Any], *, kind: Kind | None = None) -> Plan | Bypass | Draft:
        """Return the plan for a call. `kind` is what its answer has shown. Never raises."""
        call_id = arguments.get("litellm_call_id")
        call_id = call_id if isinstance(call_id, str) else None
        try:
            return self._plan(arguments, call_id, kind)
        except SignatureError as error:
            return _without_key(error, call_id)
        except Exception as error:  # noqa: BLE001 - whatever an application passes along: it is called all the same
            return Bypass(f"could not be read ({type(error).__name__})", call_id)

    def _plan(
        self, arguments: Mapping[str, Any], call_id: str | None, kind: Kind | None
    ) -> Plan | Bypass | Draft:
        request = requests.read(arguments, kind=kind)
        if isinstance(request, requests.Nested):
            return Bypass(call_id=call_id, is_nested=True)
        if isinstance(request, requests.Unfit):
            return Bypass(request.reason, call_id)
        said = controls.read(arguments, self._rules)
        if isinstance(said, controls.Wrong):
            return Bypass(said.reason, call_id)
        if not said.is_wanted:
            return Bypass(call_id=call_id)
        streams = bool(arguments.get("stream"))
        codec = codec_of(request.kind, streams=streams)
        is_kept = self._trusts_streams or not (streams and request.kind in _BUILT_FROM_CHUNKS)
        # Without what LiteLLM adds: a plan that kept its record alive would not see its end.
        body = {name: value for name, value in request.body.items() if name not in LEFT_OUT}
        make = partial(
            Plan,
            body=body,
            kind=request.kind,
            streams=streams,
            options=said.options if is_kept else {**said.options, "ttl": 0.0},
            call_id=call_id,
            may_lead=is_kept
            and call_id is not None
            and request.kind is not Kind.EMBEDDING
            and not arguments.get("fallbacks"),
        )
        key = self._cache.read_key(body, codec=codec, **said.options)
        return make(key=key) if isinstance(key, CacheKey) else Draft(make, key, request.kind, call_id)


def _without_key(error: SignatureError, call_id: str | None) -> Bypass:
    return Bypass(f"was asked what {error.reason}", call_id)
