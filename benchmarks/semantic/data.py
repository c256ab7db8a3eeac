"""The labelled questions of a folder: pairs, traps, and a stream."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two texts, and whether one answer serves both; `kind` is that of a trap."""

    one: str
    other: str
    same: bool
    kind: str | None


def read_pairs(folder: Path) -> list[Pair]:
    """Return the pairs and the traps."""
    rows = [*_rows(folder / "dev_pairs.jsonl.gz"), *_rows(folder / "traps_dev.jsonl")]
    return [Pair(one=row["a"], other=row["b"], same=row["same"], kind=row.get("kind")) for row in rows]


def read_stream(folder: Path) -> dict[str, str]:
    """Return the texts of the stream and their labels, in order.

    What is asked again word for word is left out: it needs no semantics.
    """
    labels: dict[str, str] = {}
    for row in _rows(folder / "dev_stream.jsonl.gz"):
        labels.setdefault(row["query"], row["label"])
    return labels


def _rows(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    return [json.loads(line) for line in content.split(b"\n") if line]
