"""`llmcache demo`: what the cache does for a file of questions, measured, in under a minute.

Owns the options and the exit code. What is run is in `run`; nothing heavy is imported before the verb
runs.
"""

import asyncio
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcache_plugins.cli.ending import with_a_sentence
from llmcache_plugins.cli.load.questions import Request, load_questions
from llmcache_plugins.cli.options import NOT_FROM_A_FILE, AsJson
from llmcache_plugins.cli.support import CannotRun, Exit
from llmcache_plugins.repository.urls import parse_url, redact

if TYPE_CHECKING:
    from llmcache_plugins.cli.demo.figures import Report
    from llmcache_plugins.cli.demo.run import Plan
    from llmcache_plugins.cli.load.stage import Api
    from llmcache_plugins.prices import Price

__all__ = ["demo"]

_STAND_IN_MODEL = "stand-in"


def demo(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE.jsonl]",
            help="One OpenAI chat request body a line. Default: questions to a support assistant.",
            show_default=False,
        ),
    ] = None,
    *,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="LLMCACHE_URL",
            help="A Redis to use, in a namespace that is cleared afterwards. Default: an embedded server.",
            show_default=False,
        ),
    ] = None,
    api_base: Annotated[
        str | None,
        typer.Option(
            help="A real provider, such as https://api.openai.com/v1. Default: a stand-in on this machine.",
            show_default=False,
        ),
        NOT_FROM_A_FILE,
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The model for requests that name none.", show_default=False),
    ] = None,
    api_key_env: Annotated[
        str, typer.Option(help="The environment variable with the provider's key."), NOT_FROM_A_FILE
    ] = "OPENAI_API_KEY",
    limit: Annotated[int, typer.Option(min=1, help="Use the first so many requests of the file.")] = 400,
    median: Annotated[
        float, typer.Option(min=0, help="Median seconds that the stand-in takes for an answer.")
    ] = 0.8,
    price_in: Annotated[
        float, typer.Option(min=0, help="Example price: dollars for a million input tokens.")
    ] = 0.5,
    price_out: Annotated[
        float, typer.Option(min=0, help="Example price: dollars for a million output tokens.")
    ] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Ask the questions of a file with and without the cache, play apps on frameworks, show what is saved.

    Example: llmcache demo

    Exit codes: 0 all figures are as they should be, 1 some are not, 2 the demo cannot run.
    """
    with with_a_sentence("demo", as_json=as_json, shows_log=True):
        from llmcache_plugins.cli.demo.figures import findings_of, to_json
        from llmcache_plugins.cli.demo.report import print_report
        from llmcache_plugins.prices import Price

        requests = _requests(file, model=model, api_base=api_base)
        # After that: without the SDK it names the extra.
        from llmcache_plugins.cli.load.stage import api_of

        report = _run(
            requests,
            limit=limit,
            questions=str(file or "the questions that are shipped"),
            url=url,
            api=api_of(api_base, api_key_env),
            median=median,
            price=Price(input=price_in, output=price_out),
        )
        typer.echo(json.dumps(to_json(report), indent=2)) if as_json else print_report(report)
        raise typer.Exit(Exit.FINDINGS if findings_of(report) else Exit.FINE)


def _requests(file: Path | None, *, model: str | None, api_base: str | None) -> list[Request]:
    requests = load_questions(file, parameters=_sdk_parameters())
    fill = model or (None if api_base else _STAND_IN_MODEL)
    if fill is None and any("model" not in request for request in requests):
        raise CannotRun("there are requests that name no model; say which one to use: --model NAME")
    return [request if "model" in request else {**request, "model": fill} for request in requests]


def _sdk_parameters() -> frozenset[str]:
    # The provider's module first: without the SDK its error names the extra.
    from llmcache_plugins.providers.openai import OpenAIProvider  # noqa: F401, I001
    from openai.resources.chat import AsyncCompletions

    return frozenset(inspect.signature(AsyncCompletions.create).parameters) - {"self"}


def _run(requests: list[Request], *, limit: int, url: str | None, **facts: Any) -> "Report":
    from llmcache_plugins.cli.demo.report import announce, progress_bar
    from llmcache_plugins.cli.demo.run import run_demo
    from llmcache_plugins.cli.load.stage import server_url

    parse_url(url)
    with server_url(url) as running:
        plan = _plan(requests[:limit], url=running, server=_describe(url), **facts)
        announce(_intentions(plan, left_out=max(0, len(requests) - limit)))
        with progress_bar() as begin:
            return asyncio.run(run_demo(plan, begin=begin))


def _plan(
    requests: list[Request],
    *,
    questions: str,
    url: str,
    server: str,
    api: "Api",
    median: float,
    price: "Price",
) -> "Plan":
    from llmcache_plugins.cli.demo.run import Plan, concurrency_for
    from llmcache_plugins.cli.demo.scenes import frameworks

    return Plan(
        requests=requests,
        questions=questions,
        url=url,
        server=server,
        api=api,
        provider=(
            f"STAND-IN on this machine, no model; median answer {median:g} s"
            if api.is_stand_in
            else redact(api.base_url)
        ),
        median_seconds=median,
        price=price,
        concurrency=concurrency_for(len(requests), median_seconds=median, is_stand_in=api.is_stand_in),
        frameworks=frameworks(),
    )


def _describe(url: str | None) -> str:
    return redact(url) if url else "an embedded server of the demo's own"


def _intentions(plan: "Plan", *, left_out: int) -> list[str]:
    from llmcache_plugins.cli.demo.scenes import LANGCHAIN, LITELLM, most_calls
    from llmcache_plugins.cli.load.stage import LOOKUP_BUDGET

    lines = [
        f"Provider: {plan.provider}.",
        f"Cache: {plan.server}; lookup_budget and socket_timeout {LOOKUP_BUDGET:g} s, ttl 10 min.",
    ]
    if left_out:
        lines.append(f"Using the first {len(plan.requests)} requests; --limit takes {left_out} more.")
    lines += [
        f'{name} is not installed; its part needs pip install "llmcache-plugins[demo]".'
        for name in (LANGCHAIN, LITELLM)
        if name not in plan.frameworks
    ]
    if not plan.api.is_stand_in:
        asked = len(plan.requests)
        more = "".join(
            f", at most {most_calls(name, is_stand_in=False)} for {name}" for name in plan.frameworks
        )
        lines.append(
            f"This calls a real provider: {asked} calls without the cache, at most {asked} with it, 1 for the"
            f" burst{more}. It costs money; Ctrl-C stops it."
        )
    return lines
