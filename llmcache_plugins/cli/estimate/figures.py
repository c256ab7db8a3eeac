"""An estimate as JSON-like data. Pure; the names are a promise to programs that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from llmcache_plugins.cli.estimate.words import line, reason

if TYPE_CHECKING:
    from llmcache_plugins.estimate import Amount, Estimate, LogReader, SemanticFigures

__all__ = ["as_data"]


def as_data(estimate: Estimate, reader: LogReader, *, file: str) -> dict[str, Any]:
    """Return all that is known. Money is US dollars, times are seconds, tokens whole numbers."""
    return {
        "avoided": _amount(estimate.avoided),
        "total": _amount(estimate.total),
        "recommended": _recommended(estimate),
        "ttl": estimate.ttl,
        "mechanisms": [
            {"name": one.name, "added": _amount(one.added), "avoided": _amount(one.avoided)}
            for one in estimate.mechanisms
        ],
        "normalizers": [msgspec.to_builtins(rule) for rule in estimate.rules],
        "normalizers_learned_from": estimate.rules_learned_from,
        "scenarios": [
            {
                "name": one.name,
                "ttl": one.ttl,
                "avoided": _amount(one.avoided),
                "hits": one.ages.hits,
                "mean_age": one.ages.mean,
                "oldest_age": one.ages.oldest,
            }
            for one in estimate.scenarios
        ],
        "semantic": None if estimate.semantic is None else _semantic(estimate.semantic),
        "log": _log(estimate, reader, file=file),
    }


def _amount(amount: Amount) -> dict[str, Any]:
    return {
        "calls": amount.calls,
        "input_tokens": amount.input_tokens,
        "output_tokens": amount.output_tokens,
        "total_tokens": amount.total_tokens,
        "cost": amount.cost,
        "unpriced": amount.unpriced,
        "unmetered": amount.unmetered,
    }


def _recommended(estimate: Estimate) -> dict[str, Any] | None:
    if estimate.recommended is None:
        return None
    return {
        "scenario": estimate.recommended,
        "line": line(estimate),
        "why": reason(estimate),
        "avoided": _amount(estimate.scenario(estimate.recommended).avoided),
    }


def _semantic(found: SemanticFigures) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(found)
    return data | {"is_estimate": True, "added": _amount(found.added)}


def _log(estimate: Estimate, reader: LogReader, *, file: str) -> dict[str, Any]:
    return {
        "file": file,
        "lines": reader.lines,
        "calls": reader.calls,
        "bad_lines": reader.bad,
        "bad": [{"line": bad.line, "reason": bad.reason} for bad in reader.named],
        "left_out": dict(reader.left_out),
        "guesses": dict(reader.guesses),
        "first": estimate.first,
        "last": estimate.last,
        "undated": estimate.undated,
        "untimed": estimate.untimed,
        "latency": estimate.latency,
        "never_cached": estimate.never_cached,
        "not_stored": estimate.not_stored,
        "guessed_tokens": estimate.guessed,
        "unpriced_models": list(estimate.unpriced_models),
    }
