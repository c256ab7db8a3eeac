"""The verb: its options, what is measured with which embedder, and the exit code."""

import asyncio
import importlib
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcache_plugins.cli.calibrate.pairs import Pair, read_pairs
from llmcache_plugins.cli.ending import with_a_sentence
from llmcache_plugins.cli.lines import BadLine, opened
from llmcache_plugins.cli.options import NOT_FROM_A_FILE, AsJson
from llmcache_plugins.cli.support import CannotRun, Exit
from llmcache_plugins.errors import LLMCacheError

if TYPE_CHECKING:
    from llmcache_plugins.semantic.calibration import Calibration
    from llmcache_plugins.semantic.embedding import Embedding
    from llmcache_plugins.semantic.guards import Guards

__all__ = ["calibrate"]

_AT_ONCE = 64
"""Pairs whose texts are embedded together."""
_PATIENCE = 600.0
"""Seconds for one batch: nobody's request waits for this verb."""


@dataclass(slots=True)
class _Sample:
    """What was read, scored."""

    scores: list[float] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)


def calibrate(
    file: Annotated[
        str,
        typer.Argument(
            metavar="PAIRS.jsonl",
            help='One pair a line: {"a": ..., "b": ..., "same": true}, or feedback with "ok". `-` is stdin.',
        ),
    ],
    *,
    target_error: Annotated[
        float, typer.Option(help="The share of false hits that is allowed: 0.01 is one in a hundred.")
    ] = 0.01,
    embedder: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME",
            help="An Embedder, or what returns one, in a module of yours. Default: the default embedder.",
            show_default=False,
        ),
        NOT_FROM_A_FILE,
    ] = None,
    guards: Annotated[bool, typer.Option(help="Judge as all guards do, or without any.")] = True,
    save: Annotated[
        Path | None,
        typer.Option(help="Write the table to this file, too.", show_default=False),
        NOT_FROM_A_FILE,
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which threshold keeps false hits below a share, by labelled pairs.

    The threshold is chosen by the 95 % upper confidence bound of the share, not by what was counted.

    Example: llmcache calibrate pairs.jsonl --target-error 0.01

    Exit codes: 0 a threshold keeps it, 1 none does, 2 that cannot be said.
    """
    with with_a_sentence("calibrate", as_json=as_json):
        from llmcache_plugins.cli.calibrate.report import print_report, to_json
        from llmcache_plugins.semantic.calibration import calibrated
        from llmcache_plugins.semantic.embedding import Embedding
        from llmcache_plugins.semantic.guards import Guard, Guards

        if not 0 < target_error < 1:
            raise CannotRun(f"--target-error is a share between 0 and 1, not {target_error:g}")
        enabled = tuple(Guard) if guards else ()
        embedding = Embedding(_embedder(embedder), timeout=_PATIENCE)
        with opened(file, of="labelled pairs") as lines:
            sample = asyncio.run(_measured(read_pairs(lines), embedding, Guards(enabled)))
        if not sample.scores:
            raise CannotRun(f"{file}: {_without_pairs(sample.bad)}")
        made = calibrated(
            sample.scores, sample.same, embedder=embedding.name, guards=[guard.value for guard in enabled]
        )
        if save is not None:
            _save(made, save)
        threshold = made.threshold_for(target_error)
        if as_json:
            typer.echo(to_json(made, sample.bad, target_error))
        else:
            print_report(made, sample.bad, target_error)
        raise typer.Exit(Exit.FINE if threshold is not None else Exit.FINDINGS)


async def _measured(read: Iterable[Pair | BadLine], embedding: "Embedding", guards: "Guards") -> _Sample:
    from rich.console import Console

    from llmcache_plugins.semantic.scoring import score

    sample = _Sample()
    await embedding.open()
    try:
        with Console(stderr=True).status("") as shown:
            for window in _windows(read):
                shown.update(f"{len(sample.scores):,} pairs")
                sample.bad += [one for one in window if isinstance(one, BadLine)]
                pairs = [one for one in window if isinstance(one, Pair)]
                scoring = (score(pair.a, pair.b, embedding=embedding, guards=guards) for pair in pairs)
                sample.scores += await asyncio.gather(*scoring)
                sample.same += [pair.same for pair in pairs]
    finally:
        await embedding.aclose()
    return sample


def _windows(read: Iterable[Pair | BadLine]) -> Iterator[list[Pair | BadLine]]:
    lines = iter(read)
    while window := list(itertools.islice(lines, _AT_ONCE)):
        yield window


def _embedder(spelled: str | None) -> Any:
    from llmcache_plugins.semantic.embedders import Embedder, MiniLMEmbedder

    if spelled is None:
        return MiniLMEmbedder()
    module, colon, name = spelled.partition(":")
    if not (module and colon and name):
        raise CannotRun(f"--embedder is MODULE:NAME, not {spelled!r}")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
        return found if isinstance(found, Embedder) and not isinstance(found, type) else found()
    except LLMCacheError:
        raise
    except Exception as error:
        raise CannotRun(f"--embedder {spelled}: {type(error).__name__}: {error}") from error


def _without_pairs(bad: list[BadLine]) -> str:
    if not bad:
        return "no labelled pair"
    return f"no labelled pair in {len(bad)} lines; line {bad[0].line}: {bad[0].reason}"


def _save(made: "Calibration", path: Path) -> None:
    try:
        made.save(path)
    except OSError as error:
        raise CannotRun(f"{path}: cannot be written ({error.strerror or error})") from error
