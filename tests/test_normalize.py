"""What each rule strips and what it leaves, that none takes long, whatever the text; rules of one's own."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.normalize import Failed, Normalizers, layout, windows
from llmcache_plugins.normalize.builtin import BUILTIN

MEGABYTE = 1_000_000
TOKEN = "\ufdd0"
"""The placeholder of the first rule of a chain."""
UUID = "550e8400-e29b-41d4-a716-446655440000"
DIGEST = "d41d8cd98f00b204e9800998ecf8427e"


def stripped(rule: Any, text: str) -> str:
    return Normalizers([rule]).apply(text).text.replace(TOKEN, "*")


# --- What is stripped, and what stays -----------------------------------------------------------------------

STRIPPED = [
    ("uuid", f"id {UUID}, please", "id *, please"),
    ("uuid", f"id {UUID.upper()}", "id *"),
    ("uuid", f"{{{UUID}}}", "*"),
    ("uuid", f"urn:uuid:{UUID}.", "*."),
    ("uuid", "nil 00000000-0000-0000-0000-000000000000", "nil *"),
    ("uuid", f"{UUID} {UUID}", "* *"),
    ("timestamp", "at 2024-01-02T03:04:05.678+01:00!", "at *!"),
    ("timestamp", "at 2024-01-02 03:04:05, 7 items", "at *, 7 items"),
    ("timestamp", "at 2024-01-02T03:04Z.", "at *."),
    ("timestamp", "at 2024-01-02 03:04:05 UTC", "at *"),
    ("timestamp", "at 2024/01/02 03:04", "at *"),
    ("timestamp", "at 20240102T030405Z", "at *"),
    ("timestamp", "Tue, 02 Jan 2024 03:04:05 GMT", "*"),
    ("timestamp", "Tue, 2 Jan 2024 03:04:05 +0100 (CET) hello", "* hello"),
    ("timestamp", "Tue Jan  2 03:04:05 2024", "*"),
    ("timestamp", "Tue Jan 02 2024 03:04:05 GMT+0000 (Coordinated Universal Time)", "*"),
    ("timestamp", "Jan  2 03:04:05 host sshd", "* host sshd"),
    ("timestamp", "[02/Jan/2024:03:04:05 +0000]", "[*]"),
    ("timestamp", "1/2/2024, 3:04 PM", "*"),
    ("timestamp", "on January 2, 2024 at 3:04 PM hello", "on * hello"),
    ("timestamp", "02.01.2024 15:04:05 Uhr", "* Uhr"),
    ("timestamp", "时间2024-01-02T03:04:05Z开始", "时间*开始"),
    ("epoch", "ts=1700000000", "ts=*"),
    ("epoch", "1700000000.123 and 1700000000123, 1700000000123456 or 1700000000123456789", "* and *, * or *"),
    ("request_id", "req_011CSHoEeqs5C35K2UUqR7Fy failed", "req_* failed"),
    ("request_id", "chatcmpl-9hT5abcDEF123ghiJKL", "chatcmpl-*"),
    ("request_id", "x-request-id: abc123def", "x-request-id: *"),
    ("request_id", '{"trace_id": "4bf92f3577b34da6"}', '{"trace_id": "*"}'),
    ("request_id", "correlationId=77-12-ab.", "correlationId=*."),
    ("request_id", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "*"),
    ("request_id", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "*"),
    ("hex", f"sha {DIGEST}.", "sha *."),
    ("hex", f"sha256:{DIGEST.upper()}", "sha256:*"),
    ("hex", "at 0x7fffdeadbeef0123", "at *"),
    ("email", "<john.doe+x@mail.example.co.uk>, hi", "<*>, hi"),
    ("email", "邮箱a@example.com", "邮箱*"),
    ("url", "see https://x.y/p?utm_source=a&id=1&gclid=Zx#frag.", "see https://x.y/p?id=1#frag."),
    ("url", "[x](http://a/?utm_source=b)foo", "[x](http://a/)foo"),
    ("url", "https://a/?b=1&amp;utm_medium=b&amp;c=3", "https://a/?b=1&amp;c=3"),
    ("url", "https://a/?fbclid=a、看", "https://a/、看"),
    ("whitespace", " one  line\t ", "one line"),
    ("whitespace", "a  b \t c  \n    x   y\t\n\n\nend  \n\n", "a b c\n    x y\n\n\nend"),
    ("whitespace", "\n\n    first\r\n  second", "    first\n  second"),
]
LEFT = [
    ("uuid", f"file-{UUID}"),
    ("uuid", f"{UUID}0"),
    ("uuid", DIGEST),
    ("timestamp", "What happened on 1969-07-20?"),
    ("timestamp", "Book a table for 19:30 on 2 January 2024"),
    ("timestamp", "logs/2024-01-02T03:04:05.txt"),
    ("timestamp", "ratio 16:9, verse 3:16"),
    ("epoch", "call 4155551234 or +491701234567"),
    ("epoch", "$1500000000 for order #1500000000"),
    ("epoch", "A1700000000 1700000000-1 17000000001"),
    ("epoch", "data:image/png;base64,AA/1700000000/AA+1700000000=="),
    ("request_id", "call_center_agent1 request id: none, session_id=12345678"),
    ("request_id", "my_function_2 run_the_migration_script_now"),
    ("hex", "deadbeefdeadbeef 1234567890123456 abc1234"),
    ("hex", f"https://x/commit/{DIGEST} {DIGEST}.png ?id={DIGEST}"),
    ("hex", f"AA/{DIGEST}/AA+{DIGEST}=="),
    ("hex", "ab1" * 60),
    ("email", "@someone user@host a@b package@1.2.3"),
    ("url", "https://a/?q=utm_source&b=2 utm_source=x"),
    ("url", "https://a/?utm_source=a,What=now"),
    ("whitespace", "def f():\n    return 1\n\n\n\n# end"),
    ("whitespace", "a\u00a0\u00a0b"),
]


@pytest.mark.parametrize(("rule", "text", "expected"), STRIPPED)
def test_a_rule_strips_its_tokens(rule: str, text: str, expected: str):
    assert stripped(rule, text) == expected


@pytest.mark.parametrize(("rule", "text"), LEFT)
def test_a_rule_leaves_what_may_be_the_question(rule: str, text: str):
    assert stripped(rule, text) == text


@pytest.mark.parametrize("name", BUILTIN)
def test_every_built_in_rule_is_in_the_tables(name: str):
    assert name in {rule for rule, *_ in STRIPPED}
    assert name in {rule for rule, *_ in LEFT}


# --- Chains -------------------------------------------------------------------------------------------------


def test_a_chain_runs_in_its_order_and_says_what_each_rule_did():
    result = Normalizers(["uuid", "email", "whitespace"]).apply(f"{UUID}  a@b.com {UUID}")
    assert result.text == "\ufdd0 \ufdd1 \ufdd0"
    assert [(one.rule, one.count) for one in result.stripped] == [
        ("uuid", 2),
        ("email", 1),
        ("whitespace", 1),
    ]
    assert result.has_placeholders


def test_what_stays_a_text_has_no_placeholders():
    assert (
        not Normalizers(["whitespace", "url", str.lower]).apply("A  b https://a/?utm_id=1").has_placeholders
    )


def test_two_rules_at_one_place_leave_different_texts():
    chain = Normalizers(["uuid", "email"])
    assert chain.apply(f"7 {UUID}").text != chain.apply("7 a@b.com").text
    assert chain.apply(f"7 {UUID}").text != chain.apply(f"{UUID} 7").text


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (["uid"], "uuid, timestamp"),
        ("uuid", "list"),
        (7, "list"),
        ([7], "int"),
        ([re.compile(rb"a")], "bytes"),
        ([re.compile(r"a*")], "empty"),
        (["uuid", "uuid"], "twice"),
        ([re.compile(str(number)) for number in range(33)], "32"),
    ],
)
def test_rules_that_cannot_work_are_refused(rules: Any, words: str):
    with pytest.raises(ConfigError, match=words):
        Normalizers(rules)


# --- Time ---------------------------------------------------------------------------------------------------

FRAGMENTS = [
    *(UUID, DIGEST, "2024-01-02T03:04:05Z", "Tue, 02 Jan 2024 03:04:05 GMT", "1700000000", "a@b.com"),
    *("req_011CSHoEeqs5C35K2UUqR7Fy", "trace_id=abcdef12", "http://a/?utm_a=b&c=d"),
    *(" ", "  ", "\t", "\n", "-", "/", ".", "x", "é"),
]
fragments = st.sampled_from(FRAGMENTS)


@pytest.mark.parametrize("name", BUILTIN)
@given(parts=st.lists(fragments, min_size=5, max_size=30), window=st.integers(1, 80))
@settings(deadline=None, max_examples=40)
def test_where_a_long_text_is_cut_does_not_matter(name: str, parts: list[str], window: int):
    text = "".join(parts)
    whole = Normalizers([name]).apply(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "WINDOW", window)
        patch.setattr(layout, "WINDOW", window)
        assert Normalizers([name]).apply(text) == whole


HOSTILE = {
    "uuid": ["deadbeef-dead-beef-dead-", "0-", f"{UUID[:-1]} "],
    "timestamp": ["2024-01-01T", "2024-01-01 0:00", "Mon, ", "Jan 01 ", "0:00", "1"],
    "epoch": ["1", "1700000000", "1700000000."],
    "request_id": ["-", "_a", "request_id=", "id:", "req_", "req_aaaaaaaaaaaaaa", "01"],
    "hex": ["deadbeef01", "0x", "a1", "deadbeefdeadbeefdeadbeef "],
    "email": ["a@", "a.", "a@a.a.a.a.a.a.a.a.1 ", f"{'a' * 60}@", "a@b.com "],
    "url": ["http://", "http://a?&", "&utm_a=b", "http://a/?utm_source=b "],
    "whitespace": [" ", "\t \n", "a  ", "a\n", "\n"],
}
TRIGGERS = " @ a@b.co 0:00 01-deadbeefdeadbeef0 http://a?utm_a=b "


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", BUILTIN)
def test_a_hostile_megabyte_takes_no_time_to_speak_of(name: str):
    """Each takes 0.02 to 0.3 seconds; an expression that went back and forth would take hours."""
    for unit in HOSTILE[name]:
        Normalizers([name]).apply((unit * (MEGABYTE // len(unit))) + TRIGGERS)


# --- One's own ----------------------------------------------------------------------------------------------


def test_an_expression_leaves_its_placeholder():
    assert stripped(re.compile(r"order \d+"), "my order 77, ORDER 78") == "my *, ORDER 78"
    assert stripped(re.compile(r"order \d+", re.IGNORECASE), "my order 77, ORDER 78") == "my *, *"


def test_expressions_are_told_apart_by_their_flags():
    plain, insensitive = (Normalizers([re.compile("a", flags)]).names for flags in (0, re.IGNORECASE))
    assert plain != insensitive


def test_a_function_says_what_counts():
    assert stripped(str.lower, "Hello") == "hello"
    (one,) = Normalizers([str.lower]).apply("Hello").stripped
    assert (one.rule, one.count) == ("str.lower", 1)


def test_an_expression_that_does_not_end_is_skipped_and_named_once(caplog: pytest.LogCaptureFixture):
    chain = Normalizers([re.compile("(?:a|a|ab)+$"), "uuid"], timeout=0.05)
    text = "a" * 5_000 + f"! {UUID}"
    with caplog.at_level(logging.WARNING, "llmcache_plugins"):
        for _ in range(2):
            result = chain.apply(text)
            assert result.text == text.replace(UUID, "\ufdd1")
            assert [one.skipped for one in result.stripped] == ["too slow", ""]
    (record,) = caplog.records
    assert "too slow" in record.message
    assert "aaaa" not in record.message


def test_a_long_text_is_none_for_ones_own_rules(caplog: pytest.LogCaptureFixture):
    seen: list[str] = []
    chain = Normalizers([re.compile("a"), lambda text: seen.append(text) or text, "whitespace"], limit=10)
    with caplog.at_level(logging.WARNING, "llmcache_plugins"):
        result = chain.apply("aaaaaaaaaaa  b")
    assert result.text == "aaaaaaaaaaa b"
    assert [one.skipped for one in result.stripped] == ["too long", "too long", ""]
    assert not seen
    assert len(caplog.records) == 2


@pytest.mark.parametrize("function", [lambda text: {}[text], lambda text: None, lambda text: text.encode()])
def test_a_function_that_fails_says_so_without_the_text(function: Any):
    with pytest.raises(Failed) as raised:
        Normalizers([function]).apply("hunter2")
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_only_foreign_rules_make_a_chain_foreign():
    assert not Normalizers(BUILTIN).is_foreign
    assert Normalizers([re.compile("a")]).is_foreign
    assert Normalizers(["uuid", str.lower]).is_foreign
