"""The ready providers, with the real SDKs over real HTTP against the stand-in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

# Without it LiteLLM downloads its price list when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import httpx
import httpx2
import litellm
import msgspec
import openai
import pytest
import pytest_asyncio
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.lib.streaming.responses._responses import ResponseStreamState

from llmcache_plugins import InferenceGateway, Outcome, ResponseCache
from llmcache_plugins.answers import AnswerCodec, StreamCodec
from llmcache_plugins.errors import ConfigError, CorruptEntry, UnstorableAnswer
from llmcache_plugins.policy import Refusal, admit
from llmcache_plugins.providers import LiteLLMProvider, OpenAIProvider
from llmcache_plugins.signature import CacheSignatureEngine
from llmcache_plugins.testing.provider_server import (
    ProviderServer,
    clean_eof,
    content_filter,
    cut_stream,
    empty_text,
    hanging,
    no_choices,
    rate_limited,
    server_error,
    truncated,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from servers import Server

pytestmark = [
    # LiteLLM builds validators for typed dicts with read-only items, which pydantic does not enforce.
    pytest.mark.filterwarnings("ignore:Items? .* using the `ReadOnly` qualifier:UserWarning:pydantic"),
    # LiteLLM looks at every attribute of a usage chunk, two deprecated ones of pydantic among them.
    pytest.mark.filterwarnings(
        "ignore:Accessing the 'model_(computed_)?fields' attribute:DeprecationWarning"
    ),
]

MESSAGES = [{"role": "user", "content": "What is a cache?"}]
CHAT_TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
TOOLS = [{"type": "function", "name": "look_up", "parameters": {"type": "object"}, "strict": False}]
USAGE = {"include_usage": True}

QUERIES = {
    "chat": {"messages": MESSAGES},
    "chat, two choices": {"messages": MESSAGES, "n": 2},
    "chat, tools": {"messages": MESSAGES, "tools": CHAT_TOOLS},
    "responses": {"input": "Hi there"},
    "responses, tools": {"input": "Hi there", "tools": TOOLS},
    "embeddings": {"input": ["one", "two"]},
}
STREAMED = [name for name in QUERIES if not name.startswith("embeddings")]


@pytest_asyncio.fixture
async def client(stand_in: ProviderServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=stand_in.base_url, api_key="test", max_retries=0) as sdk:
        yield sdk


@pytest_asyncio.fixture
async def quiet_litellm(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """LiteLLM without its advice on the terminal, and with its clients and its worker ended afterwards."""
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

    monkeypatch.setattr(litellm, "suppress_debug_info", True)
    yield
    await GLOBAL_LOGGING_WORKER.stop()
    await litellm.close_litellm_async_clients()
    litellm.in_memory_llm_clients_cache.flush_cache()


class Sdk:
    """One SDK against the stand-in: its provider per API, and its spelling of a query."""

    def __init__(self, name: str, stand_in: ProviderServer, client: openai.AsyncOpenAI) -> None:
        self.name = name
        self._stand_in = stand_in
        self._client = client

    def provider(self, query: str) -> OpenAIProvider | LiteLLMProvider:
        api: Any = query.split(",")[0]
        return OpenAIProvider(self._client, api=api) if self.name == "openai" else LiteLLMProvider(api=api)

    def spell(self, query: str, *, model: str = "stand-in", **more: Any) -> dict[str, Any]:
        said = {**QUERIES[query], **more}
        if self.name == "openai":
            return {"model": model, **said}
        where = {"api_base": self._stand_in.base_url, "api_key": "test", "max_retries": 0}
        return {"model": f"openai/{model}", **where, **said}


@pytest.fixture(params=["openai", "litellm"])
def sdk(request: pytest.FixtureRequest, stand_in, client, quiet_litellm) -> Sdk:
    return Sdk(request.param, stand_in, client)


def same(one: Any, other: Any) -> bool:
    """Whether two SDK objects are equal in value and type, as far as anybody outside the SDK can see."""
    return one.model_dump() == other.model_dump() and types(one) == types(other)


def types(value: Any) -> Any:
    """The types of an object's parts, all the way down."""
    if isinstance(value, list):
        return [types(item) for item in value]
    public = value if isinstance(value, dict) else dict(value) if hasattr(value, "model_dump") else {}
    return type(value), {name: types(item) for name, item in public.items() if not name.startswith("_")}


async def all_of(chunks: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in chunks]


# --- Answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", QUERIES)
async def test_what_is_decoded_equals_what_the_sdk_returned(sdk, query):
    provider = sdk.provider(query)
    answer = await provider.complete(sdk.spell(query))
    encoded = provider.codec.encode(answer)
    decoded = provider.codec.decode(encoded)
    assert same(decoded, answer)
    if sdk.name == "openai":
        assert decoded == answer
        assert decoded.model_fields_set == answer.model_fields_set
        assert decoded.to_json() == answer.to_json()


@pytest.mark.parametrize("query", QUERIES)
async def test_every_decode_is_a_fresh_object(sdk, query):
    provider = sdk.provider(query)
    encoded = provider.codec.encode(await provider.complete(sdk.spell(query)))
    one, other = provider.codec.decode(encoded), provider.codec.decode(encoded)
    one.model = "changed"
    (getattr(one, "choices", None) or getattr(one, "output", None) or one.data).clear()
    assert same(other, provider.codec.decode(encoded))


@pytest.mark.parametrize("query", QUERIES)
async def test_an_entry_of_one_sdk_is_read_through_the_other(stand_in, client, quiet_litellm, query):
    sdks = [Sdk(name, stand_in, client) for name in ("openai", "litellm")]
    for writer, reader in (sdks, sdks[::-1]):
        written = await writer.provider(query).complete(writer.spell(query))
        encoded = writer.provider(query).codec.encode(written)
        read = reader.provider(query).codec.decode(encoded)
        own = await reader.provider(query).complete(reader.spell(query))
        assert type(read) is type(own)
        assert said(read) == said(own)
        assert reader.provider(query).codec.kind == encoded.kind


def said(answer: Any) -> Any:
    """What an answer says, without the ids of its call."""
    if hasattr(answer, "choices"):
        return [(c.finish_reason, c.message.content, calls(c.message)) for c in answer.choices]
    if hasattr(answer, "output"):
        return [[getattr(item, "arguments", None), texts(item)] for item in answer.output]
    return [item["embedding"] if isinstance(item, dict) else item.embedding for item in answer.data]


def calls(message: Any) -> list[tuple[str, str]]:
    return [(call.function.name, call.function.arguments) for call in message.tool_calls or []]


def texts(item: Any) -> list[str]:
    return [part.text for part in getattr(item, "content", None) or []]


async def test_facts_are_taken_on_the_way(sdk, stand_in):
    provider = sdk.provider("chat")
    facts = provider.codec.encode(await provider.complete(sdk.spell("chat"))).facts
    assert (facts.model, facts.finish_reasons) == ("stand-in", ("stop",))
    assert facts.usage.output_tokens == stand_in.output_tokens
    assert admit(facts) is None


@pytest.mark.parametrize(
    ("behaviour", "refusal"),
    [(truncated(), Refusal.TRUNCATED), (no_choices(), Refusal.NO_CHOICES), (empty_text(), None)],
)
async def test_admission_can_judge_what_came(client, stand_in, behaviour, refusal):
    stand_in.script(behaviour)
    provider = OpenAIProvider(client)
    answer = await provider.complete({"model": "stand-in", "messages": MESSAGES})
    assert admit(provider.codec.encode(answer).facts) is refusal


async def test_an_answer_that_would_not_come_back_equal_is_refused(client):
    provider = OpenAIProvider(client)
    answer = await provider.complete({"model": "stand-in", "messages": MESSAGES})
    answer.choices[0].message.__dict__["content"] = ("a", "tuple")
    with pytest.raises(UnstorableAnswer):
        provider.codec.encode(answer)


@pytest.mark.parametrize("answer", [None, "text", {"choices": []}, object()])
async def test_what_no_call_returns_is_refused(sdk, answer):
    with pytest.raises(UnstorableAnswer):
        sdk.provider("chat").codec.encode(answer)
    with pytest.raises(UnstorableAnswer):
        sdk.provider("chat").codec.join([answer])


@pytest.mark.parametrize("query", QUERIES)
async def test_damaged_entries_are_corrupt(sdk, query):
    codec = sdk.provider(query).codec
    good = codec.encode(await sdk.provider(query).complete(sdk.spell(query)))
    damaged = [
        msgspec.structs.replace(good, kind="plain"),
        msgspec.structs.replace(good, payload=good.payload[:-1]),
        msgspec.structs.replace(good, payload=msgspec.msgpack.encode([1])),
    ]
    for encoded in damaged:
        with pytest.raises(CorruptEntry):
            codec.decode(encoded)


async def test_answers_of_nearly_compatible_servers_come_back_as_they_were(client):
    codec = OpenAIProvider(client).codec
    odd = openai.types.chat.ChatCompletion.construct(
        id=7,
        model=None,
        choices=[
            {"index": 0, "message": {"content": [{"type": "text"}], "x": {"y": None}}, "finish_reason": "eos"}
        ],
        citations=["https://example.org"],
        usage={"prompt_tokens": "many"},
    )
    assert codec.decode(codec.encode(odd)) == odd


# --- Streams ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", STREAMED)
async def test_a_joined_stream_is_what_the_sdk_accumulates(sdk, query):
    provider = sdk.provider(query)
    spelled = sdk.spell(query, **({"stream_options": USAGE} if query.startswith("chat") else {}))
    chunks = await all_of(provider.stream(spelled))
    encoded = provider.codec.join(chunks)
    expected = accumulated(sdk, query, chunks)
    joined = provider.codec.decode(encoded)
    assert said(joined) == said(expected)
    assert joined.usage.model_dump(exclude_none=True) == expected.usage.model_dump(exclude_none=True)
    assert (joined.id, joined.model) == (expected.id, expected.model)
    # LiteLLM passes on the end of one choice only: its streams of several are served, never kept.
    half_told = sdk.name == "litellm" and query == "chat, two choices"
    assert admit(encoded.facts) is (Refusal.UNFINISHED if half_told else None)
    assert encoded.facts.usage is not None


@pytest.mark.parametrize("query", STREAMED)
async def test_a_joined_stream_is_the_answer_that_a_plain_call_returns(sdk, query):
    provider = sdk.provider(query)
    chunks = await all_of(provider.stream(sdk.spell(query)))
    joined = provider.codec.decode(provider.codec.join(chunks))
    assert type(joined) is type(plain := await provider.complete(sdk.spell(query)))
    assert said(joined) == said(plain)


@pytest.mark.parametrize("query", STREAMED)
async def test_replayed_chunks_accumulate_to_the_same_answer(sdk, query):
    provider = sdk.provider(query)
    spelled = sdk.spell(query, **({"stream_options": USAGE} if query.startswith("chat") else {}))
    answer = await provider.complete(spelled)
    encoded = provider.codec.encode(answer)
    replayed = list(provider.codec.split(encoded, query=spelled))
    live = await all_of(provider.stream(spelled))
    assert {type(chunk) for chunk in replayed} <= {type(chunk) for chunk in live}
    again = accumulated(sdk, query, replayed)
    assert said(again) == said(answer)
    assert (again.id, again.model) == (answer.id, answer.model)
    assert again.usage.total_tokens == answer.usage.total_tokens
    assert provider.codec.decode(provider.codec.join(replayed)).model_dump(exclude_none=True) == (
        answer.model_dump(exclude_none=True)
    )


def accumulated(sdk: Sdk, query: str, chunks: list[Any]) -> Any:
    """What the SDK itself makes of chunks."""
    if query.startswith("responses"):
        if sdk.name == "litellm":
            return chunks[-1].response
        omit = getattr(openai, "omit", openai.NOT_GIVEN)
        responses = ResponseStreamState(input_tools=omit, text_format=omit)
        return [responses.handle_event(chunk) for chunk in chunks][-1][0].response
    if sdk.name == "litellm":
        return litellm.stream_chunk_builder(chunks, messages=MESSAGES)
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(chunk)
    return state.get_final_completion()


async def test_native_response_events_of_litellm_come_back_too(stand_in, client, quiet_litellm):
    # For a model it does not know LiteLLM makes the events up itself; for this one it passes them on.
    sdk = Sdk("litellm", stand_in, client)
    provider = sdk.provider("responses")
    spelled = sdk.spell("responses", model="gpt-4o-mini")
    live = await all_of(provider.stream(spelled))
    encoded = provider.codec.join(live)
    assert said(provider.codec.decode(encoded)) == said(live[-1].response)
    replayed = list(provider.codec.split(encoded, query=spelled))
    assert [type(event) for event in replayed] == [type(event) for event in deduplicated(live)]
    assert same(replayed[-1].response, provider.codec.decode(encoded))


def deduplicated(events: list[Any]) -> list[Any]:
    """One delta per text: a replay says it at once."""
    kinds = [event.type for event in events]
    return [event for index, event in enumerate(events) if index == 0 or kinds[index] != kinds[index - 1]]


async def test_usage_is_replayed_to_those_who_ask(sdk):
    provider = sdk.provider("chat")
    encoded = provider.codec.encode(await provider.complete(sdk.spell("chat")))
    asked = list(provider.codec.split(encoded, query=sdk.spell("chat", stream_options=USAGE)))
    unasked = list(provider.codec.split(encoded, query=sdk.spell("chat")))
    assert (asked[-1].choices, asked[-1].usage.prompt_tokens > 0) == ([], True)
    assert all(chunk.choices and getattr(chunk, "usage", None) is None for chunk in unasked)
    assert len(asked) == len(unasked) + 1


async def test_replayed_chunks_are_fresh(sdk):
    provider = sdk.provider("chat")
    encoded = provider.codec.encode(await provider.complete(sdk.spell("chat")))
    for chunk in provider.codec.split(encoded, query={}):
        chunk.choices.clear()
    assert all(chunk.choices for chunk in provider.codec.split(encoded, query={}))


async def test_joining_leaves_the_chunks_as_they_are(sdk):
    provider = sdk.provider("chat, tools")
    chunks = await all_of(provider.stream(sdk.spell("chat, tools")))
    before = [repr(chunk) for chunk in chunks]
    provider.codec.join(chunks)
    assert [repr(chunk) for chunk in chunks] == before


@pytest.mark.parametrize("query", ["chat", "responses"])
async def test_a_stream_without_its_end_is_not_admitted(client, stand_in, query):
    provider = OpenAIProvider(client, api=query)
    stand_in.script(clean_eof(after=5))
    chunks = await all_of(provider.stream({"model": "stand-in", **QUERIES[query]}))
    assert admit(provider.codec.join(chunks).facts) is Refusal.UNFINISHED


@pytest.mark.parametrize("query", ["chat", "responses"])
async def test_a_truncated_stream_is_not_admitted(client, stand_in, query):
    provider = OpenAIProvider(client, api=query)
    stand_in.script(truncated())
    chunks = await all_of(provider.stream({"model": "stand-in", **QUERIES[query]}))
    assert admit(provider.codec.join(chunks).facts) is Refusal.TRUNCATED


async def test_embeddings_have_no_streams(sdk):
    provider = sdk.provider("embeddings")
    assert isinstance(provider.codec, AnswerCodec)
    assert not isinstance(provider.codec, StreamCodec)
    with pytest.raises(ConfigError, match="no streams"):
        provider.stream(sdk.spell("embeddings"))
    assert isinstance(sdk.provider("chat").codec, StreamCodec)


async def test_leaving_a_stream_closes_its_connection(client, stand_in):
    stand_in.median_seconds = 60.0
    stand_in._pause = no_pause_before_the_first(stand_in._pause)
    chunks = OpenAIProvider(client).stream({"model": "stand-in", "messages": MESSAGES})
    await anext(chunks)
    assert stand_in.running == 1
    await chunks.aclose()
    async with asyncio.timeout(5):
        await stand_in.idle()
    assert stand_in.abandoned == 1


def no_pause_before_the_first(pause: Any) -> Any:
    pauses = iter([0.0])
    return lambda seconds: pause(next(pauses, seconds))


# --- Calls -----------------------------------------------------------------------------------------------


async def test_the_delivery_is_the_methods_choice_not_the_querys(sdk, stand_in):
    provider = sdk.provider("chat")
    spelled = sdk.spell("chat", stream=True, stream_options=USAGE)
    before = dict(spelled)
    await provider.complete(spelled)
    await all_of(provider.stream({**spelled, "stream": False}))
    plain, streamed = (call.request for call in stand_in.received)
    assert not plain.get("stream")
    assert "stream_options" not in plain
    assert (streamed["stream"], streamed["stream_options"]) == (True, USAGE)
    assert spelled == before


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (rate_limited(), "RateLimitError"),
        (server_error(), "InternalServerError"),
        (content_filter(), "BadRequestError"),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
async def test_errors_of_the_provider_pass_unchanged(sdk, stand_in, behaviour, error, streams):
    provider = sdk.provider("chat")
    stand_in.behave(lambda _call: behaviour)
    sdk_error = getattr(openai if sdk.name == "openai" else litellm, error)
    query = sdk.spell("chat")
    with pytest.raises(sdk_error) as raised:
        await (all_of(provider.stream(query)) if streams else provider.complete(query))
    assert raised.value.status_code == behaviour.status


async def test_a_cut_stream_raises_what_the_sdk_raises(sdk, stand_in):
    stand_in.script(cut_stream(after=4))
    # Older SDKs pass on the error of the HTTP client they use.
    with pytest.raises((openai.APIError, httpx.TransportError)):
        await all_of(sdk.provider("chat").stream(sdk.spell("chat")))


async def test_cancelling_a_call_cancels_the_request(sdk, stand_in):
    stand_in.behave(lambda _call: hanging())
    task = asyncio.create_task(sdk.provider("chat").complete(sdk.spell("chat")))
    await stand_in.called()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        await stand_in.idle()
    assert (stand_in.calls, stand_in.abandoned) == (1, 1)


async def test_a_query_is_a_mapping(client):
    with pytest.raises(TypeError, match="mapping"):
        await OpenAIProvider(client).complete("What is a cache?")


async def test_an_unknown_api_is_a_config_error(client):
    with pytest.raises(ConfigError, match="'chat', 'responses', 'embeddings'"):
        OpenAIProvider(client, api="images")
    with pytest.raises(ConfigError):
        LiteLLMProvider(api="images")


async def test_a_replaced_litellm_function_is_the_one_that_is_called(monkeypatch):
    async def traced(**_arguments: Any) -> str:
        return "traced"

    monkeypatch.setattr(litellm, "acompletion", traced)
    assert await LiteLLMProvider().complete({"model": "m", "messages": []}) == "traced"


# --- Scope -----------------------------------------------------------------------------------------------


async def test_the_scope_of_a_client_is_where_it_calls_and_what_its_owner_has_set():
    async with openai.AsyncOpenAI(
        base_url="https://user:pass@example.org/v1",
        api_key="secret-1",
        organization="org",
        project="proj",
        default_headers={"X-Persona": "pirate", "Authorization": "secret-2", "Traceparent": "00-1-2-3"},
        default_query={"api-version": "2026-01-01", "api_key": "secret-3"},
    ) as client:
        scope = OpenAIProvider(client).scope({})
    assert scope == {
        "api_base": "https://example.org/v1/",
        "organization": "org",
        "project": "proj",
        "default_headers": {"x-persona": "pirate"},
        "default_query": {"api-version": "2026-01-01"},
    }


async def test_two_plain_clients_have_one_scope_that_has_a_canonical_form(client):
    async with openai.AsyncOpenAI(base_url=client.base_url, api_key="other", timeout=3) as other:
        one, two = (OpenAIProvider(each).scope({}) for each in (client, other))
    assert one == two == {"api_base": str(client.base_url)}
    CacheSignatureEngine().compute_signature({"messages": MESSAGES}, scope=one)


def test_the_scope_of_litellm_is_its_default_address(monkeypatch):
    assert LiteLLMProvider().scope({}) == {}
    monkeypatch.setattr(litellm, "api_base", "https://example.org")
    assert LiteLLMProvider().scope({"model": "m"}) == {"api_base": "https://example.org"}
    assert LiteLLMProvider().scope({"model": "m", "api_base": "https://other"}) == {}


# --- Imports ---------------------------------------------------------------------------------------------


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_sdk_is_imported_before_its_provider_is_asked_for():
    run(
        """
        import sys
        import llmcache_plugins.providers as providers
        import llmcache_plugins.providers._wire_codec, llmcache_plugins.answers
        assert not {"openai", "litellm", "pydantic", "aiohttp"} & set(sys.modules), "an SDK was imported"
        assert {"OpenAIProvider", "LiteLLMProvider"} <= set(dir(providers))
        assert not hasattr(providers, "GeminiProvider")
        from llmcache_plugins.providers import OpenAIProvider
        assert "openai" in sys.modules and "litellm" not in sys.modules
        """
    )


@pytest.mark.parametrize(
    ("sdk_name", "provider"), [("openai", "OpenAIProvider"), ("litellm", "LiteLLMProvider")]
)
def test_a_missing_sdk_names_the_extra(sdk_name, provider):
    output = run(
        f"""
        import sys
        sys.modules[{sdk_name!r}] = None
        try:
            from llmcache_plugins.providers import {provider}
        except ImportError as error:
            print(error)
        """
    )
    assert f'pip install "llmcache-plugins[{sdk_name}]"' in output


# --- Through the gateway ---------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def cache(valkey: Server, namespace: str) -> AsyncIterator[ResponseCache]:
    patient = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
    async with ResponseCache.from_url(valkey.url, namespace=namespace, **patient) as cache:
        yield cache


@pytest.mark.parametrize("query", QUERIES)
async def test_the_second_call_costs_nothing_and_returns_an_equal_object(sdk, stand_in, cache, query):
    gateway = InferenceGateway(sdk.provider(query), cache)
    first = await gateway.resolve(sdk.spell(query))
    reordered = dict(reversed(sdk.spell(query).items()))
    second = await gateway.resolve_detailed(reordered)
    assert same(second.answer, first)
    assert second.answer is not first
    assert second.outcome is Outcome.HIT
    assert second.tokens_saved is not None
    assert second.tokens_saved.total_tokens == first.usage.total_tokens
    assert stand_in.calls == 1


@pytest.mark.parametrize("query", STREAMED)
async def test_what_was_resolved_streams_and_what_was_streamed_resolves(sdk, stand_in, cache, query):
    gateway = InferenceGateway(sdk.provider(query), cache)
    resolved = await gateway.resolve(sdk.spell(query))
    replayed = await all_of(gateway.stream(sdk.spell(query)))
    assert len(replayed) > 1
    assert stand_in.calls == 1
    codec = sdk.provider(query).codec
    assert codec.join(replayed).facts.finish_reasons == codec.encode(resolved).facts.finish_reasons
    if query == "chat, two choices" and sdk.name == "litellm":
        return  # LiteLLM's own stream reports the end of one choice only: it is served, but never stored
    streamed = await all_of(gateway.stream(sdk.spell(query, model="another")))
    assert stand_in.calls == 2
    answer = await gateway.resolve_detailed(sdk.spell(query, model="another"))
    assert answer.outcome is Outcome.HIT
    assert stand_in.calls == 2
    assert len(streamed) > 2


async def test_many_callers_at_once_pay_for_one_completion(sdk, stand_in, cache):
    stand_in.script(hanging())
    gateway = InferenceGateway(sdk.provider("chat"), cache)
    calls = [asyncio.create_task(gateway.resolve(sdk.spell("chat"))) for _ in range(50)]
    await stand_in.called(1)
    stand_in.release()
    answers = await asyncio.gather(*calls)
    assert stand_in.calls == 1
    assert all(same(answer, answers[0]) for answer in answers)
    assert len({id(answer) for answer in answers}) == 50


@pytest.mark.parametrize("behaviour", [server_error(), content_filter()])
async def test_an_error_of_the_provider_passes_the_gateway_unchanged_and_is_not_kept(
    client, stand_in, cache, behaviour
):
    stand_in.script(behaviour)
    gateway = InferenceGateway(OpenAIProvider(client), cache)
    query = {"model": "stand-in", "messages": MESSAGES}
    with pytest.raises(openai.APIStatusError) as raised:
        await gateway.resolve(query)
    assert type(raised.value) in (openai.RateLimitError, openai.InternalServerError, openai.BadRequestError)
    assert (await gateway.resolve_detailed(query)).outcome is Outcome.MISS
    assert (await cache.stats()).provider_failures == 1


async def test_a_rate_limit_is_believed_for_as_long_as_the_provider_asks(client, stand_in, cache):
    stand_in.script(rate_limited(retry_after=0.3))
    gateway = InferenceGateway(OpenAIProvider(client), cache)
    query = {"model": "stand-in", "messages": MESSAGES}
    for _ in range(3):
        with pytest.raises(openai.RateLimitError):
            await gateway.resolve(query)
    assert stand_in.calls == 1
    deadline = asyncio.get_running_loop().time() + 5
    while asyncio.get_running_loop().time() < deadline:
        with contextlib.suppress(openai.RateLimitError):
            assert (await gateway.resolve_detailed(query)).outcome is Outcome.MISS
            break
        await asyncio.sleep(0.02)
    assert stand_in.calls == 2


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [(truncated(), Outcome.MISS), (no_choices(), Outcome.MISS), (empty_text(), Outcome.HIT)],
)
async def test_only_an_answer_that_is_one_is_kept(client, stand_in, cache, behaviour, outcome):
    stand_in.script(behaviour)
    gateway = InferenceGateway(OpenAIProvider(client), cache)
    query = {"model": "stand-in", "messages": MESSAGES}
    await gateway.resolve(query)
    assert (await gateway.resolve_detailed(query)).outcome is outcome


@pytest.mark.parametrize("behaviour", [cut_stream(), clean_eof()])
async def test_a_broken_stream_is_never_served_as_a_whole(client, stand_in, cache, behaviour):
    stand_in.script(behaviour)
    gateway = InferenceGateway(OpenAIProvider(client), cache)
    query = {"model": "stand-in", "messages": MESSAGES}
    with contextlib.suppress(openai.APIError, httpx.HTTPError, httpx2.HTTPError):
        await all_of(gateway.stream(query))
    assert (await gateway.resolve_detailed(query)).outcome is Outcome.MISS
    assert stand_in.calls == 2


async def test_two_addresses_of_one_model_do_not_share_answers(client, stand_in, cache):
    query = {"model": "stand-in", "messages": MESSAGES}
    await InferenceGateway(OpenAIProvider(client), cache).resolve(query)
    async with (
        ProviderServer() as elsewhere,
        openai.AsyncOpenAI(base_url=elsewhere.base_url, api_key="test") as other,
    ):
        result = await InferenceGateway(OpenAIProvider(other), cache).resolve_detailed(query)
        assert (result.outcome, elsewhere.calls) == (Outcome.MISS, 1)
