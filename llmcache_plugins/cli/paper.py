"""Reports that verbs write: who made one and when, and the file it goes to. Knows no verb."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING

from llmcache_plugins.cli.support import CannotRun

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_place", "made_by", "version", "write"]


def made_by(verb: str) -> str:
    """Return when, and by what, a report is made."""
    when = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"Made {when} by llmcache {verb} {version() or ''}".rstrip()


def version() -> str | None:
    """Return the version of this package; None when it runs from its sources."""
    try:
        return metadata.version("llmcache-plugins")
    except metadata.PackageNotFoundError:
        return None


def check_place(path: Path | None) -> None:
    """Raise `CannotRun` if a file cannot lie there: better before the work than after it."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise CannotRun(f"{path}: cannot be written; name a file in a folder that is there")


def write(path: Path, text: str) -> None:
    """Write a file. Raises `CannotRun`."""
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise CannotRun(f"{path}: cannot be written ({error.strerror or error})") from error
