"""The programs in the documentation run as they stand there, and print what their comments say."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest
from command import ROOT
from warm import Warm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import Server

PAGES = ("invalidation", "pitfalls", "policies", "semantic", "warming")
SCENARIOS = ("static_faq", "chat", "realtime", "batch")
PITFALLS = 7
"""Rows of the table, each with a program of its own."""


def programs_of(page: str) -> list[str]:
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


PROGRAMS = [(f"{page}-{number}", code) for page in PAGES for number, code in enumerate(programs_of(page))]


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with Warm(
        "redis.asyncio", "redis.asyncio.cluster", "hiredis", "msgspec", options=("-W", "error")
    ) as process:
        yield process


@pytest.mark.parametrize(("name", "code"), PROGRAMS, ids=[name for name, _ in PROGRAMS])
async def test_a_program_prints_what_its_comments_say(
    valkey: Server, tmp_path: Path, warm: Warm, name: str, code: str
):
    program = tmp_path / f"{name}.py"
    program.write_text(code.replace("redis://localhost", valkey.tcp_url), "utf-8")
    done = await asyncio.to_thread(warm.run, program, env={"XDG_CACHE_HOME": str(tmp_path)})
    told = re.findall(r"^ +# (.*)$", code, re.MULTILINE)
    printed = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert "no semantic layer is configured" in done.stderr if "chat" in code else not done.stderr
    assert printed
    assert [line for line in told if line in printed] == printed


def test_each_pitfall_and_each_scenario_has_a_program():
    pitfalls = (ROOT / "docs" / "pitfalls.md").read_text("utf-8")
    anchors = re.findall(r"^\| \[[^]]+\]\(#([a-z-]+)\)", pitfalls, re.MULTILINE)
    titles = re.findall(r"^## (.+)\n\n```python$", pitfalls, re.MULTILINE)
    assert [re.sub("[^a-z -]", "", title.lower()).replace(" ", "-") for title in titles] == anchors
    assert len(anchors) == PITFALLS
    policies = "".join(programs_of("policies"))
    assert all(f'"{scenario}"' in policies for scenario in SCENARIOS)
