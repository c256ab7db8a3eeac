"""Findings on a terminal, and as JSON. Decides nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmcache_plugins.diagnosis import Level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmcache_plugins.diagnosis import Finding, ServerFacts

__all__ = ["print_report", "to_json"]

_STYLES = {Level.PROBLEM: "bold red", Level.NOTE: "yellow", Level.FINE: "green"}


def print_report(facts: ServerFacts, findings: Sequence[Finding]) -> None:
    """Print a line for each finding, with reason and fix, and how many there are."""
    console = Console(highlight=False)
    console.print(Text(f"{facts.address}: {_described(facts)}"))
    table = Table.grid(padding=(0, 1))
    for finding in findings:
        level = Text(finding.level, style=_STYLES[finding.level])
        for column, line in zip_longest([level], _lines(finding, names_nodes=facts.kind == "cluster")):
            table.add_row(column, Text(line))
    console.print(table)
    counts = Counter(finding.level for finding in findings)
    console.print(Text(", ".join(f"{counts[level]} {name}" for level, name in _COUNTED.items())))


def _lines(finding: Finding, *, names_nodes: bool) -> list[str]:
    where = f" ({', '.join(finding.nodes)})" if names_nodes and finding.nodes else ""
    reasons = [f"why: {finding.why}", f"fix: {finding.fix}"] if finding.why else []
    return [f"{finding.check}: {finding.what}{where}", *reasons]


_COUNTED = {Level.PROBLEM: "problems", Level.NOTE: "notes", Level.FINE: "fine"}


def _described(facts: ServerFacts) -> str:
    if facts.kind != "cluster":
        return "one server" if facts.kind == "server" else "the embedded server"
    replicas = sum(node.is_replica for node in facts.nodes)
    return f"a Cluster of {len(facts.nodes)} nodes, {replicas} of them replicas"


def to_json(facts: ServerFacts, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return everything as JSON data: the counts, the findings, the facts."""
    counts = Counter(finding.level for finding in findings)
    return {
        "server": facts.address,
        "counts": {level.value: counts[level] for level in Level},
        "findings": [asdict(finding) for finding in findings],
        "facts": asdict(facts),
    }
