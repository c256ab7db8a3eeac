"""What docs/normalizers.md promises."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmcache_plugins.normalize import Normalizers
from llmcache_plugins.normalize.builtin import BUILTIN

if TYPE_CHECKING:
    from servers import Server

PAGE = (Path(__file__).parent.parent / "docs" / "normalizers.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| [^|]+ \| `([^`]+)` \| `([^`]+)` \|$", PAGE, re.MULTILINE)
EXAMPLES = re.findall(r"^```python\n(import .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_rule_has_its_row_and_its_line():
    assert tuple(rule for rule, *_ in ROWS) == BUILTIN
    assert all(f"- `{rule}`:" in PAGE for rule in BUILTIN)


@pytest.mark.parametrize(("rule", "written", "compared"), ROWS)
def test_the_examples_are_true(rule: str, written: str, compared: str):
    assert Normalizers([rule]).apply(written).text.replace("\ufdd0", f"<{rule}>") == compared


async def test_the_code_runs(valkey: Server):
    (code,) = EXAMPLES
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", code.replace("redis://localhost", valkey.tcp_url)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "'miss'>: 1" in done.stdout or "'miss': 1" in done.stdout
    assert "'hit'>: 1" in done.stdout or "'hit': 1" in done.stdout
