"""`llmcache ls`: the namespaces on a server, or the entries of one.

Owns the options and the tables. What is listed, and in which order, is `repository.listing`.
"""

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcache_plugins.cli.ending import with_a_sentence
from llmcache_plugins.cli.entries import as_data
from llmcache_plugins.cli.options import AnyNamespace, AsJson, Prefix, Secret, Tenant, Url
from llmcache_plugins.cli.reaching import reach, use, whose_answers
from llmcache_plugins.cli.showing import console, count, safe, size, span

if TYPE_CHECKING:
    from llmcache_plugins.models import Size
    from llmcache_plugins.repository import ResponseRepository
    from llmcache_plugins.repository.listing import Namespaces

__all__ = ["ls"]

_DIGITS = 12
"""Of a key in a table: enough for `inspect`."""


def ls(
    *,
    url: Url = None,
    namespace: AnyNamespace = None,
    tenant: Tenant = None,
    prefix: Prefix = "llm",
    secret: Secret = None,
    namespaces: Annotated[
        bool, typer.Option("--namespaces", help="All namespaces, even where one is configured.")
    ] = False,
    most: Annotated[int, typer.Option(min=1, max=10_000, help="List so many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the namespaces on a server, or the entries of one: never a prompt or an answer.

    Without a namespace, all that are under the prefix, those with most bytes first; that walks over all keys
    of the server. With one, or with a tenant, its entries, those used last first; that is no use of them.
    Numbers of entries and bytes are upper bounds: what has expired counts until it is met.

    Examples: llmcache ls; llmcache ls --namespace acme --tenant alice --most 10

    Exit codes: 0 listed, however much there is, 2 that cannot be said.
    """
    with with_a_sentence("ls", as_json=as_json):
        of_one = not namespaces and (namespace is not None or tenant is not None)
        name = namespace if of_one and namespace is not None else "default"
        whose = tenant if of_one else None
        repository = reach(url, namespace=name, tenant=whose, secret=secret, prefix=prefix)
        where: dict[str, Any] = {"server": repository.address, "prefix": prefix}
        if not of_one:
            found = asyncio.run(use(repository, lambda: repository.listing.namespaces(most=most)))
            typer.echo(_json_of_all(found, where)) if as_json else _print_all(found, where)
            return
        total, rows = asyncio.run(use(repository, lambda: _entries(repository, most)))
        if as_json:
            where |= {"namespace": name, "tenant": whose}
            where |= {"entries": total.entries, "bytes": total.stored_bytes, "listed": rows}
            typer.echo(json.dumps(where, indent=2))
        else:
            _print_one(f"{whose_answers(name, whose)} at {repository.address}", total, rows)


async def _entries(repository: "ResponseRepository", most: int) -> "tuple[Size, list[dict[str, Any]]]":
    latest = repository.listing.latest(repository.config.namespace, most=most)
    # Not the entries themselves: they hold the answers, which would be much to keep.
    rows = [as_data(listed) async for listed in latest]
    return await repository.size(), rows


def _json_of_all(found: "Namespaces", where: dict[str, Any]) -> str:
    listed = [
        {"namespace": one.name, "spelled": one.spelled, "entries": one.entries, "bytes": one.stored_bytes}
        for one in found.largest
    ]
    more = {"namespaces": listed, "others": found.others, "complete": found.is_whole}
    return json.dumps(where | more, indent=2)


def _print_all(found: "Namespaces", where: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    if not found.largest:
        out.print(Text(f"No namespaces under the prefix {where['prefix']!r} at {where['server']}."))
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("namespace", overflow="fold")
    table.add_column("entries", justify="right", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    for one in found.largest:
        shown = safe(one.name) if one.name is not None else f"(a long name) {one.spelled}"
        table.add_row(Text(shown), f"{one.entries:,}", size(one.stored_bytes))
    out.print(table)
    if found.others or not found.is_whole:
        least = "" if found.is_whole else "at least "
        more = count(found.others, "more namespace", "more namespaces")
        out.print(Text(f"And {least}{more}; --most lists more of them."))


def _print_one(place: str, total: "Size", rows: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    books = f"{count(total.entries, 'entry', 'entries')}, {size(total.stored_bytes)} at most"
    out.print(Text(f"{place[0].upper()}{place[1:]}: {books}."), soft_wrap=True)
    if not rows:
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("key", no_wrap=True)
    table.add_column("model", overflow="fold")
    table.add_column("kind", overflow="fold")
    for name in ("age", "fresh", "kept", "bytes", "tokens", "took"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("tags", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, _cells(row)))
    out.print(table)


def _cells(told: dict[str, Any]) -> list[str]:
    tokens = f"{told['input_tokens']}+{told['output_tokens']}" if told["input_tokens"] is not None else "-"
    return [
        told["key"].rpartition(":")[2][:_DIGITS],
        safe(told["model"] or told["answered_by"] or "-"),
        safe(told["kind"]),
        span(told["age"]),
        "stale" if told["stale"] else span(told["fresh_for"]),
        span(told["ttl"]),
        size(told["bytes"]),
        tokens,
        f"{told['provider_seconds']:.1f}s",
        ", ".join(map(safe, told["tags"])),
    ]
