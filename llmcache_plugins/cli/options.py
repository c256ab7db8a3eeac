"""The options that several verbs take, spelled once: which cache is meant, and how it is spoken of.

Each has its name in the environment here; that they may stand in a file, too, is `configuration`'s affair.
What may hold a password has no default that `--help` could show.
"""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "NOT_FROM_A_FILE",
    "PATIENCE",
    "AnyNamespace",
    "ApiBase",
    "AsJson",
    "DataVersion",
    "Namespace",
    "Normalizer",
    "Prefix",
    "PromptVersion",
    "ReportFile",
    "Secret",
    "Tenant",
    "Url",
    "Yes",
]

PATIENCE = 5.0
"""Seconds for one answer of the server: nobody's request waits for a verb."""

NOT_FROM_A_FILE = object()
"""Beside an option that only the command line may give: what is destroyed, written or shown, that nobody is
asked, what is imported, and where a provider's key is sent. The file may be that of a directory one is in by
chance."""

Url = Annotated[
    str | None,
    typer.Option(
        envvar="LLMCACHE_URL",
        help="The server. Default: the embedded server of this user.",
        show_default=False,
    ),
]
Namespace = Annotated[
    str, typer.Option(envvar="LLMCACHE_NAMESPACE", help="The namespace the application uses.")
]
AnyNamespace = Annotated[
    str | None,
    typer.Option(envvar="LLMCACHE_NAMESPACE", help="The namespace the application uses.", show_default=False),
]
Tenant = Annotated[
    str | None,
    typer.Option(
        envvar="LLMCACHE_TENANT",
        help="One of those who share the namespace: only this one's answers.",
        show_default=False,
    ),
]
Prefix = Annotated[
    str, typer.Option(envvar="LLMCACHE_PREFIX", help="What the cache's Redis keys begin with.")
]
Secret = Annotated[
    str | None,
    typer.Option(
        envvar="LLMCACHE_SECRET",
        help="The deployment's secret, if it has one: better by the environment.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ReportFile = Annotated[
    Path | None,
    typer.Option(help="Write a page of HTML, too: one file, without a network.", show_default=False),
    NOT_FROM_A_FILE,
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask."), NOT_FROM_A_FILE]

# What else is a part of a request's key.
Normalizer = Annotated[
    list[str] | None,
    typer.Option(help="A built-in normalizer of the application's, in their order; may be repeated."),
]
PromptVersion = Annotated[str | None, typer.Option(help="The application's.", show_default=False)]
DataVersion = Annotated[str | None, typer.Option(help="The application's.", show_default=False)]
ApiBase = Annotated[
    str | None,
    typer.Option(help="The provider's address, where it is not OpenAI's own.", show_default=False),
]
