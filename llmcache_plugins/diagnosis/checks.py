"""Every check, on every node, and the findings in order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llmcache_plugins.diagnosis import memory, service, whole
from llmcache_plugins.diagnosis.finding import Level, problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llmcache_plugins.diagnosis.facts import NodeFacts, ServerFacts
    from llmcache_plugins.diagnosis.finding import Finding

__all__ = ["diagnose"]

_ORDER = list(Level)


def diagnose(facts: ServerFacts, *, budget: float, litellm: str | None = None) -> list[Finding]:
    """Judge a server: problems first, then notes, then what is fine; `budget` is the `lookup_budget`.

    What is the same on several nodes is one finding that names them all. `litellm` is the version of LiteLLM
    that is used with the server, if one is.
    """
    found = [*_of_the_whole(facts), *_merged(facts, budget=budget)]
    if litellm is not None:
        found.append(whole.litellm(litellm))
    checks = list(dict.fromkeys(finding.check for finding in found))
    return sorted(found, key=lambda f: (_ORDER.index(f.level), checks.index(f.check)))


def _of_the_whole(facts: ServerFacts) -> Iterator[Finding]:
    yield from filter(None, (whole.slots(facts), whole.access(facts), whole.scripts(facts)))
    yield from whole.rights(facts)


def _merged(facts: ServerFacts, *, budget: float) -> Iterable[Finding]:
    nodes_of: dict[Finding, list[str]] = {}
    for node in facts.nodes:
        for finding in _of_a_node(node, budget=budget, is_embedded=facts.kind == "embedded"):
            nodes_of.setdefault(finding, []).append(node.address)
    return [replace(finding, nodes=tuple(nodes)) for finding, nodes in nodes_of.items()]


def _of_a_node(node: NodeFacts, *, budget: float, is_embedded: bool) -> Iterator[Finding]:
    if node.failure:
        yield problem(
            "node",
            f"it does not answer: {node.failure}",
            why="what lies on it is not to be had",
            fix="start it, or let the Cluster forget it",
        )
        return
    checked = (
        memory.maxmemory(node),
        memory.policy(node),
        memory.persistence(node, is_embedded=is_embedded),
        memory.eviction(node),
        memory.fragmentation(node),
        memory.lazy_eviction(node),
        service.version(node),
        service.modules(node),
        service.latency(node, budget=budget),
        service.clock(node),
        service.clients(node),
        service.replication(node),
        service.unasked(node),
    )
    yield from filter(None, checked)
    yield from service.connections(node)
