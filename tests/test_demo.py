"""`llmcache demo`: real processes and real HTTP; its figures are held against the provider's own count."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import redis
from command import COMMAND, ROOT, environment, llmcache, run
from openai import AsyncOpenAI, OpenAIError
from stalls import longest_stall
from waiting import wait_until

from llmcache_plugins import InferenceGateway, Outcome, ResponseCache
from llmcache_plugins.cli.demo import figures, scenes
from llmcache_plugins.cli.demo.run import concurrency_for
from llmcache_plugins.cli.load.calls import Sample, directly, run_load, through
from llmcache_plugins.cli.load.questions import load_questions, read_questions
from llmcache_plugins.cli.load.stage import Api, new_cache
from llmcache_plugins.cli.support import CannotRun
from llmcache_plugins.models import Usage
from llmcache_plugins.prices import Price
from llmcache_plugins.providers import OpenAIProvider
from llmcache_plugins.repository.embedded import EmbeddedServer
from llmcache_plugins.testing.provider_server import Behaviour, ProviderServer, truncated

PARAMETERS = {"messages", "model", "temperature"}
STALL = 0.1
"""Seconds the event loop may be late; an iteration under this load takes 10 to 50 ms."""


def _body(text, **more):
    return {"messages": [{"role": "user", "content": text}], **more}


@pytest.fixture
def small(tmp_path):
    """Return a file of five requests, three of them different."""
    path = tmp_path / "small.jsonl"
    reordered = {"temperature": 0, "messages": [{"content": "one", "role": "user"}]}
    requests = [_body("one", temperature=0), _body("two"), reordered, _body("two"), _body("three")]
    path.write_text("\n\n".join(map(json.dumps, requests)) + "\n", encoding="utf-8")
    return path


def _parts(printed):
    return {part["name"]: part for part in printed["parts"]}


def _provider_calls(printed):
    """Return how many provider calls the printed figures add up to."""
    scenes_played = [*printed["langchain"], *printed["litellm"]]
    of_scenes = sum(sum(scene["provider_calls"].values()) for scene in scenes_played)
    return sum(part["counted_by_provider"] for part in printed["parts"]) + of_scenes


# --- What it shows ----------------------------------------------------------------------------------------


def test_the_shipped_demo_is_true_and_takes_no_longer_than_it_says():
    began = time.monotonic()
    done = llmcache("demo", "--json", "--price-in", "1000", "--price-out", "3000")
    elapsed = time.monotonic() - began

    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    parts = _parts(printed)
    # A minute where nothing else runs; here other tests may.
    assert elapsed < 100
    assert printed["seconds"] <= elapsed
    assert printed["findings"] == []
    assert printed["provider"]["stand_in"] is True
    assert "STAND-IN" in done.stderr
    assert list(parts) == ["no cache", "first pass", "second pass", "burst"]
    for part in parts.values():
        assert part["provider_calls"] == part["counted_by_provider"]
    questions = printed["questions"]
    assert parts["no cache"]["provider_calls"] == questions["requests"]
    assert parts["first pass"]["provider_calls"] == questions["distinct"] < questions["requests"]
    assert parts["second pass"]["provider_calls"] == 0
    assert parts["second pass"]["outcomes"] == {"hit": questions["requests"]}
    assert parts["second pass"]["hit_rate"] == 1
    assert parts["second pass"]["p99"] < parts["no cache"]["p50"]
    assert printed["burst"] == {"processes": 4, "callers": 200, "provider_calls": 1, "different_answers": 1}
    assert set(parts["burst"]["outcomes"]) <= {"miss", "coalesced", "hit"}
    _assert_that_savings_add_up(printed)
    langchain = {"chat replay": (6, 3), "agent": (4, 2), "stream": (10, 1), "burst": (50, 1)}
    _assert_that_applications_pay_once(printed["langchain"], langchain, theirs="in_memory_cache")
    litellm = {
        "chat replay": (6, 3),
        "embeddings": (4, 2),
        "router": (10, 1),
        "burst": (10, 1),
        "stream": (7, 1),
    }
    _assert_that_applications_pay_once(printed["litellm"], litellm, theirs="local_cache")


def _assert_that_applications_pay_once(played, expected, *, theirs):
    assert {one["name"]: (one["calls"], one["provider_calls"]["llmcache"]) for one in played} == expected
    for scene in played:
        counted = scene["provider_calls"]
        assert counted["llmcache"] <= counted[theirs] <= counted["no_cache"] == scene["calls"]
        # Lists of inputs LiteLLM's own cache does as well.
        assert counted["llmcache"] < counted[theirs] or scene["name"] == "embeddings"
    assert {scene["different_answers"] for scene in played} == {1}


def _assert_that_savings_add_up(printed):
    parts, saved = _parts(printed), printed["saved_in_passes"]
    for tokens in ("input_tokens", "output_tokens"):
        whole = parts["no cache"]["billed"][tokens]
        for name in ("first pass", "second pass"):
            assert parts[name]["billed"][tokens] + parts[name]["saved"][tokens] == whole
        assert saved[tokens] == sum(parts[name]["saved"][tokens] for name in ("first pass", "second pass"))
    questions = printed["questions"]
    assert saved["provider_calls"] == 2 * questions["requests"] - questions["distinct"]
    assert saved["dollars"] == pytest.approx(saved["input_tokens"] / 1e3 + saved["output_tokens"] * 3 / 1e3)
    assert saved["example_prices_per_million"] == {"input": 1000, "output": 3000}


def test_it_prints_a_table_and_leaves_the_user_s_redis_as_it_was(valkey, small):
    options = ("--median", "0.01", "--limit", "4")
    with redis.Redis.from_url(valkey.url) as client:
        client.set("theirs", "untouched", ex=100)
        done = llmcache("demo", small, *options, env={"LLMCACHE_URL": valkey.tcp_url})
        assert client.get("theirs") == b"untouched"
        assert [key for key in client.scan_iter() if b":resp:" in key] == []

    assert done.returncode == 0, done.stderr
    assert valkey.tcp_url in done.stdout
    assert "STAND-IN" in done.stdout
    for words in (
        "no cache",
        "first pass",
        "second pass",
        "burst",
        "p50",
        "p99",
        "counted by",
        "example prices",
        "LangChain with ChatOpenAI",
        "InMemoryCache",
        "chat of 3 turns",
        "agent with a tool",
        "stream, 5 at once",
        "question, 50 at once",
        "LiteLLM: provider calls",
        "LiteLLM's local cache",
        "embeddings of 2 lists",
        "Router, 10 at once",
    ):
        assert words in done.stdout
    assert "200 identical calls from 4 processes, 1 provider call," in done.stdout
    assert "4 questions, 2 of them different" in done.stdout
    assert "--limit takes 1 more" in done.stderr


@pytest.mark.parametrize(
    ("module", "name", "part", "other"),
    [
        ("langchain_openai", "LangChain", "langchain", "litellm"),
        ("litellm", "LiteLLM", "litellm", "langchain"),
    ],
)
def test_without_a_framework_it_says_in_a_line_what_to_install(small, module, name, part, other):
    arguments = ["llmcache", "demo", str(small), "--json", "--median", "0.01"]
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv = {arguments!r}\n"
        "if __name__ == '__main__':\n    from llmcache_plugins.cli import main; main()"
    )
    done = run(sys.executable, "-c", code)

    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed[part] is None
    assert printed[other]
    assert list(_parts(printed)) == ["no cache", "first pass", "second pass", "burst"]
    about = [line for line in done.stderr.splitlines() if f"{name} is" in line]
    assert about == [f'{name} is not installed; its part needs pip install "llmcache-plugins[demo]".']


# --- Real providers ---------------------------------------------------------------------------------------


def _llmcache_against(provider, *arguments, **env):
    # In a thread: the provider runs on this loop.
    options = ("--api-base", provider.base_url, "--model", "real-model", "--api-key-env", "THE_KEY")
    return asyncio.to_thread(llmcache, "demo", *arguments, *options, env={"THE_KEY": "sk-secret-1", **env})


async def test_a_real_provider_gets_the_key_and_as_many_calls_as_were_announced(small):
    async with ProviderServer() as provider:
        done = await _llmcache_against(provider, small, "--json")

        assert done.returncode == 0, done.stderr
        printed = json.loads(done.stdout)
        assert sum(part["counted_by_provider"] for part in printed["parts"]) == 5 + 3 + 1
        assert provider.calls == _provider_calls(printed) < 9 + 90 + 99
        assert set(provider.calls_by_model) == {"real-model"}
        assert {call.headers["Authorization"] for call in provider.received} == {"Bearer sk-secret-1"}
    assert printed["provider"] == {"description": provider.base_url, "stand_in": False}
    assert "STAND-IN" not in done.stderr
    announced = (
        "5 calls without the cache, at most 5 with it, 1 for the burst, at most 90 for LangChain,"
        " at most 99 for LiteLLM."
    )
    assert announced in done.stderr
    assert [scene["calls"] for scene in printed["langchain"]] == [6, 4, 10, 10]
    assert [scene["calls"] for scene in printed["litellm"]] == [6, 10, 10, 7]
    assert "sk-secret-1" not in done.stdout + done.stderr


async def test_answers_that_were_not_stored_are_findings(small):
    async with ProviderServer() as provider:
        provider.behave(lambda call: truncated() if call.prompt in ("three", scenes.TURNS[-1]) else None)
        done = await _llmcache_against(provider, small, "--json")

    assert done.returncode == 1, done.stderr
    printed = json.loads(done.stdout)
    assert printed["findings"] == [
        "second pass: 1 provider calls where 0 were expected (4 hit, 1 miss).",
        "LangChain, chat replay: 4 provider calls where 3 were expected.",
        "LiteLLM, chat replay: 4 provider calls where 3 were expected.",
        "6 answers were not stored: truncated.",
    ]


async def test_a_refusal_in_langchain_s_part_is_the_sdk_s_error(valkey, namespace):
    from llmcache_plugins.cli.demo.langchain import run_langchain

    async with ProviderServer() as provider, new_cache(valkey.url, namespace=namespace) as cache:
        refusal = Behaviour(status=401, error_code="invalid_api_key")
        provider.behave(lambda call: refusal if call.prompt == scenes.BURST_QUESTION else None)
        api = Api(base_url=provider.base_url, key="k", is_stand_in=False)
        with pytest.raises(OpenAIError):
            await run_langchain(api, model="m", cache=cache, median_seconds=0, on_done=lambda _calls: None)


async def test_a_refusal_in_litellm_s_part_ends_the_demo_with_a_sentence(small):
    refusal = Behaviour(status=401, error_code="invalid_api_key")
    async with ProviderServer() as provider:
        provider.behave(lambda call: refusal if call.prompt == scenes.ROUTER_QUESTION else None)
        done = await _llmcache_against(provider, small, "--json")

    assert done.returncode == 2
    assert list(json.loads(done.stdout)) == ["error"]
    assert "the provider failed: AuthenticationError" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_provider_that_refuses_ends_the_demo_with_a_sentence(small):
    async with ProviderServer() as provider:
        provider.behave(lambda _call: Behaviour(status=401, error_code="invalid_api_key"))
        done = await _llmcache_against(provider, small, "--json")

    assert done.returncode == 2
    assert list(json.loads(done.stdout)) == ["error"]
    assert "the provider failed: AuthenticationError" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_server_that_is_away_costs_no_provider_call(small):
    async with ProviderServer() as provider:
        done = await _llmcache_against(provider, small, "--url", "redis://127.0.0.1:1")

        assert provider.calls == 0
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_a_missing_key_is_named(small):
    done = llmcache("demo", small, "--api-base", "http://127.0.0.1:9/v1", "--model", "m")

    assert done.returncode == 2
    assert "OPENAI_API_KEY" in done.stderr
    assert "--api-key-env" in done.stderr


# --- Files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{not json", "not JSON"),
        ('["a list"]', "not an object"),
        ('{"prompt": "old style"}', 'no "messages"'),
        ('{"messages": []}', 'no "messages"'),
        ('{"messages": "text"}', 'no "messages"'),
        ('{"messages": [{"role": "user", "content": "a"}], "top_k": 3}', '"extra_body"'),
    ],
)
def test_a_bad_line_is_named(line, says):
    lines = (json.dumps(_body("fine")), "\n", line)

    with pytest.raises(CannotRun) as caught:
        read_questions(lines, name="mine.jsonl", parameters=PARAMETERS)

    assert str(caught.value).startswith("mine.jsonl, line 3: ")
    assert says in str(caught.value)


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path):
    body, path = _body("one\u2028two"), tmp_path / "questions.jsonl"
    path.write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")

    assert load_questions(path, parameters=PARAMETERS) == [body]


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file"), (b"\n", "no requests"), (b"\xff{}\n", "UTF-8")]
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, content, says):
    path = tmp_path / "questions.jsonl"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(CannotRun, match=says) as caught:
        load_questions(path, parameters=PARAMETERS)

    assert str(path) in str(caught.value)


def test_a_bad_file_ends_the_command_before_anything_is_started(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text("{}\n")

    done = llmcache("demo", path, env={"TMPDIR": str(tmp_path)})

    assert (done.returncode, done.stdout) == (2, "")
    assert f"{path}, line 1: " in done.stderr
    assert list(tmp_path.iterdir()) == [path]


# --- Ctrl-C -----------------------------------------------------------------------------------------------


def _children(pid):
    return subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split()


def _has_server(home):
    return any(EmbeddedServer(directory).is_running() for directory in home.iterdir())


def _is_alive(pid):
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("median", "children"), [("30", 0), ("0.01", 4)], ids=["in a pass", "while the burst starts"]
)
def test_ctrl_c_ends_everything_cleanly(tmp_path, small, median, children):
    command = [*COMMAND, "demo", str(small), "--median", median]
    home = tmp_path / "t"
    home.mkdir()
    demo = subprocess.Popen(
        command,
        env=environment(TMPDIR=str(home)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As a terminal does it: Ctrl-C reaches the whole group, and no shell ignores it.
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_until(lambda: _has_server(home), description="its server", timeout=30)
        # The burst's processes and the one that tracks their resources.
        wait_until(lambda: len(_children(demo.pid)) >= children, description="its processes", timeout=60)
        begun = _children(demo.pid)
        os.killpg(demo.pid, signal.SIGINT)
        out, err = demo.communicate(timeout=30)
    finally:
        demo.kill()
        demo.communicate()

    assert demo.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted" in err
    assert out == ""
    assert list(home.iterdir()) == []
    wait_until(lambda: not any(map(_is_alive, begun)), description="its processes are gone")


# --- The figures ------------------------------------------------------------------------------------------


def _sample(outcome=Outcome.HIT, seconds=0.001, digest="a"):
    return Sample(outcome=outcome, seconds=seconds, saved=Usage(input_tokens=1), digest=digest)


def _part(name, samples, calls, counted=None):
    counted = calls if counted is None else counted
    return figures.Part(
        name=name, samples=samples, seconds=1.0, provider_calls=calls, counted_by_provider=counted
    )


def _tally(calls, *, of=3, answers=1):
    return figures.Tally(calls=6, different_calls=of, different_answers=answers, provider_calls=calls)


def _scene(*, no_cache=6, ours=3, answers=1):
    return figures.Scene(
        name="chat replay",
        description="a chat",
        no_cache=_tally(no_cache),
        # What others make of it is shown and not judged.
        theirs=_tally(5, answers=2),
        ours=_tally(ours, answers=answers),
    )


def _report(**changed):
    parts = {
        "baseline": _part("no cache", [_sample(None)], 1),
        "first": _part("first pass", [_sample(Outcome.MISS)], 1),
        "second": _part("second pass", [_sample()], 0),
        "burst": _part("burst", [_sample(Outcome.MISS), _sample(Outcome.COALESCED)], 1),
    }
    return figures.Report(
        provider="p",
        is_stand_in=True,
        server="s",
        questions="q",
        distinct=1,
        concurrency=1,
        burst_processes=1,
        price=Price(input=1.0, output=1.0),
        seconds=1.0,
        **{**parts, **changed},
    )


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        ({}, None),
        (
            {"baseline": _part("no cache", [_sample(None)], 1, counted=2)},
            "no cache: 1 provider calls counted here, 2",
        ),
        (
            {"first": _part("first pass", [_sample(Outcome.UNAVAILABLE)], 2)},
            "first pass: 2 provider calls where 1",
        ),
        (
            {"second": _part("second pass", [_sample(Outcome.MISS)], 1)},
            "second pass: 1 provider calls where 0",
        ),
        ({"burst": _part("burst", [_sample(Outcome.MISS)], 3)}, "burst: 3 provider calls where 1"),
        ({"burst": _part("burst", [_sample(), _sample(digest="b")], 1)}, "burst: 2 different answers"),
        ({"refusals": {"too_big": 2}}, "2 answers were not stored: too_big"),
        ({"langchain": [_scene()]}, None),
        ({"langchain": [_scene(ours=4)]}, "LangChain, chat replay: 4 provider calls where 3 were expected."),
        ({"langchain": [_scene(ours=2)]}, "LangChain, chat replay: 2 provider calls where 3"),
        (
            {"langchain": [_scene(no_cache=5)]},
            "LangChain, chat replay: 6 calls without a cache were 5 provider calls.",
        ),
        ({"langchain": [_scene(answers=2)]}, "LangChain, chat replay: 2 different answers"),
        ({"litellm": [_scene()]}, None),
        ({"litellm": [_scene(ours=4)]}, "LiteLLM, chat replay: 4 provider calls where 3 were expected."),
    ],
)
def test_what_is_not_as_it_should_be_is_a_finding(changed, finding):
    found = figures.findings_of(_report(**changed))

    assert [one.startswith(finding) for one in found] == ([] if finding is None else [True])


def test_percentiles_are_values_that_were_measured():
    values = [float(n) for n in range(100, 0, -1)]

    assert [figures.percentile(values, share) for share in (0, 0.5, 0.99, 1)] == [1, 50, 99, 100]
    assert figures.percentile([7.0], 0.99) == 7


@pytest.mark.parametrize("requests", [1, 120, 400])
def test_users_at_once_are_so_many_that_a_pass_takes_seconds(requests):
    users = concurrency_for(requests, median_seconds=0.8, is_stand_in=True)

    assert requests * 0.8 / users <= 6
    assert concurrency_for(requests, median_seconds=0.8, is_stand_in=False) == 8


async def test_the_first_error_ends_the_load_and_is_raised_as_it_is():
    cancelled = []

    async def ask(request):
        if request["number"] == 2:
            raise LookupError("this one")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(request["number"])
            raise

    with pytest.raises(LookupError, match="this one"):
        await run_load([{"number": n} for n in range(9)], ask, concurrency=3, on_done=lambda: None)

    assert sorted(cancelled) == [0, 1]


# --- The event loop ---------------------------------------------------------------------------------------


async def test_the_measure_of_stalls_sees_a_blocked_loop():
    async def block():
        await asyncio.sleep(0.01)
        time.sleep(0.2)  # noqa: ASYNC251 - the very thing

    assert await longest_stall(block()) > STALL


async def test_the_loop_never_stalls_under_the_demos_load(valkey, namespace):
    requests = [{"model": "stand-in", **request} for request in _shipped()]
    names = (f"{namespace}-{number}" for number in itertools.count())

    async def both_passes(provider):
        async with ResponseCache.from_url(valkey.url, namespace=next(names)) as cache:
            ask = through(InferenceGateway(provider, cache))
            await _load(ask, requests)
            second = await _load(ask, requests)
            assert {sample.outcome for sample in second} == {Outcome.HIT}

    async with (
        ProviderServer(median_seconds=0.05) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client,
    ):
        provider = OpenAIProvider(client)
        await _load(directly(provider), requests[:20])  # the SDK's own first call imports a lot
        stalls = []
        # A stall of ours comes each time; one that another process caused does not.
        while len(stalls) < 3 and (not stalls or min(stalls) > STALL):
            stalls.append(await longest_stall(both_passes(provider)))

    assert min(stalls) <= STALL


def _load(ask, requests):
    return run_load(requests, ask, concurrency=16, on_done=lambda: None)


def _shipped():
    return [json.loads(line) for line in (ROOT / "examples" / "questions.jsonl").read_text().splitlines()]
