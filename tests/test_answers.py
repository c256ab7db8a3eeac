"""Plain values come back equal in value and type, or are refused."""

from __future__ import annotations

import contextlib
import datetime
import enum
import math
from collections import OrderedDict, defaultdict
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcache_plugins.answers import AnswerCodec, PlainCodec, StreamCodec
from llmcache_plugins.answers.plain import DEEPEST
from llmcache_plugins.errors import CorruptEntry, UnstorableAnswer
from llmcache_plugins.models import AnswerFacts, EncodedAnswer, Usage

CODEC = PlainCodec()

# How long an example takes depends on who else uses the machine.
unhurried = settings(deadline=None)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(-(2**63), 2**63 - 1), inner),
    max_leaves=20,
)


class Word(str):
    __slots__ = ()


class Colour(enum.StrEnum):
    RED = "red"


class Pair(NamedTuple):
    one: int
    two: int


def shape_of(value: object) -> object:
    """The types of a value, all the way down, and the order of its keys."""
    if isinstance(value, dict):
        return dict, [(type(key), shape_of(item)) for key, item in value.items()]
    return (list, [shape_of(item) for item in value]) if isinstance(value, list) else type(value)


def nested(levels: int) -> Any:
    value: Any = "core"
    for _ in range(levels):
        value = [value]
    return value


@unhurried
@given(plain)
def test_a_plain_value_comes_back_equal_in_value_and_type(value: Any) -> None:
    returned = CODEC.decode(CODEC.encode(value))
    assert returned == value
    assert shape_of(returned) == shape_of(value)


def test_special_floats_come_back() -> None:
    returned = CODEC.decode(CODEC.encode([math.nan, math.inf, -0.0]))
    assert math.isnan(returned[0])
    assert returned[1] == math.inf
    assert math.copysign(1, returned[2]) == -1


def test_every_decode_is_a_fresh_object() -> None:
    encoded = CODEC.encode({"items": [1]})
    first = CODEC.decode(encoded)
    first["items"].append(2)
    assert CODEC.decode(encoded) == {"items": [1]}


def test_changing_the_answer_after_encoding_changes_nothing_stored() -> None:
    answer = {"items": [1]}
    encoded = CODEC.encode(answer)
    answer["items"].append(2)
    assert CODEC.decode(encoded) == {"items": [1]}


@pytest.mark.parametrize(
    "answer",
    [
        (1, 2),
        {1},
        frozenset(),
        datetime.datetime.now(tz=datetime.UTC),
        object(),
        Word("x"),
        Colour.RED,
        Pair(1, 2),
        bytearray(b"x"),
        memoryview(b"x"),
        defaultdict(list),
        OrderedDict(),
        2**64,
        -(2**63) - 1,
        1 + 2j,
        "\ud800",
        {"\udfff": 1},
        {True: 1},
        {None: 1},
        {1.5: 1},
        {b"x": 1},
        {2**64: 1},
        msgspec.UNSET,
    ],
    ids=lambda answer: type(answer).__name__,
)
@pytest.mark.parametrize("depth", [0, 3])
def test_what_would_not_come_back_is_refused(answer: Any, depth: int) -> None:
    for _ in range(depth):
        answer = [{"inside": answer}]
    with pytest.raises(UnstorableAnswer):
        CODEC.encode(answer)


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append({"again": loop})
    with pytest.raises(UnstorableAnswer, match="deep"):
        CODEC.encode(loop)


def test_nesting_has_a_limit_and_up_to_it_values_come_back() -> None:
    assert CODEC.decode(CODEC.encode(nested(DEEPEST))) == nested(DEEPEST)
    with pytest.raises(UnstorableAnswer, match="deep"):
        CODEC.encode(nested(DEEPEST + 1))


def test_a_refusal_does_not_repeat_the_answer() -> None:
    with pytest.raises(UnstorableAnswer) as refusal:
        CODEC.encode({"secret prompt": object()})
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", b"\xa1\xff", b"\xd4\x05\x00", b"\x91" * 100_000, b"\xc0\xc0", b"\xdd\xff\xff\xff\xff"],
    ids=["empty", "no opcode", "no text", "extension", "endless nesting", "trailing", "truncated"],
)
def test_what_is_unreadable_is_corrupt(payload: bytes) -> None:
    with pytest.raises(CorruptEntry):
        CODEC.decode(EncodedAnswer(kind="plain", payload=payload))


@unhurried
@given(st.binary(max_size=64))
def test_no_bytes_do_anything_but_decode_or_be_corrupt(payload: bytes) -> None:
    with contextlib.suppress(CorruptEntry):
        CODEC.decode(EncodedAnswer(kind="plain", payload=payload))


def test_another_kind_is_corrupt() -> None:
    encoded = CODEC.encode("text")
    with pytest.raises(CorruptEntry, match=r"openai\.chat"):
        CODEC.decode(msgspec.structs.replace(encoded, kind="openai.chat"))


def test_facts_are_those_of_the_wire_format_where_a_dict_has_it() -> None:
    answer = {
        "model": "m",
        "choices": [{"finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    facts = CODEC.encode(answer).facts
    assert facts == AnswerFacts(
        model="m", usage=Usage(input_tokens=3, output_tokens=4), finish_reasons=("length",)
    )
    assert CODEC.encode("text").facts == AnswerFacts()
    assert CODEC.encode(None).facts == AnswerFacts()


@unhurried
@given(st.lists(st.text()))
def test_a_stream_of_text_is_stored_as_the_whole_and_replayed_as_one_chunk(chunks: list[str]) -> None:
    encoded = CODEC.join(chunks)
    assert encoded == CODEC.encode("".join(chunks))
    assert list(CODEC.split(encoded, query={})) == ["".join(chunks)]


def test_a_stored_value_that_is_no_text_streams_as_itself() -> None:
    assert list(CODEC.split(CODEC.encode({"a": 1}), query={})) == [{"a": 1}]


def test_a_surrogate_pair_cut_by_chunks_is_refused_only_if_it_stays_cut() -> None:
    with pytest.raises(UnstorableAnswer):
        CODEC.join(["\ud83d", "x"])


@pytest.mark.parametrize("chunks", [[b"bytes"], ["text", None], [{"delta": "x"}], [Word("x")]])
def test_streams_of_anything_but_text_are_refused(chunks: list[Any]) -> None:
    with pytest.raises(UnstorableAnswer, match="stream"):
        CODEC.join(chunks)


def test_it_is_both_kinds_of_codec() -> None:
    assert isinstance(CODEC, AnswerCodec)
    assert isinstance(CODEC, StreamCodec)
