"""The verb: its options, what is read, and the exit code. What is reckoned is `llmcache_plugins.estimate`."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmcache_plugins.cli.ending import with_a_sentence
from llmcache_plugins.cli.options import ApiBase, AsJson, ReportFile
from llmcache_plugins.cli.paper import check_place, made_by, write
from llmcache_plugins.cli.support import CannotRun, Exit

if TYPE_CHECKING:
    from llmcache_plugins.estimate import Estimate, LogReader
    from llmcache_plugins.estimate.similar import QuestionSample
    from llmcache_plugins.prices import Price

__all__ = ["estimate"]

Step = Callable[[str, int, int | None], None]
"""Told of what is done, how much of it, and of how much."""

_MANY_BAD = 0.05
"""Of all lines: then the figures are those of a part of the log."""
_SHOW_EVERY = 2_000


def estimate(
    file: Annotated[
        str,
        typer.Argument(
            metavar="LOG.jsonl",
            help="One call a line; may be compressed with gzip. `-` is stdin.",
        ),
    ],
    *,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="NAME=PATH",
            help="Where a line has it: timestamp=created_at, request=payload.body. May be repeated.",
            show_default=False,
        ),
    ] = None,
    ttl: Annotated[
        float, typer.Option(min=0.001, help="Seconds an answer is kept; scenarios have their own.")
    ] = 3600.0,
    latency: Annotated[
        float, typer.Option(min=0.0, help="Seconds of a call whose line does not say how long it took.")
    ] = 1.0,
    normalizer: Annotated[
        list[str] | None,
        typer.Option(
            help="A built-in normalizer to reckon with; may be repeated. Default: those that win something.",
            show_default=False,
        ),
    ] = None,
    api_base: ApiBase = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=IN,OUT",
            help="US dollars for a million tokens. May be repeated. Default: LiteLLM's table.",
            show_default=False,
        ),
    ] = None,
    guess_tokens: Annotated[
        bool,
        typer.Option("--guess-tokens", help="Where there is no usage, guess it from the length of texts."),
    ] = False,
    semantic: Annotated[
        bool, typer.Option("--semantic", help="Estimate what equivalent questions would win, from a sample.")
    ] = False,
    target_error: Annotated[
        float, typer.Option(help="With --semantic, the share of its hits that may be wrong.")
    ] = 0.02,
    report: ReportFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what a cache would have saved, from a log of calls, before a line of code is changed.

    Reads a file and nothing else: no provider, no Redis, no network; no prompt is kept, printed or sent. A
    line is {"timestamp": unix seconds, "request": {a body as OpenAI takes it}, "latency": seconds, "usage":
    {...}}, the last two optional. LiteLLM's standard logging payloads, pairs of OpenAI's requests and
    responses, and OpenAI's batch files are recognised; others with --map. In any order.

    Says calls, tokens and money by mechanism, each on top of the one before: exact match, normalized keys,
    single-flight; then what the TTLs of the four scenarios come to, which is recommended, and the line of
    configuration for it.

    Examples: llmcache estimate calls.jsonl; llmcache estimate calls.jsonl.gz --map timestamp=created_at --map
    request=payload.body --report saved.html

    Exit codes: 0 said, 1 said, but more than one line in twenty could not be read, 2 that cannot be said.
    """
    with with_a_sentence("estimate", as_json=as_json):
        from llmcache_plugins.estimate import Estimator, LogReader
        from llmcache_plugins.prices import Prices

        if not 0 < target_error < 1:
            raise CannotRun(f"--target-error is a share between 0 and 1, not {target_error:g}")
        check_place(report)
        reader = LogReader(_pairs(columns, option="--map", form="NAME=PATH"))
        sample = _sample() if semantic else None
        estimator = Estimator(
            ttl=ttl,
            latency=latency,
            prices=Prices(_prices(price)),
            normalizers=normalizer or None,
            api_base=api_base,
            guesses_tokens=guess_tokens,
            sample=sample,
        )
        with _progress() as step:
            _read(file, reader, estimator.add, step)
            if not reader.calls:
                raise CannotRun(f"{file}: {_without_calls(reader)}")
            found = estimator.result(on_step=lambda: step("reckoning", 0, None))
            if sample is not None:
                found = _with_semantic(found, sample, target_error, step)
        if report is not None:
            from llmcache_plugins.cli.estimate.sheet import sheet

            name = "stdin" if file == "-" else Path(file).name
            write(report, sheet(found, reader, file=name, made=made_by("estimate")))
        _say(found, reader, file=file, as_json=as_json)
        raise typer.Exit(Exit.FINDINGS if reader.bad > _MANY_BAD * reader.lines else Exit.FINE)


def _pairs(given: list[str] | None, *, option: str, form: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for one in given or ():
        # From the right: the name of a model may have such a sign, a path and a price have none.
        name, sign, value = one.rpartition("=")
        if not (name and sign and value):
            raise CannotRun(f"{option} is {form}, not {one!r}")
        pairs[name] = value
    return pairs


def _prices(given: list[str] | None) -> "dict[str, Price]":
    from llmcache_plugins.prices import Price

    prices: dict[str, Price] = {}
    for model, value in _pairs(given, option="--price", form="MODEL=IN,OUT").items():
        try:
            spent, produced = map(float, value.split(","))
        except ValueError:
            raise CannotRun(
                f"--price is MODEL=IN,OUT, in US dollars for a million tokens, not {model}={value}"
            ) from None
        prices[model] = Price(input=spent, output=produced)
    return prices


def _sample() -> "QuestionSample":
    from llmcache_plugins.estimate.similar import QuestionSample

    return QuestionSample()


def _read(file: str, reader: "LogReader", add: Callable[..., None], step: Step) -> None:
    from llmcache_plugins.cli.estimate.reading import opened

    with opened(file) as log:
        for number, call in enumerate(reader.read(log.lines())):
            if not number % _SHOW_EVERY:
                step("reading", log.position, log.size)
            add(call)


def _without_calls(reader: "LogReader") -> str:
    if reader.named:
        bad = reader.named[0]
        return f"no call in {reader.lines:,} lines; line {bad.line}: {bad.reason}"
    if reader.left_out:
        return f"no call that was paid for in {reader.lines:,} lines: {', '.join(reader.left_out)}"
    return "no call in it"


def _with_semantic(
    found: "Estimate", sample: "QuestionSample", target_error: float, step: Step
) -> "Estimate":
    from llmcache_plugins.estimate.similar import with_semantic

    def embedded(done: int, of: int) -> None:
        step("comparing questions", done, of)

    return asyncio.run(with_semantic(found, sample, target_error=target_error, on_step=embedded))


@contextmanager
def _progress() -> Iterator[Step]:
    """Show a bar on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda what, done, of: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as shown:
        task = shown.add_task("reading", total=None)
        yield lambda what, done, of: shown.update(task, description=what, completed=done, total=of)


def _say(found: "Estimate", reader: "LogReader", *, file: str, as_json: bool) -> None:
    if as_json:
        from llmcache_plugins.cli.estimate.figures import as_data

        typer.echo(json.dumps(as_data(found, reader, file=file), indent=2))
        return
    from llmcache_plugins.cli.estimate.view import view
    from llmcache_plugins.cli.showing import console

    console().print(view(found, reader), soft_wrap=True)
