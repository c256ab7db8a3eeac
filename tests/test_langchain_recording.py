"""`pytest --llmcache=...` and LangChain: a strict session calls no model, whichever way it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from recordings import Project, frameworks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from warm import Warm

TESTS = """
import asyncio
import os

import pytest

from llmcache_plugins import CacheMiss

# One for all: langchain-openai keeps its clients for the process, and they do not outlive their loop.
run = asyncio.new_event_loop().run_until_complete
WAYS = {
    "invoke": lambda model, text: model.invoke(text),
    "ainvoke": lambda model, text: run(model.ainvoke(text)),
    "stream": lambda model, text: list(model.stream(text)),
    "astream": lambda model, text: run(listed(model.astream(text))),
    "batch": lambda model, text: model.batch([text, text + "!"]),
    "abatch": lambda model, text: run(model.abatch([text, text + "!"])),
    "events": lambda model, text: run(listed(model.astream_events(text, version="v2"))),
    "newer events": lambda model, text: newer_events(model, text),
}


def newer_events(model, text):
    if not hasattr(model, "stream_events"):
        pytest.skip("this version has none")
    return list(model.stream_events(text, version="v3"))


async def listed(parts):
    return [part async for part in parts]


def chat(**more):
    # Here: whoever asks for it first imports LangChain in the midst of a test.
    from langchain_openai import ChatOpenAI

    base_url = os.environ["OPENAI_BASE_URL"]
    return ChatOpenAI(model="gpt-4o-mini", api_key="sk-private", base_url=base_url, max_retries=0, **more)


def completion(**more):
    from langchain_openai import OpenAI

    base_url = os.environ["OPENAI_BASE_URL"]
    return OpenAI(model="gpt-3.5", api_key="sk-private", base_url=base_url, max_retries=0, **more)


def structured():
    from pydantic import BaseModel

    class Said(BaseModel):
        text: str

    return chat().with_structured_output(Said, method="function_calling", include_raw=True)


def somebody_elses():
    from langchain_core.caches import InMemoryCache

    return chat(cache=InMemoryCache())


def cached_chat():
    from llmcache_plugins.adapters.langchain import LangChainCache, cached

    return cached(chat(), LangChainCache.from_url("redis://127.0.0.1:1"))


def with_ours():
    from llmcache_plugins.adapters.langchain import LangChainCache

    return chat(cache=LangChainCache.from_url("redis://127.0.0.1:1", namespace="own", mode="off"))


MODELS = {
    "chat": chat,
    "uncached": lambda: chat(cache=False),
    "somebody else's": somebody_elses,
    "cached": cached_chat,
    "ours": with_ours,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
def test_chat(model, way):
    assert WAYS[way](MODELS[model](), "my private question")


def test_structured():
    assert structured().invoke("my private question")["raw"]


def test_a_cache_of_somebody_elses_for_all(monkeypatch):
    model = chat()
    from langchain_core import globals as settings
    from langchain_core.caches import InMemoryCache

    monkeypatch.setattr(settings, "_llm_cache", InMemoryCache())
    assert model.invoke("one").content
    assert run(model.ainvoke("two")).content


def test_ours_for_all(monkeypatch):
    model = chat()
    from langchain_core import globals as settings
    from llmcache_plugins.adapters.langchain import LangChainCache

    monkeypatch.setattr(settings, "_llm_cache", LangChainCache.from_url("redis://127.0.0.1:1"))
    assert model.invoke("one").content
    assert run(model.ainvoke("two")).content
    assert list(model.stream("three"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
def miss_chat(model, way):
    with pytest.raises(CacheMiss):
        WAYS[way](MODELS[model](), "what nobody has asked")


class Fake:
    @staticmethod
    def chat():
        from langchain_core.language_models import FakeListChatModel

        return FakeListChatModel(responses=["one", "two"])

    @staticmethod
    def ask(model):
        return [model.invoke("?").content, run(model.ainvoke("?")).content, model.invoke("?").content]


def fake_that_is_recorded_goes_on():
    assert Fake.ask(Fake.chat()) == ["one", "two", "one"]


@pytest.mark.llmcache_off
def fake_that_is_left_out_is_not_seen():
    assert Fake.ask(Fake.chat()) == ["one", "two", "one"]
    assert "".join(part.content for part in Fake.chat().stream("?")) == "one"


def miss_structured():
    with pytest.raises(CacheMiss):
        structured().invoke("what nobody has asked")


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "batch", "stream", "astream"])
@pytest.mark.parametrize("cache", [None, False])
def miss_completion(cache, way):
    with pytest.raises(CacheMiss):
        WAYS[way](completion(cache=cache), "what nobody has asked")


def miss_after_a_retry_and_a_fallback():
    model = chat().with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    with pytest.raises(CacheMiss):
        model.with_fallbacks([chat(temperature=0)]).invoke("what nobody has asked")
"""


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with frameworks("langchain_openai") as process:
        yield process


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("langchain"), TESTS)


def test_a_session_records_what_a_strict_one_needs(project: Project):
    # A process that imports LangChain when the tests do.
    recorded = project.run("record")
    assert recorded.passed >= 38, recorded
    # "batch" asks two questions.
    assert recorded.calls >= 5 * 9 + 1

    strict = project.run("strict")
    assert (strict.passed, strict.calls) == (recorded.passed, 0), strict
    text = b"".join(path.read_bytes() for path in project.cassettes())
    assert b"gpt-4o-mini" in text
    assert b"private" not in text


def test_a_strict_miss_is_raised_and_no_model_is_called(project: Project, warm: Warm):
    missed = project.run("strict", "-o", "python_functions=miss_*", warm=warm)
    assert missed.passed >= 47, missed
    assert missed.calls == 0


def test_models_of_the_applications_own_keep_their_state(project: Project, warm: Warm):
    done = project.run("replay", "-o", "python_functions=fake_*", warm=warm)
    assert done.passed == 2, done
    left_out = project.run("strict", "-o", "python_functions=fake_that_is_left_out*", warm=warm)
    assert left_out.passed == 1, left_out


def test_no_session_leaves_langchain_changed(tmp_path: Path, warm: Warm):
    project = Project(
        tmp_path,
        """
        from langchain_core import globals as settings
        from langchain_core.language_models import BaseChatModel, BaseLLM

        names = ("stream", "astream", "_generate_with_cache", "_agenerate_with_cache")

        def state():
            chat = [getattr(BaseChatModel, name) for name in names]
            return [settings.get_llm_cache(), *chat, BaseLLM.generate, BaseLLM.astream]

        def test_it(request):
            during = state()
            request.config.pluginmanager.get_plugin("llmcache-recording").pytest_unconfigure()
            after = state()
            assert after[0] is None
            assert all(one is not other for one, other in zip(during, after))
            assert all(one.__module__.startswith("langchain_core.") for one in after[1:])
            assert not any("recording" in one.__code__.co_filename for one in after[1:])
        """,
    )
    done = project.run("replay", warm=warm)
    assert done.passed == 1, done
