"""`pytest --llmcache=...` and LiteLLM: a strict session calls no provider, whichever way it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recordings import Project, frameworks

if TYPE_CHECKING:
    from pathlib import Path

TESTS = """
import asyncio
import os

import pytest

from llmcache_plugins import CacheMiss

ASKED = {"model": "gpt-4o-mini", "max_retries": 0, "api_key": "sk-private"}


def chat(text, **more):
    return {**ASKED, "messages": [{"role": "user", "content": text}], **more}


async def acompletion(text, **more):
    import litellm

    return await litellm.acompletion(**chat(text, **more))


async def completion(text, **more):
    import litellm

    return await asyncio.to_thread(litellm.completion, **chat(text, **more))


async def astream(text):
    stream = await acompletion(text, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def stream(text):
    def read():
        import litellm

        parts = litellm.completion(**chat(text, stream=True))
        return "".join(chunk.choices[0].delta.content or "" for chunk in parts)

    return await asyncio.to_thread(read)


async def aembedding(text):
    import litellm

    return await litellm.aembedding(**{**ASKED, "model": "text-embedding-3-small"}, input=[text, text + "!"])


async def arouter(text):
    import litellm

    deployments = [{"model_name": "assistant", "litellm_params": {**ASKED, "model": "openai/gpt-4o-mini"}}]
    router = litellm.Router(deployments, num_retries=0)
    return await router.acompletion("assistant", chat(text)["messages"])


async def gateway(text):
    from llmcache_plugins import InferenceGateway, ResponseCache
    from llmcache_plugins.providers import LiteLLMProvider

    cache = ResponseCache.from_url("redis://127.0.0.1:1")
    return await InferenceGateway(LiteLLMProvider(), cache).resolve(chat(text))


async def ours(text):
    import litellm
    from llmcache_plugins.adapters.litellm import LiteLLMCache

    before, litellm.cache = litellm.cache, LiteLLMCache.from_url("redis://127.0.0.1:1", mode="off")
    try:
        return await litellm.acompletion(**chat(text))
    finally:
        litellm.cache = before


WAYS = {
    "acompletion": acompletion,
    "completion": completion,
    "astream": astream,
    "stream": stream,
    "no-cache": lambda text: acompletion(text, cache={"no-cache": True}),
    "no-store": lambda text: acompletion(text, cache={"no-store": True}),
    "off": lambda text: acompletion(text, cache={"mode": "off"}),
    "uncached": lambda text: completion(text, caching=False),
    "sync no-cache": lambda text: completion(text, cache={"no-cache": True}),
    "aembedding": aembedding,
    "arouter": arouter,
    "gateway": gateway,
    "ours": ours,
}


@pytest.mark.parametrize("way", WAYS)
async def test_call(way):
    assert await WAYS[way]("my private question")


@pytest.mark.parametrize("way", WAYS)
async def miss_call(way):
    with pytest.raises(CacheMiss):
        await WAYS[way]("what nobody has asked")


@pytest.mark.parametrize("cache", [None, "theirs", "only who asks"])
async def miss_without_our_cache(cache, monkeypatch):
    import litellm
    from litellm.caching.caching import Cache
    from llmcache_plugins.adapters.litellm import LiteLLMCache

    made = {
        None: lambda: None,
        "theirs": lambda: Cache(type="local"),
        "only who asks": lambda: LiteLLMCache.from_url("redis://127.0.0.1:1", mode="default_off"),
    }[cache]()
    monkeypatch.setattr(litellm, "cache", made)
    with pytest.raises(CacheMiss):
        await litellm.acompletion(**chat("what nobody has asked"))
    with pytest.raises(CacheMiss):
        await asyncio.to_thread(litellm.completion, **chat("what nobody has asked"))


async def miss_what_is_never_cached():
    import litellm

    with pytest.raises(CacheMiss):
        await litellm.aimage_generation(**{**ASKED, "model": "dall-e-3"}, prompt="a lease")


async def miss_some_of_a_list():
    import litellm

    asked = {**ASKED, "model": "text-embedding-3-small"}
    with pytest.raises(CacheMiss):
        await litellm.aembedding(**asked, input=["what nobody has asked", "my private question"])


async def miss_with_a_fallback():
    import litellm

    with pytest.raises(Exception) as raised:
        await litellm.acompletion(**chat("what nobody has asked"), fallbacks=["gpt-4o"])
    assert "no recorded answer" in str(raised.value) or "fallbacks" in str(raised.value)
"""


def test_a_strict_session_needs_what_was_recorded_and_asks_for_nothing_else(tmp_path: Path):
    # Processes that import LiteLLM when the tests do; a fork of one that has would not find its tokenizer.
    project = Project(tmp_path, TESTS)
    recorded = project.run("record")
    assert recorded.passed == 13, recorded
    assert recorded.calls >= 13
    text = b"".join(path.read_bytes() for path in project.cassettes())
    assert b"gpt-4o-mini" in text
    assert b"private" not in text

    strict = project.run("strict", "-o", "python_functions=test_* miss_*")
    # Those that miss raise, and are counted as passed: each once more, and six that are never recorded.
    assert (strict.passed, strict.calls) == (13 + 13 + 6, 0), strict


def test_no_session_leaves_litellm_changed(tmp_path: Path):
    project = Project(
        tmp_path,
        """
        import litellm
        from litellm.caching.caching_handler import LLMCachingHandler
        from llmcache_plugins.adapters.litellm import LiteLLMCache

        names = [name for name in vars(LLMCachingHandler) if name == "__init__" or "_get_cache" in name]

        def state():
            return [getattr(LLMCachingHandler, name) for name in names]

        def test_it(request):
            assert isinstance(litellm.cache, LiteLLMCache)
            during = state()
            request.config.pluginmanager.get_plugin("llmcache-recording").pytest_unconfigure()
            assert litellm.cache is None
            assert sum(one is not other for one, other in zip(during, state())) == 3
            assert not any("recording" in one.__code__.co_filename for one in state())
        """,
    )
    with frameworks("litellm") as warm:
        done = project.run("strict", warm=warm)
    assert done.passed == 1, done
