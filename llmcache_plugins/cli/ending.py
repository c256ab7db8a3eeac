"""How a verb ends that cannot do its work: with one sentence and an exit code, never with a traceback."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from llmcache_plugins.cli.support import CannotRun, Exit
from llmcache_plugins.errors import LLMCacheError

__all__ = ["with_a_sentence"]

_UNHEARD = logging.NullHandler()


@contextmanager
def with_a_sentence(verb: str, *, as_json: bool = False, shows_log: bool = False) -> Iterator[None]:
    """End the process with a sentence on stderr when the body cannot go on.

    With `as_json` it is on stdout too, as an object: `{"error": {"type": ..., "message": ...}}`. Without
    `shows_log` the library's warnings are not shown: what the verb says in the end would be said twice.
    """
    who = f"llmcache {verb}".strip()
    if not shows_log:
        logging.getLogger("llmcache_plugins").addHandler(_UNHEARD)
    try:
        yield
    except (CannotRun, LLMCacheError, ImportError) as error:
        if as_json:
            typer.echo(json.dumps({"error": {"type": type(error).__name__, "message": str(error)}}, indent=2))
        typer.echo(f"{who}: {error}", err=True)
        raise typer.Exit(Exit.USAGE) from None
    except KeyboardInterrupt:
        typer.echo(f"{who}: interrupted", err=True)
        raise typer.Exit(Exit.INTERRUPTED) from None
