"""`llmcache suggest`: which normalizers a file of requests asks for.

Owns the file format and the table; what is found is said by `llmcache_plugins.suggest`. Prints nothing of
what the requests say.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcache_plugins.cli.ending import with_a_sentence
from llmcache_plugins.cli.lines import BadLine, documents, opened
from llmcache_plugins.cli.options import AsJson
from llmcache_plugins.cli.support import CannotRun, Exit

if TYPE_CHECKING:
    from llmcache_plugins.suggest import Advice

__all__ = ["read_requests", "suggest"]

_SHOWN = 10
_SHAPES = {"name": "names", "compound": "compounds of letters and digits"}


def suggest(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE.jsonl",
            help="One request a line: the body that is sent to the provider, or a prompt. `-` is stdin.",
        ),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Say what keeps the requests of a file from hitting, and what each normalizer would win.

    Example: llmcache suggest requests.jsonl

    Exit codes: 0 nothing to win, 1 something to win, 2 the file cannot be read.
    """
    with with_a_sentence("suggest", as_json=as_json):
        advice = _advice(file)
        typer.echo(json.dumps(_as_json(advice), indent=2)) if as_json else _print(advice)
        raise typer.Exit(Exit.FINDINGS if advice.has_findings else Exit.FINE)


def _advice(file: str) -> "Advice":
    from llmcache_plugins.suggest import suggest as advise

    with opened(file, of="requests") as lines:
        advice = advise(read_requests(lines, name=file))
    if not advice.requests:
        raise CannotRun(f"{file}: no request that could be cached")
    return advice


def read_requests(lines: Iterable[str], *, name: str) -> Iterator[dict[str, Any] | str]:
    """Yield the requests of a file, one a line; empty lines count for nothing.

    Raises `CannotRun`, naming the file `name` and the line, for what is none.
    """
    for found in documents(lines):
        if isinstance(found, BadLine):
            raise CannotRun(f"{name}, line {found.line}: {found.reason}; write one request a line")
        number, request = found
        if not isinstance(request, dict | str):
            raise CannotRun(f"{name}, line {number}: not a request; write an object, or a prompt as a string")
        yield request


def _as_json(advice: "Advice") -> dict[str, Any]:
    rates = {"hit_rate": round(advice.hit_rate, 6), "best_hit_rate": round(advice.best_hit_rate, 6)}
    return dataclasses.asdict(advice) | rates


def _print(advice: "Advice") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(f"{advice.requests:,} requests; {_share(advice, advice.hits)} hit as they are."))
    if advice.unreadable:
        console.print(Text(f"{advice.unreadable:,} more have no canonical form and are never cached."))
    if advice.rules:
        table = Table(title="What the built-in rules strip", title_justify="left")
        table.add_column("rule")
        for name in ("tokens", "in requests", "hits alone", "hits lost without it"):
            table.add_column(name, justify="right")
        for one in advice.rules:
            table.add_row(
                one.rule,
                f"{one.tokens:,}",
                f"{one.requests:,}",
                _share(advice, one.hits),
                f"{one.needed:,}",
            )
        console.print(table)
    for line in _conclusions(advice):
        console.print(Text(line), soft_wrap=True)


def _conclusions(advice: "Advice") -> Iterator[str]:
    if advice.best:
        rules = ", ".join(map(repr, advice.best))
        yield f"normalizers=[{rules}] would hit for {_share(advice, advice.best_hits)}."
    for one in advice.volatile[:_SHOWN]:
        where, start = one.path or "the prompt", f'; to start from: re.compile(r"{one.pattern}")'
        yield (
            f"{_SHAPES.get(one.shape, one.shape)} in {where} keep {one.requests:,} requests apart: up to"
            f" {one.hits:,} more hits without them{start if one.pattern else ''}."
        )
    if len(advice.volatile) > _SHOWN:
        yield f"And {len(advice.volatile) - _SHOWN} kinds more, which --json lists."
    if not advice.has_findings:
        yield "No rule would win a hit."
    yield "What is stripped no longer tells two questions apart: see docs/normalizers.md first."


def _share(advice: "Advice", hits: int) -> str:
    return f"{hits:,} ({advice.rate_of(hits):.1%})"
