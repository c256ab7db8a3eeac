"""The examples: they run as they are, and say what their comments say."""

from __future__ import annotations

import json
import sys
import tomllib
from collections import Counter

import pytest
from command import ROOT, run

from llmcache_plugins import CacheSignatureEngine
from llmcache_plugins.cli.demo.questions import load_questions
from llmcache_plugins.repository.embedded import EmbeddedServer

QUICKSTART = ROOT / "examples" / "quickstart.py"
QUESTIONS = ROOT / "examples" / "questions.jsonl"


@pytest.fixture
def cache_home(tmp_path):
    yield tmp_path
    EmbeddedServer(tmp_path / "llmcache" / "server").stop()


def test_the_quickstart_prints_what_its_comments_say(cache_home):
    source = QUICKSTART.read_text()

    first, again = (
        run(sys.executable, str(QUICKSTART), env={"XDG_CACHE_HOME": str(cache_home)}) for _ in "12"
    )

    assert (first.returncode, first.stderr) == (0, "")
    assert (again.returncode, again.stderr) == (0, "")
    assert f"# {first.stdout}" in source
    assert f"# Run again within an hour: {again.stdout}" in source
    assert first.stdout != again.stdout


def test_the_quickstart_is_under_15_lines_of_code():
    lines = [line for line in QUICKSTART.read_text().splitlines() if line and not line.startswith("#")]

    assert len(lines) < 15


def _digest(request):
    return CacheSignatureEngine().compute_signature(request, kind="openai.chat").digest


def test_the_questions_are_like_traffic():
    lines = QUESTIONS.read_text(encoding="utf-8").splitlines()
    asked = Counter(_digest(json.loads(line)) for line in lines)

    assert 110 <= len(lines) <= 130
    assert 0.35 <= 1 - len(asked) / len(lines) <= 0.45
    # A few questions are asked often, most of them once.
    assert asked.most_common(1)[0][1] >= 5
    assert sum(count == 1 for count in asked.values()) > len(asked) / 2


def test_some_questions_repeat_with_their_keys_in_another_order():
    lines = QUESTIONS.read_text(encoding="utf-8").splitlines()

    assert len(set(lines)) > len({_digest(json.loads(line)) for line in lines})


def test_the_questions_have_conversations_and_parameters():
    requests = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]

    assert sum(len(request["messages"]) > 2 for request in requests) >= 10
    assert sum("temperature" in request for request in requests) >= 5


def test_the_demo_finds_the_questions_and_the_wheel_holds_them():
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]

    assert packed["force-include"]["examples/questions.jsonl"] == "llmcache_plugins/cli/data/questions.jsonl"
    loaded = load_questions(None, parameters={"messages", "temperature", "max_tokens"})
    assert len(loaded) == len(QUESTIONS.read_text(encoding="utf-8").splitlines())
