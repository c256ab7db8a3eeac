"""The Lua scripts: loaded from `lua/`, their headers checked at import, called by name.

A script says what it takes in two comment lines, `-- KEYS: ...` and `-- ARGV: ...`; the names become its
local variables, and a last name with a star takes all that is left. So a call cannot mix up positions,
and a header that drifts from the code fails when the script first runs, in any test.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["SCRIPTS", "Argument", "KeyNames", "Script"]

Argument = str | bytes | int | float


class KeyNames(Protocol):
    """Redis keys by what they are to a script; all of one slot, that of `root`."""

    @property
    def root(self) -> str:
        """What they begin with."""

    def __getitem__(self, what: str, /) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One Lua script and its parameters."""

    name: str
    source: str
    keys: tuple[str, ...]
    arguments: tuple[str, ...]
    variadic: str | None

    @property
    def sha(self) -> str:
        """The name the server knows it by."""
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def command(
        self, keys: KeyNames, arguments: Mapping[str, Argument], rest: Sequence[Argument] = ()
    ) -> tuple[Argument, ...]:
        """Return the EVALSHA command. Raises KeyError for a parameter that is missing."""
        if rest and self.variadic is None:
            raise TypeError(f"script {self.name} takes no further arguments")
        named = [arguments[name] for name in self.arguments]
        return ("EVALSHA", _SHAS[self.name], len(self.keys), *(keys[k] for k in self.keys), *named, *rest)


def _header(name: str, text: str, what: str) -> list[str]:
    found = re.search(rf"^-- {what}:(.*)$", text, re.MULTILINE)
    if found is None:
        raise ImportError(f"script {name} has no '-- {what}:' line")
    return found.group(1).split()


def _locals(names: Sequence[str], table: str) -> str:
    return "".join(f"local {name} = {table}[{i}]\n" for i, name in enumerate(names, start=1))


def _load(name: str, text: str, common: str) -> Script:
    keys, arguments = _header(name, text, "KEYS"), _header(name, text, "ARGV")
    variadic = arguments.pop()[:-1] if arguments and arguments[-1].endswith("*") else None
    bound = _locals(keys, "KEYS") + _locals(arguments, "ARGV")
    if variadic:
        bound += f"local {variadic} = rest({len(arguments) + 1})\n"
    return Script(
        name=name,
        source=f"{common}\n{bound}{text}",
        keys=tuple(keys),
        arguments=tuple(arguments),
        variadic=variadic,
    )


def _load_all() -> dict[str, Script]:
    texts = {
        file.name.removesuffix(".lua"): file.read_text(encoding="utf-8")
        for file in resources.files(__package__).joinpath("lua").iterdir()
        if file.name.endswith(".lua")
    }
    common = texts.pop("common")
    return {name: _load(name, text, common) for name, text in sorted(texts.items())}


SCRIPTS = _load_all()
_SHAS = {name: script.sha for name, script in SCRIPTS.items()}
