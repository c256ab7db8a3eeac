"""`llmcache warm`: the answers to a file of requests, asked and stored before anybody waits for them.

Owns the options and the exit code. What is asked, skipped, tried again and paid is `seed_cache`'s.
"""

import asyncio
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcache_plugins.cli.ending import with_a_sentence
from llmcache_plugins.cli.options import (
    NOT_FROM_A_FILE,
    PATIENCE,
    AsJson,
    DataVersion,
    Namespace,
    Normalizer,
    Prefix,
    PromptVersion,
    Secret,
    Tenant,
    Url,
)
from llmcache_plugins.cli.support import CannotRun, Exit

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmcache_plugins.cli.warm.sources import Source
    from llmcache_plugins.warming import SeedEstimate, SeedReport

__all__ = ["warm"]

_APIS = ("chat", "responses", "embeddings")


def warm(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE.jsonl",
            help="One request a line: the body that is sent to the provider, or a prompt as a JSON string. A"
            " .csv has a column `prompt`, perhaps `system` and `model`. `-` is stdin.",
        ),
    ],
    *,
    url: Url = None,
    api_base: Annotated[
        str | None,
        typer.Option(
            help="The provider, such as https://api.openai.com/v1, as the application spells it; its key is"
            " in OPENAI_API_KEY. Default: whom LiteLLM knows by the model's name.",
            show_default=False,
        ),
        NOT_FROM_A_FILE,
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model of lines that name none.", show_default=False)
    ] = None,
    api: Annotated[str, typer.Option(help="chat, responses or embeddings.")] = "chat",
    form: Annotated[
        str | None,
        typer.Option("--format", help="jsonl or csv. Default: by the name of the file.", show_default=False),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=10_000, help="Calls at a time.")] = 8,
    requests_per_minute: Annotated[
        float | None, typer.Option(min=0.001, help="No more calls than that.", show_default=False)
    ] = None,
    tokens_per_minute: Annotated[
        float | None, typer.Option(min=1, help="No more tokens than that, in and out.", show_default=False)
    ] = None,
    attempts: Annotated[
        int, typer.Option(min=1, max=10_000, help="How often a line is tried that fails for a while.")
    ] = 6,
    budget: Annotated[
        float | None,
        typer.Option(min=0.000001, help="US dollars after which no call begins.", show_default=False),
    ] = None,
    price_in: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="US dollars for a million input tokens of every model. Default: LiteLLM's table, if it is"
            " installed.",
            show_default=False,
        ),
    ] = None,
    price_out: Annotated[
        float | None, typer.Option(min=0, help="The same for output tokens.", show_default=False)
    ] = None,
    refresh_below: Annotated[
        float, typer.Option(min=0, help="Ask again for what is fresh for fewer seconds.")
    ] = 0.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be asked and cost; ask nobody.")
    ] = False,
    namespace: Namespace = "default",
    tenant: Tenant = None,
    prefix: Prefix = "llm",
    secret: Secret = None,
    ttl: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Seconds for which answers are kept. Default: as the policy says.",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="static_faq (7 days), chat (1 hour), realtime or batch (30 days). Default: 1 hour.",
            show_default=False,
        ),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="What the answers are made from; may be repeated.")
    ] = None,
    normalizer: Normalizer = None,
    prompt_version: PromptVersion = None,
    data_version: DataVersion = None,
    max_entries: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Keep the namespace to so many answers, as the application does. Default: remove none.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the requests of a file whose answers are not stored, and store them, for applications to hit.

    Namespace, secret, normalizers, versions and address must be the application's: they are part of the key.
    Run again after any end, it pays for nothing that is stored.

    Examples: llmcache warm requests.jsonl --model gpt-4o-mini --dry-run; llmcache warm prompts.csv --model
    gpt-4o-mini --api-base https://api.openai.com/v1 --policy batch --budget 5

    Exit codes: 0 all is stored, 1 some lines failed or the budget was over, 2 it could not go on, 130
    interrupted; with --dry-run: 0, or 1 if there are lines that cannot be asked.
    """
    with with_a_sentence("warm", as_json=as_json):
        if api not in _APIS:
            raise CannotRun(f"--api is one of {', '.join(_APIS)}, not {api!r}")
        if (price_in is None) != (price_out is None):
            raise CannotRun("give --price-in and --price-out, or neither")
        from llmcache_plugins.cache import ResponseCache
        from llmcache_plugins.cli.warm.provider import builder
        from llmcache_plugins.cli.warm.sources import Source, format_of

        form = format_of(file, form)
        if form == "csv" and api != "chat":
            raise CannotRun("a CSV file has prompts of chats; write JSON lines for another --api")
        build = builder(api=api, model=model, by_litellm=api_base is None)  # type: ignore[arg-type]
        cache = ResponseCache.from_url(
            url,
            policy=policy,
            prices=_OnePrice.of(price_in, price_out),
            namespace=namespace,
            tenant=tenant,
            prefix=prefix,
            secret=secret,
            normalizers=normalizer or (),
            prompt_version=prompt_version,
            data_version=data_version,
            max_entries=max_entries,
            lookup_budget=PATIENCE,
            commit_budget=PATIENCE,
            socket_timeout=PATIENCE,
            connect_timeout=PATIENCE,
        )
        options: dict[str, Any] = {"tags": tag or None, "ttl": ttl}
        job = _Job(
            source=Source(file, form, build=build),
            cache=cache,
            api_base=api_base,
            api=api,
            options=options,
            limits={
                "concurrency": concurrency,
                "requests_per_minute": requests_per_minute,
                "tokens_per_minute": tokens_per_minute,
                "attempts": attempts,
                "budget": budget,
            },
            refresh_below=refresh_below,
        )
        kept_for = ttl if ttl is not None else getattr(cache.policy, "ttl", None)
        raise typer.Exit(_estimate(job, as_json) if dry_run else _warm(job, as_json, kept_for=kept_for))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    source: "Source"
    cache: Any
    api_base: str | None
    api: str
    options: Mapping[str, Any]
    limits: Mapping[str, Any]
    refresh_below: float


@dataclass(frozen=True, slots=True)
class _OnePrice:
    """One price for every model."""

    price: Any

    @classmethod
    def of(cls, price_in: float | None, price_out: float | None) -> "_OnePrice | None":
        from llmcache_plugins.prices import Price

        if price_in is None or price_out is None:
            return None
        return cls(Price(input=price_in, output=price_out))

    def price_of(self, _model: str, /) -> Any:
        return self.price


def _warm(job: _Job, as_json: bool, *, kept_for: float | None) -> Exit:
    from llmcache_plugins.cli.warm.progress import shown_progress
    from llmcache_plugins.cli.warm.report import as_json as to_json
    from llmcache_plugins.cli.warm.report import as_text
    from llmcache_plugins.errors import LLMCacheError

    last: list[SeedReport] = []
    ended, problem = Exit.FINE, ""
    with shown_progress(lambda: job.source.lines) as show:

        def tell(report: "SeedReport") -> None:
            last[:] = [report]
            show(report)

        try:
            report = asyncio.run(_seed(job, tell))
            ended = Exit.FINDINGS if report.failed or report.stopped else Exit.FINE
        except (KeyboardInterrupt, asyncio.CancelledError):
            ended = Exit.INTERRUPTED
        except (CannotRun, LLMCacheError) as error:
            if not last or not last[-1].done:
                raise
            ended, problem = Exit.USAGE, str(error)
    if last:
        seeded = last[-1].seeded
        typer.echo(to_json(last[-1]) if as_json else as_text(last[-1], kept_for=kept_for if seeded else None))
    if problem:
        typer.echo(f"llmcache warm: {problem}", err=True)
    elif ended is Exit.INTERRUPTED:
        typer.echo("llmcache warm: interrupted; run it again for the rest", err=True)
    return ended


def _estimate(job: _Job, as_json: bool) -> Exit:
    from llmcache_plugins.cli.warm.report import as_json as to_json
    from llmcache_plugins.cli.warm.report import as_text

    said = asyncio.run(_look(job))
    typer.echo(to_json(said) if as_json else as_text(said))
    return Exit.FINDINGS if said.failed else Exit.FINE


async def _seed(job: _Job, tell: "Callable[[SeedReport], None]") -> "SeedReport":
    from llmcache_plugins.cli.warm.provider import open_provider
    from llmcache_plugins.gateway import InferenceGateway
    from llmcache_plugins.warming import seed_cache

    task = asyncio.current_task()
    # Only the main thread of a process has signals.
    with suppress(ValueError, RuntimeError, NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: task and task.cancel())
    api: Any = job.api
    async with open_provider(job.api_base, api=api) as provider, job.cache:
        return await seed_cache(
            InferenceGateway(provider, job.cache),
            job.source,
            on_progress=tell,
            refresh_below=job.refresh_below,
            **job.limits,
            **job.options,
        )


async def _look(job: _Job) -> "SeedEstimate":
    from llmcache_plugins.cli.warm.provider import open_provider
    from llmcache_plugins.gateway import InferenceGateway
    from llmcache_plugins.warming import estimate_seed

    api: Any = job.api
    # The provider says what is part of the key; it is not asked.
    async with open_provider(job.api_base, api=api) as provider, job.cache:
        return await estimate_seed(
            InferenceGateway(provider, job.cache),
            job.source,
            refresh_below=job.refresh_below,
            **job.options,
        )
