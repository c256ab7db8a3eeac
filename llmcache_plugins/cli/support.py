"""What every verb shares: exit codes, and the error that ends a verb with a sentence."""

from __future__ import annotations

import enum

__all__ = ["CannotRun", "Exit"]


class Exit(enum.IntEnum):
    """Exit codes of the command."""

    FINE = 0
    FINDINGS = 1
    """The verb did its work and found something wrong."""
    USAGE = 2
    """The verb could not do its work: an argument, a file, a server or a package is not as it needs."""
    INTERRUPTED = 130


class CannotRun(Exception):
    """The verb cannot do its work; the message says why and what to do."""
