"""One result of a check."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Finding", "Level", "fine", "note", "problem"]


class Level(enum.StrEnum):
    """How bad it is, worst first."""

    PROBLEM = "problem"
    """The cache does not do, or will not go on doing, what it promises."""
    NOTE = "note"
    """Worth knowing; there may be a reason for it."""
    FINE = "fine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found; `nodes` are the addresses it concerns, none for the whole server."""

    level: Level
    check: str
    what: str
    why: str = ""
    fix: str = ""
    nodes: tuple[str, ...] = ()


def problem(check: str, what: str, *, why: str, fix: str) -> Finding:
    """Return a finding that has to be mended."""
    return Finding(level=Level.PROBLEM, check=check, what=what, why=why, fix=fix)


def note(check: str, what: str, *, why: str, fix: str) -> Finding:
    """Return a finding worth knowing."""
    return Finding(level=Level.NOTE, check=check, what=what, why=why, fix=fix)


def fine(check: str, what: str) -> Finding:
    """Return a check that found nothing."""
    return Finding(level=Level.FINE, check=check, what=what)
