"""The options that several verbs take, spelled once: which cache is meant, and how it is spoken of."""

from typing import Annotated

import typer

__all__ = ["AsJson", "Prefix", "Secret", "Url"]

Url = Annotated[
    str | None,
    typer.Option(
        envvar="LLMCACHE_URL",
        help="The server. Default: the embedded server of this user.",
        show_default=False,
    ),
]
Prefix = Annotated[str, typer.Option(help="What the cache's Redis keys begin with.")]
Secret = Annotated[
    str | None,
    typer.Option(
        envvar="LLMCACHE_SECRET",
        help="The deployment's secret, if it has one: better by the environment.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
