"""What the site has beside the pages that somebody writes: the examples, the command's help, all decisions.

Owns the pages that are made, and where the links to what lies outside of docs/ lead on the site. In the pages
themselves links are those that are right in the repository.
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_log = logging.getLogger("mkdocs.hooks")

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
ELSEWHERE = re.compile(
    r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^\"'>\s]+"
)
"""What a browser would load from another host as it shows a page."""
SHOWN = (*sorted((ROOT / "examples").glob("*.[py]*")), ROOT / "compose.yaml")
"""What the site shows as it is: programs and configurations."""
COMMAND = "reference/command.md"
LANGUAGES = {".py": "python", ".yaml": "yaml"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let a pattern in the navigation stand for the files that it fits, in their order."""
    config.nav = list(_unfolded(config.nav or []))
    return config


def _unfolded(entries: list[Any]) -> Iterator[Any]:
    for entry in entries:
        if isinstance(entry, dict):
            yield {
                title: list(_unfolded(below)) if isinstance(below, list) else below
                for title, below in entry.items()
            }
        elif "*" in entry:
            yield from sorted(path.relative_to(DOCS).as_posix() for path in DOCS.glob(entry))
        else:
            yield entry


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that nobody writes."""
    for place, content in _made_pages():
        files.append(File.generated(config, place, content=content))
    return files


def _made_pages() -> Iterator[tuple[str, str]]:
    for path in SHOWN:
        yield (
            _place_of(path),
            f"# {path.name}\n\n````{LANGUAGES[path.suffix]}\n{path.read_text('utf-8')}````\n",
        )
    yield COMMAND, _command()


def _place_of(path: Path) -> str:
    # A second dot would not survive in a page's address.
    return f"examples/{path.name.replace('.', '-')}.md"


def _command() -> str:
    told = subprocess.run(
        [sys.executable, "-m", "typer", "llmcache_plugins.cli.app", "utils", "docs", "--name", "llmcache"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    # What typer says of all verbs it cuts short; each has its section below.
    return re.sub(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+", "", told)


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links out of docs/ to the page that shows the file; what none shows is only named."""
    here = DOCS / page.file.src_uri
    up = "../" * page.file.src_uri.count("/")

    def led(link: re.Match[str]) -> str:
        target = (here.parent / link["place"]).resolve()
        if target in SHOWN:
            return f"[{link['text']}]({up}{_place_of(target)})"
        outside = target.exists() and not target.is_relative_to(DOCS)
        return link["text"] if outside else link[0]

    return re.sub(r"\[(?P<text>[^]]*)\]\((?P<place>\.\./[^)#]+)\)", led, markdown)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Warn of what would be loaded from elsewhere: the site is to be read without a network."""
    for found in ELSEWHERE.findall(output):
        _log.warning("%s loads from elsewhere: %s", page.file.src_uri, found)
    return output
