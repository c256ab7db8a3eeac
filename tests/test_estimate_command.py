"""`llmcache estimate`: from a log to the money, the line of configuration, a page; and no network."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import colours_of, look_at
from command import COMMAND, ROOT, environment

from llmcache_plugins import CachePolicy, ResponseCache, SemanticCacheLayer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Called = Callable[..., tuple[int, str, str]]

PRICE = ("--price", "big=10,20")


def line(text: str, at: float, **more: Any) -> dict[str, Any]:
    request = {"model": "big", "messages": [{"role": "user", "content": text}]}
    usage = {"prompt_tokens": 100_000, "completion_tokens": 50_000}
    return {"timestamp": at, "request": request, "latency": 2.0, "usage": usage} | more


def write(path: Path, lines: Iterable[Any]) -> str:
    said = (one if isinstance(one, str) else json.dumps(one) for one in lines)
    path.write_text("".join(f"{one}\n" for one in said), "utf-8")
    return str(path)


@pytest.fixture
def log(tmp_path: Path) -> str:
    """Return a log: of ten calls four are exact hits, two normalized ones, one overlaps another."""
    begin = 1_795_000_000.0
    lines = [line("hello, swordfish", begin + at) for at in (0, 10, 20, 30, 40)]
    lines += [line(f"opensesame {uuid.uuid4()}", begin + at) for at in (1, 11, 21)]
    lines += [line("at once", begin + at) for at in (50, 51)]
    return write(tmp_path / "log.jsonl", lines)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbid all that leads to another machine, and to this one."""

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("the network was used")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_people_read_the_money_first(called: Called, log: str):
    code, out, err = called("estimate", log, *PRICE)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == "A cache as recommended below would have saved $14.00 of $20.00 (70%): 7 of 10 calls."
    assert lines[1].startswith("1,050,000 tokens would not have been bought again: 700,000 in, 350,000 out.")
    rows = {row.split("  ")[0]: row.split() for row in lines}
    assert rows["exact match"][2:4] == ["$8.00", "4"]
    assert rows["+ normalized keys"][3:5] == ["$4.00", "2"]
    assert rows["+ single-flight"][2:4] == ["$2.00", "1"]
    assert rows["in total"][2:4] == ["$14.00", "7"]
    assert rows["uuid"] == ["uuid", "3", "3", "2"]
    assert 'ResponseCache.from_url(url, policy="chat", normalizers=["uuid"])' in out
    assert "swordfish" not in out
    assert "opensesame" not in out


@pytest.mark.usefixtures("no_network")
def test_programs_read_json_and_nothing_else(called: Called, log: str):
    code, out, err = called("estimate", log, "--json", *PRICE)
    said = json.loads(out)
    assert (code, err) == (0, "")
    assert said["avoided"] == {
        "calls": 7,
        "input_tokens": 700_000,
        "output_tokens": 350_000,
        "total_tokens": 1_050_000,
        "cost": 14.0,
        "unpriced": 0,
        "unmetered": 0,
    }
    assert [(one["name"], one["added"]["calls"]) for one in said["mechanisms"]] == [
        ("exact", 4),
        ("normalized", 2),
        ("single_flight", 1),
    ]
    assert said["normalizers"] == [{"rule": "uuid", "tokens": 3, "calls": 3, "wins": 2}]
    assert [one["name"] for one in said["scenarios"]] == ["realtime", "chat", "static_faq", "batch"]
    assert said["recommended"]["scenario"] == "chat"
    assert said["semantic"] is None
    assert (said["log"]["lines"], said["log"]["calls"], said["log"]["bad_lines"]) == (10, 10, 0)
    assert "swordfish" not in out


@pytest.mark.parametrize("gap", [1.0, 100.0, 40_000.0, 800_000.0])
def test_the_line_of_configuration_is_python_that_works(called: Called, tmp_path: Path, gap: float):
    texts = (f"hello {uuid.uuid4()} {'at 2026-01-02T03:04:05Z' if n % 2 else ''}" for n in range(60))
    log = write(tmp_path / "log.jsonl", (line(text, gap * n) for n, text in enumerate(texts)))
    found = json.loads(called("estimate", log, "--json")[1])["recommended"]
    names = {"ResponseCache": ResponseCache, "SemanticCacheLayer": SemanticCacheLayer, "url": "redis://x"}
    cache = eval(found["line"], names)
    assert cache.config.normalizers[0] == "uuid"
    assert f'policy="{found["scenario"]}"' in found["line"]
    assert CachePolicy.scenario(found["scenario"]).ttl > gap


def test_a_model_without_a_price_has_an_unknown_cost(called: Called, log: str):
    code, out, _ = called("estimate", log)
    assert code == 0
    assert "7 of 10 calls; what they cost is not known." in out
    assert "The price of 10 calls is not known" in out
    assert "--price MODEL=IN,OUT, for big" in out
    assert json.loads(called("estimate", log, "--json")[1])["avoided"]["cost"] is None


def test_a_log_may_be_compressed_or_come_by_a_pipe(called: Called, tmp_path: Path, log: str):
    content = (tmp_path / "log.jsonl").read_bytes()
    packed = tmp_path / "log.jsonl.gz"
    packed.write_bytes(gzip.compress(content))
    expected = json.loads(called("estimate", log, "--json")[1])["avoided"]
    assert json.loads(called("estimate", str(packed), "--json")[1])["avoided"] == expected
    for piped in (content, gzip.compress(content)):
        done = subprocess.run(
            [*COMMAND, "estimate", "-", "--json"],
            input=piped,
            env=environment(),
            capture_output=True,
            check=True,
        )
        assert json.loads(done.stdout)["avoided"] == expected
        assert done.stderr == b""


def test_columns_are_mapped_and_guesses_are_said(called: Called, tmp_path: Path):
    lines = [
        {"created_at": 1_795_000_000_000 + 5000 * n, "payload": {"body": {"model": "m", "prompt": "hi"}}}
        for n in range(3)
    ]
    log = write(tmp_path / "log.jsonl", lines)
    code, out, _ = called("estimate", log, "--map", "timestamp=created_at", "--map", "request=payload.body")
    assert code == 0
    assert "2 of 3 calls" in out
    assert "Guessed in 3 lines: times are milliseconds." in out
    assert "How long 3 calls took is not said: taken as 1 s (--latency)." in out
    assert "The tokens of 3 calls are not known" in out


def test_a_bad_line_is_named_and_many_are_a_finding(called: Called, tmp_path: Path):
    lines = [line("a", 5.0 * n) for n in range(30)]
    log = write(tmp_path / "few.jsonl", [*lines, '{"swordfish": '])
    code, out, _ = called("estimate", log)
    assert code == 0
    assert "1 line could not be read: line 31: not JSON." in out
    assert "swordfish" not in out
    log = write(tmp_path / "many.jsonl", [*lines, *["nothing"] * 5])
    code, out, _ = called("estimate", log, "--json")
    said = json.loads(out)
    assert code == 1
    assert (said["log"]["bad_lines"], said["log"]["bad"][0]) == (5, {"line": 31, "reason": "not JSON"})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no call in it"),
        (b"secret\nsecret\n", "no call in 2 lines; line 1: not JSON"),
        (b'{"request": {"prompt": "x"}, "error": "e"}\n', "no call that was paid for in 1 lines: failed"),
        (gzip.compress(b'{"prompt": "x"}\n' * 9999, mtime=0)[:40], "end too early"),
        (None, "No such file"),
    ],
)
def test_no_call_at_all_is_a_sentence(called: Called, tmp_path: Path, content: bytes | None, words: str):
    path = tmp_path / "log.jsonl"
    if content is not None:
        path.write_bytes(content)
    code, out, err = called("estimate", str(path))
    assert (code, out) == (2, "")
    assert re.search(words, err)
    assert "secret" not in err
    code, out, _ = called("estimate", str(path), "--json")
    assert (code, json.loads(out)["error"]["type"]) == (2, "CannotRun")


@pytest.mark.parametrize(
    "options",
    [
        ("--map", "timestamp"),
        ("--map", "when=created_at"),
        ("--price", "big"),
        ("--price", "big=1"),
        ("--price", "big=a,b"),
        ("--price", "big=-1,2"),
        ("--normalizer", "uid"),
        ("--ttl", "0"),
        ("--latency", "-1"),
        ("--semantic", "--target-error", "2"),
        ("--report", "/no/such/folder/x.html"),
    ],
)
def test_wrong_options_end_with_2_and_a_sentence(called: Called, log: str, options: tuple[str, ...]):
    code, _, err = called("estimate", log, *options)
    assert code == 2
    assert err.strip()
    assert "Traceback" not in err


def test_nothing_to_save_is_said(called: Called, tmp_path: Path):
    log = write(tmp_path / "log.jsonl", [line(str(n), n) for n in range(5)])
    code, out, _ = called("estimate", log)
    assert code == 0
    assert out.startswith("A cache would have saved nothing of 5 calls: none came again.")
    said = json.loads(called("estimate", log, "--json")[1])
    assert said["recommended"] is None


def test_prompts_are_not_kept(tmp_path: Path):
    """What is kept of a line is some hundred bytes, whatever its prompt: here prompts are 200 MB together."""
    log = tmp_path / "log.jsonl"
    with log.open("w", encoding="utf-8") as file:
        for n in range(20_000):
            file.write(json.dumps(line(f"{n % 10_000} " + "x" * 10_000, float(n))) + "\n")
    if not Path("/proc/self/status").exists():
        pytest.skip("the most memory of a process alone is known on Linux only")
    # Not getrusage: what a process begins with there is what the one had that started it.
    code = (
        "import re, sys; from llmcache_plugins.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    status = open('/proc/self/status').read()\n"
        "    print(re.search(r'VmHWM:\\s+(\\d+)', status)[1], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "estimate", str(log), "--json"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    kilobytes = int(done.stderr.split()[-1])
    assert json.loads(done.stdout)["scenarios"][2]["avoided"]["calls"] == 10_000
    assert kilobytes < 150_000


# --- Equivalent questions -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_network")
def test_equivalent_questions_are_estimated_from_a_sample(called: Called, tmp_path: Path):
    same = (
        "How do I reset my password?",
        "Could you please tell me how I can reset my password",
        "How can I reset my password?",
        "How do I not reset my password?",
        "What is the capital of France?",
    )
    lines = [line(text, 10.0 * n) for n, text in enumerate(same)]
    # Too late for a TTL of an hour, and in another scope.
    lines += [line(same[0], 9_000.0), line(same[1], 9_010.0, request={"model": "small", "prompt": same[1]})]
    log = write(tmp_path / "log.jsonl", lines)
    code, out, err = called("estimate", log, "--json", "--semantic", *PRICE)
    found = json.loads(out)["semantic"]
    assert (code, err) == (0, "")
    assert found["is_estimate"]
    assert (found["texts"], found["calls"], found["fewer"], found["hits"]) == (6, 7, 2, 2)
    assert found["lowest"] < found["share"] < found["highest"]
    assert (found["added"]["calls"], found["added"]["cost"]) == (2, 4.0)
    assert found["target_error"] == 0.02
    assert found["threshold"] == SemanticCacheLayer(target_error=0.02).threshold
    out = called("estimate", log, "--semantic")[1]
    assert "an estimate from the first 6 different questions" in out
    assert "of 7 calls that nothing else avoids 2 more would not have reached the provider" in out
    assert "up to 2.0% would be wrong" in out


def test_an_answer_of_another_question_is_looked_for_each_time(called: Called, tmp_path: Path):
    """It is not stored for the question that got it: what is hit twice has not saved twice as much."""
    texts = ("How do I reset my password?", *["How can I reset my password?"] * 3)
    log = write(tmp_path / "log.jsonl", [line(text, 10.0 * n) for n, text in enumerate(texts)])
    found = json.loads(called("estimate", log, "--json", "--semantic", *PRICE)[1])["semantic"]
    assert (found["calls"], found["fewer"], found["hits"]) == (2, 1, 3)
    assert found["added"]["calls"] == 1


def test_without_the_extra_it_is_named():
    code = (
        "import sys; sys.modules['numpy'] = None; sys.argv = ['llmcache', 'estimate', '-', '--semantic']\n"
        "from llmcache_plugins.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        input="{}",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert 'pip install "llmcache-plugins[semantic]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_numpy_is_not_needed_for_anything_else(log: str):
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        f"sys.argv = ['llmcache', 'estimate', {log!r}, '--json']\n"
        "from llmcache_plugins.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, json.loads(done.stdout)["avoided"]["calls"]) == (0, 7)


# --- What is told of it -------------------------------------------------------------------------------------


def test_the_pages_show_what_it_says(called: Called, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    shown = 0
    for name in ("estimate", "cli"):
        page = (ROOT / "docs" / f"{name}.md").read_text("utf-8")
        blocks = re.findall(
            r"^    \$ llmcache (estimate examples/.*)\n((?:    .*\n|\n(?=    ))+)", page, re.MULTILINE
        )
        for command, told in blocks:
            code, out, _ = called(*shlex.split(command))
            said = _words(out)
            assert code == 0
            assert all(_words(part) in said for part in told.split("    ...\n"))
            shown += 1
    assert shown == 2


def _words(text: str) -> str:
    return " ".join(text.split())


def test_the_example_is_made_by_the_command_that_is_told():
    code = "import json, sys; from benchmarks.estimate import a_log\n"
    code += "sys.stdout.writelines(json.dumps(line) + '\\n' for line in a_log(200, days=1))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == (ROOT / "examples" / "requests.jsonl").read_text("utf-8")


def test_progress_is_shown_on_a_terminal_and_beside_the_json(log: str):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [*COMMAND, "estimate", log, "--json"],
            env=environment(TERM="xterm"),
            stdout=subprocess.PIPE,
            stderr=theirs,
            check=True,
        )
        shown = os.read(ours, 65_536)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"reading" in shown or b"reckoning" in shown
    assert json.loads(done.stdout)["avoided"]["calls"] == 7


# --- The page -----------------------------------------------------------------------------------------------


def test_the_report_is_one_page_with_the_numbers(called: Called, tmp_path: Path, log: str):
    report = tmp_path / "out.html"
    assert called("estimate", log, *PRICE, "--report", str(report))[0] == 0
    made = report.read_text("utf-8")
    for words in (
        "What a cache would have saved",
        "from log.jsonl",
        "$14.00",
        "7 of 10 calls",
        "1.1 M",
        "ResponseCache.from_url(url, policy=&quot;chat&quot;, normalizers=[&quot;uuid&quot;])",
        "still sent to the provider",
        "realtime, 15 seconds",
    ):
        assert words in made
    assert "swordfish" not in made
    assert str(tmp_path) not in made
    assert len(made) < 100_000


def test_a_browser_shows_the_report(called: Called, tmp_path: Path, log: str):
    report = tmp_path / "out.html"
    called("estimate", log, *PRICE, "--report", str(report))
    seen = look_at(report, tmp_path)
    assert seen.console == []
    assert seen.asked_for == []
    assert seen.dom.count("</svg>") == 3
    assert "$14.00" in seen.dom
    colours = colours_of(seen.screenshot)
    # A bar of each mechanism is drawn.
    for colour in ((0x2F, 0x9E, 0x63), (0xD9, 0x82, 0x2B), (0x8A, 0x63, 0xD2)):
        assert colours[colour] > 1_000
