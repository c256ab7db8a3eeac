"""What is a problem, what is a note: the judgement, where no real server can be made to show it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from llmcache_plugins.diagnosis import Level, NodeFacts, Refusal, ServerFacts, diagnose

if TYPE_CHECKING:
    from llmcache_plugins.diagnosis import Finding

GIB = 1024**3
WELL = NodeFacts(
    address="10.0.0.1:6379",
    software="redis",
    version="8.2.3",
    maxmemory=7 * GIB,
    policy="allkeys-lru",
    ram=16 * GIB,
    sees_limits=True,
    used_memory=GIB,
    fragmentation=1.1,
    appends=False,
    evicted=0,
    expired=0,
    hits=1,
    misses=0,
    clients=1,
    most_clients=10_000,
    rejected_clients=0,
    replicas=0,
    settings={
        "save": "",
        "timeout": "0",
        "tcp-keepalive": "300",
        "client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
        "lazyfree-lazy-eviction": "yes",
        "min-replicas-to-write": "0",
    },
    pings=(0.001,) * 50,
    skew=0.0,
)


def server_of(*nodes: NodeFacts, **facts: Any) -> ServerFacts:
    usual: dict[str, Any] = {
        "address": "redis://10.0.0.1",
        "kind": "server",
        "is_local": False,
        "has_login": True,
    }
    return ServerFacts(nodes=nodes, **{**usual, **facts})


def worse_than_fine(facts: ServerFacts, *, budget: float = 0.05) -> list[Finding]:
    return [finding for finding in diagnose(facts, budget=budget) if finding.level is not Level.FINE]


def test_a_server_that_is_well_has_no_findings():
    assert worse_than_fine(server_of(WELL)) == []


@pytest.mark.parametrize(
    ("check", "changed"),
    [
        ("version", {"version": "6.0.16"}),
        ("version", {"version": "5.0.0"}),
        ("version", {"software": "valkey", "version": "7.1.9"}),
        ("maxmemory", {"maxmemory": 0}),
        ("maxmemory", {"maxmemory": 12 * GIB}),
        ("maxmemory", {"memory_limit": 9 * GIB}),
        ("maxmemory-policy", {"policy": "allkeys-lfu"}),
        ("maxmemory-policy", {"policy": "allkeys-random"}),
        ("maxmemory-policy", {"policy": "volatile-lru"}),
        ("maxmemory-policy", {"policy": "volatile-lfu"}),
        ("maxmemory-policy", {"policy": "volatile-ttl"}),
        ("maxmemory-policy", {"policy": "volatile-random"}),
        ("maxmemory-policy", {"policy": "noeviction"}),
        ("maxmemory-policy", {"policy": "one of tomorrow"}),
        ("latency", {"pings": (0.001,) * 20 + (0.06,) * 30}),
        ("node", {"failure": "the server did not answer"}),
    ],
)
def test_problems(check: str, changed: dict[str, Any]):
    (finding,) = worse_than_fine(server_of(replace(WELL, **changed)))
    assert (finding.level, finding.check) == (Level.PROBLEM, check)
    assert finding.why
    assert finding.fix


@pytest.mark.parametrize(
    ("check", "changed"),
    [
        ("maxmemory", {"sees_limits": False}),
        ("maxmemory", {"ram": None}),
        ("fragmentation", {"fragmentation": 12.0, "used_memory": 99 * 1024**2}),
        ("fragmentation", {"fragmentation": 1.6}),
        ("fragmentation", {"fragmentation": 0.7}),
        ("persistence", {"appends": True}),
        ("persistence", {"settings": {**WELL.settings, "save": "3600 1"}}),
        ("eviction", {"evicted": 1}),
        ("lazy-eviction", {"settings": {**WELL.settings, "lazyfree-lazy-eviction": "no"}}),
        ("modules", {"modules": ("search",)}),
        ("latency", {"pings": (0.001,) * 48 + (0.06,) * 2}),
        ("clock", {"skew": 1.2}),
        ("clock", {"skew": -90.0}),
        ("clients", {"clients": 9_000}),
        ("clients", {"rejected_clients": 3}),
        ("idle-timeout", {"settings": {**WELL.settings, "timeout": "60"}}),
        ("tcp-keepalive", {"settings": {**WELL.settings, "tcp-keepalive": "0"}}),
        ("pubsub-buffer", {"settings": {**WELL.settings, "client-output-buffer-limit": "pubsub 1000 0 0"}}),
        ("replication", {"settings": {**WELL.settings, "min-replicas-to-write": "1"}}),
        ("unchecked", {"settings": None, "refused": ("CONFIG GET",)}),
    ],
)
def test_notes(check: str, changed: dict[str, Any]):
    (finding,) = worse_than_fine(server_of(replace(WELL, **changed)))
    assert (finding.level, finding.check) == (Level.NOTE, check)
    assert finding.why
    assert finding.fix


@pytest.mark.parametrize("version", ["6.2.0", "7.0.15", "10.0.0"])
def test_versions_that_will_do(version: str):
    assert worse_than_fine(server_of(replace(WELL, version=version))) == []


@pytest.mark.parametrize(
    ("is_local", "words"), [(True, "address of this machine"), (False, "other machines reach")]
)
def test_no_password_is_a_note(is_local: bool, words: str):
    (finding,) = worse_than_fine(server_of(WELL, has_login=False, is_local=is_local))
    assert (finding.level, finding.check) == (Level.NOTE, "access")
    assert words in finding.what


def test_slots_that_nobody_serves_are_a_problem():
    facts = server_of(WELL, kind="cluster", uncovered=((0, 99), (5461, 5461)))
    (finding,) = worse_than_fine(facts)
    assert (finding.level, finding.check) == (Level.PROBLEM, "slots")
    assert "0-99, 5461" in finding.what


def test_what_is_refused_is_a_problem_and_names_what_to_grant():
    refusals = (
        Refusal(what="read an answer", command="mget", said="no permissions to run the 'mget' command"),
        Refusal(what="store an answer", command="~llm:*", said="No permissions to access a key"),
        Refusal(what="evict", said="OOM command not allowed"),
    )
    rights, use = worse_than_fine(server_of(WELL, refusals=refusals))
    assert (rights.level, rights.check) == (use.level, use.check.replace("use", "rights"))
    assert rights.level is Level.PROBLEM
    assert "grant +mget ~llm:*" in rights.fix
    assert "OOM" in use.what


def test_what_nodes_have_in_common_is_one_finding_that_names_them_and_problems_come_first():
    nodes = [replace(WELL, address=f"10.0.0.{i}:6379", modules=("search",)) for i in range(3)]
    facts = server_of(replace(nodes[0], maxmemory=0), *nodes[1:], kind="cluster")
    first, second = worse_than_fine(facts)
    assert (first.check, first.nodes) == ("maxmemory", ("10.0.0.0:6379",))
    assert (second.check, second.nodes) == ("modules", tuple(node.address for node in nodes))


def test_what_is_not_known_is_not_judged():
    found = diagnose(server_of(NodeFacts(address="x")), budget=0.05)
    assert {finding.check for finding in found} == {"access", "rights"}


@pytest.mark.parametrize(("version", "level"), [("1.106.2", Level.NOTE), ("1.90.7", Level.FINE)])
def test_litellm_s_default_for_long_chats_is_a_note(version: str, level: Level):
    found = diagnose(server_of(WELL), budget=0.05, litellm=version)
    assert [finding.level for finding in found if finding.check == "litellm"] == [level]
