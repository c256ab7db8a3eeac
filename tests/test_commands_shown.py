"""The commands that the documentation shows can be given: verbs, options, extras, groups, sessions exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import typer.main
from command import ROOT
from pages import blocks_of, consoles_of, documents, name_of, prose_of

from llmcache_plugins.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pages import Block

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = PROJECT["dependency-groups"]
SESSIONS = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE))
PLACEHOLDERS = {"...", "VERB", "="}
"""What stands for something else; such a command is no command."""


def commands_in(console: str) -> Iterator[list[str]]:
    """Yield the words of each command in what a shell is shown to be told.

    Where lines begin with `$` all others are what was said.
    """
    text = console.replace("\\\n", " ")
    lines = re.findall(r"^\$ (.*)$", text, re.MULTILINE) or text.splitlines()
    for line in lines:
        if re.match(r"(?:\S+=\S* )*\S*(?:llmcache|pip|nox|python3?|-m)\b", line):
            yield from _split(line)


def _split(line: str) -> Iterator[list[str]]:
    for part in re.split(r"&&|\||;", re.sub(r"\s# .*", "", line)):
        words = shlex.split(part)
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words.pop(0)
        if words:
            yield words


def shown_in(page: Path) -> Iterator[tuple[list[str], bool]]:
    """Yield the commands of a page, and whether they are only mentioned in a sentence."""
    for console in consoles_of(page):
        yield from ((words, False) for words in commands_in(console))
    for code in re.findall(r"`((?:llmcache|pip install|\.venv/bin/nox|nox) [^`]+)`", prose_of(page)):
        yield from ((words, True) for words in _split(code))


def parse(words: list[str], *, mentioned: bool = False, reads_file: bool = False) -> None:
    """Let the command read its words, and do nothing. Raises what it would complain of."""
    group = typer.main.get_command(app)
    for command in group.commands.values():
        command.callback = lambda **_: None
        for parameter in command.params:
            parameter.required &= not mentioned
    if not reads_file:
        group.callback = lambda **_: None
    assert not group.main(words, prog_name="llmcache", standalone_mode=False), words


def given(words: list[str]) -> list[str]:
    """Return the words after `llmcache` without the brackets around what may be left out."""
    return [bare for word in words if (bare := word.strip("[]"))]


SHOWN = [(name_of(page), *shown) for page in documents() for shown in shown_in(page)]


@pytest.mark.parametrize(
    ("words", "mentioned"),
    [pytest.param(words, mentioned, id=f"{page}: {' '.join(words)}") for page, words, mentioned in SHOWN],
)
def test_what_is_shown_can_be_said(words: list[str], mentioned: bool):
    program, *rest = words
    if PLACEHOLDERS & {*rest}:
        return
    if program.endswith("llmcache"):
        parse(given(rest), mentioned=mentioned)
    elif "llmcache_plugins.cli" in rest:
        parse(given(rest[rest.index("llmcache_plugins.cli") + 1 :]), mentioned=mentioned)
    elif program.endswith("nox"):
        assert rest[1] in SESSIONS
    elif "install" in rest:
        installs(rest)


def installs(words: list[str]) -> None:
    for word in words:
        for extra in re.findall(r"(?:llmcache-plugins|\.)\[([\w,]+)\]", word):
            assert set(extra.split(",")) <= EXTRAS.keys()
    for option, group in pairwise(words):
        assert option != "--group" or group in GROUPS


OPTIONS = [
    block
    for page in documents()
    for block in blocks_of(page)
    if block.language == "toml" and not {"project", "tool"} & tomllib.loads(block.code).keys()
]


@pytest.mark.parametrize("block", OPTIONS, ids=str)
def test_a_file_of_options_that_is_shown_is_taken(block: Block, tmp_path: Path):
    file = tmp_path / "llmcache.toml"
    file.write_text(block.code, "utf-8")
    parse(["--config", str(file), "ls"], reads_file=True)


def test_every_verb_has_its_section_on_the_page_of_the_command():
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for verb in typer.main.get_command(app).commands:
        assert f"\n## `{verb}`\n" in page, verb
        assert f"\n| [`{verb}`](#{verb}) |" in page, verb
