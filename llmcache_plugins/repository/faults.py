"""Which errors of the client mean what. The only place that translates them.

    AWAY      the server does not answer: refused, reset, hung, loading, no cluster. Counts for the breaker
    BUSY      our own pool is exhausted: says nothing of the server
    REFUSED   the server answers and says no: out of memory, read-only, no permission, wrong slot

redis-py spreads them over three unrelated trees: `RedisClusterException` is no `RedisError`, its
`TimeoutError` is not Python's, and `MaxConnectionsError`, `BusyLoadingError` and `AuthenticationError`
all are a `ConnectionError`.
"""

from __future__ import annotations

import asyncio
import enum
import re

from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    ClusterError,
    MasterDownError,
    MaxConnectionsError,
    MovedError,
    RedisClusterException,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from llmcache_plugins.errors import ConfigError, LLMCacheError, RepositoryError, RepositoryUnavailable

__all__ = ["FAULTS", "Fault", "classify", "translate"]

FAULTS = (RedisError, RedisClusterException, OSError, asyncio.TimeoutError)
"""Everything the client raises by its own account because of the server. Nothing less will do."""


_LOGIN = re.compile(r"invalid username-password|HELLO must be called|authentication required", re.IGNORECASE)
"""On a unix socket, and in a Cluster, the client wraps what the server said in errors of other kinds."""
_OUR_NAME = re.compile(r"[\w.%-]+:\{[\w.%-]+\}:[\w:.%-]*\w")
"""An index that is missing is named by the server, and with it the namespace."""


class Fault(enum.Enum):
    """What an error says of the server."""

    AWAY = enum.auto()
    TIMEOUT = enum.auto()
    BUSY = enum.auto()
    REFUSED = enum.auto()


def classify(error: BaseException) -> Fault:
    """Say what an error that the client raised means."""
    if isinstance(error, MaxConnectionsError):
        return Fault.BUSY
    if isinstance(error, RedisTimeoutError | asyncio.TimeoutError):
        return Fault.TIMEOUT
    # Someone who may not log in may not: asking five times a second does not help, so it counts as away.
    away = (RedisConnectionError, ClusterDownError, MasterDownError, RedisClusterException, OSError)
    if isinstance(error, away) or (isinstance(error, ClusterError) and not isinstance(error, AskError)):
        return Fault.AWAY
    # What is no error of the client's is one below it: a closed transport of Python 3.13.0, written to,
    # raises an AttributeError.
    return Fault.REFUSED if isinstance(error, RedisError) else Fault.AWAY


def translate(error: BaseException) -> LLMCacheError:
    """Return our error for one that the client raised, without anything the server was sent."""
    if isinstance(error, MovedError | AskError):
        return ConfigError("this server is a node of a Cluster: use a redis+cluster:// URL")
    if isinstance(error, RedisClusterException) and "cluster mode is not enabled" in str(error).lower():
        return ConfigError("this server is no node of a Cluster: use a redis:// URL")
    is_login = isinstance(error, AuthenticationError) or _LOGIN.search(str(error))
    what = "login refused" if is_login else f"{type(error).__name__}: {error}"
    if classify(error) is Fault.REFUSED:
        # Redis quotes the arguments of a command it does not know.
        said = _OUR_NAME.sub("one of ours", what.partition("with args")[0].rstrip(" ,"))
        return RepositoryError(f"the server refused a command ({said})")
    return RepositoryUnavailable(f"the server did not answer ({what})")
