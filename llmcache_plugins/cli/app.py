"""The command's verbs, by name. What a verb does is in its own module, which imports lazily what is heavy."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

try:
    import typer
except ImportError as error:
    raise ImportError('the command needs typer: pip install "llmcache-plugins[cli]"') from error

from llmcache_plugins.cli.bench import bench
from llmcache_plugins.cli.calibrate import calibrate
from llmcache_plugins.cli.clear import clear
from llmcache_plugins.cli.configuration import DEFAULT_FILE, find_file, read_defaults
from llmcache_plugins.cli.demo import demo
from llmcache_plugins.cli.doctor import doctor
from llmcache_plugins.cli.ending import with_a_sentence
from llmcache_plugins.cli.estimate import estimate
from llmcache_plugins.cli.explain import explain
from llmcache_plugins.cli.inspect import inspect
from llmcache_plugins.cli.invalidate import invalidate
from llmcache_plugins.cli.ls import ls
from llmcache_plugins.cli.paper import version
from llmcache_plugins.cli.stats import stats
from llmcache_plugins.cli.suggest import suggest
from llmcache_plugins.cli.warm import warm

__all__ = ["app"]

_VERBS: dict[str, Callable[..., None]] = {
    "bench": bench,
    "calibrate": calibrate,
    "clear": clear,
    "demo": demo,
    "doctor": doctor,
    "estimate": estimate,
    "explain": explain,
    "inspect": inspect,
    "invalidate": invalidate,
    "ls": ls,
    "stats": stats,
    "suggest": suggest,
    "warm": warm,
}
_WHERE_FROM = "What is not said here comes from the environment, then from a file: see llmcache --help."


def _flowing(text: str | None) -> str:
    """Return paragraphs without the line breaks that they have in a docstring."""
    paragraphs = (text or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


app = typer.Typer(
    name="llmcache",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _verb in _VERBS.items():
    app.command(_name, help=_flowing(_verb.__doc__), epilog=_WHERE_FROM)(_verb)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llmcache-plugins {version() or '(not installed: run from its sources)'}")
        raise typer.Exit


@app.callback()
def _top(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="LLMCACHE_CONFIG",
            help=f"A TOML file with options. Default: {DEFAULT_FILE} in this directory, if there is one.",
            show_default=False,
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Cache LLM calls on Redis: identical requests cost one provider call.

    Options come from the command line, then from the environment, then from the file: url, namespace, tenant,
    prefix and secret for all verbs, all others in a table with the name of the verb.

    Exit codes: 0 fine, 1 findings, 2 usage, 130 interrupted.
    """
    # What comes after the verb is nobody's yet, and not in the context.
    verb, last = sys.argv[-2:] if len(sys.argv) > 2 else ("", "")
    if verb == context.invoked_subcommand and last in context.help_option_names:
        return  # a verb's help is to be had whatever the file says, and says nothing of it
    with with_a_sentence("", as_json="--json" in sys.argv):
        if (file := find_file(config)) is not None:
            context.default_map = dict(read_defaults(file, _VERBS))
