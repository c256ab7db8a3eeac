"""The examples: they run as they are, and say what their comments say."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tomllib
from collections import Counter

import pytest
from command import ROOT, run
from recordings import PROGRAM

from llmcache_plugins import CacheSignatureEngine
from llmcache_plugins.cli.load.questions import load_questions
from llmcache_plugins.repository.embedded import EmbeddedServer
from llmcache_plugins.testing.provider_server import ProviderServer

EXAMPLES = ROOT / "examples"
QUESTIONS = EXAMPLES / "questions.jsonl"
CALLS = {
    "quickstart": (0, 0),  # it brings a model of its own
    "langchain_agent": (2, 0),
    "langchain_graph": (2, 0),
    "langchain_per_model": (4, 3),
    "langchain_plain": (1, 0),
    "langchain_stream": (1, 0),
    "langchain_tenants": (2, 0),
    "litellm_embeddings": (2, 0),
    "litellm_per_call": (5, 2),
    "litellm_plain": (1, 0),
    "litellm_router": (2, 0),
    "litellm_stream": (1, 0),
    "litellm_sync": (1, 0),
    "prometheus_metrics": (1, 0),
    "warm_cache": (3, 0),
}
"""What reaches the provider when an example is run, and when it is run again."""
LOADED = {"asgi_app", "litellm_proxy_cache", "test_recorded"}
"""No programs. uvicorn loads the one in test_asgi.py; the second is loaded here as by LiteLLM's proxy, and
by the proxy in test_litellm_proxy.py; the third by pytest, below."""
OF_A_PROCESS = {"prometheus_metrics"}
"""Shows what is counted in the whole process: not run among others."""
SLOW = {"langchain_stream": 1.0, "litellm_stream": 0.5, "litellm_sync": 0.5}
"""Seconds of an answer, so that a second caller finds the first one's call under way."""


@pytest.fixture
def cache_home(tmp_path):
    yield tmp_path
    EmbeddedServer(tmp_path / "llmcache" / "server").stop()


@pytest.mark.timeout(240)  # the first one waits for the imports
@pytest.mark.parametrize("name", CALLS)
async def test_an_example_prints_what_its_comments_say(name, cache_home, frameworks):
    example = EXAMPLES / f"{name}.py"
    told = "".join(line[2:] for line in example.read_text().splitlines(keepends=True) if line[:2] == "# ")
    printed, calls = [], []

    async with ProviderServer(median_seconds=SLOW.get(name, 0.0)) as provider:
        environment = {
            "OPENAI_API_KEY": "test",
            "OPENAI_BASE_URL": provider.base_url,
            "XDG_CACHE_HOME": str(cache_home),
            # LiteLLM downloads its price list otherwise.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        for _ in "12":
            before = provider.calls
            done = await asyncio.to_thread(frameworks.run, example, env=environment)
            assert (done.returncode, done.stderr) == (0, "")
            printed.append(done.stdout)
            calls.append(provider.calls - before)

    assert re.split(r"Run again within an? \w+:\s", told) == printed
    assert tuple(calls) == CALLS[name]


@pytest.mark.timeout(240)
def test_all_of_them_run_from_recorded_answers_without_a_provider(tmp_path, frameworks):
    # As with no configuration at all: this project's is for other plugins too.
    options = ["-c", os.devnull, "--rootdir", str(ROOT), "-p", "no:cacheprovider", "--tb=short", "-q"]
    options += ["-p", "llmcache_plugins.testing.plugin", "--llmcache=strict", "--llmcache-unused"]
    options += [str(EXAMPLES)]
    program = tmp_path / "session.program"
    program.write_text(PROGRAM.format(directory=str(tmp_path), arguments=options), "utf-8")
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        # Where no server could be started.
        "XDG_CACHE_HOME": "/dev/null/nowhere",
    }

    done = frameworks.run(program, env=environment)

    again = "record them again, if a framework asks in another way than before: tests/record_examples.py"
    assert done.returncode == 0, f"{again}\n{done.stdout}{done.stderr}"
    assert f"{len(CALLS) - len(OF_A_PROCESS)} passed" in done.stdout
    assert "not used" not in done.stdout


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*CALLS, *LOADED}


LIKE_THE_PROXY = """
import litellm, yaml
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy.types_utils.utils import get_instance_fn

config = yaml.safe_load(open({path!r}, encoding="utf-8"))
(named,) = config["litellm_settings"]["callbacks"]
assert isinstance(get_instance_fn(value=named, config_file_path={path!r}), CustomLogger)
print(type(litellm.cache).__name__, [group["model_name"] for group in config["model_list"]])
"""


def test_the_proxy_gets_its_cache_by_the_module_that_its_configuration_names():
    code = LIKE_THE_PROXY.format(path=str(EXAMPLES / "litellm_proxy.yaml"))
    environment = {"LLMCACHE_URL": "redis://127.0.0.1:1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = run(sys.executable, "-c", code, env=environment)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "LiteLLMCache ['gpt-4o-mini', 'text-embedding-3-small']\n"


@pytest.mark.parametrize("name", CALLS)
def test_an_example_is_short(name):
    lines = (EXAMPLES / f"{name}.py").read_text().splitlines()

    code = [line for line in lines if line and not line.startswith("#")]
    assert len(code) < (15 if name == "quickstart" else 25)


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
