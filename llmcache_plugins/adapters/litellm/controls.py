"""What one call says about how it is cached: `cache={...}` and what the proxy adds, in LiteLLM's words.

Owns their meaning and their limits. A word that is not understood is a reason not to cache: a misspelled
namespace must not be one that was not given. Pure: no I/O, no clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from llmcache_plugins.adapters.litellm.requests import metadata_of
from llmcache_plugins.cache import CallOptions
from llmcache_plugins.errors import ConfigError
from llmcache_plugins.keys import tenant_namespace
from llmcache_plugins.models import Mode
from llmcache_plugins.policy import LONGEST_TTL, as_policy

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = ["Controls", "Rules", "Wrong", "mode_said", "read", "was_looked_up"]

_SWITCHES: Final = ("no-cache", "no-store", "use-cache")
_PASSED: Final = ("mode", "policy", "tags", "prompt_version", "data_version")
_AGES: Final = ("s-maxage", "s-max-age")
_NAMES: Final = ("namespace", "tenant")
_VERSIONS: Final = ("prompt_version", "data_version")
_KNOWN: Final = frozenset({*_SWITCHES, *_AGES, *_NAMES, *_VERSIONS, "mode", "policy", "tags", "ttl"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a cache was told about all its calls."""

    namespace: str
    secret: str | bytes | None = field(default=None, repr=False)
    only_if_asked: bool = False
    """LiteLLM's mode "default_off"."""
    isolate: bool = True
    """Whether the proxy's teams and keys have answers of their own."""


class Controls(msgspec.Struct, frozen=True, kw_only=True):
    """What one call says, understood."""

    options: CallOptions
    is_wanted: bool = True
    """False for a call that was to ask for the cache and did not."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """Something that is not understood; completes "it ..."."""

    reason: str


def read(arguments: Mapping[str, Any], rules: Rules) -> Controls | Wrong:
    """Return what the arguments of a call say about the cache."""
    said = arguments.get("cache")
    said = {} if said is None else said
    if not isinstance(said, dict):
        return Wrong(f"has a `cache` that is no dict but a {type(said).__name__}")
    if said and (wrong := _wrong_in(said)) is not None:
        return wrong
    ttl = arguments.get("ttl") if said.get("ttl") is None else said["ttl"]
    if _seconds(ttl) is None and ttl is not None:
        return Wrong("has a `ttl` that is no number of seconds")
    options: CallOptions = {}
    if said:
        options = cast("CallOptions", {name: said[name] for name in _PASSED if said.get(name) is not None})
        ages = [_seconds(said[name]) for name in _AGES if said.get(name) is not None]
        if ages:
            options["max_age"] = ages[0]
    if said.get("no-store") is True:
        options["ttl"] = 0.0
    elif ttl is not None:
        options["ttl"] = _seconds(ttl)
    if (namespace := _namespace_of(said, arguments, rules)) != rules.namespace:
        options["namespace"] = namespace
    return Controls(
        options=options,
        is_wanted=not rules.only_if_asked or said.get("use-cache") is True,
    )


def mode_said(arguments: Mapping[str, Any]) -> str | None:
    """Return the mode that a call names, if it names one, whatever else it says."""
    said = arguments.get("cache")
    mode = said.get("mode") if isinstance(said, dict) else None
    return mode if isinstance(mode, str) and mode in list(Mode) else None


def was_looked_up(arguments: Mapping[str, Any]) -> bool:
    """Say whether LiteLLM asks for the answer of a call before it offers it: for some it does not."""
    said = arguments.get("cache")
    no_cache = isinstance(said, dict) and said.get("no-cache") is True
    return not no_cache and arguments.get("caching") is not False


def _wrong_in(said: dict[Any, Any]) -> Wrong | None:
    for name, value in said.items():
        if name not in _KNOWN:
            return Wrong(f"has a `cache` with a name that is none of {', '.join(sorted(_KNOWN))}")
        if value is not None and not _fits(name, value):
            return Wrong(f"has a `cache` whose {name!r} cannot be {_kind_of(value)}")
    return None


def _fits(name: str, value: Any) -> bool:
    if name in _SWITCHES:
        return isinstance(value, bool)
    if name in _NAMES:
        return isinstance(value, str) and bool(value)
    if name in _VERSIONS:
        return isinstance(value, str | int) and not isinstance(value, bool)
    if name == "mode":
        return isinstance(value, str) and value in list(Mode)
    if name == "policy":
        return _is_policy(value)
    if name == "tags":
        return isinstance(value, list) and all(isinstance(tag, str) and tag for tag in value)
    return _seconds(value) is not None


def _is_policy(value: Any) -> bool:
    try:
        as_policy(value)
    except ConfigError:
        return False
    return True


def _kind_of(value: Any) -> str:
    # Never the value itself: it may name somebody.
    return "this number" if isinstance(value, int | float) else f"this {type(value).__name__}"


def _seconds(value: Any) -> float | None:
    """Return seconds, given as LiteLLM takes them: a number, or its spelling. None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and 0 <= seconds <= LONGEST_TTL else None


def _namespace_of(said: dict[Any, Any], arguments: Mapping[str, Any], rules: Rules) -> str:
    metadata = metadata_of(arguments)
    if not (said or metadata):
        return rules.namespace
    asked = said.get("namespace") or _first(metadata, "redis_namespace") or rules.namespace
    namespace = asked if isinstance(asked, str) else rules.namespace
    own, proxys = said.get("tenant"), _proxy_tenant(metadata) if rules.isolate else None
    if own is None and proxys is None:
        return namespace
    # A tenant of the call's alone is the one that the other faces call so.
    tenants = (own,) if proxys is None else (own, proxys)
    secret = rules.secret.encode() if isinstance(rules.secret, str) else rules.secret
    return tenant_namespace(namespace, *tenants, secret=secret)


def _proxy_tenant(metadata: list[Mapping[str, Any]]) -> str | None:
    for name in ("user_api_key_team_id", "user_api_key"):
        if (tenant := _first(metadata, name)) is not None:
            return f"{name}={tenant}"
    return None


def _first(metadata: list[Mapping[str, Any]], name: str) -> Any:
    return next((one[name] for one in metadata if one.get(name)), None)
