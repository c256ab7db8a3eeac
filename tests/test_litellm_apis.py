"""All that LiteLLM caches by default, each asked twice: embeddings, responses, rerank and the rest; and what
its router and its fallbacks make of one call.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import io
import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import litellm
import pytest
from litellm_calls import (  # noqa: F401
    QUIET,
    Chat,
    cache,
    chat,
    keeps_streams,
    make,
    outcomes,
    quiet,
    said,
    text_of,
    written,
)
from more_apis import MoreApis

from llmcache_plugins.testing.provider_server import Behaviour, ProviderServer, hanging, server_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llmcache_plugins.adapters.litellm import LiteLLMCache

pytestmark = QUIET

NEW = tuple(map(int, version("litellm").split(".")[:2])) >= (1, 106)
HAS_PROXY = importlib.util.find_spec("fastapi_sso") is not None
"""Whether what LiteLLM's proxy needs is installed; with that it replays more."""
needs_messages = pytest.mark.skipif(not NEW, reason="this LiteLLM caches no messages of Anthropic's")


@pytest.fixture
async def more() -> AsyncIterator[MoreApis]:
    async with MoreApis() as running:
        yield running


def recording(content: bytes = b"RIFF", name: str = "a.wav") -> io.BytesIO:
    file = io.BytesIO(content)
    file.name = name
    return file


class TestEmbeddings:
    async def test_a_list_that_is_known_costs_nothing(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        first = await litellm.aembedding(**chat.to(input=["a", "b"]))
        await written(cache)
        second = await litellm.aembedding(**chat.to(input=["a", "b"]))
        assert [item["embedding"] for item in second.data] == [item["embedding"] for item in first.data]
        assert second.usage.total_tokens == first.usage.total_tokens
        assert stand_in.calls == 1

    async def test_what_is_known_is_not_asked_again_and_all_comes_in_order(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        await litellm.aembedding(**chat.to(input=["b", "d"]))
        await written(cache)
        mixed = await litellm.aembedding(**chat.to(input=["a", "b", "c", "d", "a"]))
        await written(cache)
        litellm.cache = None
        fresh = await litellm.aembedding(**chat.to(input=["a", "b", "c", "d", "a"]))
        assert [item["embedding"] for item in mixed.data] == [item["embedding"] for item in fresh.data]
        assert [item["index"] for item in mixed.data] == [0, 1, 2, 3, 4]
        asked = stand_in.received[1].request["input"]
        assert asked == (["a", "c", "a"] if NEW else ["a", "b", "c", "d", "a"])

    async def test_lists_in_opposite_order_do_not_wait_for_each_other(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        async with asyncio.timeout(15):
            await asyncio.gather(
                litellm.aembedding(**chat.to(input=["a", "b"])),
                litellm.aembedding(**chat.to(input=["b", "a"])),
                litellm.aembedding(**chat.to(input=["a", "a"])),
            )

    async def test_a_list_that_is_changed_meanwhile_gives_no_text_another_s_vector(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        stand_in.script(hanging())
        inputs = ["a", "b"]
        asking = asyncio.create_task(litellm.aembedding(**chat.to(input=inputs)))
        await stand_in.called(1)
        inputs[0] = "changed"
        stand_in.release()
        first = await asking
        await written(cache)
        again = await litellm.aembedding(**chat.to(input=["changed", "a"]))
        litellm.cache = None
        fresh = await litellm.aembedding(**chat.to(input=["changed", "a"]))
        assert [item["embedding"] for item in again.data] == [item["embedding"] for item in fresh.data]
        assert first.data[0]["embedding"] == fresh.data[1]["embedding"]

    async def test_one_text_and_a_list_of_it_are_the_same(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        first = await litellm.aembedding(**chat.to(input="a"))
        await written(cache)
        second = await litellm.aembedding(**chat.to(input=["a"]))
        assert second.data[0]["embedding"] == first.data[0]["embedding"]
        assert stand_in.calls == 1

    async def test_synchronous_ones_are_kept_whole(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        answers = [await asyncio.to_thread(litellm.embedding, **chat.to(input=["a", "b"])) for _ in range(2)]
        assert answers[0].data == answers[1].data
        assert stand_in.calls == 1

    async def test_nothing_of_a_list_is_noted_for_longer_than_its_call(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        stand_in.script(Behaviour(status=400))
        with pytest.raises(litellm.BadRequestError):
            await litellm.aembedding(**chat.to(input=["a", "b"]))
        await litellm.aembedding(**chat.to(input=["a", "b"]))
        await litellm.aembedding(**chat.to(input=["a", "b"]))
        await written(cache)
        await litellm.aembedding(**chat.to(input=["c"]))
        await written(cache)
        gc.collect()
        assert cache._desk._lists.count() == 0


class TestResponses:
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
    async def test_they_hit(self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat, stream: bool):
        async def ask() -> Any:
            answer = await litellm.aresponses(**chat.to(input="Hi", stream=stream))
            return (await said(answer))[-1].response if stream else answer

        first = await ask()
        await written(cache)
        second = await ask()
        assert second.output_text if hasattr(second, "output_text") else second.output
        assert (second.id, second.output) == (first.id, first.output)
        assert stand_in.calls == 1

    async def test_a_stream_serves_plain_calls_and_the_other_way_round(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        events = await said(await litellm.aresponses(**chat.to(input="A", stream=True)))
        await written(cache)
        assert (await litellm.aresponses(**chat.to(input="A"))).output == events[-1].response.output
        plain = await litellm.aresponses(**chat.to(input="B"))
        await written(cache)
        events = await said(await litellm.aresponses(**chat.to(input="B", stream=True)))
        assert events[-1].response.output == plain.output
        assert stand_in.calls == 2

    async def test_twenty_at_once_cost_one(self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat):
        await asyncio.gather(*(litellm.aresponses(**chat.to(input="Hi")) for _ in range(20)))
        assert stand_in.calls == 1

    async def test_synchronous_ones_hit(self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat):
        answers = [await asyncio.to_thread(litellm.responses, **chat.to(input="Hi")) for _ in range(2)]
        assert answers[0].output == answers[1].output
        assert stand_in.calls == 1

    async def test_a_chat_that_litellm_sends_as_a_response_does_not_wait_for_itself(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        async with asyncio.timeout(15):
            calls = (litellm.acompletion(**chat(model="openai/responses/m")) for _ in range(5))
            answers = await asyncio.gather(*calls)
        await written(cache)
        assert len({text_of(answer) for answer in answers}) == 1
        assert stand_in.calls == 1


WAYS = [
    (False, False),
    pytest.param((True, True), marks=keeps_streams),
    pytest.param((True, False), marks=keeps_streams),
    (False, True),
]


class TestCompletions:
    @pytest.mark.parametrize("streams", WAYS)
    async def test_they_hit_with_and_without_streams(
        self, more: MoreApis, cache: LiteLLMCache, streams: tuple[bool, bool]
    ):
        texts = []
        for stream in streams:
            answer = await litellm.atext_completion(**old(more), stream=stream)
            texts.append(await _old_text(answer))
            await written(cache)
        assert texts == ["Say and so on"] * 2
        assert more.calls["completions"] == 1

    @pytest.mark.parametrize("streams", WAYS)
    async def test_so_do_synchronous_ones(
        self, more: MoreApis, cache: LiteLLMCache, streams: tuple[bool, bool]
    ):
        """LiteLLM asks twice for each, and hands a stream over under the inner question."""

        def ask(stream: bool) -> str:
            answer = litellm.text_completion(**old(more), stream=stream)
            return _joined(list(answer)) if stream else answer.choices[0].text

        texts = [(await asyncio.to_thread(ask, stream)).strip() for stream in streams]
        assert texts == ["Say and so on"] * 2
        assert more.calls["completions"] == 1

    async def test_a_list_of_prompts_is_one_call(self, more: MoreApis, cache: LiteLLMCache):
        for _ in range(2):
            answer = await litellm.atext_completion(**{**old(more), "prompt": ["one", "two"]})
            assert [choice.text for choice in answer.choices] == ["one and so on", "two and so on"]
            await written(cache)
        assert more.calls["completions"] == 1


def old(more: MoreApis) -> dict[str, Any]:
    where = {"api_base": f"{more.base_url}/v1", "api_key": "test", "max_retries": 0}
    return {"model": "text-completion-openai/m", "prompt": "Say", **where}


async def _old_text(answer: Any) -> str:
    return (_joined(await said(answer)) if hasattr(answer, "__aiter__") else answer.choices[0].text).strip()


def _joined(chunks: list[Any]) -> str:
    return "".join(_part(chunk.choices[0]) for chunk in chunks if chunk.choices)


def _part(choice: Any) -> str:
    delta = getattr(choice, "delta", None)
    return str((delta.content if delta is not None else choice.text) or "")


class TestOthers:
    async def test_rerank(self, more: MoreApis, cache: LiteLLMCache):
        arguments = {
            "model": "cohere/rerank",
            "query": "q",
            "documents": ["a", "b"],
            "api_base": f"{more.base_url}/v1/rerank",
            "api_key": "test",
        }
        first = await litellm.arerank(**arguments)
        await written(cache)
        second = await litellm.arerank(**arguments)
        third = await asyncio.to_thread(litellm.rerank, **arguments)
        assert first.results == second.results == third.results
        await litellm.arerank(**{**arguments, "documents": ["b", "a"]})
        assert more.calls["rerank"] == 2

    async def test_a_recording_by_what_is_in_it(self, more: MoreApis, cache: LiteLLMCache):
        arguments = {"model": "openai/whisper-1", "api_base": f"{more.base_url}/v1", "api_key": "test"}
        first = await litellm.atranscription(**arguments, file=recording(b"one", "a.wav"))
        await written(cache)
        second = await litellm.atranscription(**arguments, file=recording(b"one", "b.wav"))
        third = await litellm.atranscription(**arguments, file=recording(b"two", "a.wav"))
        await written(cache)
        fourth = await asyncio.to_thread(litellm.transcription, **arguments, file=recording(b"two", "c.wav"))
        assert first.text == second.text != third.text == fourth.text
        assert more.calls["transcriptions"] == 2

    @needs_messages
    async def test_anthropics_messages(self, more: MoreApis, cache: LiteLLMCache):
        arguments = messages(model="anthropic/claude-x", api_base=more.base_url)
        first = await litellm.anthropic_messages(**arguments)
        await written(cache)
        second = await litellm.anthropic_messages(**arguments)
        assert second["content"] == first["content"]
        assert more.calls["messages"] == 1

    @needs_messages
    async def test_messages_that_litellm_sends_as_a_chat(self, stand_in: ProviderServer, cache: LiteLLMCache):
        """LiteLLM asks twice under one id, and the inner answer has another form."""
        arguments = messages(model="hosted_vllm/m", api_base=stand_in.base_url)
        async with asyncio.timeout(30):
            first = await litellm.anthropic_messages(**arguments)
            await written(cache)
            second = await litellm.anthropic_messages(**arguments)
        assert second["content"] == first["content"]
        assert stand_in.calls == 1

    @needs_messages
    @pytest.mark.skipif(HAS_PROXY, reason="then they hit")
    async def test_streams_of_them_pass_where_litellm_could_not_replay_them(
        self, stand_in: ProviderServer, cache: LiteLLMCache
    ):
        for _ in range(2):
            arguments = messages(model="hosted_vllm/m", api_base=stand_in.base_url, stream=True)
            assert await said(await litellm.anthropic_messages(**arguments))
            await written(cache)
        assert (await outcomes(cache))["bypass"] == 2

    @needs_messages
    @pytest.mark.skipif(not HAS_PROXY, reason="LiteLLM could not replay them")
    async def test_streams_of_them_hit_in_the_proxy(self, stand_in: ProviderServer, cache: LiteLLMCache):
        importlib.import_module("litellm.proxy.utils")
        heard = []
        for _ in range(2):
            arguments = messages(model="hosted_vllm/m", api_base=stand_in.base_url, stream=True)
            heard.append(b"".join([part async for part in await litellm.anthropic_messages(**arguments)]))
            await written(cache)
        assert heard[0] == heard[1]
        assert stand_in.calls == 1

    async def test_what_does_not_come_back_as_it_was_is_not_kept(self, cache: LiteLLMCache):
        assert not {"aimage_generation", "aspeech", "image_generation"} & set(cache.supported_call_types)


def messages(**where: Any) -> dict[str, Any]:
    asked = [{"role": "user", "content": "Hi"}]
    return {"api_key": "test", "max_tokens": 10, "messages": asked, **where}


class TestRouter:
    def router(self, chat: Chat, *, cache_responses: bool = True, **settings: Any) -> litellm.Router:
        deployments = [
            {
                "model_name": "fast",
                "litellm_params": chat.to(
                    model=f"openai/{name}", order=place + 1, weight=place, rpm=100 + place, tags=[name]
                ),
            }
            for place, name in enumerate(("one", "two"))
        ]
        return litellm.Router(deployments, cache_responses=cache_responses, num_retries=0, **settings)

    async def test_its_deployments_share_their_answers(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        router = self.router(chat)
        ask = {"model": "fast", "messages": chat()["messages"]}
        answers = await asyncio.gather(*(router.acompletion(**ask) for _ in range(10)))
        await written(cache)
        answers.append(await asyncio.to_thread(router.completion, **ask))
        other = litellm.Router([{"model_name": "fast", "litellm_params": chat.to(model="openai/three")}])
        answers.append(await other.acompletion(**ask, caching=True))
        assert len({text_of(answer) for answer in answers}) == 1
        assert stand_in.calls == 1

    async def test_without_its_own_setting_it_writes_only(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        ask = {"model": "fast", "messages": chat()["messages"]}
        await self.router(chat, cache_responses=False).acompletion(**ask)
        await written(cache)
        await self.router(chat).acompletion(**ask)
        assert stand_in.calls == 1

    async def test_a_group_is_not_a_model_of_that_name(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        await self.router(chat).acompletion(model="fast", messages=chat()["messages"])
        await written(cache)
        await litellm.acompletion(**chat(model="openai/fast"))
        assert stand_in.calls == 2

    async def test_another_group_s_answer_is_not_kept_as_this_one_s(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        groups = [
            {"model_name": name, "litellm_params": chat.to(model=f"openai/{name}")} for name in ("a", "b")
        ]
        settings: Any = {"fallbacks": [{"a": ["b"]}], "num_retries": 0, "cache_responses": True}
        router = litellm.Router(groups, **settings)
        stand_in.script(server_error())
        fallen = await router.acompletion(model="a", messages=chat()["messages"])
        await written(cache)
        own = await router.acompletion(model="a", messages=chat()["messages"])
        again = await router.acompletion(model="b", messages=chat()["messages"])
        assert text_of(again) == text_of(fallen) != text_of(own)
        assert stand_in.calls == 3


class TestFallbacks:
    async def test_another_model_s_answer_is_never_kept_as_this_one_s(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        stand_in.script(server_error())
        fallen = await litellm.acompletion(**chat(model="openai/a"), fallbacks=["openai/b"])
        await written(cache)
        own = await litellm.acompletion(**chat(model="openai/a"))
        await written(cache)
        again = await litellm.acompletion(**chat(model="openai/b"))
        assert text_of(again) == text_of(fallen) != text_of(own)
        assert stand_in.calls == 3

    async def test_the_first_model_s_is_kept_and_found(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        """The outer call asks for it, and the inner one again: it must not wait for itself."""
        async with asyncio.timeout(30):
            first = await litellm.acompletion(**chat(model="openai/a"), fallbacks=["openai/b"])
            await written(cache)
            second = await litellm.acompletion(**chat(model="openai/a"), fallbacks=["openai/b"])
            third = await litellm.acompletion(**chat(model="openai/a"))
        assert text_of(first) == text_of(second) == text_of(third)
        assert stand_in.calls == 1

    async def test_twenty_at_once_cost_one(self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat):
        calls = (litellm.acompletion(**chat(), fallbacks=["openai/b"]) for _ in range(20))
        await asyncio.gather(*calls)
        assert stand_in.calls == 1

    async def test_retries_ask_again_and_are_kept(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        stand_in.script(server_error())
        assert (await litellm.acompletion(**chat(), num_retries=2)).choices
        await written(cache)
        assert (await litellm.acompletion(**chat())).choices
        assert stand_in.calls <= 3


class TestOddEntries:
    @pytest.mark.parametrize("odd", ["text", [1], {}, {"choices": None}, {"choices": [{}]}, {"error": "x"}])
    async def test_what_is_no_answer_is_a_miss_and_not_an_error(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat, odd: Any
    ):
        await cache.async_add_cache(odd if isinstance(odd, str) else json.dumps(odd), **chat())
        await _force(cache, chat, odd)
        assert (await litellm.acompletion(**chat())).choices
        assert [chunk async for chunk in await litellm.acompletion(**chat("two"), stream=True)]
        assert stand_in.calls == 2


async def _force(cache: LiteLLMCache, chat: Chat, odd: Any) -> None:
    """Put bytes there that this face would not have put."""
    from llmcache_plugins.answers.plain import pack
    from llmcache_plugins.models import EncodedAnswer

    plan = cache._desk.key_of(chat()).plan
    answer = EncodedAnswer(kind="openai.chat", payload=pack(odd))
    assert await cache.response_cache.put(plan.key, answer)
