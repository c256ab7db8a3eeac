"""Replacing a method of somebody else's class for a while."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["replaced"]


@contextmanager
def replaced(kind: type, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """Let a class have another method, which looks like its own."""
    before = kind.__dict__[name]
    setattr(kind, name, functools.wraps(before)(method))
    try:
        yield
    finally:
        setattr(kind, name, before)
