"""The file that options come from which neither the command line nor the environment gives.

Owns where the file lies, what may stand in it, and what is said of one that cannot be used: file and key,
never a value. Which of flag, environment and file counts is decided by typer, to which all this is a map of
defaults. Knows no verb: what a verb takes is read off its function.

    url = "redis://localhost"       # url, namespace, tenant, prefix, secret: for all verbs that take them
    namespace = "acme"

    [ls]                            # for one verb, by the names of its options
    most = 100
"""

from __future__ import annotations

import inspect
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import msgspec
import typer

from llmcache_plugins.cli.options import NOT_FROM_A_FILE
from llmcache_plugins.cli.support import CannotRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["DEFAULT_FILE", "SHARED", "find_file", "read_defaults"]

DEFAULT_FILE = "llmcache.toml"
"""Is read where it lies in the working directory."""
SHARED = ("url", "namespace", "tenant", "prefix", "secret")
"""What may stand outside of a table."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_PLACE = re.compile(r"at (line \d+, column \d+|end of document)")


def find_file(named: Path | None) -> Path | None:
    """Return the file to read: the one that is named, else the one of the working directory, if any."""
    if named is not None:
        return named
    usual = Path(DEFAULT_FILE)
    return usual if usual.exists() else None


def read_defaults(file: Path, verbs: Mapping[str, Callable[..., object]]) -> dict[str, dict[str, Any]]:
    """Return what a file says, for each verb by the names of its function's parameters.

    Raises `CannotRun`, naming file and key, for a file that cannot be read and for all that no verb takes.
    """
    tree = _load(file)
    takes = {verb: dict(_settings(function)) for verb, function in verbs.items()}
    defaults: dict[str, dict[str, Any]] = {verb: {} for verb in verbs}
    tables = {key: value for key, value in tree.items() if key in takes}
    for key, value in tree.items():
        if key in takes:
            continue
        if key not in SHARED:
            raise CannotRun(f"{file}: {_unknown(key, value)}")
        for verb, settings in takes.items():
            if key in settings:
                defaults[verb][settings[key].parameter] = settings[key].read(value, where=f"{file}: {key}")
    for verb, table in tables.items():
        if not isinstance(table, dict):
            raise CannotRun(f"{file}: {verb} is a verb; write a table, [{verb}], with its options")
        defaults[verb].update(_read_table(table, takes[verb], where=f"{file}: [{verb}]"))
    return defaults


def _load(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise CannotRun(f"{file}: cannot be read ({error.strerror or type(error).__name__})") from error
    except UnicodeDecodeError as error:
        raise CannotRun(f"{file}: not UTF-8 text; save it as UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        # Not the error's own words: they may quote the file.
        place = _PLACE.search(str(error))
        raise CannotRun(f"{file}: not TOML ({place[1] if place else 'nested too deep'})") from None


def _unknown(key: str, value: object) -> str:
    if not _NAME.fullmatch(key):
        # It may be a URL whose name was forgotten.
        return "there is a key that is the name of no option and of no verb"
    if isinstance(value, dict):
        return f"[{key}]: there is no such verb"
    return f"{key}: only {', '.join(SHARED)} may stand outside of a verb's table"


def _read_table(
    table: Mapping[str, object], settings: Mapping[str, _Setting], *, where: str
) -> Iterator[tuple[str, Any]]:
    seen = set()
    for spelled, value in table.items():
        key = spelled.replace("_", "-")
        if key not in settings:
            shown = spelled if _NAME.fullmatch(spelled) else "there is a key that"
            raise CannotRun(f"{where} {shown} is no option that a file may set")
        if key in seen:
            raise CannotRun(f"{where} {spelled} is there twice, spelled with - and with _")
        seen.add(key)
        yield settings[key].parameter, settings[key].read(value, where=f"{where} {spelled}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """What a verb takes by one name."""

    parameter: str
    kind: Any

    def read(self, value: object, *, where: str) -> Any:
        try:
            return msgspec.convert(value, self.kind)
        except msgspec.ValidationError as error:
            # It says what was expected, and the type of what is there.
            raise CannotRun(f"{where}: {str(error)[0].lower()}{str(error)[1:]}") from None


def _settings(function: Callable[..., object]) -> Iterator[tuple[str, _Setting]]:
    """Yield what a verb takes, by its name on the command line.

    An argument may stand in a file if it may stand in the environment: it is a setting then, not what the
    verb is to work on.
    """
    hints = get_type_hints(function, include_extras=True)
    for name in inspect.signature(function).parameters:
        kind, *notes = get_args(hints[name])
        spelled = next(note for note in notes if hasattr(note, "param_decls"))
        is_option = isinstance(spelled, type(typer.Option()))
        if NOT_FROM_A_FILE in notes or not (is_option or spelled.envvar):
            continue
        yield _name_of(spelled.param_decls, name), _Setting(parameter=name, kind=_kind(kind, spelled))


def _name_of(declared: tuple[str, ...] | None, parameter: str) -> str:
    names = [name[2:] for name in declared or () if name.startswith("--")]
    return (names or [parameter])[0].replace("_", "-")


def _kind(kind: Any, spelled: Any) -> Any:
    kinds = [str if one is Path else one for one in get_args(kind) or (kind,) if one is not type(None)]
    # A list is a list of text.
    only = list[str] if kind == list[str] or list[str] in kinds else kinds[0]
    if only in (int, float) and (spelled.min is not None or spelled.max is not None):
        return Annotated[only, msgspec.Meta(ge=spelled.min, le=spelled.max)]
    return only
