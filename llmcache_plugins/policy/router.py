"""`PolicyRouter`: which policy a request gets, by its model's name or by a predicate."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.policy.policy import CachePolicy

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Chooser", "PolicyRouter", "as_policy"]

Condition: TypeAlias = "str | Callable[[Any], bool]"


@dataclass(frozen=True, slots=True)
class _Route:
    condition: Condition
    policy: CachePolicy

    def fits(self, request: Callable[[], Any], model: str | None) -> bool:
        if isinstance(self.condition, str):
            return model is not None and fnmatchcase(model, self.condition)
        return bool(self.condition(request()))


class PolicyRouter:
    """Picks a policy for each request: that of the first route that fits, else the default.

        PolicyRouter(
            ("gpt-4o-realtime*", "realtime"),
            (lambda request: "today" in str(request), CachePolicy(ttl=60)),
            default="static_faq",
        )

    A route is a condition and a policy, or the name of a scenario. A condition is the name of a model, as
    requests spell it, with the wildcards `*`, `?` and `[...]`; or a function of the request, called on the
    event loop. A request whose function raises is not cached. Raises `ConfigError` for anything else.
    """

    __slots__ = ("_routes", "default")

    def __init__(
        self, *routes: tuple[Condition, CachePolicy | str], default: CachePolicy | str | None = None
    ) -> None:
        self._routes: Final = tuple(map(_route, routes))
        self.default: Final = CachePolicy() if default is None else as_policy(default)

    def policy_for(self, request: Callable[[], Any], model: str | None) -> CachePolicy:
        """Return the policy of a request. Raises what a condition raises."""
        for route in self._routes:
            if route.fits(request, model):
                return route.policy
        return self.default


Chooser: TypeAlias = CachePolicy | PolicyRouter
"""What a cache's policy may be."""


def as_policy(policy: object) -> CachePolicy:
    """Return a policy, given as such or as the name of a scenario. Raises `ConfigError`."""
    if isinstance(policy, CachePolicy):
        return policy
    if isinstance(policy, str):
        return CachePolicy.scenario(policy)
    raise ConfigError(f"policy is a CachePolicy or the name of a scenario, not a {type(policy).__name__}")


def _route(route: object) -> _Route:
    if not isinstance(route, tuple) or len(route) != 2:
        raise ConfigError("a route is a pair: a condition and a policy")
    condition, policy = route
    if not (callable(condition) or (isinstance(condition, str) and condition)):
        raise ConfigError(
            "a route's condition is a model's name, wildcards allowed, or a function of the request, not a "
            f"{type(condition).__name__}"
        )
    return _Route(condition, as_policy(policy))
