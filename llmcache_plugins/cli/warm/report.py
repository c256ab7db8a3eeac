"""What a run has done, or would do, as text and as JSON. Nothing of what the lines say."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmcache_plugins.warming import SeedEstimate, SeedFailure, SeedReport

__all__ = ["as_json", "as_text"]


def as_json(said: SeedReport | SeedEstimate) -> str:
    """Return it as an object with the fields of the record."""
    return json.dumps(dataclasses.asdict(said), indent=2)


def as_text(said: SeedReport | SeedEstimate, *, kept_for: float | None = None) -> str:
    """Return it as lines; `kept_for` is how long answers are kept, in seconds."""
    lines = [f"{said}."]
    stopped = getattr(said, "stopped", "")
    if stopped == "budget":
        lines.append("Stopped by the budget: the next call might have exceeded it.")
    elif stopped:
        lines.append(f"Stopped: {stopped}.")
    if kept_for is not None:
        lines.append(f"Answers are kept for {_duration(kept_for)}.")
    lines.extend(_failures(said.failures))
    return "\n".join(lines)


def _failures(failures: tuple[SeedFailure, ...]) -> Iterator[str]:
    for failure in failures:
        one = failure.lines == 1
        more = ", ..." if failure.lines > len(failure.positions) else ""
        numbers = ", ".join(map(str, failure.positions))
        yield f"  {failure.lines:,} failed: {failure.cause} (line{'' if one else 's'} {numbers}{more})"


def _duration(seconds: float) -> str:
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size and seconds % size == 0:
            number = int(seconds // size)
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{seconds:g} seconds"
