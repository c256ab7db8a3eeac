"""The command's verbs, by name. What a verb does is in its own module, which imports lazily what is heavy."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

try:
    import typer
except ImportError as error:
    raise ImportError('the command needs typer: pip install "llmcache-plugins[cli]"') from error

from llmcache_plugins.cli.calibrate import calibrate
from llmcache_plugins.cli.clear import clear
from llmcache_plugins.cli.demo import demo
from llmcache_plugins.cli.doctor import doctor
from llmcache_plugins.cli.explain import explain
from llmcache_plugins.cli.suggest import suggest
from llmcache_plugins.cli.warm import warm

__all__ = ["app"]

app = typer.Typer(
    name="llmcache",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("calibrate")(calibrate)
app.command("clear")(clear)
app.command("demo")(demo)
app.command("doctor")(doctor)
app.command("explain")(explain)
app.command("suggest")(suggest)
app.command("warm")(warm)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llmcache-plugins {_version()}")
        raise typer.Exit


def _version() -> str:
    try:
        return metadata.version("llmcache-plugins")
    except metadata.PackageNotFoundError:
        return "(not installed: run from its sources)"


@app.callback()
def _top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Cache LLM calls on Redis: identical requests cost one provider call.

    Exit codes: 0 fine, 1 findings, 2 usage.
    """
