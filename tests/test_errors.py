"""Errors travel: between processes, through pickle and copy, as those of the standard library do."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import pytest

from llmcache_plugins import (
    CacheMiss,
    ConfigError,
    InvalidationIncomplete,
    SeedingStopped,
    SharedProviderError,
    SignatureError,
    StreamInterrupted,
    WaitTimeout,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmcache_plugins import LLMCacheError

ERRORS = [
    CacheMiss("nothing"),
    ConfigError("no"),
    InvalidationIncomplete(done=[1], missing=[2, 3]),
    SeedingStopped("the account is exhausted", report=None),
    SharedProviderError(status=429, retry_after=3.0, error_class="RateLimitError"),
    SignatureError("a set has no order", path="messages[0]"),
    StreamInterrupted("gone"),
    WaitTimeout("too long"),
]


@pytest.mark.parametrize("travel", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_it_left(
    error: LLMCacheError, travel: Callable[[LLMCacheError], LLMCacheError]
) -> None:
    arrived = travel(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_standard_names_catch_ours() -> None:
    assert issubclass(CacheMiss, LookupError)
    assert issubclass(WaitTimeout, TimeoutError)
    assert issubclass(ConfigError, ValueError)
