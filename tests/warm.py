"""Programs that import frameworks, without the seconds that takes each of them.

`Warm` is a process that has imported the frameworks and nothing of ours. Each program runs in a fork of it,
under its own environment and as `__main__`, and ends as a program ends: with its threads joined, its exit
handlers called and its complaints on stderr. Owns that process and the pipe to it; knows nothing of what the
programs do. Run as a script, this module is that process.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from command import environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self


class Warm:
    """The process; a context manager. Programs run one after the other."""

    def __init__(self, *modules: str, options: tuple[str, ...] = ()) -> None:
        self._command = [sys.executable, *options, __file__, *modules]
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            # LiteLLM downloads its price list otherwise, as it is imported.
            env=environment(LITELLM_LOCAL_MODEL_COST_MAP="True"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def run(self, program: str | Path, *, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a file to its end; `env` comes on top of an environment without anybody's settings."""
        with self._lock, tempfile.TemporaryDirectory() as directory:
            out, err = (Path(directory) / name for name in ("out", "err"))
            job = {"program": str(program), "env": environment(**env), "out": str(out), "err": str(err)}
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            code = self._process.stdout.readline()
            assert code, "the warm process has ended"
            return subprocess.CompletedProcess(str(program), int(code), out.read_text(), err.read_text())


def serve(modules: list[str]) -> None:
    """Import the modules, and fork for each job. Returns at the end of the jobs, never in a child."""
    for module in modules:
        importlib.import_module(module)
    # A thread would not be in the children, its locks would.
    assert threading.active_count() == 1, threading.enumerate()
    # What is frozen no child looks through, nor copies, when it ends.
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            play(**json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def play(*, program: str, env: dict[str, str], out: str, err: str) -> NoReturn:
    """Be the program."""
    os.environ.clear()
    os.environ.update(env)
    for path, number in ((os.devnull, 0), (out, 1), (err, 2)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = [program]
    sys.path[0] = str(Path(program).parent)
    runpy.run_path(program, run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    serve(sys.argv[1:])
