"""`llmcache doctor`: the options and the exit code.

The facts come from `repository.inspection`, the judgement from `diagnosis`; neither knows a terminal.
"""

import asyncio
import json
from importlib import metadata
from typing import Annotated

import typer

from llmcache_plugins.cli.ending import with_a_sentence
from llmcache_plugins.cli.options import AsJson, Namespace, Prefix
from llmcache_plugins.cli.support import CannotRun, Exit
from llmcache_plugins.config import CacheConfig
from llmcache_plugins.diagnosis import Level, diagnose
from llmcache_plugins.repository.inspection import inspect

__all__ = ["doctor"]

_DEFAULTS = CacheConfig()


def doctor(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]",
            envvar="LLMCACHE_URL",
            help="The server or Cluster that the cache uses. Default: the embedded server of this user.",
            show_default=False,
        ),
    ] = None,
    *,
    namespace: Namespace = _DEFAULTS.namespace,
    prefix: Prefix = _DEFAULTS.prefix,
    budget: Annotated[
        float, typer.Option(help="The cache's lookup_budget in seconds, which round trips must keep.")
    ] = _DEFAULTS.lookup_budget,
    as_json: AsJson = False,
) -> None:
    """Check a Redis for this cache: what is wrong, why, and how to fix it.

    Reads its settings and figures, and tries out what the cache does, in a namespace of its own below yours
    that is removed again.

    Example: llmcache doctor redis://localhost

    Exit codes: 0 no problems, 1 problems, 2 the server cannot be looked at.
    """
    with with_a_sentence("doctor", as_json=as_json):
        from llmcache_plugins.cli.doctor.report import print_report, to_json

        if not budget > 0:
            raise CannotRun(f"--budget is a positive number of seconds, not {budget:g}")
        facts = asyncio.run(inspect(url, namespace=namespace, prefix=prefix))
        findings = diagnose(facts, budget=budget, litellm=_litellm())
        if as_json:
            typer.echo(json.dumps(to_json(facts, findings), indent=2))
        else:
            print_report(facts, findings)
        raise typer.Exit(
            Exit.FINDINGS if any(finding.level is Level.PROBLEM for finding in findings) else Exit.FINE
        )


def _litellm() -> str | None:
    try:
        return metadata.version("litellm")
    except metadata.PackageNotFoundError:
        return None
