"""A project of somebody's whose tests ask models, and sessions of pytest over it.

Owns its files, the provider it asks, and what is read of a session's end.
"""

from __future__ import annotations

import asyncio
import re
import sys
import textwrap
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from command import run
from warm import Warm

from llmcache_plugins.testing.provider_server import ProviderServer

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["PROGRAM", "Project", "Session", "frameworks"]

_PLUGINS = ("pytest_asyncio.plugin", "llmcache_plugins.testing.plugin")
PROGRAM = """
import os, sys, pytest
os.chdir({directory!r})
sys.exit(pytest.main({arguments!r}))
"""
"""A session of pytest as a program."""


def frameworks(*modules: str) -> Warm:
    """Return a process that has imported frameworks, and nothing of ours."""
    return Warm("pytest", "pytest_asyncio.plugin", "redis.asyncio", "hiredis", *modules)


@dataclass(frozen=True, slots=True)
class Session:
    """How a session ended, and how many calls reached the provider."""

    calls: int
    text: str

    @property
    def passed(self) -> int:
        """How many tests passed; 0 if any did not."""
        end = re.search(r"^(=+ )?(\d+) passed(, \d+ (skipped|warnings?))* in ", self.text, re.MULTILINE)
        return int(end[2]) if end else 0

    def __repr__(self) -> str:
        return f"{self.calls} calls\n{self.text[-6000:]}"


class Project:
    """A directory with one file of tests. All its sessions ask at one address: it is part of each key."""

    def __init__(self, directory: Path, tests: str) -> None:
        self.directory = directory
        self._port = 0
        (directory / "test_models.py").write_text(textwrap.dedent(tests), "utf-8")
        (directory / "pytest.ini").write_text(
            "[pytest]\nasyncio_mode = auto\nfilterwarnings = ignore\n", "utf-8"
        )

    def run(self, way: str, *arguments: str, warm: Warm | None = None) -> Session:
        """Run `pytest --llmcache=way` to its end, in a new process or a fork of a warm one."""
        options = [option for name in _PLUGINS for option in ("-p", name)]
        options += ["-q", "-p", "no:cacheprovider", f"--llmcache={way}", *arguments]
        with _provider(self._port) as provider:
            self._port = int(provider.base_url.split(":")[2].split("/")[0])
            environment = {
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                "XDG_CACHE_HOME": "/dev/null/nowhere",
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "OPENAI_BASE_URL": provider.base_url,
                "OPENAI_API_KEY": "sk-private",
            }
            done = self._run(options, environment, warm)
            return Session(provider.calls, done.stdout + done.stderr)

    def cassettes(self) -> list[Path]:
        """Return the cassettes there are."""
        return sorted((self.directory / "cassettes").rglob("*.json"))

    def _run(
        self, options: list[str], environment: dict[str, str], warm: Warm | None
    ) -> subprocess.CompletedProcess[str]:
        program = self.directory / "session.program"
        program.write_text(PROGRAM.format(directory=str(self.directory), arguments=options), "utf-8")
        if warm is not None:
            return warm.run(program, env=environment)
        return run(sys.executable, str(program), env=environment)


@contextmanager
def _provider(port: int) -> Iterator[ProviderServer]:
    """Run a provider on a loop of its own, while this thread waits for a session."""
    loop, provider = asyncio.new_event_loop(), ProviderServer(port=port)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(provider.__aenter__(), loop).result(10)
        yield provider
        asyncio.run_coroutine_threadsafe(provider.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
