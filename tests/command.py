"""Running the command as users do: a process of its own, with an environment of its own.

Owns the environment and the waiting. Knows nothing of what the verbs do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "llmcache_plugins.cli")
_SETTINGS = ("LLMCACHE_", "OPENAI_", "XDG_CACHE_HOME")


def environment(**more: str) -> dict[str, str]:
    """Return the environment without anybody's settings, and with `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
    # A width, so that no sentence is cut where a test looks for it.
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", **more}


def llmcache(
    *arguments: str | Path, env: Mapping[str, str] | None = None, timeout: float = 100.0
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return run(*COMMAND, *map(str, arguments), env=env, timeout=timeout)


def run(
    *command: str, env: Mapping[str, str] | None = None, timeout: float = 100.0
) -> subprocess.CompletedProcess[str]:
    """Run any command to its end, with what it said."""
    return subprocess.run(
        command,
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
