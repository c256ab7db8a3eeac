"""From a query and the options of a call to a job: its key, its policy, what its answer is made from.

Or to the reason why the call is not cached. Complaints are said once each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from llmcache_plugins.cache.job import Asked, Job
from llmcache_plugins.cache.terms import NoPolicy, TermsReader
from llmcache_plugins.errors import CacheMiss, ConfigError, SignatureError
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.models import UNKNOWN, Mode, Provenance
from llmcache_plugins.normalize import Normalizers
from llmcache_plugins.policy import Refusal
from llmcache_plugins.signature import CacheSignatureEngine, Unsigned
from llmcache_plugins.telemetry import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmcache_plugins.answers import AnswerCodec
    from llmcache_plugins.cache.alike import Alike
    from llmcache_plugins.cache.options import CallOptions, Terms
    from llmcache_plugins.config import CacheConfig
    from llmcache_plugins.policy import CachePolicy, Chooser
    from llmcache_plugins.signature import Anatomy, Leaves
    from llmcache_plugins.telemetry import Telemetry

__all__ = ["Declined", "Intake", "Late"]

J = TypeVar("J", bound="Job")
_log = logging.getLogger("llmcache_plugins")

_MOST_COMPLAINTS = 100
_ALIKE = "llmcache_alike"
"""A fact that no request of a provider has: so what must be equal is no request either."""


class Declined(msgspec.Struct, frozen=True):
    """A call that is not cached; `detail` is the token that says why."""

    detail: str


class Intake:
    """Takes calls in, for one cache."""

    def __init__(
        self,
        config: CacheConfig,
        policy: Chooser,
        *,
        telemetry: Telemetry,
        alike: type[Alike] | None = None,
    ) -> None:
        self.terms = TermsReader(config, policy)
        self._telemetry = telemetry
        self._alike = alike
        versions = {"prompt_version": config.prompt_version, "data_version": config.data_version}
        self._engine = CacheSignatureEngine(
            secret=config.secret,
            namespace=config.namespace,
            prefix=config.prefix,
            versions={name: version for name, version in versions.items() if version is not None},
            normalizers=Normalizers(
                config.normalizers, limit=config.normalizer_limit, timeout=config.normalizer_timeout
            ),
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
        whole: Callable[[], Any] | None = None,
        was_counted: bool = False,
        **more: Any,
    ) -> J | Declined | Late[J]:
        """Return the job of a call, with `more` of the fields of its kind.

        `query` may be its key; `request` says what the policy is shown instead of it, `whole` all that the
        key was made of. A call that `was_counted` is declined in silence.

        Raises `TypeError` and `ConfigError` for options that cannot work, and `CacheMiss` where only a stored
        answer was wanted and there can be none.
        """
        shown = request or partial(_same, query)
        model = self.model_of(query, request)
        try:
            terms = self.terms.read(options, request=shown, model=model)
        except NoPolicy as error:
            complaint = f"choosing its policy raised {error}"
            return self._decline(Refusal.POLICY_FAILED, options, complaint, was_counted=was_counted)
        if terms.mode is Mode.OFF:
            return Declined("off")
        policy = terms.policy
        if policy.max_temperature is not None and not policy.allows_temperature(_temperature_of(shown())):
            return self._decline(Refusal.TEMPERATURE, options, was_counted=was_counted)
        if policy.semantic and self._alike is None:
            self._complain("the policy is semantic, no semantic layer is configured: answers match exactly")
        key = query if isinstance(query, CacheKey) else self._sign(query, codec, scope, terms, model)
        if key is None:
            return Declined("signature")
        alike = self._alike_of(query, whole, codec, scope, terms, model)
        asked = Asked(shown, scope, policy, self._leaves_of, alike)
        if isinstance(key, Unsigned):
            return Late(self, key, partial(_job, kind, terms, codec, asked, more), terms.mode)
        return _job(kind, terms, codec, asked, more, key)

    def read_key(
        self,
        query: Any,
        *,
        kind: str,
        options: CallOptions,
        scope: Mapping[str, object] | None = None,
        model: str | None = None,
        request: Callable[[], Any] | None = None,
    ) -> CacheKey | Unsigned:
        """Return the key of a query, or what is still to be signed in a thread.

        Raises `SignatureError`, and what `take` raises for options.
        """
        shown, named = request or partial(_same, query), model or self.model_of(query, request)
        try:
            terms = self.terms.read(options, request=shown, model=named)
        except NoPolicy as error:
            raise ConfigError(f"choosing the policy raised {error}") from error
        return self._read(query, kind, scope, terms, model)

    # -- for explanations, which may take their time -----------------------------------------------------

    def exclusion(self, terms: Terms, shown: Callable[[], Any]) -> str | None:
        """Say why calls on these terms are not cached; None if they are."""
        if terms.mode is Mode.OFF:
            return 'mode "off" does not ask the cache'
        if not terms.policy.allows_temperature(_temperature_of(shown())):
            return f"its temperature is above the policy's max_temperature, {terms.policy.max_temperature:g}"
        return None

    def model_of(self, query: Any, request: Callable[[], Any] | None) -> str | None:
        """Return the model that is asked, if the query or what the policy is shown says so."""
        model = _model_of(query)
        return _model_of(request()) if model is None and request is not None else model

    def key_of(
        self, query: Any, kind: str, scope: Mapping[str, object] | None, terms: Terms, model: str | None
    ) -> CacheKey:
        """Return the key of a query on these terms, on this thread. Raises `SignatureError`."""
        key = self._read(query, kind, scope, terms, model)
        return key if isinstance(key, CacheKey) else key.sign()

    def anatomy(self, query: Any, *, kind: str, scope: Mapping[str, object] | None, terms: Terms) -> Anatomy:
        """Return what counts of a query and what does not. Raises `SignatureError`."""
        return self._engine.anatomy(
            query,
            kind=kind,
            scope=scope,
            namespace=terms.namespace,
            normalizers=terms.policy.chain,
            versions=terms.versions,
        )

    def leaves(
        self, shown: Callable[[], Any], scope: Mapping[str, object] | None, chain: Normalizers | None
    ) -> Leaves:
        """Return the fingerprints of a request's leaves. Raises `SignatureError`."""
        return self._engine.leaves(shown(), scope=scope, normalizers=chain)

    # -- inside ------------------------------------------------------------------------------------------

    def _read(
        self,
        query: Any,
        kind: str,
        scope: Mapping[str, object] | None,
        terms: Terms,
        model: str | None = None,
    ) -> CacheKey | Unsigned:
        return self._engine.read(
            query,
            kind=kind,
            scope=scope,
            namespace=terms.namespace,
            normalizers=terms.policy.chain,
            versions=terms.versions,
            model=model,
        )

    def _sign(
        self,
        query: Any,
        codec: AnswerCodec,
        scope: Mapping[str, object] | None,
        terms: Terms,
        model: str | None,
    ) -> CacheKey | Unsigned | None:
        try:
            return self._read(query, codec.kind, scope, terms, model)
        except SignatureError as error:
            self.give_up(error, terms.mode)
            return None

    def _alike_of(
        self,
        query: Any,
        whole: Callable[[], Any] | None,
        codec: AnswerCodec,
        scope: Mapping[str, object] | None,
        terms: Terms,
        model: str | None,
    ) -> Alike | None:
        if self._alike is None or terms.policy.semantic is False:
            return None
        if whole is None:
            if isinstance(query, CacheKey):
                return None
            whole = partial(_same, query)
        facts = {**(scope or {}), _ALIKE: 1}

        def sign(request: Any, *, apart: bool = False) -> CacheKey | Unsigned:
            return self._read(request, codec.kind, facts if apart else scope, terms, model)

        return self._alike(whole, sign, kind=codec.kind)

    def give_up(self, error: SignatureError, mode: Mode) -> None:
        """Say once that such a request is not cached. Raises `CacheMiss` in mode "read_only"."""
        if mode is Mode.READ_ONLY:
            raise CacheMiss("a request without a canonical form is never stored") from error
        self._complain(f"not cached: {error}", about=error.path)

    def _leaves_of(
        self, shown: Callable[[], Any], scope: Mapping[str, object] | None, policy: CachePolicy
    ) -> bytes:
        try:
            return self.leaves(shown, scope, policy.chain).packed()
        except Exception:  # noqa: BLE001 - a request that somebody has changed meanwhile: it is not explained
            return b""

    def _decline(
        self, refusal: Refusal, options: CallOptions, complaint: str = "", *, was_counted: bool
    ) -> Declined:
        if self.terms.mode_of(options) is Mode.READ_ONLY:
            raise CacheMiss(f"the policy does not cache such a request: {refusal}")
        if complaint:
            self._complain(f"not cached: {complaint}")
        if not was_counted:
            self._telemetry.emit(Refused(reason=refusal))
        return Declined(refusal)

    def _complain(self, text: str, *, about: str | None = None) -> None:
        subject = text if about is None else about
        if subject not in self._complaints and len(self._complaints) < _MOST_COMPLAINTS:
            self._complaints.add(subject)
            _log.warning("%s", text)


class Late(Generic[J]):
    """A call whose key would hold up the loop: it is signed in a thread."""

    __slots__ = ("_intake", "_make", "_mode", "_unsigned")

    def __init__(self, intake: Intake, unsigned: Unsigned, make: Callable[[CacheKey], J], mode: Mode) -> None:
        self._intake = intake
        self._unsigned = unsigned
        self._make = make
        self._mode = mode

    async def taken(self) -> J | Declined:
        """Return the job. Raises what `Intake.take` raises."""
        try:
            key = await asyncio.to_thread(self._unsigned.sign)
        except SignatureError as error:
            self._intake.give_up(error, self._mode)
            return Declined("signature")
        return self._make(key)


def _job(
    kind: type[J], terms: Terms, codec: AnswerCodec, asked: Asked, more: dict[str, Any], key: CacheKey
) -> J:
    return kind(
        key=key,
        codec=codec,
        policy=terms.policy,
        ttl=terms.ttl,
        mode=terms.mode,
        max_age=terms.max_age,
        provenance=_provenance(key.model, terms.tags),
        asked=asked,
        **more,
    )


def _same(query: Any) -> Any:
    return query


def _provenance(model: str | None, tags: tuple[str, ...]) -> Provenance:
    return Provenance(model=model, tags=tags) if tags or model is not None else UNKNOWN


def _model_of(query: Any) -> str | None:
    model = query.model if isinstance(query, CacheKey) else _field(query, "model")
    return model if isinstance(model, str) else None


def _temperature_of(request: Any) -> Any:
    return _field(request, "temperature")


def _field(request: Any, name: str) -> Any:
    # The exact type first: nearly every request has it.
    return request.get(name) if type(request) is dict or isinstance(request, Mapping) else None
