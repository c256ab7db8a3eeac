"""Queries in PromQL, taken apart: what they select, by what they group, and how.

Owns the walk through what `promql_parser` returns, and which files have queries. Knows no metric.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import promql_parser as promql
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[1] / "docs"
DASHBOARD: dict[str, Any] = json.loads((DOCS / "grafana" / "llmcache.json").read_text("utf-8"))
ALERTS: dict[str, Any] = yaml.safe_load((DOCS / "prometheus" / "alerts.yaml").read_text("utf-8"))
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

_VARIABLES = {"$__rate_interval": "5m", "$__range": "1d", "$job": ".*"}
"""What Grafana puts in their places."""


@dataclass(frozen=True, slots=True)
class Selected:
    """A selector, the functions and aggregations around it from the outside in, and the labels they keep."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]
    """Label, operator and value."""
    within: tuple[str, ...]
    kept: frozenset[str]
    is_range: bool


def queries() -> dict[str, str]:
    """Return every query by where it is."""
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in PANELS
        for target in panel["targets"]
    }
    found |= {rule.get("alert") or rule["record"]: rule["expr"] for rule in RULES}
    for name, value in _VARIABLES.items():
        found = {where: expr.replace(name, value) for where, expr in found.items()}
    return found


def selected(expr: str) -> list[Selected]:
    """Return what a query selects. Raises `ValueError` for what is no PromQL."""
    return list(_selected(promql.parse(expr), (), frozenset(), is_range=False))


def _selected(
    node: Any, within: tuple[str, ...], kept: frozenset[str], *, is_range: bool
) -> Iterator[Selected]:
    def below(child: Any, *more: str, labels: frozenset[str] = kept) -> Iterator[Selected]:
        return _selected(child, within + more, labels, is_range=is_range)

    match node:
        case promql.VectorSelector():
            assert not node.matchers.or_matchers
            operators = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}
            matchers = tuple(
                (one.name, operators[str(one.op).removeprefix("MatchOp.")], one.value)
                for one in node.matchers.matchers
            )
            yield Selected(node.name, matchers, within, kept, is_range)
        case promql.MatrixSelector():
            yield from _selected(node.vector_selector, within, kept, is_range=True)
        case promql.AggregateExpr():
            labels = frozenset(node.modifier.labels if node.modifier is not None else ())
            assert "Without" not in str(getattr(node.modifier, "type", ""))
            yield from below(node.expr, str(node.op), labels=kept | labels)
        case promql.Call():
            for argument in node.args:
                yield from below(argument, node.func.name)
        case promql.BinaryExpr():
            # What both sides are matched by, if anything is said of that.
            matching = getattr(node.modifier, "matching", None)
            labels = kept | frozenset(matching.labels if matching is not None else ())
            for side in (node.lhs, node.rhs):
                yield from below(side, labels=labels)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            yield from below(node.expr)
        case promql.NumberLiteral() | promql.StringLiteral():
            pass
        case _:
            raise AssertionError(f"{type(node).__name__} is not looked into")
