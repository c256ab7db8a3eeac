"""The labelled pairs of a file, one a line."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from llmcache_plugins.cli.lines import BadLine, documents

__all__ = ["Pair", "read_pairs"]

_LABELS = ("same", "ok")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, and whether one answer serves both."""

    a: str
    b: str
    same: bool


def read_pairs(lines: Iterable[str]) -> Iterator[Pair | BadLine]:
    """Yield what each line holds; empty lines count for nothing."""
    for found in documents(lines):
        if isinstance(found, BadLine):
            yield found
        else:
            number, said = found
            read = _read(said)
            yield BadLine(number, read) if isinstance(read, str) else read


def _read(said: Any) -> Pair | str:
    if not isinstance(said, dict):
        return "not an object"
    for name in ("a", "b"):
        if not isinstance(said.get(name), str) or not said[name].strip():
            return f"its {name!r} is no text"
    label = next((said[name] for name in _LABELS if name in said), None)
    if not isinstance(label, bool):
        return "neither 'same' nor 'ok' is true or false"
    return Pair(said["a"], said["b"], label)
