"""`llmcache calibrate`: pairs in, a threshold out; what cannot be read is named and never quoted."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from command import COMMAND, ROOT, environment, run

from llmcache_plugins.semantic.calibration import Calibration
from llmcache_plugins.semantic.guards import Guard
from llmcache_plugins.semantic.layer import THRESHOLD

if TYPE_CHECKING:
    from pathlib import Path

TOY = '''
import numpy as np

class Toy:
    """Texts are near that end with the same digit; "at 0.9" asks for this cosine to the first of all."""
    name, dim, max_tokens = "toy", 2, 100
    async def embed(self, texts):
        angles = [np.arccos(float(text.split("at ")[1])) if "at " in text else 0.0 for text in texts]
        return np.array([[np.cos(a), np.sin(a)] for a in angles], np.float32)

class Broken(Toy):
    async def embed(self, texts):
        raise RuntimeError("swordfish")

ready = Toy()
number = 7
def failing():
    raise RuntimeError("no key")
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "toy_embedder.py").write_text(TOY, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def pair(cosine: float, same: bool, **more: Any) -> dict[str, Any]:
    return {"a": "to be asked", "b": f"otherwise at {cosine}", "same": same, **more}


def write(folder: Path, *lines: Any) -> str:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return str(path)


TOYS = ("--embedder", "toy_embedder:Toy", "--no-guards")


def test_the_threshold_is_said_with_its_proof(called, folder: Path):
    file = write(folder, *[pair(0.95, True)] * 400, *[pair(0.8, False)] * 100, *[pair(0.5, True)] * 100)
    code, out, err = called("calibrate", file, *TOYS)
    assert (code, err) == (0, "")
    assert "600 pairs, 500 with one answer; toy, no guards." in out
    assert "similarity_threshold=0.8025 keeps false hits at or below 1.00%: 0 of 400" in out
    assert "proves at most 0.75% (95 % confidence). It wins 80.0%" in out
    assert "█" in out or "#" in out
    assert "otherwise" not in out


def test_the_same_as_json_and_nothing_else(called, folder: Path):
    lines = ['{"a": secret', *[pair(0.95, True)] * 400, *[pair(0.799, False)] * 100]
    code, out, _ = called("calibrate", write(folder, *lines), *TOYS, "--json", "--target-error", "0.3")
    said = json.loads(out)
    assert code == 0
    assert (said["embedder"], said["guards"], said["pairs"], said["same"]) == ("toy", [], 500, 400)
    assert (said["target_error"], said["threshold"]) == (0.3, 0.7975)
    assert said["bad_lines"] == [{"line": 1, "reason": "not JSON (column 7)"}]
    last = said["thresholds"][-1]
    assert (last["threshold"], last["right"], last["precision"]["value"]) == (1.0, 0, None)
    row = next(row for row in said["thresholds"] if row["threshold"] == 0.9)
    assert (row["right"], row["wrong"], row["recall"]["value"], row["error"]["value"]) == (400, 0, 1.0, 0.0)
    assert row["error_at_most"] == pytest.approx(1 - 0.05 ** (1 / 400), abs=1e-6)


def test_it_says_when_no_threshold_is_proved(called, folder: Path):
    code, out, _ = called("calibrate", write(folder, *[pair(0.95, True)] * 50), *TOYS)
    assert code == 1
    assert "No threshold is sure to keep false hits at or below 1.00%" in out
    assert "299 served pairs would do" in out


def test_feedback_is_a_label(called, folder: Path):
    log = [{"a": "x", "b": "y at 0.9", "ok": number != 0, "when": 1} for number in range(4)]
    _, out, _ = called("calibrate", write(folder, *log), *TOYS, "--json")
    assert (json.loads(out)["pairs"], json.loads(out)["same"]) == (4, 3)


def test_bad_lines_are_counted_and_named_and_cost_nothing_else(called, folder: Path):
    bad = [
        "nonsense swordfish",
        "[1]",
        {"a": "x", "same": True},
        {"a": "x", "b": " ", "same": True},
        {"a": "x", "b": "y"},
        {"a": "x", "b": "y", "same": "swordfish"},
        {"a": 7, "b": "y", "ok": True},
    ]
    file = write(folder, "", *bad, pair(0.9, True))
    with open(file, "ab") as raw:
        raw.write(b"\n\xff\n")
    code, out, err = called("calibrate", file, *TOYS)
    assert (code, err) == (1, "")
    assert "1 pairs" in out
    assert "8 lines were passed over:" in out
    for words in ("line 2: not JSON (column 1)", "line 3: not an object", "line 10: not UTF-8"):
        assert words in out
    assert "line 4: its 'b' is no text" in out
    assert "line 7: neither 'same' nor 'ok' is true or false" in out
    assert "swordfish" not in out


def test_the_table_is_saved_and_can_be_read(called, folder: Path):
    file = write(folder, *[pair(0.95, True)] * 3)
    called("calibrate", file, *TOYS, "--save", "table.json")
    saved = Calibration.load(folder / "table.json")
    assert (saved.embedder, saved.pairs, saved.guards) == ("toy", 3, ())
    code, _, err = called("calibrate", file, *TOYS, "--save", "missing/table.json")
    assert code == 2
    assert "cannot be written" in err


def test_guards_and_the_default_embedder_judge(called, folder: Path):
    """A near-miss that the vectors take for the same is not served; a paraphrase is."""
    lines = [
        {"a": "How do I fly from Paris to Rome?", "b": "How do I fly from Rome to Paris?", "same": False},
        {"a": "Is it legal to park here?", "b": "Is it not legal to park here?", "same": False},
        {"a": "How can I reset my password?", "b": "How do I reset my password?", "same": True},
        {"a": "What is a lease?", "b": "🍎" * 3, "same": False},
    ]
    file = write(folder, *lines)
    judged, plain = (
        json.loads(called("calibrate", file, "--json", *more)[1]) for more in ((), ("--no-guards",))
    )
    at = [next(row for row in said["thresholds"] if row["threshold"] >= 0.9) for said in (judged, plain)]
    assert [(row["right"], row["wrong"]) for row in at] == [(1, 0), (1, 2)]
    assert judged["guards"] == sorted(Guard)
    assert plain["embedder"].startswith("all-MiniLM-L6-v2")


def test_of_everyday_questions_many_paraphrases_hit_and_hardly_a_near_miss(called):
    """At the default threshold; the pairs are of two who had not seen the rules when they wrote them."""
    file = ROOT / "tests" / "data" / "questions.jsonl"
    rows = json.loads(called("calibrate", str(file), "--json")[1])["thresholds"]
    right, wrong = next((row["right"], row["wrong"]) for row in rows if row["threshold"] == THRESHOLD)
    assert right >= 0.43 * 500
    assert wrong <= 0.02 * right


def test_it_reads_stdin(folder: Path):
    done = subprocess.run(
        [*COMMAND, "calibrate", "-", "--json", *TOYS],
        input=json.dumps(pair(0.9, True)),
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr, json.loads(done.stdout)["pairs"]) == (1, "", 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--target-error", "0"), "share between 0 and 1"),
        (("--target-error", "nan"), "share between 0 and 1"),
        (("--embedder", "toy_embedder"), "MODULE:NAME"),
        (("--embedder", "no_such_module:x"), "ModuleNotFoundError"),
        (("--embedder", "toy_embedder:nothing"), "AttributeError"),
        (("--embedder", "toy_embedder:number"), "TypeError"),
        (("--embedder", "toy_embedder:failing"), "RuntimeError: no key"),
        (("--embedder", "builtins:dict"), "an embedder has name, dim, max_tokens"),
        (("--embedder", "toy_embedder:Broken", "--no-guards"), "toy raised RuntimeError"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_what_cannot_be_done_is_a_sentence(called, folder: Path, arguments: Any, words: str, as_json: bool):
    more = ("--json",) if as_json else ()
    code, out, err = called("calibrate", write(folder, pair(0.9, True)), *arguments, *more)
    assert code == 2
    assert words in err
    assert err.startswith("llmcache calibrate: ")
    assert "Traceback" not in err
    assert (json.loads(out)["error"]["message"] in err) if as_json else out == ""


@pytest.mark.parametrize(
    ("lines", "words"),
    [((), "no labelled pair"), (("{}",), "no labelled pair in 1 lines; line 1: its 'a' is no text")],
)
def test_a_file_without_pairs_is_said(called, folder: Path, lines: Any, words: str):
    code, _, err = called("calibrate", write(folder, *lines), *TOYS)
    assert (code, words in err) == (2, True)
    code, _, err = called("calibrate", str(folder / "none.jsonl"), *TOYS)
    assert (code, "No such file" in err) == (2, True)


def test_an_embedder_may_be_an_object(called, folder: Path):
    file = write(folder, pair(0.9, True))
    assert called("calibrate", file, "--embedder", "toy_embedder:ready", "--no-guards")[0] == 1


def test_a_folder_of_labelled_questions_becomes_pairs(called, folder: Path):
    """As the table that is shipped is made: of a stream, each new text with what would be served for it."""
    (folder / "some_pairs.jsonl").write_text(json.dumps({"a": "x", "b": "y", "same": True, "source": "z"}))
    stream = [
        ("How do I reset my password?", "reset"),
        ("Which planets have rings?", "rings"),
        ("How can I reset my password?", "reset"),
        ("How do I reset my password?", "reset"),
    ]
    rows = [json.dumps({"query": query, "label": label}) for query, label in stream]
    (folder / "a_stream.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    done = run(sys.executable, "-m", "benchmarks.semantic.pairs", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"a": "x", "b": "y", "same": True},
        {"a": "Which planets have rings?", "b": "How do I reset my password?", "same": False},
        {"a": "How can I reset my password?", "b": "How do I reset my password?", "same": True},
    ]
