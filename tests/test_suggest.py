"""`suggest`: what keeps requests apart is found, its figures are true, and nothing of a prompt is said."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from command import COMMAND, environment
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcache_plugins.signature import CacheSignatureEngine
from llmcache_plugins.suggest import Advice, suggest

if TYPE_CHECKING:
    from pathlib import Path


def chat(content: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def one_of(advice: Advice, rule: str) -> Any:
    return next(one for one in advice.rules if one.rule == rule)


def test_what_hits_as_it_is():
    advice = suggest([chat("a"), chat("b"), chat("a"), "a", chat("a", temperature=1)])
    assert (advice.requests, advice.hits, advice.hit_rate) == (5, 1, 0.2)
    assert advice.best == ()
    assert not advice.has_findings


def test_what_a_rule_would_win():
    advice = suggest(chat(f"what is a lease? {uuid.uuid4()}") for _ in range(10))
    assert advice.hits == 0
    assert dataclasses.asdict(one_of(advice, "uuid")) == {
        "rule": "uuid",
        "tokens": 10,
        "requests": 10,
        "hits": 9,
        "needed": 9,
    }
    assert advice.best == ("uuid",)
    assert advice.best_hit_rate == 0.9
    assert advice.volatile == ()


def test_rules_that_win_only_together_are_found():
    advice = suggest(chat(f"{uuid.uuid4()} at 2024-01-02T03:04:{second:02}Z  hi") for second in range(10))
    assert [one_of(advice, rule).hits for rule in ("uuid", "timestamp")] == [0, 0]
    assert advice.best == ("uuid", "timestamp")  # and not `whitespace`, which is the same everywhere
    assert advice.best_hits == 9


def test_what_no_rule_covers_is_found_behind_what_they_cover():
    advice = suggest(chat(f"order {number} {uuid.uuid4()}?", seed=1) for number in range(100, 120))
    (one,) = advice.volatile
    assert (one.shape, one.path, one.requests, one.hits) == ("digits", "messages[0].content", 20, 19)
    assert advice.best == ("uuid",)
    assert advice.has_findings
    engine = CacheSignatureEngine(normalizers=[*advice.best, re.compile(one.pattern)])
    keys = {engine.compute_signature(chat(f"order {n} {uuid.uuid4()}?")).digest for n in (100, 119)}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("tokens", "shape", "has_pattern"),
    [
        (["12", "7777"], "digits", True),
        (["Anna", "Bob"], "name", False),
        (["a1", "b22"], "letters and digits", True),
        (["ORD-12", "ORD-7"], "compound", True),
        (["12.50", "7.25"], "compound", True),
    ],
)
def test_the_shape_of_what_differs(tokens: list[str], shape: str, has_pattern: bool):
    (one,) = suggest(chat(f"for {token} please") for token in tokens).volatile
    assert (one.shape, bool(one.pattern)) == (shape, has_pattern)
    assert all(re.fullmatch(one.pattern, token) for token in tokens) or not has_pattern


def test_a_name_that_is_said_twice_is_one_difference():
    (one,) = suggest(chat(f"I am {name}. Write as {name}!") for name in ("Anna", "Bob", "Cid")).volatile
    assert (one.shape, one.hits) == ("name", 2)


def test_what_differs_in_two_places_is_no_token():
    assert suggest([chat("1 and 3"), chat("2 and 4")]).volatile == ()
    assert suggest([chat("1"), chat("2", model="other")]).volatile == ()


def test_other_words_are_the_question():
    assert suggest([chat("red"), chat("blue"), chat("x-y"), chat("12")]).volatile == ()


def test_nothing_of_a_prompt_is_said():
    requests = [chat(f"hunter2 {uuid.uuid4()} {secret} is mine") for secret in ("swordfish", "opensesame")]
    said = repr(suggest(requests))
    assert not any(word in said for word in ("hunter2", "swordfish", "opensesame", "mine"))


def test_requests_without_a_canonical_form_are_counted_apart():
    advice = suggest([chat("a"), chat("a"), {"model": object()}])
    assert (advice.requests, advice.unreadable, advice.hits) == (2, 1, 1)


def test_nothing_is_a_sample_too():
    advice = suggest([])
    assert (advice.requests, advice.hit_rate, advice.best_hit_rate, advice.has_findings) == (0, 0, 0, False)


words = st.sampled_from(
    ["a", "b ", "1700000000 ", "1700000001 ", f"{uuid.UUID(int=1)} ", "\ufdd0", "x@y.de "]
)


@given(st.lists(st.lists(words, max_size=4).map("".join), max_size=12))
@settings(deadline=None, max_examples=100)
def test_its_figures_are_those_of_the_signature(prompts: list[str]):
    def hits(*rules: str) -> int:
        engine = CacheSignatureEngine(normalizers=rules)
        return len(prompts) - len({engine.compute_signature(prompt) for prompt in prompts})

    advice = suggest(prompts)
    assert advice.hits == hits()
    assert advice.best_hits == hits(*advice.best) == hits(*(one.rule for one in advice.rules))
    for one in advice.rules:
        assert one.hits == hits(one.rule)


def test_many_requests_take_time_in_proportion():
    """Ten thousand that all differ in one number: comparing each with each would take hours."""
    advice = suggest(chat(f"what about order {number}?") for number in range(10_000))
    assert advice.volatile[0].hits == 9_999


# --- The command --------------------------------------------------------------------------------------------


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "requests.jsonl"
    lines = [json.dumps(chat(f"hello {uuid.uuid4()}, order {number}")) for number in (1, 2, 2)]
    path.write_text("\n".join([*lines, "", json.dumps("a prompt")]), "utf-8")
    return path


def test_the_command_says_what_to_do(called, sample: Path):
    code, out, _ = called("suggest", str(sample))
    assert code == 1
    assert "4 requests; 0 (0.0%) hit as they are." in out
    assert "normalizers=['uuid'] would hit for 1 (25.0%)." in out
    assert "digits in messages[0].content" in out
    assert "hello" not in out


def test_the_command_says_it_as_json(called, sample: Path):
    code, out, _ = called("suggest", str(sample), "--json")
    said = json.loads(out)
    assert code == 1
    assert (said["requests"], said["hits"], said["best"], said["best_hit_rate"]) == (4, 0, ["uuid"], 0.25)


def test_nothing_to_win_is_fine(called, tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"model": "m", "prompt": "hi"}\n' * 2, "utf-8")
    code, out, _ = called("suggest", str(path))
    assert code == 0
    assert "1 (50.0%) hit" in out


def test_the_command_reads_stdin(sample: Path):
    command = [*COMMAND, "suggest", "-", "--json"]
    said = subprocess.run(
        command, input=sample.read_bytes(), env=environment(), capture_output=True, check=False
    )
    assert (said.returncode, json.loads(said.stdout)["requests"]) == (1, 4)


def test_a_byte_order_mark_is_no_part_of_the_first_line(called, tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf"a"\n"a"\n')
    assert json.loads(called("suggest", str(path), "--json")[1])["requests"] == 2


def test_without_a_standard_input_it_says_so():
    line = shlex.join([*COMMAND, "suggest", "-"]) + " <&-"
    said = subprocess.run(["sh", "-c", line], env=environment(), capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert "no standard input" in said.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'"a"\n\n{"secret": }\n', "line 3: not JSON (column"),
        (b'"a"\n7\n', "line 2: not a request"),
        (b'"a"\n\xff\n', "not UTF-8"),
        (b"", "no request"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(
    called, tmp_path: Path, content: bytes | None, words: str
):
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_bytes(content)
    code, out, err = called("suggest", str(path))
    assert (code, out) == (2, "")
    assert words in err
    assert str(path) in err
    assert "secret" not in err
