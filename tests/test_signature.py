"""Which requests are equal, which are not, and which have no key.

`PYTHONPATH=. python tests/test_signature.py` writes `tests/vectors/signature.json` anew: only together with
a new `SCHEME`.
"""

from __future__ import annotations

import copy
import enum
import hashlib
import hmac
import inspect
import json
import re
import sys
import threading
from collections import ChainMap, OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, Literal
from unittest.mock import MagicMock, Mock

import numpy as np
import pydantic
import pytest
from multidict import CIMultiDict, MultiDict
from openai.resources.chat.completions import Completions
from openai.resources.embeddings import Embeddings
from openai.resources.responses import Responses
from openai.types.chat import ChatCompletionMessage
from openai.types.responses import ParsedResponseOutputText, ResponseReasoningItem

from llmcache_plugins.errors import ConfigError, SignatureError
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.signature import LEFT_OUT, LEFT_OUT_HEADERS, SCHEME, CacheSignatureEngine

VECTORS = Path(__file__).parent / "vectors" / "signature.json"
ENGINE = CacheSignatureEngine()
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def digest(request: Any, **how: Any) -> str:
    return ENGINE.compute_signature(request, **how).digest


def chat(**parameters: Any) -> dict[str, Any]:
    return {**CHAT, **parameters}


def said(*messages: Any) -> dict[str, Any]:
    return {"model": "m", "messages": list(messages)}


# --- Golden vectors -----------------------------------------------------------------------------------------


def _golden() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(VECTORS.read_text("utf-8"))
    return found


def _arguments(vector: dict[str, Any]) -> tuple[CacheSignatureEngine, dict[str, Any]]:
    engine = CacheSignatureEngine(secret=vector.get("secret"))
    how: dict[str, Any] = {name: vector[name] for name in ("kind", "scope", "namespace") if name in vector}
    return engine, how


@pytest.mark.parametrize("vector", _golden()["vectors"], ids=lambda vector: vector["name"])
def test_golden_vector(vector: dict[str, Any]) -> None:
    engine, how = _arguments(vector)
    assert engine.canonical(vector["request"], **how).decode() == vector["canonical"]
    assert engine.compute_signature(vector["request"], **how).digest == vector["digest"]


@pytest.mark.parametrize("vector", _golden()["vectors"], ids=lambda vector: vector["name"])
def test_the_digest_of_a_vector_is_that_of_its_canonical_text(vector: dict[str, Any]) -> None:
    text = vector["canonical"].encode()
    if "secret" in vector:
        expected = hmac.new(vector["secret"].encode(), text, "sha256").hexdigest()
    else:
        expected = hashlib.sha256(text).hexdigest()
    assert vector["digest"] == expected


def test_what_is_left_out_changes_only_with_the_scheme() -> None:
    golden = _golden()
    assert golden["scheme"] == SCHEME
    assert golden["left_out"] == sorted(LEFT_OUT)
    assert golden["left_out_headers"] == sorted(LEFT_OUT_HEADERS)


# --- The key ------------------------------------------------------------------------------------------------


def test_a_key_has_a_digest_a_namespace_and_a_form_for_people() -> None:
    key = CacheSignatureEngine(namespace="faq").compute_signature(CHAT)
    assert isinstance(key, CacheKey)
    assert key.namespace == "faq"
    assert re.fullmatch(r"llm:resp:[0-9a-f]{64}", str(key))


def test_the_prefix_is_only_a_prefix() -> None:
    key = CacheSignatureEngine(prefix="app").compute_signature(CHAT)
    assert str(key) == f"app:resp:{digest(CHAT)}"


def test_the_namespace_of_a_call_wins() -> None:
    of_call = CacheSignatureEngine(namespace="a").compute_signature(CHAT, namespace="b")
    assert of_call == CacheSignatureEngine(namespace="b").compute_signature(CHAT)


def test_namespaces_do_not_even_share_digests() -> None:
    assert digest(CHAT, namespace="a") != digest(CHAT, namespace="b")
    assert digest(CHAT, namespace="é") != digest(CHAT, namespace="e\u0301")
    assert digest(CHAT, namespace="x" * 100) != digest(CHAT, namespace="x" * 101)


def test_the_secret_decides_the_digest() -> None:
    keys = [CacheSignatureEngine(secret=secret).compute_signature(CHAT) for secret in (None, "a", "b")]
    assert len(set(keys)) == 3
    assert CacheSignatureEngine(secret=b"a").compute_signature(CHAT) == keys[1]


@pytest.mark.parametrize("secret", ["", b""])
def test_an_empty_secret_is_a_mistake(secret: str | bytes) -> None:
    with pytest.raises(ConfigError, match="secret is empty"):
        CacheSignatureEngine(secret=secret)


def test_an_engine_does_not_show_its_secret() -> None:
    assert "hunter2" not in repr(CacheSignatureEngine(secret="hunter2"))


def test_kinds_have_keys_of_their_own() -> None:
    assert digest(CHAT, kind="openai.chat") != digest(CHAT, kind="plain") == digest(CHAT)


def test_a_bare_prompt_is_not_a_mapping_that_contains_it() -> None:
    assert digest("hi") not in {digest({"prompt": "hi"}), digest({"hi": "hi"}), digest({})}
    assert digest("hi") == digest(Text("hi"))
    assert digest("") != digest({})


def test_a_bare_prompt_has_a_scope_too() -> None:
    assert digest("hi", scope={"model": "a"}) != digest("hi", scope={"model": "b"})
    assert digest("hi", scope={}) == digest("hi", scope=None) == digest("hi")


def test_one_engine_serves_many_threads() -> None:
    requests = [said({"role": "user", "content": f"é{n}" * 50}) for n in range(50)]
    expected = [digest(request) for request in requests]
    seen: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: seen.append([digest(request) for request in requests]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [expected] * 8


# --- Values by value ----------------------------------------------------------------------------------------


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Whole(int):
    def __str__(self) -> str:
        return "something else"


class Colour(enum.StrEnum):
    RED = "red"


class OldColour(str, enum.Enum):  # noqa: UP042 - still common
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Anything(enum.Enum):
    PAIR = (1, "x")
    RED = "red"


class Turn(pydantic.BaseModel):
    role: str
    content: Any
    name: str | None = None


class Envelope(Mapping[str, Any]):
    """A mapping that is no dict."""

    def __init__(self, **items: Any) -> None:
        self._items = items

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


Point = namedtuple("Point", ["x", "y"])  # noqa: PYI024 - the untyped kind is met in requests
NFC, NFD = "caf\u00e9", "cafe\u0301"

SAME = {
    "order of keys": ({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 2, "c": 1}, "a": 1}),
    "integral float": ({"a": [1, 0, -3]}, {"a": [1.0, -0.0, -3.0]}),
    "big integral float": ({"a": 10**22}, {"a": 1e22}),
    "largest float": ({"a": int(sys.float_info.max)}, {"a": sys.float_info.max}),
    "tuple": ({"a": [1, [2]]}, {"a": (1, (2,))}),
    "named tuple": ({"a": [1, 2]}, {"a": Point(1, 2)}),
    "composed value": ({"a": NFC}, {"a": NFD}),
    "composed key": ({"a": {NFC: 1}}, {"a": {NFD: 1}}),
    "composed parameter": ({NFC: 1}, {NFD: 1}),
    "angstrom": ({"a": "\u00c5"}, {"a": "\u212b"}),
    "int key": (chat(logit_bias={"50256": -100}), chat(logit_bias={50256: -100})),
    "negative int key": ({"a": {"-1": 0}}, {"a": {-1: 0}}),
    "int enum key": ({"a": {"1": 0}}, {"a": {Number.ONE: 0}}),
    "str enum key": ({"model": "m"}, {OldColour("red"): None, Text("model"): "m"}),
    "str": ({"a": "red"}, {"a": Text("red")}),
    "str enum": ({"a": "red"}, {"a": Colour.RED}),
    "old str enum": ({"a": "red"}, {"a": OldColour.RED}),
    "enum": ({"a": "red"}, {"a": Anything.RED}),
    "enum of a tuple": ({"a": [1, "x"]}, {"a": Anything.PAIR}),
    "int": ({"a": 7}, {"a": Whole(7)}),
    "int enum": ({"a": 1}, {"a": Number.ONE}),
    "numpy float": ({"a": 0.5}, {"a": np.float64(0.5)}),
    "ordered dict": ({"a": {"b": 1}}, {"a": OrderedDict(b=1)}),
    "default dict": ({"a": {"b": 1}}, {"a": defaultdict(int, b=1)}),
    "user dict": ({"a": {"b": 1}}, {"a": UserDict(b=1)}),
    "chain map": ({"a": {"b": 1}}, {"a": ChainMap({"b": 1}, {"b": 2})}),
    "proxy": ({"a": {"b": 1}}, MappingProxyType({"a": MappingProxyType({"b": 1})})),
    "own mapping": ({"a": {"b": 1}}, Envelope(a=Envelope(b=1))),
    "multidict": ({"a": {"b": "1"}}, {"a": MultiDict(b="1")}),
    "None parameter": (CHAT, chat(temperature=None, tools=None, api_base=None, base_url=None)),
    "None field of a message": (
        said({"role": "assistant", "content": "x"}),
        said({"role": "assistant", "content": "x", "tool_calls": None, "refusal": None}),
    ),
    "None field of a message in a tuple": (
        CHAT,
        {**CHAT, "messages": ({**CHAT["messages"][0], "name": None},)},
    ),
    "None field of an input item": (
        {"input": [{"type": "reasoning", "id": "r"}]},
        {"input": [{"type": "reasoning", "id": "r", "status": None}]},
    ),
    "model": (CHAT, said(Turn(role="user", content="hi"))),
    "model with a None that was set": (CHAT, said(Turn(role="user", content="hi", name=None))),
    "whole request as a model": ({"role": "user", "content": "hi"}, Turn(role="user", content="hi")),
    "request is a model in a model": (
        said({"role": "user", "content": [{"role": "x", "content": 1}]}),
        said(Turn(role="user", content=[Turn(role="x", content=1)])),
    ),
    "extras that add nothing": (CHAT, chat(extra_body={}, extra_query={}, extra_headers={})),
    "address under its other name": (chat(api_base="http://x/v1"), chat(base_url="http://x/v1")),
    "slash after an address": (chat(api_base="http://x/v1"), chat(api_base="http://x/v1/")),
    "address under both names": (chat(api_base="http://x"), chat(api_base="http://x", base_url="http://x/")),
    "OpenAI's address": (CHAT, chat(base_url="https://api.openai.com/v1/")),
    "case of a header": (
        chat(extra_headers={"OpenAI-Beta": "a"}),
        chat(extra_headers={"openai-beta": "a"}),
    ),
    "headers that cannot matter": (
        chat(extra_headers={"X-Tenant": "a"}),
        chat(extra_headers={"X-Tenant": "a", "Authorization": b"not even a string", "TraceParent": "00-1"}),
    ),
    "only such headers": (CHAT, chat(extra_headers={"X-Request-ID": "7"})),
}


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME.keys())
def test_equal_requests_have_equal_keys(pair: tuple[Any, Any]) -> None:
    one, other = pair
    assert ENGINE.canonical(one) == ENGINE.canonical(other)
    assert ENGINE.compute_signature(one) == ENGINE.compute_signature(other)


DIFFERENT = {
    "bool and int": ({"a": True}, {"a": 1}),
    "false and zero": ({"a": False}, {"a": 0}),
    "int and its digits": ({"a": 1}, {"a": "1"}),
    "None and its name": ({"a": [None]}, {"a": ["null"]}),
    "None in a schema": ({"model": "m", "tools": [{"const": None}]}, {"model": "m", "tools": [{}]}),
    "None in a response format": (chat(response_format={"x": None}), chat(response_format={})),
    "None in content": (
        said({"role": "user", "content": [{"type": "text", "x": None}]}),
        said({"role": "user", "content": [{"type": "text"}]}),
    ),
    "None in a tool call": (said({"tool_calls": [{"id": None}]}), said({"tool_calls": [{}]})),
    "None as a message": (said(None), said()),
    "None in messages that are no parameter": (
        {"x": {"messages": [{"a": None}]}},
        {"x": {"messages": [{}]}},
    ),
    "None inside extra_body": (chat(extra_body={"a": None}), chat(extra_body={})),
    "order of a list": ({"a": [1, 2]}, {"a": [2, 1]}),
    "order of messages": (said({"a": 1}, {"b": 1}), said({"b": 1}, {"a": 1})),
    "list and item": ({"a": ["x"]}, {"a": "x"}),
    "nesting": ({"a": [[1], 2]}, {"a": [1, [2]]}),
    "list and mapping": ({"a": ["x"]}, {"a": {"0": "x"}}),
    "whitespace": ({"a": "x"}, {"a": "x "}),
    "case": ({"a": "x"}, {"a": "X"}),
    "compatibility characters": ({"a": "\ufb01"}, {"a": "fi"}),
    "neighbouring floats": ({"a": 0.1 + 0.2}, {"a": 0.3}),
    "neighbouring big ints": ({"a": 2**64}, {"a": 2**64 + 1}),
    "float beyond doubles": ({"a": 2**53}, {"a": 2**53 + 1}),
    "empty and absent": ({"a": ""}, {}),
    "empty list and mapping": ({"a": []}, {"a": {}}),
    "two addresses": (chat(api_base="http://x"), chat(api_base="http://x", base_url="http://y")),
    "two addresses exchanged": (
        chat(api_base="http://y", base_url="http://x"),
        chat(api_base="http://x", base_url="http://y"),
    ),
    "an address that only looks like OpenAI's": (CHAT, chat(api_base="https://api.openai.com/v2")),
    "value of a header": (chat(extra_headers={"x-a": "1"}), chat(extra_headers={"x-a": "2"})),
    "extra_body and parameter": (chat(extra_body={"seed": 1}), chat(seed=1)),
    "user below the top level": (chat(extra_body={"user": "a"}), chat(extra_body={"user": "b"})),
    "user of a mapping that is no body": ({"system": "s", "user": "a"}, {"system": "s", "user": "b"}),
    "defaults of two models": (said(Turn(role="a", content="x")), said(Turn(role="b", content="x"))),
}


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_different_requests_have_different_keys(pair: tuple[Any, Any]) -> None:
    one, other = pair
    assert digest(one) != digest(other)


# --- Parameters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(LEFT_OUT))
def test_a_parameter_that_cannot_change_the_answer_is_not_in_the_key(name: str) -> None:
    assert digest(chat(**{name: object()})) == digest(CHAT)
    assert digest(CHAT, scope={name: object()}) == digest(CHAT)


@pytest.mark.parametrize("body", [{"model": 1}, {"messages": 1}, {"input": 1}, {"prompt": 1}], ids=str)
def test_a_body_is_known_by_what_is_in_it(body: dict[str, Any]) -> None:
    assert digest({**body, "user": "a"}) == digest(body)
    absent = dict.fromkeys(body)
    assert digest({**absent, "user": "a"}) == digest({"user": "a"}) != digest({})


@pytest.mark.parametrize("name", sorted(LEFT_OUT_HEADERS))
def test_a_header_that_cannot_change_the_answer_is_not_in_the_key(name: str) -> None:
    assert name == name.lower()
    assert digest(chat(extra_headers={name.title(): "a", "x": "y"})) == digest(chat(extra_headers={"x": "y"}))


MAY_CHANGE_THE_ANSWER = [
    # OpenAI
    "audio",
    "background",
    "best_of",
    "conversation",
    "dimensions",
    "echo",
    "encoding_format",
    "frequency_penalty",
    "function_call",
    "functions",
    "include",
    "input",
    "instructions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "max_tool_calls",
    "messages",
    "modalities",
    "model",
    "moderation",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning",
    "reasoning_effort",
    "response_format",
    "seed",
    "service_tier",
    "store",
    "stop",
    "suffix",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "verbosity",
    "web_search_options",
    "extra_body",
    "extra_headers",
    "extra_query",
    "organization",
    "project",
    "api_base",
    "base_url",
    "api_version",
    "azure_endpoint",
    "azure_deployment",
    # LiteLLM and the servers behind it
    "custom_llm_provider",
    "deployment_id",
    "fallbacks",
    "guardrails",
    "guided_json",
    "min_p",
    "mock_response",
    "num_ctx",
    "order",
    "prompt_id",
    "prompt_variables",
    "region",
    "repetition_penalty",
    "safety_settings",
    "tenant",
    "thinking",
    "top_k",
    "weight",
    "something_unknown",
]


@pytest.mark.parametrize("name", MAY_CHANGE_THE_ANSWER)
def test_a_parameter_that_may_change_the_answer_is_in_the_key(name: str) -> None:
    body = {"prompt" if name == "model" else "model": "m"}
    keys = {digest({**body, name: value}) for value in ({"a": 1}, {"a": 2})}
    assert len(keys | {digest(body)}) == 3


def test_the_parameters_of_the_openai_sdk_are_all_decided_on() -> None:
    known: set[str] = set()
    for resource in (Completions, Embeddings, Responses):
        known |= set(inspect.signature(resource.create).parameters) - {"self"}
    assert known & LEFT_OUT == {
        "metadata",
        "safety_identifier",
        "stream",
        "stream_options",
        "timeout",
        "user",
    }


# --- Scope --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["http://x", "http://x/"])
@pytest.mark.parametrize("name", ["api_base", "base_url"])
def test_it_does_not_matter_whether_request_or_provider_names_the_address(name: str, address: str) -> None:
    assert digest(CHAT, scope={name: address}) == digest(chat(api_base="http://x")) != digest(CHAT)


def test_the_request_wins_over_the_scope() -> None:
    other = {"api_base": "http://other", "api_version": "1"}
    assert digest(chat(base_url="http://x"), scope=other) == digest(
        chat(api_base="http://x", api_version="1")
    )
    assert digest(chat(api_base=None), scope=other) == digest(CHAT, scope=other)


def test_a_request_can_go_back_to_the_default_address() -> None:
    scoped = digest(chat(api_base="https://api.openai.com/v1"), scope={"base_url": "http://x"})
    assert scoped == digest(CHAT)


def test_a_scope_is_checked_like_a_request() -> None:
    with pytest.raises(SignatureError, match=r"^api_base: .* bytes"):
        digest(CHAT, scope={"api_base": b"http://x"})


# --- Objects of SDKs ----------------------------------------------------------------------------------------


def test_a_message_of_the_openai_sdk_equals_the_dict_somebody_writes() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    written: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [call]}
    parsed = ChatCompletionMessage.model_validate(written)
    built = ChatCompletionMessage.construct(**written, refusal=None)
    assert digest(said(written)) == digest(said(parsed)) == digest(said(built))


def test_an_output_item_of_the_openai_sdk_can_be_the_next_input() -> None:
    item = ResponseReasoningItem(id="r", summary=[], type="reasoning")
    written = {"id": "r", "summary": [], "type": "reasoning"}
    assert digest({"model": "m", "input": [item]}) == digest({"model": "m", "input": [written]})


def test_what_the_openai_sdk_does_not_send_is_not_in_the_key() -> None:
    text = ParsedResponseOutputText[Any](annotations=[], text="{}", type="output_text", parsed=object())
    written = {"annotations": [], "text": "{}", "type": "output_text"}
    assert digest({"input": [{"content": [text]}]}) == digest({"input": [{"content": [written]}]})


def test_a_default_nobody_set_counts() -> None:
    class User(pydantic.BaseModel):
        role: Literal["user"] = "user"
        content: str

    class System(pydantic.BaseModel):
        role: Literal["system"] = "system"
        content: str

    assert digest(said(User(content="hi"))) == digest(CHAT) != digest(said(System(content="hi")))


def test_a_none_that_was_set_inside_a_model_counts() -> None:
    class Schema(pydantic.BaseModel):
        const: None = None

    assert digest({"tools": [Schema(const=None)]}) == digest({"tools": [{"const": None}]})
    assert digest({"tools": [Schema()]}) == digest({"tools": [{}]})


def test_anything_with_a_model_dump_is_dumped() -> None:
    class Dumped:
        def model_dump(self, *, mode: str = "python", exclude_unset: bool = False) -> dict[str, Any]:
            assert mode == "json"
            return {"role": "user", "content": "hi"} | ({} if exclude_unset else {"name": None})

    assert digest(said(Dumped())) == digest(CHAT)


def test_a_dump_does_not_warn_about_the_prompt() -> None:
    built = Turn.model_construct(role=1, content="hi")  # pydantic warns of the int, and quotes
    assert digest(said(built)) == digest(said({"role": 1, "content": "hi"}))


# --- No canonical form --------------------------------------------------------------------------------------


@dataclass
class Record:
    a: int = 1


class Broken(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(["secret-prompt"])

    def __len__(self) -> int:
        return 1


class BrokenDump:
    def model_dump(self, **_: Any) -> Any:
        raise ZeroDivisionError("secret-prompt")


class EndlessDump:
    def model_dump(self, **_: Any) -> Any:
        return EndlessDump()


def cycle() -> list[Any]:
    ring: list[Any] = []
    ring.append({"again": ring})
    return ring


def deep(levels: int) -> list[Any]:
    nest: list[Any] = []
    for _ in range(levels - 1):
        nest = [nest]
    return nest


def endless() -> Iterator[int]:
    yield 1


REFUSED_VALUES = {
    "nan": float("nan"),
    "infinity": float("inf"),
    "minus infinity": float("-inf"),
    "numpy nan": np.float64("nan"),
    "bytes": b"secret-prompt",
    "bytearray": bytearray(b"secret-prompt"),
    "memoryview": memoryview(b"secret-prompt"),
    "set": {"secret-prompt"},
    "frozenset": frozenset({"secret-prompt"}),
    "lone surrogate": "secret-prompt\ud800",
    "lone surrogate as bytes of a path": "secret-prompt\udcff",
    "class": pydantic.BaseModel,
    "model class": Turn,
    "function": deep,
    "lambda": lambda: None,
    "generator": endless(),
    "object": object(),
    "complex": 1j,
    "decimal": Decimal(1),
    "numpy int": np.int64(1),
    "array": np.zeros(2),
    "dataclass": Record(),
    "namespace": SimpleNamespace(a=1),
    "mock": Mock(),
    "magic mock": MagicMock(),
    "ellipsis": ...,
    "module": json,
    "range": range(3),
    "dict view": {}.keys(),
    "exception": ValueError("secret-prompt"),
    "huge int": 10**5000,
    "broken mapping": Broken(),
    "broken dump": BrokenDump(),
    "endless dump": EndlessDump(),
    "cycle": cycle(),
    "deep nest": deep(200),
    "very deep nest": deep(100_000),
    "key twice": CIMultiDict([("A", "1"), ("a", "2"), ("a", "3")]),
    "bool key": {True: 1},
    "None key": {None: 1},
    "float key": {1.0: 1},
    "bytes key": {b"secret-prompt": 1},
    "tuple key": {("secret-prompt",): 1},
    "enum key": {Anything.RED: 1},
    "huge key": {10**5000: 1},
    "surrogate key": {"\ud800": 1},
    "int and str key": {1: "a", "1": "b"},
    "composed and decomposed key": {NFC: 1, NFD: 2},
}


@pytest.mark.parametrize("value", REFUSED_VALUES.values(), ids=REFUSED_VALUES.keys())
def test_a_value_without_canonical_form_is_refused_by_path(value: Any) -> None:
    request = said(1, {}, {"content": [{"image": value}]})
    with pytest.raises(SignatureError) as caught:
        ENGINE.compute_signature(request)
    assert caught.value.path.startswith("messages[2].content[0].image")
    assert str(caught.value).startswith(caught.value.path + ": ")
    assert "secret-prompt" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "request_", [None, 1, 1.5, True, b"hi", [], [CHAT], {1, 2}, object(), dict, Broken()]
)
def test_a_request_is_a_mapping_or_a_string(request_: Any) -> None:
    with pytest.raises(SignatureError, match=r"^the request: ") as caught:
        ENGINE.compute_signature(request_)
    assert caught.value.path == ""


PATHS = {
    "messages[2].content[0].image": said(1, 2, {"content": [{"image": b""}]}),
    "temperature": chat(temperature=float("nan")),
    '["odd key"].x': {"odd key": {"x": b""}},
    'a["0"].b': {"a": {0: {"b": b""}}},
    'a[""]': {"a": {"": b""}},
    'a["\\"]"]': {"a": {'"]': b""}},
    "caf\u00e9": {NFD: b""},
    'a["1"]': {"a": {"1": 1, 1: 1}},
    "a": {"a": {b"": 1}},
    "extra_headers.x": chat(extra_headers={"X": 1, "x": 2}),
    'extra_headers["x-a"]': chat(extra_headers={"X-A": b""}),
    "messages[0].content[1]": said(Turn(role="user", content=[0, 10**5000])),
    f'["{"k" * 60}..."]': {"k" * 5000: b""},
}


@pytest.mark.parametrize(("path", "request_"), PATHS.items(), ids=PATHS.keys())
def test_a_path_is_written_as_in_python(path: str, request_: dict[str, Any]) -> None:
    with pytest.raises(SignatureError) as caught:
        ENGINE.compute_signature(request_)
    assert caught.value.path == path


def test_two_parameters_of_one_spelling_are_refused_even_if_left_out() -> None:
    with pytest.raises(SignatureError, match="two keys become this one"):
        digest({"model": "m", NFC: 1, NFD: 1})


def test_a_kind_without_a_canonical_form_is_refused() -> None:
    with pytest.raises(SignatureError, match=r"^kind: "):
        digest(CHAT, kind="\ud800")


def test_a_namespace_may_be_any_string() -> None:
    assert digest(CHAT, namespace="\ud800") != digest(CHAT, namespace="\udfff")


def test_the_error_of_a_cycle_is_of_readable_length() -> None:
    ring: dict[str, Any] = {}
    ring["a_rather_long_name_of_a_key"] = ring
    with pytest.raises(SignatureError, match="contains itself") as caught:
        digest(ring)
    assert len(str(caught.value)) < 1500


def test_a_deep_request_is_no_problem() -> None:
    assert digest({"a": deep(120)}) != digest({"a": deep(121)})


def test_an_exhausted_stack_is_a_signature_error() -> None:
    seen: list[object] = []

    def descend() -> None:
        try:
            seen.append(digest(chat(tools=deep(100))))
        except SignatureError as error:
            seen.append(error)
        descend()

    with pytest.raises(RecursionError):
        descend()
    assert any(isinstance(entry, str) for entry in seen)
    assert any(isinstance(entry, SignatureError) for entry in seen)


def test_a_request_that_changes_while_it_is_read_is_a_signature_error() -> None:
    request: dict[str, Any] = {"model": "m"}

    class Meddler:
        def model_dump(self, **_: Any) -> Any:
            request["tools"].append("more")
            request["metadata"][str(len(request["metadata"]))] = 1
            return {}

    meddled = {"first": Meddler(), "second": 1}
    request |= {"tools": [], "metadata": {}, "extra": meddled}
    assert digest(request)  # only what is left out or has been read changes

    class Worse:
        def model_dump(self, **_: Any) -> Any:
            meddled[str(len(meddled))] = 1
            return {}

    meddled["first"] = Worse()
    with pytest.raises(SignatureError, match="could not be read"):
        digest(request)


def test_a_request_is_never_changed() -> None:
    request = chat(
        api_base="http://x/",
        base_url="http://x",
        user="u",
        seed=1.0,
        top_p=None,
        extra_headers={"Authorization": "secret", "X-A": "1"},
        extra_body={},
        tools=({"a": NFD, "b": None},),
    )
    scope = {"base_url": "http://y/"}
    before = copy.deepcopy((request, scope))
    digest(request, scope=scope)
    assert (request, scope) == before
    assert repr((request, scope)) == repr(before)


# --- Writing the vectors ------------------------------------------------------------------------------------

if __name__ == "__main__":
    golden = _golden()
    for vector in golden["vectors"]:
        engine, how = _arguments(vector)
        vector["canonical"] = engine.canonical(vector["request"], **how).decode()
        vector["digest"] = engine.compute_signature(vector["request"], **how).digest
    golden |= {
        "scheme": SCHEME,
        "left_out": sorted(LEFT_OUT),
        "left_out_headers": sorted(LEFT_OUT_HEADERS),
    }
    VECTORS.write_text(json.dumps(golden, indent=2, ensure_ascii=False) + "\n", "utf-8")
