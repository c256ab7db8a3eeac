"""The documentation holds together: links lead somewhere, pages are in the menu, names in the reference.

`mkdocs build --strict` finds more, in an environment of its own; this finds the usual without it.
"""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from command import ROOT
from pages import documents, name_of, pages, prose_of, text_of

if TYPE_CHECKING:
    from pathlib import Path

DOCS = ROOT / "docs"
SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
REFERENCE = "".join(page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md")).splitlines()
PUBLIC = (
    "llmcache_plugins",
    "llmcache_plugins.adapters.langchain",
    "llmcache_plugins.adapters.litellm",
    "llmcache_plugins.adapters.litellm.embedder",
    "llmcache_plugins.estimate",
    "llmcache_plugins.providers",
    "llmcache_plugins.semantic",
    "llmcache_plugins.semantic.embedders",
    "llmcache_plugins.testing.provider_server",
)
"""Whoever imports from these may count on what he finds."""
EXAMPLES = {path for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".yaml")}
MADE = {"reference/command.md"}
"""Pages that docs/theme/hooks.py makes."""


def named(entry: Any) -> list[str]:
    """Return the pages of an entry of the navigation."""
    if isinstance(entry, str):
        return [entry]
    below = entry.values() if isinstance(entry, dict) else entry
    return [page for one in below for page in named(one)]


def links_of(page: Path) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)) if not re.match(r"[a-z]+:", link)]


def anchors_of(page: Path) -> set[str]:
    """Return what headings are called in links, on GitHub and by MkDocs."""
    titles = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    plain = [re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", title) for title in titles]
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", documents(), ids=name_of)
def test_every_link_leads_somewhere(page: Path):
    for link in links_of(page):
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        made = target.is_relative_to(DOCS) and target.relative_to(DOCS).as_posix() in MADE
        assert made or target.exists(), f"{page.name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors_of(target), f"{page.name}: {link}"


def test_every_page_is_in_the_navigation():
    entries = named(SETTINGS["nav"])
    for page in pages():
        place = page.relative_to(DOCS).as_posix()
        assert any(fnmatch(place, entry) for entry in entries), f"{place}: add a line to nav in mkdocs.yml"
    for entry in entries:
        assert "*" in entry or entry in MADE or (DOCS / entry).is_file(), entry


def test_nothing_is_loaded_from_elsewhere():
    assert SETTINGS["theme"]["font"] is False
    assert all((DOCS / file).is_file() for file in [*SETTINGS["extra_css"], *SETTINGS["extra"]["polyfills"]])
    assert not {"extra_javascript", "repo_url"} & SETTINGS.keys()
    for page in pages():
        assert not re.search(r"!\[[^]]*\]\(http|<(?:img|script|iframe|link)\b", prose_of(page)), page


def names_of(module: str) -> list[str]:
    """Return a module's `__all__` without importing it: some import a framework."""
    path = ROOT.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for statement in ast.parse(source.read_text("utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return ast.literal_eval(statement.value)
    raise AssertionError(module)


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module: str):
    for name in names_of(module):
        homes = (f"{module}.{name}", f"llmcache_plugins.{name}")
        assert any(f"::: {home}" in REFERENCE for home in homes), (
            f"add `::: {module}.{name}` to a page of docs/reference"
        )


def test_every_example_is_on_the_page_of_examples():
    linked = {(DOCS / link).resolve() for link in links_of(DOCS / "examples.md")}
    assert linked & EXAMPLES == EXAMPLES


def test_every_decision_is_numbered_as_its_file():
    for page in (DOCS / "decisions").glob("[0-9]*.md"):
        number, _, _ = page.name.partition("-")
        assert text_of(page).startswith(f"# {int(number)}. "), page.name
