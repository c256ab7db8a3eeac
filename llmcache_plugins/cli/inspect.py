"""`llmcache inspect`: what is known of one entry; the answer itself only for who asks for it.

Owns the options, the lines that are printed and the exit code.
"""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcache_plugins.cli.ending import with_a_sentence
from llmcache_plugins.cli.entries import answer_of, as_data
from llmcache_plugins.cli.naming import HOW, Named, read_name, resolve
from llmcache_plugins.cli.options import (
    NOT_FROM_A_FILE,
    AnyNamespace,
    AsJson,
    Prefix,
    Secret,
    Tenant,
    Url,
)
from llmcache_plugins.cli.reaching import reach, use, whose_answers
from llmcache_plugins.cli.showing import console, safe, size, span
from llmcache_plugins.cli.support import CannotRun, Exit
from llmcache_plugins.keys import decode_name, encode_name
from llmcache_plugins.repository.listing import Listed

if TYPE_CHECKING:
    from llmcache_plugins.repository import ResponseRepository

__all__ = ["inspect"]


def inspect(
    key: Annotated[str, typer.Argument(metavar="KEY", help=HOW)],
    *,
    url: Url = None,
    namespace: AnyNamespace = None,
    tenant: Tenant = None,
    prefix: Prefix = "llm",
    secret: Secret = None,
    answer: Annotated[
        bool, typer.Option("--answer", help="Print the answer, too: its text, or its data."), NOT_FROM_A_FILE
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is known of one entry, without counting as a use of it.

    Model, tags, age, time left, size, tokens, whether somebody fetches it anew, whether a vector lies beside
    it. A key as it is in Redis says its namespace itself; for others it is "default" unless it is given.

    Example: llmcache inspect 4b227777d4dd --namespace acme

    Exit codes: 0 there it is, 1 there is no such valid entry, 2 that cannot be said.
    """
    with with_a_sentence("inspect", as_json=as_json):
        named = read_name(key, prefix=prefix)
        name = "default" if namespace is None else namespace
        repository = reach(url, namespace=name, tenant=tenant, secret=secret, prefix=prefix)
        if named.namespace not in (None, encode_name(repository.config.namespace)):
            name, tenant = _namespace_of(named), None
            repository = reach(url, namespace=name, tenant=None, secret=secret, prefix=prefix)
        whose = whose_answers(name, tenant)
        told = asyncio.run(use(repository, lambda: _tell(repository, named, wants_answer=answer)))
        if as_json:
            typer.echo(json.dumps(told, indent=2))
        else:
            _print(told, f"{whose} at {repository.address}", digits=named.digits)
        raise typer.Exit(Exit.FINE if told["entry"] else Exit.FINDINGS)


def _namespace_of(named: Named) -> str:
    name = decode_name(named.namespace or "")
    if name is None:
        raise CannotRun("the name of that key's namespace is too long to be in it; say it with --namespace")
    return name


async def _tell(repository: "ResponseRepository", named: Named, *, wants_answer: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"server": repository.address, "namespace": repository.config.namespace}
    key = await resolve(repository, named)
    if key is None:
        return told | {"key": None, "entry": None}
    told |= {"key": str(key), "redis_key": repository.redis_key(key)}
    found = await repository.listing.look_at(key)
    beside = found.beside if isinstance(found, Listed) else found
    told |= {"lease_seconds": beside.lease_seconds, "vectors": beside.vectors}
    if not isinstance(found, Listed):
        return told | {"entry": None}
    entry = found.found.entry
    more = {
        "stale_for": entry.stale_for,
        "finish_reasons": list(entry.answer.facts.finish_reasons),
        "fingerprints": bool(entry.leaves),
    }
    told["entry"] = as_data(found) | more
    return told | ({"answer": answer_of(entry)} if wants_answer else {})


def _print(told: dict[str, Any], place: str, *, digits: str) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    if told["key"] is None:
        out.print(Text(f"No valid entry of {place} begins with {digits}."), soft_wrap=True)
        return
    if told["entry"] is None:
        out.print(Text(f"No valid entry {told['key']} in {place}."), soft_wrap=True)
    else:
        out.print(Text(f"{told['key']} in {place}"), soft_wrap=True)
    table = Table.grid(padding=(0, 2))
    for name, text in _lines(told):
        table.add_row(Text(name), Text(text, overflow="fold"))
    out.print(table)
    if "answer" in told:
        out.print()
        # As it is: no line of an answer's is to be broken.
        typer.echo(_answer_text(told["answer"]))


def _lines(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Redis key", told["redis_key"]
    entry = told["entry"]
    if entry is not None:
        yield from _lines_of_entry(entry)
    lease = told["lease_seconds"]
    yield "lease", "none" if lease is None else f"held, for {lease:.1f} s unless it is renewed"
    yield "vectors", str(told["vectors"])


def _lines_of_entry(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "model", safe(entry["model"] or "not known")
    if entry["answered_by"]:
        yield "answered by", safe(entry["answered_by"])
    yield "kind", safe(entry["kind"])
    yield "created", f"{_moment(entry['created'])}, {span(entry['age'])} ago"
    if entry["stale"]:
        yield "fresh", f"no more, stale since {span(-entry['fresh_for'])}"
    else:
        yield "fresh", f"for {span(entry['fresh_for'])}"
    yield "kept", f"for {span(entry['ttl'])}"
    yield "stored", size(entry["bytes"])
    known = entry["input_tokens"] is not None
    yield "tokens", f"{entry['input_tokens']} in, {entry['output_tokens']} out" if known else "not known"
    yield "took", f"{entry['provider_seconds']:.1f} s"
    if entry["finish_reasons"]:
        yield "finished", ", ".join(map(safe, entry["finish_reasons"]))
    yield "tags", ", ".join(map(safe, entry["tags"])) or "none"
    yield "comparable", "by explain" if entry["fingerprints"] else "no"


def _moment(unix: float) -> str:
    try:
        return datetime.fromtimestamp(unix, UTC).isoformat(" ", "seconds")
    except (OverflowError, ValueError, OSError):
        return "at no time"


def _answer_text(answer: dict[str, Any]) -> str:
    return safe(answer["text"] or json.dumps(answer["data"], indent=2, ensure_ascii=False), keeps="\n\t")
