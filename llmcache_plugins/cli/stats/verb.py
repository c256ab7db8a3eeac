"""The options of `llmcache stats`, and its loop. What was saved is the repository's ledger."""

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcache_plugins.cli.ending import with_a_sentence
from llmcache_plugins.cli.options import NOT_FROM_A_FILE, AsJson, Prefix, Secret, Tenant, Url
from llmcache_plugins.cli.reaching import reach, use, whose_answers
from llmcache_plugins.cli.showing import console, count
from llmcache_plugins.repository.ledger import spelled
from llmcache_plugins.savings import Savings

if TYPE_CHECKING:
    from llmcache_plugins.repository import ResponseRepository

__all__ = ["stats"]

_MOST_DAYS = 1000


def stats(
    *,
    url: Url = None,
    namespace: Annotated[
        str | None,
        typer.Option(help="Only this namespace. Default: all that there are.", show_default=False),
    ] = None,
    tenant: Tenant = None,
    secret: Secret = None,
    prefix: Prefix = "llm",
    days: Annotated[
        int | None,
        typer.Option(
            min=1, max=_MOST_DAYS, help="So many days back, today's (UTC) among them.", show_default=False
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on, until Ctrl-C."), NOT_FROM_A_FILE
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600.0, help="Seconds between two looks, with --watch.")
    ] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Say what the cache has saved: money, tokens, waiting, and the hit rate; by model, namespace and day.

    Of all processes that use this server under the prefix: each tells the server once a second. All
    namespaces are meant unless the command line names one. Money is at list prices, net of what verifiers,
    embedders and refreshes have cost; what has no known price is counted, and is not in it.

    With --json an object, with --watch one on a line for each look: `hits`, `misses`, `coalesced`,
    `tokens_saved` and `cost_saved` (null: unknown) are the totals, `by_model`, `by_namespace` and `by_day`
    the sums.

    Examples: llmcache stats --url redis://localhost; llmcache stats --days 7 --json; llmcache stats --watch

    Exit codes: 0 said, 2 that cannot be said.
    """
    with with_a_sentence("stats", as_json=as_json):
        wants_one = namespace is not None or tenant is not None
        repository = reach(
            url,
            namespace=namespace or "default",
            tenant=tenant,
            secret=secret,
            prefix=prefix,
            ledger_days=_MOST_DAYS,
        )
        look = _Look(
            repository,
            only=spelled(repository.config.namespace) if wants_one else None,
            days=days,
            whose=whose_answers(namespace or "default", tenant) if wants_one else "all namespaces",
        )
        go_on, once = partial(look.go_on, interval, as_json=as_json), partial(look.once, as_json=as_json)
        asyncio.run(use(repository, go_on if watch else once))


class _Look:
    """A look at the ledger, as often as one likes."""

    def __init__(
        self, repository: "ResponseRepository", *, only: str | None, days: int | None, whose: str
    ) -> None:
        self._repository = repository
        self._only = only
        self._days = days
        span = "all days" if days is None else f"the last {count(days, 'day', 'days')}"
        self._title = f"{whose}, {span}, at {repository.address}"

    async def once(self, *, as_json: bool) -> None:
        savings = await self._read()
        if as_json:
            typer.echo(json.dumps(self._data(savings), indent=2))
        else:
            from llmcache_plugins.cli.stats.view import view

            console().print(view(savings, title=self._title), soft_wrap=True)

    async def go_on(self, interval: float, *, as_json: bool) -> None:
        if as_json:
            while True:
                typer.echo(json.dumps(self._data(await self._read())))
                await asyncio.sleep(interval)
        from rich.live import Live

        from llmcache_plugins.cli.stats.view import view

        with Live(console=console(), auto_refresh=False) as live:
            while True:
                live.update(view(await self._read(), title=self._title), refresh=True)
                await asyncio.sleep(interval)

    async def _read(self) -> Savings:
        savings = await self._repository.ledger.read(days=self._days)
        if self._only is None:
            return savings
        return Savings(rows=tuple(row for row in savings.rows if row.namespace == self._only))

    def _data(self, savings: Savings) -> dict[str, Any]:
        from llmcache_plugins.cli.stats.figures import as_data

        return as_data(savings) | {"server": self._repository.address, "days": self._days}
