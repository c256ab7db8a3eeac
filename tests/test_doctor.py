"""`llmcache doctor` on real servers: each misconfiguration is found, and what is well comes out well."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from servers import Cluster, Server, redis_cluster, redis_server
from test_compose import PASSWORD
from test_compose import running as running_as_composed
from test_security import PAGE

from llmcache_plugins import diagnosis
from llmcache_plugins.diagnosis import Level, NodeFacts, ServerFacts, diagnose
from llmcache_plugins.errors import ConfigError, RepositoryUnavailable
from llmcache_plugins.repository import cgroups, inspection
from llmcache_plugins.repository.embedded import EmbeddedServer
from llmcache_plugins.repository.inspection import inspect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llmcache_plugins.diagnosis import Finding

    Called = Callable[..., tuple[int, str, str]]

GOOD = {"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru", "lazyfree-lazy-eviction": "yes"}
PATIENT = 5.0  # a busy machine is not what these tests are about


@contextlib.contextmanager
def configured(server: Server | Cluster, **changed: str) -> Iterator[None]:
    """Give a server good settings but for some, and its own again afterwards."""
    wanted = {**GOOD, **{name.replace("_", "-"): value for name, value in changed.items()}}
    before = {}
    for node in server.nodes:
        for name, value in wanted.items():
            before[node, name] = node.command("CONFIG GET", name)[name]
            node.command("CONFIG", "SET", name, value)
    try:
        yield
    finally:
        for (node, name), value in before.items():
            node.command("CONFIG", "SET", name, value)


async def found_at(url: str | None, *, budget: float = PATIENT, **options: str) -> dict[str, Finding]:
    """Return the finding of each check."""
    return {finding.check: finding for finding in diagnose(await inspect(url, **options), budget=budget)}


def problems(found: dict[str, Finding]) -> set[str]:
    return {check for check, finding in found.items() if finding.level is Level.PROBLEM}


def notes(found: dict[str, Finding]) -> set[str]:
    return {check for check, finding in found.items() if finding.level is Level.NOTE}


async def test_a_good_server_of_each_kind_has_no_problems(server: Server | Cluster):
    with configured(server):
        found = await found_at(server.url)
    assert problems(found) == set()
    # These have no password; Redis 8 from this wheel has a module.
    assert notes(found) <= {"access", "fragmentation", "modules", "eviction"}


@pytest.mark.parametrize(
    ("changed", "check", "level"),
    [
        ({"maxmemory": "0"}, "maxmemory", Level.PROBLEM),
        ({"maxmemory": "100000gb"}, "maxmemory", Level.PROBLEM),
        ({"maxmemory_policy": "noeviction"}, "maxmemory-policy", Level.PROBLEM),
        ({"maxmemory_policy": "allkeys-lfu"}, "maxmemory-policy", Level.PROBLEM),
        ({"maxmemory_policy": "volatile-lru"}, "maxmemory-policy", Level.PROBLEM),
        ({"save": "3600 1"}, "persistence", Level.NOTE),
        ({"timeout": "100"}, "idle-timeout", Level.NOTE),
        ({"tcp_keepalive": "0"}, "tcp-keepalive", Level.NOTE),
        ({"lazyfree_lazy_eviction": "no"}, "lazy-eviction", Level.NOTE),
        ({"client_output_buffer_limit": "pubsub 1000 1000 1"}, "pubsub-buffer", Level.NOTE),
    ],
)
async def test_a_setting_that_is_not_as_it_should_be(
    redis8: Server, changed: dict[str, str], check: str, level: Level
):
    with configured(redis8, **changed):
        found = await found_at(redis8.url)
    assert found[check].level is level
    assert problems(found) == ({check} if level is Level.PROBLEM else set())


async def test_a_server_that_refuses_to_write_is_found_by_trying(redis8: Server):
    with configured(redis8, min_replicas_to_write="1"):
        found = await found_at(redis8.url)
    assert problems(found) == {"use"}
    assert "good replicas" in found["use"].what
    assert found["replication"].level is Level.NOTE


async def test_nothing_is_left_but_marks_that_go_soon(server: Server | Cluster, namespace: str):
    await inspect(server.url, namespace=namespace)
    for node in server.nodes:
        for key in node.command("KEYS", "*"):
            assert key.startswith(f"llm:{{{namespace}.doctor-".encode())
            assert key.endswith((b":marks", b":epoch"))
            assert 0 < node.command("PTTL", key) < 60_000


async def test_in_a_cluster_the_node_is_named(cluster: Cluster):
    with configured(cluster):
        odd = cluster.nodes[1]
        odd.command("CONFIG", "SET", "maxmemory", "0")
        found = diagnose(await inspect(cluster.url), budget=PATIENT)
    (finding,) = [finding for finding in found if finding.level is Level.PROBLEM]
    assert (finding.check, finding.nodes) == ("maxmemory", (f"127.0.0.1:{odd.port}",))


async def test_a_node_that_is_away_and_slots_that_nobody_serves(tmp_path: Path):
    with redis_cluster(tmp_path) as cluster:
        gone = cluster.nodes[2]
        gone.kill()
        found = await found_at(cluster.url)
        assert "node" in problems(found)
        assert found["node"].nodes == (f"127.0.0.1:{gone.port}",)
        for node in cluster.nodes[:2]:
            node.command("CLUSTER", "DELSLOTS", 100, 101, 9000)
        found = await found_at(cluster.url)
        assert {"slots", "use"} <= problems(found)
        assert "100-101, 9000" in found["slots"].what


LEAST = next(line for line in PAGE.splitlines() if line.startswith("ACL SETUSER llmcache"))


@contextlib.contextmanager
def user(server: Server | Cluster, *rules: str) -> Iterator[str]:
    """Make a user with the rights the cache needs, but for some; yield the URL of that user."""
    for node in server.nodes:
        node.command(*LEAST.split(), "+cluster|slots", "+command", *rules)
    scheme, _, place = (getattr(server, "tcp_url", None) or server.url).partition("://")
    try:
        yield f"{scheme}://llmcache:PASSWORD@{place}"
    finally:
        for node in server.nodes:
            node.command("ACL", "DELUSER", "llmcache")


async def test_the_cache_s_own_user_is_enough_to_look(server: Server | Cluster):
    with user(server) as url:
        found = await found_at(url)
    assert problems(found) == set()
    assert "INFO, CONFIG GET refused" in found["unchecked"].what
    assert found["access"].level is Level.FINE


@pytest.mark.parametrize(
    ("rule", "granted"),
    [
        ("-mget", "+mget"),
        ("-script|load", "+script|load"),
        ("-set", "+set"),
        ("-hmget", "+hmget"),
        ("-xadd", "+xadd"),
        ("-zscan", "+zscan"),
        ("-publish", "+publish"),
        ("-subscribe", "+subscribe"),
        ("resetkeys", "~llm:*"),
        ("resetchannels", "&llm:*"),
    ],
)
async def test_a_right_that_is_missing_shows_as_what_to_grant(redis8: Server, rule: str, granted: str):
    with user(redis8, rule) as url:
        found = await found_at(url)
    assert problems(found) == {"rights"}
    assert granted in found["rights"].fix.split()
    assert "llmcache" not in found["rights"].why, "the user's name"


async def test_rights_are_tried_on_every_node(cluster: Cluster):
    with user(cluster) as url:
        cluster.nodes[2].command("ACL", "SETUSER", "llmcache", "-set")
        assert problems(await found_at(url)) == {"rights"}


async def test_a_user_who_may_not_ping_is_timed_all_the_same(redis8: Server):
    with user(redis8, "-ping") as url:
        redis8.command("CONFIG", "RESETSTAT")
        (node,) = (await inspect(url)).nodes
        assert redis8.command("INFO", "commandstats")["cmdstat_ping"]["rejected_calls"] > len(node.pings) > 0
    assert "PING" not in node.refused


async def test_rights_to_one_namespace_and_the_ledger_are_enough_for_that(valkey: Server, namespace: str):
    keys, channels = (f"~llm:{{{namespace}.*", "~llm:{ledger}:*"), f"&llm:{{{namespace}.*"
    with user(valkey, "resetkeys", *keys, "resetchannels", channels) as url:
        assert problems(await found_at(url, namespace=namespace)) == set()
        assert problems(await found_at(url)) == {"rights"}


async def test_a_command_that_was_renamed_away_is_named(tmp_path: Path):
    with redis_server(tmp_path, "--rename-command", "CONFIG", "") as server:
        found = await found_at(server.url)
    assert "CONFIG GET refused" in found["unchecked"].what
    # INFO has the most of it.
    assert problems(found) == {"maxmemory", "maxmemory-policy"}


async def test_compose_s_server_has_no_problems(tmp_path: Path):
    with running_as_composed(tmp_path) as server:
        found = await found_at(f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}")
    assert problems(found) == set()
    assert notes(found) <= {"fragmentation", "modules", "lazy-eviction"}


async def test_the_embedded_server_has_no_problems(tmp_path: Path):
    try:
        found = await found_at(f"embedded://{tmp_path}")
    finally:
        EmbeddedServer(tmp_path).stop()
    assert problems(found) == set()
    assert notes(found) <= {"fragmentation"}


async def test_a_round_trip_beyond_the_budget_is_a_problem(valkey: Server):
    with configured(valkey):
        assert problems(await found_at(valkey.url, budget=1e-9)) == {"latency"}


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("redis://:hush@127.0.0.1:1", RepositoryUnavailable, "did not answer"),
        ("redis+cluster://:hush@127.0.0.1:1", RepositoryUnavailable, "did not answer"),
        ("http://127.0.0.1", ConfigError, "unknown scheme"),
    ],
)
async def test_a_url_where_nobody_answers(url: str, kind: type[Exception], words: str):
    with pytest.raises(kind, match=words) as error:
        await inspect(url)
    assert "hush" not in str(error.value)


async def test_a_wrong_password_a_wrong_kind_and_a_wrong_protocol(
    redis8: Server, cluster: Cluster, tmp_path: Path, stand_in: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inspection, "PATIENCE", 0.5)
    with redis_server(tmp_path, "--requirepass", "right") as server:
        for url in (server.url.replace("right", "hush"), server.url.replace(":right@", "")):
            with pytest.raises(RepositoryUnavailable, match="login refused"):
                await inspect(url)
    with pytest.raises(ConfigError, match=r"redis\+cluster://"):
        await inspect(cluster.url.replace("redis+cluster", "redis"))
    with pytest.raises(ConfigError, match=r"use a redis:// URL"):
        await inspect(redis8.tcp_url.replace("redis", "redis+cluster"))
    with pytest.raises(RepositoryUnavailable, match="without TLS"):
        await inspect(cluster.url.replace("redis+", "rediss+"))
    with pytest.raises(ConfigError, match="does not speak as Redis does"):
        await inspect(stand_in.base_url.replace("http", "redis").partition("/v1")[0])


# -- the command ---------------------------------------------------------------------------------------------


def test_problems_end_with_1_and_say_why_and_how_to_fix_them(redis8: Server, called: Called):
    with configured(redis8, maxmemory="0"):
        code, out, err = called("doctor", redis8.url, "--budget", "5")
    assert (code, err) == (1, "")
    lines = [line.strip() for line in out.splitlines()]
    assert lines[1] == "problem maxmemory: no maxmemory is set"
    assert lines[2].startswith("why: ")
    assert lines[3].startswith("fix: CONFIG SET maxmemory ")


def test_without_problems_it_ends_with_0_and_its_json_is_stable(
    redis8: Server, called: Called, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LLMCACHE_URL", redis8.url)
    with configured(redis8):
        code, out, _ = called("doctor", "--json", "--budget", "5")
    said = json.loads(out)
    assert code == 0
    assert said.keys() == {"server", "counts", "findings", "facts"}
    assert said["counts"].keys() == {"problem", "note", "fine"}
    for finding in said["findings"]:
        assert finding.keys() == {"level", "check", "what", "why", "fix", "nodes"}
    assert said["facts"].keys() == {field.name for field in fields(ServerFacts)}
    assert said["facts"]["nodes"][0].keys() == {field.name for field in fields(NodeFacts)}


@pytest.mark.parametrize("arguments", [("redis://:hush@127.0.0.1:1",), ("--budget", "0"), ("http://x",)])
def test_what_cannot_be_looked_at_ends_with_2_and_a_sentence(called: Called, arguments: tuple[str, ...]):
    code, out, err = called("doctor", *arguments, "--json")
    assert code == 2
    assert json.loads(out)["error"].keys() == {"type", "message"}
    assert len(err.splitlines()) == 1
    assert "hush" not in out + err


def test_the_page_lists_every_check():
    made: set[str] = set()
    for module in Path(diagnosis.__file__).parent.glob("*.py"):
        made |= set(re.findall(r'\b(?:fine|note|problem)\(\s*"([a-z-]+)"', module.read_text("utf-8")))
    page = (Path(__file__).parents[1] / "docs" / "operations.md").read_text("utf-8")
    table = page.partition("| check |")[2].partition("\n\n")[0]
    firsts = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert {name for first in firsts for name in re.findall(r"`([a-z-]+)`", first)} == made


# -- memory limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "files", "limit"),
    [
        ("0::/a/b", {"a/memory.max": "1000\n", "a/b/memory.max": "max\n"}, 1000),
        ("0::/a/b", {"a/memory.max": "1000\n", "a/b/memory.max": "500\n"}, 500),
        ("0::/a", {}, None),
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": "700\n"}, 700),
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, None),
        ("4:cpu:/a", {"memory/a/memory.limit_in_bytes": "700\n"}, None),
    ],
)
def test_the_memory_limit_of_a_process_is_the_least_of_its_groups(
    tmp_path: Path, line: str, files: dict[str, str], limit: int | None
):
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "7").mkdir(parents=True)
    (proc / "7" / "cgroup").write_text(f"{line}\n")
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    assert cgroups.memory_limit(7, proc=proc, groups=groups) == limit
    assert cgroups.memory_limit(8, proc=proc, groups=groups) is None


def test_the_id_of_another_program_is_not_taken_for_the_server_s(tmp_path: Path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "comm").write_text("systemd\n")
    assert not cgroups.runs_here(1, proc=tmp_path)
    assert not cgroups.runs_here(2, proc=tmp_path)
