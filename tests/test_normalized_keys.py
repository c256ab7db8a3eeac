"""What normalizers make of keys: which requests become equal, which never do, and what is said about it.

`PYTHONPATH=. python tests/test_normalized_keys.py` writes `tests/vectors/normalized.json` anew.
"""

from __future__ import annotations

import copy
import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcache_plugins.errors import SignatureError
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.normalize import Normalizers
from llmcache_plugins.normalize.builtin import BUILTIN
from llmcache_plugins.signature import CacheSignatureEngine, Unsigned

VECTORS = Path(__file__).parent / "vectors" / "normalized.json"
PLAIN_VECTORS = VECTORS.with_name("signature.json")
PLAIN = CacheSignatureEngine()
ALL = CacheSignatureEngine(normalizers=BUILTIN)
A, B = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))


def chat(*contents: Any, **parameters: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": c} for c in contents], **parameters}


def same(one: Any, other: Any, *, engine: CacheSignatureEngine = ALL) -> bool:
    return engine.compute_signature(one) == engine.compute_signature(other)


# --- Golden vectors -----------------------------------------------------------------------------------------


def _golden() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(VECTORS.read_text("utf-8"))
    return found


def _engine(vector: dict[str, Any]) -> CacheSignatureEngine:
    given = vector["normalizers"]
    return CacheSignatureEngine(
        normalizers=[rule if isinstance(rule, str) else re.compile(rule["re"]) for rule in given]
    )


@pytest.mark.parametrize("vector", _golden(), ids=lambda vector: vector["name"])
def test_golden_vector(vector: dict[str, Any]):
    engine = _engine(vector)
    assert engine.canonical(vector["request"]).decode() == vector["canonical"]
    assert engine.compute_signature(vector["request"]).digest == vector["digest"]


@pytest.mark.parametrize(
    "vector", json.loads(PLAIN_VECTORS.read_text("utf-8"))["vectors"], ids=lambda vector: vector["name"]
)
def test_what_has_no_tokens_keeps_its_key(vector: dict[str, Any]):
    rules = [name for name in BUILTIN if name != "whitespace"]  # one of the texts has a tab
    engine = CacheSignatureEngine(secret=vector.get("secret"), normalizers=rules)
    how = {name: vector[name] for name in ("kind", "scope", "namespace") if name in vector}
    assert engine.compute_signature(vector["request"], **how).digest == vector["digest"]


# --- What becomes equal -------------------------------------------------------------------------------------

PLACES = [
    lambda text: text,
    lambda text: {"model": "m", "prompt": text},
    lambda text: {"model": "m", "prompt": [text, "more"]},
    lambda text: {"model": "m", "input": text},
    lambda text: {"model": "m", "input": ["more", text]},
    lambda text: {
        "model": "m",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": text}]}],
    },
    lambda text: {"model": "m", "input": [{"type": "function_call_output", "call_id": "c", "output": text}]},
    lambda text: {"model": "m", "input": "x", "instructions": text},
    lambda text: {"messages": [], "system": text},
    lambda text: {"messages": [], "system": [{"type": "text", "text": text}]},
    lambda text: chat("more", text),
    lambda text: chat([{"type": "text", "text": text}]),
    lambda text: chat([{"type": "tool_result", "tool_use_id": "t", "content": [{"text": text}]}]),
    lambda text: {"messages": [{"role": "human", "kwargs": {"content": text}}]},
    lambda text: {
        "messages": [{"role": "human", "kwargs": {"content": [text, {"type": "text", "text": text}]}}]
    },
    lambda text: {"system": "be brief", "user": {"says": ["so", text]}},
]


@pytest.mark.parametrize("place", PLACES, ids=range(len(PLACES)))
def test_a_token_in_a_text_does_not_count(place: Any):
    assert same(place(f"for {A}"), place(f"for {B}"))
    assert not same(place(f"for {A}"), place(f"from {A}"))
    assert not same(place(f"for {A}"), place(f"{A} for"))
    assert not same(place(f"for {A}"), place("for a@b.com"))
    assert not same(place(f"for {A}"), place("for"))
    assert not same(place(f"for {A}"), place(f"for {B}"), engine=PLAIN)


NO_TEXTS = [
    lambda token: {"model": token, "messages": []},
    lambda token: {"messages": [{"role": token, "content": "x"}]},
    lambda token: {"messages": [{"role": "user", "name": token, "content": "x"}]},
    lambda token: {"messages": [{"role": "tool", "tool_call_id": token, "content": "x"}]},
    lambda token: {
        "messages": [{"role": "assistant", "tool_calls": [{"id": token, "function": {"arguments": token}}]}]
    },
    lambda token: chat([{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{token}"}}]),
    lambda token: chat([{"type": "image_url", "image_url": {"url": f"https://x/{token}"}}]),
    lambda token: chat([{"type": "input_audio", "input_audio": {"data": token}}]),
    lambda token: chat([{"type": "file", "file": {"file_id": token}}]),
    lambda token: chat([{"type": "tool_use", "id": token, "input": {"id": token}}]),
    lambda token: {"model": "m", "input": [{"type": "function_call", "call_id": token, "arguments": token}]},
    lambda token: chat("x", tools=[{"function": {"name": "f", "description": f"of {token}"}}]),
    lambda token: chat("x", response_format={"schema": {"const": token}}),
    lambda token: chat(
        "x", seed=token, stop=[token], previous_response_id=token, extra_body={"x": f"a {token}"}
    ),
    lambda token: {"messages": [{"role": "ai", "kwargs": {"content": "x", "tool_calls": [{"id": token}]}}]},
    lambda token: {"prompt": f'[{{"lc": 1, "kwargs": {{"image": "{token}"}}}}]', "settings": "x"},
    lambda token: {"question": "sum it up", "document": token},
    lambda token: {"question": "sum it up", token: "x"},
]


@pytest.mark.parametrize("place", NO_TEXTS, ids=range(len(NO_TEXTS)))
def test_what_is_no_text_counts_as_it_is(place: Any):
    assert not same(place(A), place(B))


def test_two_images_whose_data_differ_in_what_looks_like_a_token_stay_two():
    def image(digits: str) -> Any:
        return chat([{"type": "image_url", "image_url": {"url": f"data:image/png;base64,AA/{digits}/AA=="}}])

    assert not same(image("1700000000"), image("1700000001"))
    # Not even where somebody writes them into the text.
    assert not same("see data:image/png;base64,AA/1700000000/", "see data:image/png;base64,AA/1700000001/")


def test_rules_without_a_placeholder_give_the_key_of_the_text_that_is_left():
    assert same("a  b ", "a b")
    assert same("see https://x/?utm_source=y", "see https://x/")
    assert ALL.compute_signature("a  b") == PLAIN.compute_signature("a b")


def test_a_prompt_with_a_placeholder_in_it_is_left_as_it_is():
    token = "\ufdd0"
    assert ALL.compute_signature(f"for {token}") == PLAIN.compute_signature(f"for {token}")
    assert not same(f"for {token}", f"for {A}")
    # Nor does it help to have another token stripped.
    assert not same(chat(f"for {token}", f"and {A}"), chat(f"for {A}", f"and {A}"))


def test_chains_share_what_they_do_not_strip_and_nothing_else():
    one, other = (CacheSignatureEngine(normalizers=rules) for rules in (["uuid"], ["email"]))
    assert one.compute_signature("hi") == other.compute_signature("hi")
    assert one.compute_signature(f"hi {A}") != other.compute_signature("hi a@b.com")


def test_a_call_may_bring_its_own_normalizers():
    own = Normalizers(["uuid"])
    keys = {PLAIN.compute_signature(f"for {token}", normalizers=own) for token in (A, B)}
    assert keys == {CacheSignatureEngine(normalizers=own).compute_signature(f"for {A}")}
    none = Normalizers([])
    assert ALL.compute_signature(f"for {A}", normalizers=none) == PLAIN.compute_signature(f"for {A}")


def test_facts_of_the_provider_are_no_text():
    for request in (chat("hi"), {"question": "what is it"}):
        keys = {ALL.compute_signature(request, scope={"system": f"of {token}"}) for token in (A, B)}
        assert len(keys) == 2


def test_what_is_sent_is_not_touched():
    request = chat([{"type": "text", "text": f"for  {A}"}])
    before = copy.deepcopy(request)
    ALL.compute_signature(request)
    assert request == before


texts = st.text(alphabet="ab \n\ufdd0\ufdd1", max_size=6) | st.sampled_from(
    [f"x {A}", f"x {B}", "x a@b.com", "x\t "]
)


@given(st.lists(texts, max_size=3), st.lists(texts, max_size=3))
@settings(deadline=None, max_examples=300)
def test_requests_are_equal_only_if_all_their_texts_are_for_the_rules(one: list[str], other: list[str]):
    """No text of strangers reaches the key of another, whatever placeholders they write."""
    equal = _meaning(one) == _meaning(other)
    assert same(chat(*one), chat(*other)) == equal


def _meaning(contents: list[str]) -> tuple[bool, list[str]]:
    if any(re.search("[\ufdd0-\ufdef]", text) for text in contents):
        return False, contents
    results = [Normalizers(BUILTIN).apply(text) for text in contents]
    return any(one.has_placeholders for one in results), [one.text for one in results]


# --- What it says -------------------------------------------------------------------------------------------


def test_it_says_which_rule_stripped_how_much_and_where_but_not_what():
    request = chat("hi", f"{A} {B}  a@b.com", system=f"be {A}")
    report = ALL.explain_normalization(request)
    assert [(one.rule, one.path, one.count) for one in report] == [
        ("uuid", "system", 1),
        ("uuid", "messages[1].content", 2),
        ("email", "messages[1].content", 1),
        ("whitespace", "messages[1].content", 1),
    ]
    assert A not in repr(report)
    assert ALL.explain_normalization("hi") == ()


def test_it_says_what_was_skipped():
    rules = Normalizers([re.compile("a")], limit=3)
    (one,) = PLAIN.explain_normalization("aaaa", normalizers=rules)
    assert (one.rule, one.count, one.skipped) == ("re:a", 0, "too long")


def test_a_function_that_fails_is_a_signature_error_that_names_the_place():
    def fails(text: str) -> str:
        raise ValueError(text)

    engine = CacheSignatureEngine(normalizers=[fails])
    with pytest.raises(SignatureError) as raised:
        engine.compute_signature(chat("hunter2"))
    assert raised.value.path == "messages[0].content"
    assert "ValueError" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_what_a_function_returns_is_a_text_like_any_other():
    engine = CacheSignatureEngine(normalizers=[lambda text: text.replace("x", "e\u0301")])
    assert same("x", "é", engine=engine)
    with pytest.raises(SignatureError, match="surrogate"):
        CacheSignatureEngine(normalizers=[lambda _: "\ud800"]).compute_signature("x")


# --- Off the loop -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("normalizers", "request_", "is_late"),
    [
        ([], "x" * 1_000_000, False),
        (BUILTIN, chat("short"), False),
        (BUILTIN, chat("x" * 1_000_000), True),
        ([str.lower], chat("short"), True),
        ([re.compile("a")], "short", True),
        ([str.lower], {"messages": []}, False),
    ],
)
def test_what_takes_long_or_is_foreign_is_left_to_a_thread(normalizers: Any, request_: Any, is_late: bool):
    engine = CacheSignatureEngine(normalizers=normalizers)
    read = engine.read(request_)
    assert isinstance(read, Unsigned if is_late else CacheKey)
    key = read.sign() if isinstance(read, Unsigned) else read
    assert key == engine.compute_signature(request_)


def test_what_is_left_to_a_thread_is_the_request_as_it_was_and_has_one_key():
    engine = CacheSignatureEngine(normalizers=[str.lower])
    request = chat("Hello")
    read = engine.read(request)
    request["messages"][0]["content"] = "changed"
    assert isinstance(read, Unsigned)
    assert read.sign() == read.sign() == engine.compute_signature(chat("HELLO"))


def test_a_key_that_could_not_be_made_stays_so():
    read = CacheSignatureEngine(normalizers=["uuid", lambda _: None]).read(chat(A, "x"))
    assert isinstance(read, Unsigned)
    for _ in range(2):
        with pytest.raises(SignatureError):
            read.sign()


if __name__ == "__main__":
    vectors = _golden()
    for vector in vectors:
        vector["canonical"] = _engine(vector).canonical(vector["request"]).decode()
        vector["digest"] = _engine(vector).compute_signature(vector["request"]).digest
    VECTORS.write_text(json.dumps(vectors, indent=2, ensure_ascii=True) + "\n", "utf-8")
