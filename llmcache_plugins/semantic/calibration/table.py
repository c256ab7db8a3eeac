"""What a threshold costs and wins, counted on labelled pairs; and the threshold for an error that is allowed.

Owns the table, its file and the choice. A table holds counts alone, no text: it can be handed on. It belongs
to one embedder and one set of guards, and says nothing of others. Knows neither of them.
"""

from __future__ import annotations

import math
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.semantic.calibration.bounds import interval, is_at_most

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["ALWAYS", "NEVER", "Calibration", "Figures", "Rate", "Row", "calibrated", "shipped"]

ALWAYS: Final = math.inf
"""The score of a pair that is served whatever the threshold: the texts are the same but for their form."""
NEVER: Final = -math.inf
"""The score of a pair that is not served at any threshold: a guard forbids it, or a text cannot be read."""
_VERSION: Final = 1
_STEPS: Final = 400
"""Thresholds between 0 and 1 that are counted."""


class Row(msgspec.Struct, frozen=True, array_like=True):
    """What a threshold serves: the pairs whose score reaches it."""

    threshold: float
    right: int
    """Pairs served that have the same answer."""
    wrong: int
    """Pairs served that have not: false hits."""

    @property
    def served(self) -> int:
        """Pairs served in all."""
        return self.right + self.wrong


class Rate(msgspec.Struct, frozen=True):
    """A share that was counted, and between what the true one lies (95 %, two-sided)."""

    found: int
    of: int

    @property
    def value(self) -> float | None:
        """The share itself; None of nothing."""
        return self.found / self.of if self.of else None

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest that it may be."""
        return interval(self.found, self.of)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one threshold comes to."""

    precision: Rate
    """Of the hits, those that are right."""
    recall: Rate
    """Of the pairs with the same answer, those that hit."""
    hit_rate: Rate
    """Of all pairs, those that hit."""
    error: Rate
    """Of the hits, those that are false."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of one embedder with one set of guards, by threshold."""

    embedder: str
    """`Embedder.name`."""
    guards: tuple[str, ...]
    """Names of the guards that judged, sorted."""
    pairs: int
    """Labelled pairs in all."""
    same: int
    """Those of them with the same answer."""
    table: tuple[Row, ...]
    """By threshold, ascending."""
    version: int = _VERSION

    def threshold_for(self, target_error: float, confidence: float = 0.95) -> float | None:
        """Return the lowest threshold at which the share of false hits is at most `target_error`.

        By its upper confidence bound, not by what was counted: ten hits without an error prove little. None
        when no threshold is proved. The pairs must be like the traffic; a bound cannot make up for that. To
        choose among many is to be lucky more often: where errors become rarer as scores rise, it was too bold
        in under 5 of 100 simulated samples; where they do not, by next to nothing in up to 25.
        Raises `ConfigError` for numbers that are not between 0 and 1.
        """
        for name, value in {"target_error": target_error, "confidence": confidence}.items():
            if not 0 < value < 1:
                raise ConfigError(
                    f"{name} is a share between 0 and 1 (0.01: one in a hundred), not {value!r}"
                )
        return next(
            (
                row.threshold
                for row in self.table
                if is_at_most(target_error, row.wrong, row.served, confidence)
            ),
            None,
        )

    def at(self, threshold: float) -> Row:
        """Return the row of the nearest threshold that is not higher: what it serves is at least that."""
        return next((row for row in reversed(self.table) if row.threshold <= threshold), self.table[0])

    def figures(self, row: Row) -> Figures:
        """Return what a row comes to."""
        return Figures(
            precision=Rate(row.right, row.served),
            recall=Rate(row.right, self.same),
            hit_rate=Rate(row.served, self.pairs),
            error=Rate(row.wrong, row.served),
        )

    def save(self, path: Path | str) -> None:
        """Write the table to a file: JSON, a line for each threshold. Raises `OSError`."""
        head = msgspec.json.encode({**msgspec.to_builtins(self), "table": []})
        rows = b",\n".join(map(msgspec.json.encode, self.table))
        Path(path).write_bytes(head.replace(b'"table":[]', b'"table":[\n' + rows + b"\n]") + b"\n")

    @staticmethod
    def load(path: Path | str) -> Calibration:
        """Read a table. Raises `ConfigError` for a file that holds none."""
        try:
            return _read(Path(path).read_bytes())
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
        except (msgspec.MsgspecError, ValueError) as error:
            raise ConfigError(
                f"{path} is no calibration table ({error}); make one with `llmcache calibrate --save`"
            ) from error


def calibrated(
    scores: Sequence[float], same: Sequence[bool], *, embedder: str, guards: Iterable[str]
) -> Calibration:
    """Count labelled pairs: `scores[i]` is the score of a pair, `same[i]` whether one answer serves both.

    In any order. `ALWAYS` and `NEVER` are scores. Raises `ConfigError` for no pairs, NaN, or lengths that
    differ.
    """
    values, labels = np.asarray(scores, np.float64), np.asarray(same, np.bool_)
    if values.ndim != 1 or values.shape != labels.shape:
        raise ConfigError(f"{values.size} scores for {labels.size} labels: each pair has one of both")
    if not values.size:
        raise ConfigError("there are no pairs to calibrate with")
    if np.isnan(values).any():
        raise ConfigError("a score is NaN: the embedder gave no vector for it")
    thresholds = np.arange(_STEPS + 1) / _STEPS
    right, wrong = (_reaching(values[labels == kind], thresholds) for kind in (True, False))
    rows = [Row(*row) for row in zip(thresholds.tolist(), right, wrong, strict=True)]
    # Below the lowest score all thresholds serve the same pairs: the highest of them stands for all.
    first = max((place for place, row in enumerate(rows) if row.served == rows[0].served), default=0)
    return Calibration(
        embedder=embedder,
        guards=tuple(sorted(guards)),
        pairs=values.size,
        same=int(labels.sum()),
        table=tuple(rows[first:]),
    )


def _reaching(scores: Any, thresholds: Any) -> list[int]:
    counts: list[int] = (scores.size - np.searchsorted(np.sort(scores), thresholds, side="left")).tolist()
    return counts


def _read(content: bytes) -> Calibration:
    read = msgspec.json.decode(content, type=Calibration)
    if read.version != _VERSION:
        raise ConfigError(f"its version is {read.version}, this one reads {_VERSION}")
    if not read.table:
        raise ConfigError("it counts nothing")
    above: Sequence[Any] = (*read.table[1:], Row(math.inf, 0, 0))
    for row, next_ in zip(read.table, above, strict=True):
        falls = row.right >= next_.right >= 0 and row.wrong >= next_.wrong >= 0
        if not (row.threshold < next_.threshold and falls):
            raise ConfigError(f"what it counts at {row.threshold} does not fit to what is above")
        if row.right > read.same or row.wrong > read.pairs - read.same:
            raise ConfigError(f"it counts more at {row.threshold} than there are pairs")
    return read


def shipped(embedder: str, guards: Iterable[str]) -> Calibration | None:
    """Return the table that comes with this package for an embedder and its guards, if there is one."""
    wanted = tuple(sorted(guards))
    return next((one for one in _shipped() if (one.embedder, one.guards) == (embedder, wanted)), None)


@cache
def _shipped() -> tuple[Calibration, ...]:
    folder = resources.files(__package__).joinpath("data")
    return tuple(_read(file.read_bytes()) for file in folder.iterdir() if file.name.endswith(".json"))
