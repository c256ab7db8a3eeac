"""The server and namespace that a verb works on: opened with patience, named in words, and asked before.

Owns what verbs that speak to a repository have in common. Knows none of them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

import typer

from llmcache_plugins.cli.options import PATIENCE
from llmcache_plugins.cli.support import CannotRun
from llmcache_plugins.config import CacheConfig
from llmcache_plugins.repository import ResponseRepository

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["ask", "reach", "use", "whose_answers"]

T = TypeVar("T")


def reach(
    url: str | None,
    *,
    namespace: str,
    tenant: str | None,
    secret: str | None,
    prefix: str,
    ledger_days: int = 0,
    normalizers: Sequence[str] = (),
    prompt_version: str | None = None,
    data_version: str | None = None,
) -> ResponseRepository:
    """Return the repository that the options name, not opened yet. Raises `ConfigError`.

    `ledger_days` are those of the savings that are to be read; normalizers and versions are for who wants
    the keys of requests.
    """
    config = CacheConfig(
        namespace=namespace,
        tenant=tenant,
        secret=secret,
        prefix=prefix,
        ledger_days=ledger_days,
        socket_timeout=PATIENCE,
        connect_timeout=PATIENCE,
        normalizers=normalizers,
        prompt_version=prompt_version,
        data_version=data_version,
    )
    return ResponseRepository(url, config=config)


async def use(repository: ResponseRepository, work: Callable[[], Awaitable[T]]) -> T:
    """Connect, do some work and close. Raises what is wrong with the server before the work begins."""
    try:
        await repository.ping()
        return await work()
    finally:
        await repository.aclose()


def whose_answers(namespace: str, tenant: str | None) -> str:
    """Return in words whose answers are meant; nothing in it can move a terminal's cursor."""
    return f"namespace {namespace!r}" if tenant is None else f"tenant {tenant!r} of {namespace!r}"


def ask(question: str, *, otherwise: str) -> None:
    """Ask on the terminal. Raises `CannotRun`, which says `otherwise`, unless the answer is yes."""
    if not sys.stdin.isatty():
        raise CannotRun("there is no terminal to ask on; say --yes to do it without a question")
    try:
        is_wanted = typer.confirm(question, err=True)
    except typer.Abort:
        # Ctrl-C, which typer would end with 1. The cursor is still behind the question.
        typer.echo(err=True)
        raise KeyboardInterrupt from None
    if not is_wanted:
        raise CannotRun(otherwise)
