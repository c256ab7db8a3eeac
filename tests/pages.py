"""The pages of the documentation as the tests read them: blocks of code, and what comments say of them.

Owns where pages are, what is a block, and the words that a page has for the tests. Runs nothing.

Before a block, in comments that no reader sees:

    <!-- setup: import litellm -->          runs before the block; may have several lines
    <!-- logs: part of a line -->           is said on stderr, where otherwise nothing may be
    <!-- output varies: reason -->          what it prints need not stand in its comments
    <!-- not executed: reason -->           nothing is run
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from textwrap import dedent
from typing import TYPE_CHECKING

from command import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORDS = ("setup", "logs", "output varies", "not executed")

_BLOCK = re.compile(
    r"(?P<before>(?:^ *<!--(?:(?!-->).)*-->\s*\n)*)"
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=indent)(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
_COMMENT = re.compile(rf"<!-- *({'|'.join(WORDS)}):?\s(.*?)\s*-->", re.DOTALL)
_INDENTED = re.compile(r"^\n((?: {4}.*\n+)+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block: `line` is that of its first line of code, `said` what the comments before it say."""

    page: str
    line: int
    language: str
    title: str
    """The name of a file, for a block that is one."""
    code: str
    said: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_program(self) -> bool:
        """Whether it runs alone, as a file. All others of a page share one namespace."""
        return "asyncio.run(" in self.code and not self.title

    @property
    def told(self) -> list[str]:
        """The lines of comments; what is printed must be among them, in its order."""
        return re.findall(r"^ *# (.*)$", self.code, re.MULTILINE)


def pages() -> tuple[Path, ...]:
    """Return every page of the site that somebody has written."""
    return tuple(sorted((ROOT / "docs").rglob("*.md")))


def documents() -> tuple[Path, ...]:
    """Return the pages, and what else is written for people."""
    return (*pages(), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md")


@cache
def text_of(page: Path) -> str:
    """Return what a page says."""
    return page.read_text("utf-8")


def name_of(page: Path) -> str:
    """Return what a page is called in the repository."""
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page in their order."""
    text = text_of(page)
    for found in _BLOCK.finditer(text):
        yield Block(
            page=name_of(page),
            line=text.count("\n", 0, found.start("code")) + 1,
            language=found["language"].split(" ")[0],
            title="".join(re.findall(r'title="([^"]+)"', found["language"])),
            code=dedent(found["code"]),
            said=dict(_COMMENT.findall(found["before"])),
        )


def prose_of(page: Path) -> str:
    """Return a page without its blocks and comments."""
    return re.sub(r"<!--.*?-->", "", _BLOCK.sub("", text_of(page)), flags=re.DOTALL)


def consoles_of(page: Path) -> Iterator[str]:
    """Yield what is shown of shells: blocks in `sh`, `console`, `text`, and those that are only indented."""
    for block in blocks_of(page):
        if block.language in ("sh", "console", "text"):
            yield block.code
    for found in _INDENTED.finditer(prose_of(page)):
        yield dedent(found[1])
