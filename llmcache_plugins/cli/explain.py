"""`llmcache explain`: why a request hits or misses, asked of the server that the applications use.

Owns the options and the exit code. What is said, and why, is `ResponseCache.explain`.
"""

import asyncio
import dataclasses
import json
from typing import Annotated, Any

import typer

from llmcache_plugins.cli.ending import with_a_sentence
from llmcache_plugins.cli.options import (
    PATIENCE,
    ApiBase,
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
from llmcache_plugins.cli.requests import read_request
from llmcache_plugins.cli.support import CannotRun, Exit

__all__ = ["explain"]


def explain(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE.json",
            help="One request: the body that is sent to the provider, or a JSON string. `-` is stdin.",
        ),
    ],
    *,
    url: Url = None,
    namespace: Namespace = "default",
    tenant: Tenant = None,
    prefix: Prefix = "llm",
    secret: Secret = None,
    normalizer: Normalizer = None,
    prompt_version: PromptVersion = None,
    data_version: DataVersion = None,
    api_base: ApiBase = None,
    canonical: Annotated[bool, typer.Option("--canonical", help="Print what counts: the prompt.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say why a request hits or misses; for a miss, in what it differs from the nearest that is stored.

    The settings must be the application's: they are part of the key.

    Example: llmcache explain request.json --namespace acme

    Exit codes: 0 it hits, 1 it does not, 2 that cannot be said.
    """
    with with_a_sentence("explain", as_json=as_json):
        from llmcache_plugins.cache import ResponseCache
        from llmcache_plugins.models import Outcome

        request = read_request(file)
        cache = ResponseCache.from_url(
            url,
            namespace=namespace,
            tenant=tenant,
            prefix=prefix,
            secret=secret,
            normalizers=normalizer or (),
            prompt_version=prompt_version,
            data_version=data_version,
            lookup_budget=PATIENCE,
            socket_timeout=PATIENCE,
            connect_timeout=PATIENCE,
        )
        scope: dict[str, object] = {} if api_base is None else {"api_base": api_base}
        said = asyncio.run(_explain(cache, request, scope))
        if said.outcome is Outcome.UNAVAILABLE:
            raise CannotRun(said.reason)
        typer.echo(_as_json(said, canonical=canonical) if as_json else str(said))
        if canonical and not as_json:
            typer.echo(said.canonical)
        raise typer.Exit(Exit.FINE if said.outcome in (Outcome.HIT, Outcome.STALE) else Exit.FINDINGS)


async def _explain(cache: Any, request: Any, scope: dict[str, object]) -> Any:
    async with cache:
        return await cache.explain(request, scope=scope)


def _as_json(said: Any, *, canonical: bool) -> str:
    fields = dataclasses.asdict(said)
    fields["key"] = None if said.key is None else str(said.key)
    fields["differences"] = list(said.differences)
    if said.nearest is not None:
        fields["nearest"]["key"] = str(said.nearest.key)
    if not canonical:
        del fields["canonical"]
    return json.dumps(fields, indent=2)
