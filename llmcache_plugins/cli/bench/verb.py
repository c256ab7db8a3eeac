"""The options of `llmcache bench`, and its exit code. Nothing heavy is imported before the verb runs."""

import asyncio
import enum
import itertools
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from llmcache_plugins.cli.ending import with_a_sentence
from llmcache_plugins.cli.load.questions import load_questions
from llmcache_plugins.cli.options import NOT_FROM_A_FILE, AsJson, ReportFile, Url
from llmcache_plugins.cli.paper import check_place, made_by, write
from llmcache_plugins.cli.support import Exit
from llmcache_plugins.repository.urls import parse_url, redact

__all__ = ["bench"]


class Face(enum.StrEnum):
    """How the application asks."""

    GATEWAY = "gateway"
    LANGCHAIN = "langchain"
    LITELLM = "litellm"


def bench(
    *,
    url: Url = None,
    face: Annotated[Face, typer.Option(help="How the application asks.")] = Face.GATEWAY,
    calls: Annotated[int, typer.Option(min=1, help="How many calls are made on each side.")] = 2000,
    questions: Annotated[int, typer.Option(min=1, help="How many different questions there are.")] = 200,
    zipf: Annotated[
        float,
        typer.Option(min=0.0, max=10.0, help="How unequally they repeat: the r-th as 1/r to this power."),
    ] = 1.0,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.01, help="Calls a second. Default: the next begins when one has ended.", show_default=False
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Most calls under way, of all processes.")] = 32,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Processes that make them.")] = 1,
    near_cache: Annotated[
        bool, typer.Option("--near-cache", help="Keep what was read for a second.")
    ] = False,
    baseline: Annotated[bool, typer.Option(help="Make the same calls without the cache first.")] = True,
    median: Annotated[
        float, typer.Option(min=0.0, help="Median seconds that the stand-in takes for an answer.")
    ] = 0.4,
    model: Annotated[str, typer.Option(help="The model; its list price makes the money.")] = "gpt-4o-mini",
    api_base: Annotated[
        str | None,
        typer.Option(
            help="A real provider, which bills, such as https://api.openai.com/v1. Default: a stand-in.",
            show_default=False,
        ),
        NOT_FROM_A_FILE,
    ] = None,
    api_key_env: Annotated[
        str, typer.Option(help="The environment variable with the provider's key."), NOT_FROM_A_FILE
    ] = "OPENAI_API_KEY",
    file: Annotated[
        Path | None,
        typer.Option(help="Requests to take the messages from, one a line.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed asks the same questions in the same order.")] = 7,
    report: ReportFile = None,
    as_json: AsJson = False,
) -> None:
    """Put a load of repeated questions on a provider, without the cache and with it.

    Says hit rate, latency, provider calls, money and the server's commands. Without a rate the load is as
    much as so many callers can do; with one, calls come at random times, and count from when they were due.
    The cache begins empty, in a namespace of its own that is cleared afterwards. Provider calls are counted
    by the stand-in, or on their way to a real provider.

    Examples: llmcache bench; llmcache bench --face langchain --processes 2 --rate 200 --url redis://localhost

    Exit codes: 0 all figures are as they should be, 1 some are not, 2 the load cannot be put on.
    """
    with with_a_sentence("bench", as_json=as_json, shows_log=True):
        from llmcache_plugins.cli.bench.figures import findings_of, to_json
        from llmcache_plugins.cli.bench.run import Plan, run_bench
        from llmcache_plugins.cli.bench.sheet import sheet
        from llmcache_plugins.cli.bench.view import print_report, progress
        from llmcache_plugins.cli.load.stage import api_of, server_url
        from llmcache_plugins.prices import Prices

        parse_url(url)
        check_place(report)
        api, asked = api_of(api_base, api_key_env), _messages(file, questions)
        with server_url(url) as running, nullcontext() if as_json else progress() as say:
            plan = Plan(
                face=face.value,
                url=running,
                server=redact(url) if url else "an embedded server of its own",
                api=api,
                provider=redact(api_base) if api_base else f"a stand-in, {median:g} s in the median",
                model=model,
                price=Prices().of(model),
                questions=asked,
                calls=calls,
                zipf=zipf,
                rate=rate,
                concurrency=concurrency,
                processes=min(processes, calls),
                median_seconds=median,
                seed=seed,
                near_cache=near_cache,
                compares=baseline,
            )
            found = asyncio.run(run_bench(plan, say=say or (lambda _: None)))
        if report is not None:
            write(report, sheet(found, made=made_by("bench")))
        typer.echo(json.dumps(to_json(found), indent=2)) if as_json else print_report(found)
        raise typer.Exit(Exit.FINDINGS if findings_of(found) else Exit.FINE)


def _messages(file: Path | None, count: int) -> list[list[Any]]:
    """Return the messages of so many different questions."""
    requests = load_questions(file, parameters=None)
    # Files repeat themselves; here it is for the load to do so.
    given = list({json.dumps(one["messages"], sort_keys=True): one["messages"] for one in requests}.values())
    rounds = itertools.count(1)
    asked: list[list[Any]] = []
    while len(asked) < count:
        number = next(rounds)
        for messages in given[: count - len(asked)]:
            # The file is asked again, each time as other questions.
            again = {"role": "user", "content": f"(case {number})"}
            asked.append([*messages, again] if number > 1 else messages)
    return asked
