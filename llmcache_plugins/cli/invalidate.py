"""`llmcache invalidate`: forget answers by what they were made from, by model, key or request, or all.

Owns the options, the question and the exit code. What is forgotten, and what that means for calls under way,
is `ResponseCache.invalidate`.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcache_plugins.cli.ending import with_a_sentence
from llmcache_plugins.cli.naming import HOW, Named, read_name, resolve
from llmcache_plugins.cli.options import (
    NOT_FROM_A_FILE,
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
    Yes,
)
from llmcache_plugins.cli.reaching import ask, reach, use, whose_answers
from llmcache_plugins.cli.requests import read_request
from llmcache_plugins.cli.showing import count
from llmcache_plugins.cli.support import CannotRun
from llmcache_plugins.keys import encode_name
from llmcache_plugins.models import Invalidation

if TYPE_CHECKING:
    from llmcache_plugins.cache import ResponseCache
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.repository import ResponseRepository

__all__ = ["invalidate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _What:
    """What is to be forgotten."""

    tags: tuple[str, ...]
    model: str | None
    keys: "tuple[CacheKey, ...]"
    request: Any
    scope: dict[str, object] | None
    everything: bool

    def __str__(self) -> str:
        if self.everything:
            return "all answers"
        parts = [
            *(f"the answers with tag {tag!r}" for tag in self.tags),
            *([f"the answers to requests for {self.model!r}"] if self.model is not None else []),
            *(f"the answer {key}" for key in self.keys),
            *(["the answers to the request"] if self.request is not None else []),
        ]
        return ", ".join(parts)

    @property
    def is_named(self) -> bool:
        """Whether all of it has names, so that nothing is left to be met later."""
        return not (self.tags or self.model is not None or self.everything)


def invalidate(
    *,
    namespace: Namespace,
    url: Url = None,
    tenant: Tenant = None,
    secret: Secret = None,
    prefix: Prefix = "llm",
    tag: Annotated[
        list[str] | None,
        typer.Option(help="Answers that were stored with this tag; may be repeated.", show_default=False),
        NOT_FROM_A_FILE,
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Answers to requests for this model.", show_default=False),
        NOT_FROM_A_FILE,
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help=f"One answer: {HOW} May be repeated.", show_default=False),
        NOT_FROM_A_FILE,
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.json",
            help="The answers to one request: a file as for `explain`. `-` is stdin.",
            show_default=False,
        ),
        NOT_FROM_A_FILE,
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All answers of the namespace."), NOT_FROM_A_FILE
    ] = False,
    normalizer: Normalizer = None,
    prompt_version: PromptVersion = None,
    data_version: DataVersion = None,
    api_base: ApiBase = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when near caches have let go, too: a second more.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Forget answers: afterwards no process serves them, and what calls under way bring is not stored.

    What is named by key or request is removed at once; all else is void, and goes when it is next met,
    expires or is evicted. To have no byte of a namespace left, see `clear`. For a request, normalizers,
    versions and the provider's address must be the application's: they are a part of the key. The namespace
    must be given, by the option, the environment or the file.

    Example: llmcache invalidate --namespace acme --tag doc:7

    Exit codes: 0 forgotten, 2 not, or not wholly: then repeat it, which is safe.
    """
    with with_a_sentence("invalidate", as_json=as_json):
        from llmcache_plugins.cache import ResponseCache

        named = [read_name(text, prefix=prefix) for text in key or ()]
        _check(tag or named or model is not None or request is not None, everything=everything)
        wanted = None if request is None else read_request(request)
        repository = reach(
            url,
            namespace=namespace,
            tenant=tenant,
            secret=secret,
            prefix=prefix,
            normalizers=normalizer or (),
            prompt_version=prompt_version,
            data_version=data_version,
        )
        what = _What(
            tags=tuple(dict.fromkeys(tag or ())),
            model=model,
            keys=asyncio.run(use(repository, lambda: _keys(repository, named))) if named else (),
            request=wanted,
            scope=None if api_base is None else {"api_base": api_base},
            everything=everything,
        )
        whose = whose_answers(namespace, tenant)
        if not yes:
            question = f"Forget {what} in {whose} at {repository.address}?"
            ask(question, otherwise="nothing was forgotten")
        began = time.monotonic()
        done = asyncio.run(use(repository, lambda: _forget(ResponseCache(repository), what, wait=wait)))
        told = {
            "namespace": namespace,
            "tenant": tenant,
            "server": repository.address,
            "tags": what.tags,
            "model": what.model,
            "keys": [str(one) for one in what.keys],
            "request": request,
            "all": what.everything,
            "entries": done.entries,
            "forgotten": done.forgotten,
            "seconds": round(time.monotonic() - began, 3),
        }
        where = f"{whose[0].upper()}{whose[1:]} at {repository.address}"
        typer.echo(json.dumps(told, indent=2) if as_json else f"{where}: {_said(what, done)}")


def _check(is_named: object, *, everything: bool) -> None:
    if everything and is_named:
        raise CannotRun(
            "--all is all there is in the namespace: say it without anything else, or leave it out"
        )
    if not everything and not is_named:
        raise CannotRun("say what to forget: --tag, --model, --key, --request, or --all of the namespace")


async def _keys(repository: "ResponseRepository", named: Sequence[Named]) -> "tuple[CacheKey, ...]":
    ours = encode_name(repository.config.namespace)
    if any(one.namespace not in (None, ours) for one in named):
        raise CannotRun("a key is of another namespace; say which with --namespace and --tenant")
    found = {one.digits: await resolve(repository, one) for one in named}
    for digits, key in found.items():
        if key is None:
            raise CannotRun(f"no valid entry begins with {digits}; nothing was forgotten")
    return tuple(dict.fromkeys(key for key in found.values() if key is not None))


async def _forget(cache: "ResponseCache", what: _What, *, wait: bool) -> Invalidation:
    done = []
    if what.keys:
        is_all = what.is_named and what.request is None
        done.append(await cache.repository.invalidate(keys=what.keys, wait=wait and is_all))
    if what.everything:
        done.append(await cache.repository.invalidate(everything=True, wait=wait))
    elif what.tags or what.model is not None or what.request is not None:
        done.append(
            await cache.invalidate(
                tags=what.tags or None,
                model=what.model,
                request=what.request,
                scope=what.scope,
                wait=wait,
            )
        )
    return Invalidation(
        entries=sum(one.entries for one in done), forgotten=sum(one.forgotten for one in done)
    )


def _said(what: _What, done: Invalidation) -> str:
    said = f"{count(done.entries, 'entry', 'entries')} removed at once"
    if not what.is_named:
        said += "; others that are void are served to nobody, and go when they are next met"
    if done.forgotten:
        marks = count(done.forgotten, "invalidation", "invalidations")
        said += f"; {marks} of before made room, and all answers that are older than those are void, too"
    return f"{said}."
