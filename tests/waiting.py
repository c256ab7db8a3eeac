"""Waiting for conditions: the only way a test lets time pass.

Owns the polling loop, its timeout and the sentence a failed wait prints. Knows nothing of servers or of
the package.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

POLL_SECONDS = 0.005


def wait_until(predicate: Callable[[], T], *, description: str, timeout: float = 5.0) -> T:
    """Return the first true value of `predicate`; fail the test with `description` after `timeout`."""
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout:g} s in vain: {description}")
        time.sleep(POLL_SECONDS)
    return value


async def wait_until_async(
    predicate: Callable[[], T | Awaitable[T]], *, description: str, timeout: float = 5.0
) -> T:
    """Do the same without blocking the loop; `predicate` may be a plain or an async callable."""
    deadline = time.monotonic() + timeout
    while not (value := await _resolved(predicate())):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout:g} s in vain: {description}")
        await asyncio.sleep(POLL_SECONDS)
    return value


async def _resolved(value: T | Awaitable[T]) -> T:
    return await value if inspect.isawaitable(value) else value
