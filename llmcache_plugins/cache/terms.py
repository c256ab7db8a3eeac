"""What the options of one call come to, with the cache's own where it says nothing. Pure.

Whoever stands in for the server has the last word: see `standing_in`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from llmcache_plugins.cache.options import CallOptions, Terms
from llmcache_plugins.cache.standing_in import stand_in
from llmcache_plugins.config import CacheConfig, check_version
from llmcache_plugins.errors import ConfigError
from llmcache_plugins.keys import encode_name
from llmcache_plugins.models import Mode
from llmcache_plugins.policy import CachePolicy, PolicyRouter, as_policy, check_ttl, effective_ttl

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmcache_plugins.policy import Chooser

__all__ = ["NoPolicy", "TermsReader", "chooser_of", "tags_of"]

MOST_TAGS = 64
"""Each is looked at when an entry is judged."""
_VERSIONS = ("prompt_version", "data_version")


class NoPolicy(Exception):
    """What was to choose the policy failed."""


class TermsReader:
    """Reads the options of calls."""

    def __init__(self, config: CacheConfig, policy: Chooser) -> None:
        self._config = config
        self._policy = policy
        self._stand_in = stand_in()
        self._mode = self._played(Mode(config.mode))
        self._usual: Terms | None = None
        if isinstance(policy, CachePolicy) and not policy.jitter:
            self._usual = self._adapted(Terms(policy=policy, ttl=policy.ttl, mode=self._mode))
        self.only_keys_count = self._usual is not None and _asks_for_keys_only(self._usual)
        """Whether calls without options may have whatever fresh answer their key has."""

    def read(self, options: CallOptions, *, request: Callable[[], Any], model: str | None) -> Terms:
        """Return the terms of a call.

        Raises `TypeError` for an option that is none, `ConfigError` for one that cannot work, and `NoPolicy`.
        """
        if not options and self._usual is not None:
            return self._usual
        own = options.get("policy")
        policy = as_policy(own) if own is not None else self._chosen(request, model)
        return self._under(policy, options)

    def check(self, options: CallOptions) -> None:
        """Raise what `read` does for options that no call could take."""
        own = options.get("policy")
        self._under(CachePolicy() if own is None else as_policy(own), options)

    def _under(self, policy: CachePolicy, options: CallOptions) -> Terms:
        if unknown := options.keys() - CallOptions.__optional_keys__:
            # A namespace that was misspelled must not be one that was not given.
            known = ", ".join(sorted(CallOptions.__optional_keys__))
            raise TypeError(f"unknown option {min(unknown)!r}; a call takes {known}")
        max_age = options.get("max_age")
        terms = Terms(
            policy=policy,
            ttl=effective_ttl(policy, options.get("ttl")),
            mode=self.mode_of(options),
            namespace=self.namespace_of(options.get("namespace"), options.get("tenant")),
            tags=tags_of(options.get("tags")),
            versions=_versions_of(options),
            max_age=None if max_age is None else check_ttl(max_age, name="max_age"),
        )
        return self._adapted(terms)

    def mode_of(self, options: CallOptions) -> Mode:
        """Return the mode of a call. Raises `ConfigError`."""
        mode = options.get("mode")
        try:
            return self._mode if mode is None else self._played(Mode(mode))
        except ValueError:
            raise ConfigError(f"mode is one of {', '.join(Mode)}, not {mode!r}") from None

    def namespace_of(self, namespace: str | None, tenant: str | None) -> str | None:
        """Return the namespace that a call names, None for the cache's own. Raises `ConfigError`."""
        if tenant is not None:
            return self._config.namespace_of(tenant, namespace=namespace)
        if namespace is not None:
            encode_name(namespace)
        return namespace

    def _played(self, mode: Mode) -> Mode:
        return mode if self._stand_in is None else self._stand_in.mode(mode)

    def _adapted(self, terms: Terms) -> Terms:
        return terms if self._stand_in is None else self._stand_in.terms(terms)

    def _chosen(self, request: Callable[[], Any], model: str | None) -> CachePolicy:
        if isinstance(self._policy, CachePolicy):
            return self._policy
        try:
            return self._policy.policy_for(request, model)
        except Exception as error:
            raise NoPolicy(type(error).__name__) from error


def _asks_for_keys_only(terms: Terms) -> bool:
    policy = terms.policy
    return terms.mode is Mode.DEFAULT and policy.max_temperature is None and not policy.refresh_early


def chooser_of(policy: object, *, default_ttl: float) -> Chooser:
    """Return what a cache's policy is. Raises `ConfigError` for what can be none."""
    if policy is None:
        return CachePolicy(ttl=default_ttl)
    return policy if isinstance(policy, PolicyRouter) else as_policy(policy)


def tags_of(tags: Iterable[str] | None) -> tuple[str, ...]:
    """Return tags, each once. Raises `ConfigError` for what cannot be tags."""
    if tags is None:
        return ()
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise ConfigError("tags is a list of strings; one tag is a list of one")
    given = tuple(dict.fromkeys(tags))
    if not all(isinstance(tag, str) and tag for tag in given):
        raise ConfigError("a tag is a non-empty string")
    if len(given) > MOST_TAGS:
        raise ConfigError(f"an answer has at most {MOST_TAGS} tags, not {len(given)}")
    return given


def _versions_of(options: CallOptions) -> dict[str, str | int] | None:
    versions: dict[str, str | int] = {}
    for name in _VERSIONS:
        version: Any = options.get(name)
        check_version(name, version)
        if version is not None:
            versions[name] = version
    return versions or None
