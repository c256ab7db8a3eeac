"""Which calls of LiteLLM are equal: by what reaches the provider, and nothing else."""

from __future__ import annotations

import asyncio
import io
import itertools
from typing import TYPE_CHECKING, Any

import litellm
import openai
import pytest
from litellm_calls import QUIET, Chat, cache, chat, facts, make, quiet, text_of, written  # noqa: F401

from llmcache_plugins import InferenceGateway
from llmcache_plugins.adapters.litellm.requests import Request, Unfit, read
from llmcache_plugins.answers.kinds import Kind
from llmcache_plugins.providers import LiteLLMProvider, OpenAIProvider

if TYPE_CHECKING:
    from pathlib import Path

    from litellm_calls import Make

    from llmcache_plugins.adapters.litellm import LiteLLMCache
    from llmcache_plugins.testing.provider_server import ProviderServer

pytestmark = QUIET

MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_ORGANIZATION", "OPENAI_ORG_ID"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def key(asked: LiteLLMCache, /, **arguments: Any) -> str:
    return asked.get_cache_key(**{"model": "gpt-4o-mini", "messages": MESSAGES, **arguments})


EQUAL: dict[str, list[dict[str, Any]]] = {
    "the order of arguments": [{"temperature": 0, "top_p": 1}, {"top_p": 1, "temperature": 0}],
    "a parameter that is None": [{}, {"temperature": None, "tools": None}],
    "a stream or not": [{}, {"stream": False}, {"stream": True, "stream_options": {"include_usage": True}}],
    "how OpenAI is named": [
        {},
        {"model": "openai/gpt-4o-mini"},
        {"custom_llm_provider": "openai"},
        {"model": "openai/gpt-4o-mini", "custom_llm_provider": "openai"},
        {"api_base": "https://api.openai.com/v1/"},
    ],
    "how another provider is named": [
        {"model": "azure/gpt-4o-mini"},
        {"model": "gpt-4o-mini", "custom_llm_provider": "azure"},
    ],
    "how an address is named": [{"api_base": "http://one/v1"}, {"base_url": "http://one/v1/"}],
    "how headers are named": [{"headers": {"X-Tier": "a"}}, {"extra_headers": {"x-tier": "a"}}],
    "what only names one call": [
        {},
        {
            "litellm_call_id": "a",
            "litellm_trace_id": "b",
            "metadata": {"trace": 1},
            "user": "u",
            "api_key": "k",
            "timeout": 3,
            "num_retries": 2,
            "caching": True,
            "cache": {"ttl": 3},
            "ttl": 3,
            "extra_headers": {"Authorization": "secret", "X-Request-ID": "1"},
            "shared_session": object(),
            "client": object(),
        },
    ],
    "where to turn when it fails": [{}, {"fallbacks": ["openai/other"], "context_window_fallback_dict": {}}],
    "what the router keeps beside a deployment": [
        {},
        {
            "allow_client_keepalive_override": False,
            "budget_duration": "1d",
            "cooldown_time": 3,
            "input_cost_per_token_above_200k_tokens": 1,
            "max_budget": 10.0,
            "merge_reasoning_content_in_choices": False,
            "model_info": {"id": "1"},
            "order": 1,
            "output_cost_per_token": 1,
            "rpm": 1,
            "tags": ["a"],
            "use_in_pass_through": False,
            "use_litellm_proxy": False,
            "use_xai_oauth": False,
            "verbose": True,
            "weight": 2,
            "_context_compaction_state": object(),
        },
    ],
    "which deployment of a model group": [
        {"metadata": {"model_group": "fast"}, "api_base": "http://one", "model": "azure/a"},
        {"metadata": {"model_group": "fast"}, "base_url": "http://two", "model": "openai/b"},
        {"litellm_metadata": {"model_group": "fast"}, "api_version": "2", "organization": "o"},
    ],
    "groups that share by the router's settings": [
        {"metadata": {"model_group": "a", "caching_groups": [("a", "b")]}},
        {"metadata": {"model_group": "b", "caching_groups": [("a", "b")]}},
    ],
}


@pytest.mark.parametrize("spellings", EQUAL.values(), ids=EQUAL)
def test_one_request_has_one_key(cache: LiteLLMCache, no_settings, spellings: list[dict[str, Any]]):
    assert len({key(cache, **spelling) for spelling in spellings}) == 1
    assert "" not in {key(cache, **spelling) for spelling in spellings}


# All but the first are the same to LiteLLM's own cache.
DIFFERENT: list[dict[str, Any]] = [
    {},
    {"extra_body": {"top_k": 1}},
    {"extra_headers": {"x-tier": "b"}},
    {"headers": {"x-tier": "c"}},
    {"api_base": "http://one"},
    {"api_version": "2"},
    {"organization": "o"},
    {"custom_llm_provider": "azure"},
    {"num_ctx": 1},
    {"min_p": 0.1},
    {"repetition_penalty": 2},
    {"guided_json": {"type": "object"}},
    {"safety_settings": [{"a": 1}]},
    {"prompt_id": "p"},
    {"region": "eu"},
    {"stop": "x", "user": "y"},
    {"stop": "xuser: y"},
    {"some_parameter_of_tomorrow": 1},
    {"mock_response": "mocked"},
    {"merge_reasoning_content_in_choices": True},
    {"metadata": {"model_group": "fast"}},
    {"metadata": {"model_group": "gpt-4o-mini"}},
    {"model": "openai/other"},
    {"model": "nobody/gpt-4o-mini"},
    {"messages": [{"role": "user", "content": "Ho"}]},
]


def test_what_can_change_an_answer_is_in_the_key(cache: LiteLLMCache, no_settings):
    keys = [(arguments, key(cache, **arguments)) for arguments in DIFFERENT]
    assert all(key for _, key in keys)
    assert not [(a, b) for (a, one), (b, other) in itertools.combinations(keys, 2) if one == other]


def test_so_are_litellms_settings_and_those_of_the_sdk(cache: LiteLLMCache, no_settings):
    keys = [key(cache)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litellm, "api_base", "http://module")
        keys.append(key(cache))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litellm, "headers", {"x-tier": "module"})
        keys.append(key(cache))
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(name, "http://environment")
            keys.append(key(cache))
    assert len(set(keys)) == 6


def test_a_request_is_not_changed_by_being_read(cache: LiteLLMCache):
    arguments = {"model": "openai/m", "messages": MESSAGES, "headers": {"a": "b"}, "extra_headers": {}}
    before = repr(arguments)
    cache.get_cache_key(**arguments)
    assert repr(arguments) == before


def test_a_recording_is_known_by_what_is_in_it_and_not_by_its_name(tmp_path: Path):
    def body(file: Any) -> Any:
        found = read({"model": "whisper-1", "file": file}, kind=Kind.TRANSCRIPTION)
        assert isinstance(found, Request)
        return found.body["file"]

    def named(content: bytes, name: str) -> io.BytesIO:
        file = io.BytesIO(content)
        file.name = name
        return file

    path = tmp_path / "c.wav"
    path.write_bytes(b"one")
    read_already = named(b"one", "d.wav")
    read_already.read()
    spellings = [
        named(b"one", "a.wav"),
        named(b"one", "b.wav"),
        ("x.wav", b"one"),
        b"one",
        path,
        read_already,
    ]
    assert len({body(file) for file in spellings}) == 1
    assert read_already.tell() == 3
    assert body(named(b"two", "a.wav")) != body(named(b"one", "a.wav"))


def test_one_that_can_be_read_only_once_is_left_alone():
    class Pipe:
        def read(self) -> bytes:
            raise AssertionError("it is LiteLLM that reads it")

    assert isinstance(read({"model": "m", "file": Pipe()}, kind=Kind.TRANSCRIPTION), Unfit)


async def test_what_has_no_form_is_asked_and_counted(
    stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat, caplog: pytest.LogCaptureFixture
):
    arguments = chat(extra_query={"at": object()})
    for _ in range(2):
        with pytest.raises(Exception, match="object"):  # LiteLLM cannot send it either
            await litellm.acompletion(**arguments)
    stats = await cache.response_cache.stats()
    assert stats.outcomes == {"bypass": 2}
    assert sum("is not cached" in record.message for record in caplog.records) == 1


class TestSharing:
    """One cache for LiteLLM and for gateways."""

    async def test_a_gateway_on_litellm_has_the_entries_of_its_cache(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        gateway = InferenceGateway(LiteLLMProvider(), cache.response_cache)
        first = await litellm.acompletion(**chat("one"), temperature=0.5)
        await written(cache)
        litellm.cache = None  # what the gateway's provider asks is its own affair
        assert facts(await gateway.resolve(chat("one", temperature=0.5))) == facts(first)
        second = await gateway.resolve(chat("two"))
        litellm.cache = cache
        assert facts(await litellm.acompletion(**chat("two"))) == facts(second)
        assert stand_in.calls == 2

    async def test_so_has_one_on_openais_sdk_and_the_other_way_round(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat, no_settings
    ):
        async with openai.AsyncOpenAI(base_url=stand_in.base_url, api_key="test") as client:
            gateway = InferenceGateway(OpenAIProvider(client), cache.response_cache)
            query = {"model": "gpt-4o-mini", "messages": MESSAGES}
            first = await litellm.acompletion(**chat("Hi"))
            await written(cache)
            assert text_of(await gateway.resolve(query)) == text_of(first)
            second = await gateway.resolve({**query, "temperature": 1})
            assert text_of(await litellm.acompletion(**chat("Hi"), temperature=1)) == text_of(second)
        assert stand_in.calls == 2

    @pytest.mark.parametrize("api", ["responses", "embeddings"])
    async def test_it_is_so_for_other_apis(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat, api: Any
    ):
        gateway = InferenceGateway(LiteLLMProvider(api=api), cache.response_cache)
        call = litellm.responses if api == "responses" else litellm.embedding
        litellm.cache = None
        first = await gateway.resolve(chat.to(input="Hi"))
        litellm.cache = cache
        second = await asyncio.to_thread(call, **chat.to(input="Hi"))
        assert stand_in.calls == 1
        assert type(second) is type(first)

    async def test_ids_that_litellm_has_made_up_reach_no_other_sdk(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat, no_settings
    ):
        """A response is continued by its id, and OpenAI knows its own only."""
        async with openai.AsyncOpenAI(base_url=stand_in.base_url, api_key="test") as client:
            gateway = InferenceGateway(OpenAIProvider(client, api="responses"), cache.response_cache)
            await litellm.aresponses(**chat.to(input="Hi"))
            await written(cache)
            await gateway.resolve({"model": "gpt-4o-mini", "input": "Hi"})
        assert stand_in.calls == 2

    async def test_tenants_and_namespaces_share_nothing(
        self, stand_in: ProviderServer, make: Make, chat: Chat
    ):
        make()
        await litellm.acompletion(**chat(), cache={"namespace": "other"})
        await litellm.acompletion(**chat(), cache={"tenant": "a"})
        await litellm.acompletion(**chat(), cache={"tenant": "b"})
        await litellm.acompletion(**chat())
        assert stand_in.calls == 4
