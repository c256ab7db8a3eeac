"""From a query and the options of a call to a job: its key, its policy, what its answer is made from.

Or to the reason why the call is not cached. Complaints are said once each.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec.structs import replace

from llmcache_plugins.cache.terms import NoPolicy, Terms, TermsReader
from llmcache_plugins.errors import CacheMiss, SignatureError
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.models import Mode, Provenance
from llmcache_plugins.policy import Refusal
from llmcache_plugins.signature import CacheSignatureEngine
from llmcache_plugins.telemetry import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmcache_plugins.answers import AnswerCodec
    from llmcache_plugins.cache.job import Job
    from llmcache_plugins.cache.options import CallOptions
    from llmcache_plugins.config import CacheConfig
    from llmcache_plugins.policy import Chooser
    from llmcache_plugins.telemetry import Telemetry

__all__ = ["Declined", "Intake"]

J = TypeVar("J", bound="Job")
_log = logging.getLogger("llmcache_plugins")

_UNKNOWN = Provenance()
_MOST_COMPLAINTS = 100


class Declined(msgspec.Struct, frozen=True):
    """A call that is not cached; `detail` is the token that says why."""

    detail: str


class Intake:
    """Takes calls in, for one cache."""

    def __init__(self, config: CacheConfig, policy: Chooser, *, telemetry: Telemetry) -> None:
        self.terms = TermsReader(config, policy)
        self._telemetry = telemetry
        versions = {"prompt_version": config.prompt_version, "data_version": config.data_version}
        self._engine = CacheSignatureEngine(
            secret=config.secret,
            namespace=config.namespace,
            prefix=config.prefix,
            versions={name: version for name, version in versions.items() if version is not None},
        )
        self._complaints: set[str] = set()

    def take(
        self,
        query: Any,
        kind: type[J],
        /,
        *,
        codec: AnswerCodec,
        options: CallOptions,
        scope: Mapping[str, object] | None = None,
        request: Callable[[], Any] | None = None,
        **more: Any,
    ) -> J | Declined:
        """Return the job of a call, with `more` of the fields of its kind.

        `query` may be its key; `request` says what the policy is shown instead of it. Raises `TypeError` and
        `ConfigError` for options that cannot work, and `CacheMiss` where only a stored answer was wanted and
        there can be none.
        """
        shown = request or partial(_same, query)
        model = _model_of(query)
        if model is None and request is not None:
            model = _model_of(shown())
        try:
            terms = self.terms.read(options, request=shown, model=model)
        except NoPolicy as error:
            return self._decline(Refusal.POLICY_FAILED, options, f"choosing its policy raised {error}")
        if terms.mode is Mode.OFF:
            return Declined("off")
        policy = terms.policy
        if policy.max_temperature is not None and not policy.allows_temperature(_temperature_of(shown())):
            return self._decline(Refusal.TEMPERATURE, options)
        if policy.semantic:
            self._complain("the policy is semantic, no semantic layer is configured: answers match exactly")
        key = query if isinstance(query, CacheKey) else self._sign(query, codec, scope, terms, model)
        if key is None:
            return Declined("signature")
        return kind(
            key=key,
            codec=codec,
            policy=policy,
            ttl=terms.ttl,
            mode=terms.mode,
            max_age=terms.max_age,
            provenance=_provenance(key.model, terms.tags),
            request=shown,
            leaves=partial(self._leaves_of, shown, scope),
            **more,
        )

    def key_of(
        self,
        query: Any,
        *,
        kind: str,
        options: CallOptions,
        scope: Mapping[str, object] | None = None,
        model: str | None = None,
    ) -> CacheKey:
        """Return the key of a query. Raises `SignatureError`, and what `take` raises for options."""
        terms = self.terms.read(options, request=partial(_same, query), model=model or _model_of(query))
        return self._key_of(query, kind, scope, terms, model)

    def _key_of(
        self,
        query: Any,
        kind: str,
        scope: Mapping[str, object] | None,
        terms: Terms,
        model: str | None = None,
    ) -> CacheKey:
        key = self._engine.compute_signature(
            query, kind=kind, scope=scope, namespace=terms.namespace, versions=terms.versions
        )
        return key if model is None or key.model == model else replace(key, model=model)

    def _sign(
        self,
        query: Any,
        codec: AnswerCodec,
        scope: Mapping[str, object] | None,
        terms: Terms,
        model: str | None,
    ) -> CacheKey | None:
        try:
            return self._key_of(query, codec.kind, scope, terms, model)
        except SignatureError as error:
            if terms.mode is Mode.READ_ONLY:
                raise CacheMiss("a request without a canonical form is never stored") from error
            self._complain(f"not cached: {error}", about=error.path)
            return None

    def _leaves_of(self, shown: Callable[[], Any], scope: Mapping[str, object] | None) -> bytes:
        try:
            return self._engine.leaves(shown(), scope=scope).packed()
        except Exception:  # noqa: BLE001 - a request that somebody has changed meanwhile: it is not explained
            return b""

    def _decline(self, refusal: Refusal, options: CallOptions, complaint: str = "") -> Declined:
        if self.terms.mode_of(options) is Mode.READ_ONLY:
            raise CacheMiss(f"the policy does not cache such a request: {refusal}")
        if complaint:
            self._complain(f"not cached: {complaint}")
        self._telemetry.emit(Refused(reason=refusal))
        return Declined(refusal)

    def _complain(self, text: str, *, about: str | None = None) -> None:
        subject = text if about is None else about
        if subject not in self._complaints and len(self._complaints) < _MOST_COMPLAINTS:
            self._complaints.add(subject)
            _log.warning("%s", text)


def _same(query: Any) -> Any:
    return query


def _provenance(model: str | None, tags: tuple[str, ...]) -> Provenance:
    return Provenance(model=model, tags=tags) if tags or model is not None else _UNKNOWN


def _model_of(query: Any) -> str | None:
    model = query.model if isinstance(query, CacheKey) else _field(query, "model")
    return model if isinstance(model, str) else None


def _temperature_of(request: Any) -> Any:
    return _field(request, "temperature")


def _field(request: Any, name: str) -> Any:
    return request.get(name) if isinstance(request, Mapping) else None
