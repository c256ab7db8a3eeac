"""`llmcache warm`: what it stores applications hit, what it is killed over it takes up, and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import openai
import pytest
from command import COMMAND, ROOT, environment

from llmcache_plugins import InferenceGateway, ResponseCache
from llmcache_plugins.cli.warm.sources import Source, format_of
from llmcache_plugins.providers import OpenAIProvider
from llmcache_plugins.testing.provider_server import Behaviour, content_filter, hanging, truncated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from servers import Server

    from llmcache_plugins.testing.provider_server import Call, ProviderServer
    from llmcache_plugins.warming import Line

    Warm = Callable[..., Awaitable[tuple[int, str, str]]]

MODEL = "gpt-4o-mini"


@pytest.fixture
def where(valkey: Server, stand_in: ProviderServer, namespace: str) -> tuple[str, ...]:
    return (
        *("--url", valkey.url, "--api-base", stand_in.base_url),
        *("--model", MODEL, "--namespace", namespace),
    )


@pytest.fixture
def warm(called: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> Warm:
    """Return what runs the verb in a thread: the provider needs the loop."""
    monkeypatch.setenv("OPENAI_API_KEY", "hush-hush")

    async def run(*arguments: object) -> tuple[int, str, str]:
        return await asyncio.to_thread(called, "warm", *map(str, arguments))

    return run


@contextlib.asynccontextmanager
async def process(*arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the verb in a process of its own, which does not outlive the block."""
    running = await asyncio.create_subprocess_exec(
        *(*COMMAND, "warm", *map(str, arguments)),
        env=environment(OPENAI_API_KEY="hush-hush"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await running.communicate()


def request(prompt: str) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}]}


def written(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    return path


async def hits(where: tuple[str, ...], *queries: dict[str, Any], **settings: Any) -> list[str]:
    """Return how an application's own gateway is answered."""
    given = dict(zip(where[::2], where[1::2], strict=True))
    async with (
        openai.AsyncOpenAI(base_url=given["--api-base"], api_key="another", max_retries=0) as client,
        ResponseCache.from_url(
            given["--url"], namespace=given["--namespace"], lookup_budget=5.0, **settings
        ) as cache,
    ):
        gateway = InferenceGateway(OpenAIProvider(client), cache)
        return [str((await gateway.resolve_detailed(query)).outcome) for query in queries]


# -- what it does ----------------------------------------------------------------------------------------


async def test_applications_hit_what_it_has_stored(
    warm: Warm, where: tuple[str, ...], stand_in: ProviderServer, tmp_path: Path
):
    whole = {**request("c"), "temperature": 0.5, "stream": True}
    file = written(tmp_path / "q.jsonl", "a", request("b"), whole, "a")
    code, out, err = await warm(file, *where)

    assert (code, err) == (0, "")
    assert "3 seeded, 0 skipped, 1 coalesced, 0 failed; 3 calls paid" in out
    assert "Answers are kept for 1 hour." in out
    assert await hits(where, request("a"), request("b"), whole) == ["hit"] * 3
    assert stand_in.calls == 3

    code, out, _ = await warm(file, *where, "--json")
    said = json.loads(out)
    assert (code, said["skipped"], said["seeded"], said["calls"]) == (0, 4, 0, 0)
    assert stand_in.calls == 3


async def test_the_settings_are_those_of_the_application(
    warm: Warm, where: tuple[str, ...], valkey: Server, stand_in: ProviderServer, tmp_path: Path
):
    file = written(tmp_path / "q.jsonl", "a")
    more = {
        "--tenant": "acme",
        "--secret": "s",
        "--prefix": "p",
        "--normalizer": "uuid",
        "--prompt-version": "v2",
        "--data-version": "7",
        "--tag": "doc:7",
        "--ttl": "120",
    }
    code, out, err = await warm(file, *where, *itertools.chain(*more.items()))

    assert (code, err) == (0, "")
    assert "kept for 2 minutes" in out
    settings = {
        "tenant": "acme",
        "secret": "s",
        "prefix": "p",
        "normalizers": ["uuid"],
        "prompt_version": "v2",
        "data_version": "7",
    }
    assert await hits(where, request("a"), **settings) == ["hit"]
    (key,) = valkey.command("KEYS", "p:*:resp:*")
    assert 0 < valkey.command("TTL", key) <= 120
    given = dict(zip(where[::2], where[1::2], strict=True))
    async with ResponseCache.from_url(given["--url"], namespace=given["--namespace"], **settings) as cache:
        await cache.invalidate(tags=["doc:7"])
    assert await hits(where, request("a"), **settings) == ["miss"]


async def test_a_policy_says_how_long(warm: Warm, where: tuple[str, ...], tmp_path: Path):
    _, out, _ = await warm(written(tmp_path / "q.jsonl", "a"), *where, "--policy", "batch")
    assert "kept for 30 days" in out


@pytest.mark.parametrize("api", ["responses", "embeddings"])
async def test_other_apis_are_warmed_too(
    warm: Warm, where: tuple[str, ...], stand_in: ProviderServer, tmp_path: Path, api: str
):
    code, out, _ = await warm(written(tmp_path / "q.jsonl", "a", {"input": "b"}), *where, "--api", api)

    assert (code, stand_in.calls) == (0, 2)
    assert {call.api for call in stand_in.received} == {api}
    assert "2 seeded" in out


async def test_it_reads_a_pipe_as_it_comes(where: tuple[str, ...], stand_in: ProviderServer):
    async with process("-", *where) as running:
        assert running.stdin
        running.stdin.write(b'"a"\n"b')
        await stand_in.called(1)
        running.stdin.write(b'"\n')
        await stand_in.called(2)
        running.stdin.close()
        out, err = await running.communicate()

    assert (running.returncode, err) == (0, b"")
    assert b"2 seeded" in out


async def test_the_documentation_shows_what_it_says(
    warm: Warm, where: tuple[str, ...], stand_in: ProviderServer
):
    page = (ROOT / "docs" / "warming.md").read_text("utf-8")
    would, did = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    questions = ROOT / "examples" / "questions.jsonl"
    assert f"llmcache warm {questions.relative_to(ROOT)} --dry-run" in page
    _, out, _ = await warm(questions, *where, "--dry-run")
    assert out == would
    _, out, _ = await warm(questions, *where)
    assert re.sub(r"[\d.]+ s\.", "1.0 s.", out) == re.sub(r"[\d.]+ s\.", "1.0 s.", did)


# -- its end ---------------------------------------------------------------------------------------------


async def test_killed_at_any_point_and_run_again_it_pays_only_for_what_was_under_way(
    where: tuple[str, ...], stand_in: ProviderServer, tmp_path: Path
):
    stand_in.median_seconds = 0.05
    prompts = [f"question {number}" for number in range(60)]
    file = written(tmp_path / "q.jsonl", *prompts, *prompts[:20])
    async with process(file, *where, "--concurrency", 6) as running:
        await stand_in.called(random.randint(1, 50))
        running.send_signal(signal.SIGKILL)
        await running.wait()
    # Being answered, or answered and not yet stored.
    under_way = 6
    async with process(file, *where, "--concurrency", 6, "--json") as running:
        out, err = await running.communicate()

    assert running.returncode == 0, err
    said = json.loads(out)
    assert said["failed"] == 0
    assert set(stand_in.calls_by_prompt) == set(prompts)
    assert max(stand_in.calls_by_prompt.values()) <= 2
    paid_twice = sum(calls == 2 for calls in stand_in.calls_by_prompt.values())
    assert paid_twice <= under_way
    assert await hits(where, *map(request, prompts)) == ["hit"] * 60
    assert stand_in.calls == 60 + paid_twice


async def test_two_processes_at_once_pay_once(
    where: tuple[str, ...], stand_in: ProviderServer, tmp_path: Path
):
    stand_in.median_seconds = 0.05
    file = written(tmp_path / "q.jsonl", *(f"question {number}" for number in range(40)))
    async with process(file, *where) as one, process(file, *where) as other:
        await asyncio.gather(one.communicate(), other.communicate())

    assert (one.returncode, other.returncode) == (0, 0)
    assert len(stand_in.calls_by_prompt) == 40
    assert set(stand_in.calls_by_prompt.values()) == {1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_it_says_what_was_done_and_leaves_no_lease(
    where: tuple[str, ...], valkey: Server, stand_in: ProviderServer, tmp_path: Path, number: int
):
    stand_in.behave(lambda call: None if call.serial <= 3 else hanging())
    file = written(tmp_path / "q.jsonl", *(f"question {number}" for number in range(40)))
    async with process(file, *where, "--concurrency", 2, "--json") as running:
        await stand_in.called(5)
        running.send_signal(number)
        out, err = await running.communicate()

    assert running.returncode == 130
    assert err == b"llmcache warm: interrupted; run it again for the rest\n"
    said = json.loads(out)
    assert (said["seeded"], said["failed"], said["stopped"]) == (3, 0, "interrupted")
    assert not valkey.command("KEYS", "*:lease:*")
    await stand_in.idle()


async def test_a_budget_ends_it_with_1(
    warm: Warm, where: tuple[str, ...], stand_in: ProviderServer, tmp_path: Path
):
    file = written(tmp_path / "q.jsonl", *({**request(f"{i}"), "max_tokens": 400} for i in range(40)))
    prices = ("--price-in", "1", "--price-out", "2")
    code, out, _ = await warm(file, *where, "--budget", "0.01", *prices)

    assert (code, "Stopped by the budget" in out) == (1, True)
    assert 0 < stand_in.calls < 40
    assert (stand_in.input_tokens + 2 * stand_in.output_tokens) / 1e6 <= 0.01


async def test_a_budget_for_a_model_without_a_price_is_refused(
    warm: Warm, where: tuple[str, ...], stand_in: ProviderServer, tmp_path: Path
):
    file = written(tmp_path / "q.jsonl", "a")
    code, _, err = await warm(file, *where, "--model", "nobody-s-model", "--budget", "1")

    assert (code, stand_in.calls) == (2, 0)
    assert "'nobody-s-model' is not known" in err


async def test_a_refused_key_ends_it_with_2(
    warm: Warm, where: tuple[str, ...], stand_in: ProviderServer, tmp_path: Path
):
    stand_in.behave(lambda _call: Behaviour(status=401))
    file = written(tmp_path / "q.jsonl", *(f"question {number}" for number in range(100)))
    code, out, err = await warm(file, *where, "--concurrency", 2)

    assert code == 2
    assert "does not accept the credentials (401 AuthenticationError)" in err
    assert "hush-hush" not in out + err
    assert stand_in.calls <= 2


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
async def test_a_server_that_is_away_ends_it_with_2(
    warm: Warm, where: tuple[str, ...], stand_in: ProviderServer, tmp_path: Path, more: tuple[str, ...]
):
    file = written(tmp_path / "q.jsonl", "a")
    code, out, err = await warm(file, *where, "--url", "redis://:hush@127.0.0.1:1", *more)

    assert (code, out, stand_in.calls) == (2, "", 0)
    assert "did not answer" in err
    assert "hush" not in err


async def test_a_dry_run_asks_nobody(
    warm: Warm, where: tuple[str, ...], stand_in: ProviderServer, tmp_path: Path
):
    file = written(tmp_path / "q.jsonl", "a", "b")
    await warm(file, *where)
    asked = stand_in.calls
    file = written(tmp_path / "q.jsonl", "a", "b", "c", "c", {**request("d"), "max_tokens": 100}, 7)
    prices = ("--price-in", "1", "--price-out", "2")
    code, out, err = await warm(file, *where, "--dry-run", "--json", *prices)

    assert (code, err, stand_in.calls) == (1, "", asked)
    said = json.loads(out)
    assert (said["calls"], said["fresh"], said["duplicates"], said["failed"]) == (2, 2, 1, 1)
    assert said["cost"] == pytest.approx((said["input_tokens"] + 2 * said["output_tokens"]) / 1e6)
    code, out, _ = await warm(file, *where, "--model", "nobody-s-model", "--dry-run")
    assert "calls of unknown price" in out


# -- what is wrong with lines ----------------------------------------------------------------------------


async def test_what_is_wrong_with_a_line_is_said_of_that_line(
    warm: Warm, where: tuple[str, ...], stand_in: ProviderServer, tmp_path: Path
):
    def script(call: Call) -> Behaviour | None:
        return {"cut": truncated(), "refused": content_filter()}.get(call.prompt)

    stand_in.behave(script)
    lines = [
        b'\xef\xbb\xbf"first"',
        b'{"messages": [SECRET',
        b"",
        b'"\xff SECRET"',
        b'{"prompt": "SECRET"}',
        b"7",
        b'"cut"',
        b'"refused"',
        b"[" * 100_000,
        '"line \u2028 separator"'.encode(),
    ]
    file = tmp_path / "q.jsonl"
    file.write_bytes(b"\r\n".join(lines))
    code, out, err = await warm(file, *where)

    assert (code, err) == (1, "")
    for said in (
        "2 seeded, 0 skipped, 0 coalesced, 7 failed; 3 calls paid",
        "not JSON (line 2)",
        "not UTF-8 text (line 4)",
        "not a request: it has no 'messages' (line 5)",
        "not a request: write an object, or a prompt as a string (line 6)",
        "not stored: truncated (line 7)",
        "400 BadRequestError (line 8)",
        "not JSON (too deep) (line 9)",
    ):
        assert said in out
    assert "SECRET" not in out


async def test_lines_without_a_model_say_so(
    warm: Warm, where: tuple[str, ...], stand_in: ProviderServer, tmp_path: Path
):
    at = where.index("--model")
    code, out, _ = await warm(written(tmp_path / "q.jsonl", "a", request("b")), *where[:at], *where[at + 2 :])
    assert (code, stand_in.calls) == (1, 1)
    assert "it names no model: say --model NAME (line 1)" in out


async def test_a_csv_file_has_prompts(
    warm: Warm, where: tuple[str, ...], stand_in: ProviderServer, tmp_path: Path
):
    file = tmp_path / "Q.CSV"
    file.write_text(
        'id,Prompt,system,model\n1,plain,,\n2,"two\nlines, and ""quotes""",Be brief.,gpt-4o\n3,,,\n4,last,,\n'
    )
    code, out, _ = await warm(file, *where, "--concurrency", 1)

    assert code == 1
    assert "3 seeded" in out
    assert "an empty prompt (line 5)" in out
    assert [call.request["messages"] for call in stand_in.received] == [
        [{"role": "user", "content": "plain"}],
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": 'two\nlines, and "quotes"'},
        ],
        [{"role": "user", "content": "last"}],
    ]
    assert stand_in.calls_by_model == {MODEL: 2, "gpt-4o": 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no-such-file.jsonl",), "no-such-file.jsonl: No such file or directory"),
        (("{csv}",), "names no column `prompt`"),
        (("{csv}", "--format", "xml"), "--format is jsonl or csv"),
        (("{csv}", "--api", "responses"), "CSV file has prompts of chats"),
        (("{csv}", "--api", "completions"), "--api is one of"),
        (("{csv}", "--price-in", "1"), "--price-in and --price-out"),
        (("{csv}", "--policy", "fast"), "a scenario is one of"),
        (("{csv}", "--normalizer", "nothing"), "nothing"),
    ],
)
async def test_what_cannot_be_done_is_said_in_a_sentence(
    warm: Warm,
    where: tuple[str, ...],
    stand_in: ProviderServer,
    tmp_path: Path,
    arguments: tuple[str, ...],
    said: str,
):
    file = tmp_path / "q.csv"
    file.write_text("id,question\n1,a\n")
    code, out, err = await warm(*(argument.format(csv=file) for argument in arguments), *where)

    assert (code, out, stand_in.calls) == (2, "", 0)
    assert said in err
    assert len(err.splitlines()) == 1


async def test_a_key_is_asked_for(warm: Warm, where: tuple[str, ...], tmp_path: Path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    code, _, err = await warm(written(tmp_path / "q.jsonl", "a"), *where)
    assert code == 2
    assert "set OPENAI_API_KEY" in err


# -- reading ---------------------------------------------------------------------------------------------


async def read(path: Path) -> tuple[list[Line], Source]:
    source = Source(str(path), format_of(path.name, None), build=lambda said: {"said": said})
    return [line async for line in source], source


async def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("llmcache_plugins.cli.warm.sources._LONGEST", 1000)
    monkeypatch.setattr("llmcache_plugins.cli.warm.sources._PIECE", 64)
    file = tmp_path / "q.jsonl"
    file.write_text(f'"a"\n"{"x" * 5000}"\n"b"\n{"y" * 3000}')
    lines, _ = await read(file)

    assert [(line.position, line.query, bool(line.error)) for line in lines] == [
        (1, {"said": "a"}, False),
        (2, None, True),
        (3, {"said": "b"}, False),
        (4, None, True),
    ]


async def test_how_many_lines_there_are_is_known_soon(tmp_path: Path):
    file = written(tmp_path / "q.jsonl", *(f"question {number:05}" for number in range(10_000)))
    source = Source(str(file), "jsonl", build=lambda said: {"said": said})
    async with contextlib.aclosing(aiter(source)) as lines:
        async for line in lines:
            if line.position == 50:
                break
    assert source.lines is not None
    assert abs(source.lines - 10_000) < 100


async def test_a_csv_row_that_never_ends_is_one_failure(tmp_path: Path):
    file = tmp_path / "q.csv"
    file.write_text('prompt\nfine\n"no end\nfine\n')
    lines, _ = await read(file)
    assert [(line.position, line.error) for line in lines] == [(2, ""), (3, "a quoted cell does not end")]


async def test_the_first_call_does_not_wait_for_the_whole_file(
    where: tuple[str, ...], stand_in: ProviderServer, tmp_path: Path
):
    stand_in.behave(lambda _call: hanging())
    file = tmp_path / "q.jsonl"
    with file.open("w") as lines:
        lines.writelines(f'"question {number}"\n' for number in range(200_000))
    began = time.monotonic()
    async with process(file, *where):
        await stand_in.called(8)
    assert time.monotonic() - began < 10
