"""What docs/normalizers.md promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmcache_plugins.normalize import Normalizers
from llmcache_plugins.normalize.builtin import BUILTIN

PAGE = (Path(__file__).parent.parent / "docs" / "normalizers.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| [^|]+ \| `([^`]+)` \| `([^`]+)` \|$", PAGE, re.MULTILINE)


def test_every_rule_has_its_row_and_its_line():
    assert tuple(rule for rule, *_ in ROWS) == BUILTIN
    assert all(f"- `{rule}`:" in PAGE for rule in BUILTIN)


@pytest.mark.parametrize(("rule", "written", "compared"), ROWS)
def test_the_examples_are_true(rule: str, written: str, compared: str):
    assert Normalizers([rule]).apply(written).text.replace("\ufdd0", f"<{rule}>") == compared
