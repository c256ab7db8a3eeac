"""`estimate`: figures that add up, in whatever order a log comes, and lines of whichever shape."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcache_plugins import ConfigError, Price
from llmcache_plugins.estimate import (
    Amount,
    Estimate,
    Estimator,
    LoggedCall,
    LogReader,
    Unreadable,
)
from llmcache_plugins.estimate.moments import moment_of
from llmcache_plugins.estimate.signing import Signer
from llmcache_plugins.models import AnswerFacts, Usage
from llmcache_plugins.policy import CachePolicy
from llmcache_plugins.prices import Prices
from llmcache_plugins.signature import CacheSignatureEngine

if TYPE_CHECKING:
    import random

PRICES = Prices({"m": Price(input=1.0, output=2.0)})


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def call(text: str, at: float | None, seconds: float | None = 1.0, **more: Any) -> LoggedCall:
    facts = AnswerFacts(usage=Usage(input_tokens=10, output_tokens=100))
    return LoggedCall(
        **{"request": chat(text), "kind": "openai.chat", "at": at, "seconds": seconds, "facts": facts, **more}
    )


def reckon(*calls: LoggedCall, **settings: Any) -> Estimate:
    estimator = Estimator(**{"prices": PRICES, "normalizers": (), **settings})
    for one in calls:
        estimator.add(one)
    return estimator.result()


def avoided(found: Estimate) -> list[int]:
    return [one.avoided.calls for one in found.mechanisms]


def test_what_came_before_is_not_paid_again_until_its_time_is_over():
    found = reckon(call("a", 0), call("a", 2), call("a", 3600), call("a", 3601), call("b", 4))
    assert avoided(found) == [2, 2, 2]  # stored at 1, until 3601
    assert found.avoided == Amount(calls=2, input_tokens=20, output_tokens=200, nano_usd=2 * 210_000)
    assert found.total.calls == 5
    assert found.avoided.cost == 0.00042


def test_calls_that_overlap_share_one_only_with_single_flight():
    found = reckon(call("a", 0, 10.0), call("a", 5, 10.0), call("a", 9, 10.0), call("a", 11, 10.0))
    assert avoided(found) == [1, 1, 3]


def test_the_scenarios_differ_in_how_long_answers_live():
    found = reckon(*(call("a", at) for at in (0, 10, 100, 10_000, 100_000)))
    assert {one.name: one.avoided.calls for one in found.scenarios} == {
        "realtime": 1,
        "chat": 2,
        "static_faq": 4,
        "batch": 4,
    }
    assert {one.name: one.ttl for one in found.scenarios} == {
        name: CachePolicy.scenario(name).ttl for name in ("realtime", "chat", "static_faq", "batch")
    }
    assert found.scenario("static_faq").ages.oldest == 99_999
    assert found.scenario("static_faq").ages.mean == (9 + 99 + 9_999 + 99_999) / 4


def test_recommended_is_the_shortest_time_that_saves_nearly_as_much():
    assert reckon(*(call("a", at) for at in range(100))).recommended == "realtime"
    assert reckon(*(call("a", 100.0 * at) for at in range(90))).recommended == "chat"
    assert reckon(*(call("a", 40_000.0 * at) for at in range(90))).recommended == "static_faq"
    assert reckon(*(call("a", 8 * 86_400.0 * at) for at in range(20))).recommended == "batch"
    assert reckon(call("a", 0), call("b", 1)).recommended is None


def test_a_truncated_answer_serves_those_who_wait_and_nobody_else():
    cut = AnswerFacts(usage=Usage(input_tokens=1), finish_reasons=("length",))
    found = reckon(call("a", 0, 10.0, facts=cut), call("a", 5, 10.0), call("a", 11, 1.0))
    assert avoided(found) == [0, 0, 1]
    assert found.not_stored == 1


def test_normalizers_are_found_out_and_what_each_wins_is_said():
    calls = [
        call(f"a lease? {uuid.UUID(int=n, version=4)}" if n % 2 else f"at 2026-01-02T03:04:{n:02}Z?", n * 5)
        for n in range(20)
    ]
    found = reckon(*calls, call("plain", 0), call("plain", 2), normalizers=None)
    assert {rule.rule: (rule.tokens, rule.calls, rule.wins) for rule in found.rules} == {
        "uuid": (10, 10, 9),
        "timestamp": (10, 10, 9),
    }
    assert avoided(found) == [1, 19, 19]
    assert found.rules_learned_from == 22


def test_rules_that_win_only_together_both_count():
    calls = [call(f"{uuid.UUID(int=n, version=4)} at 2026-01-02T03:04:{n:02}Z", n * 5) for n in range(10)]
    found = reckon(*calls, normalizers=None)
    assert {rule.rule: rule.wins for rule in found.rules} == {"uuid": 9, "timestamp": 9}
    assert avoided(found) == [0, 9, 9]


def test_rules_are_learned_from_the_beginning_and_used_to_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llmcache_plugins.estimate.estimating.LEARN_FROM", 10)
    calls = [call(f"hello {uuid.UUID(int=n, version=4)}", n * 5) for n in range(100)]
    found = reckon(*calls, normalizers=None)
    assert (found.rules_learned_from, found.normalizers, avoided(found)) == (10, ("uuid",), [0, 99, 99])


def test_the_keys_are_those_of_the_product():
    signer = Signer(("uuid", "timestamp"), api_base="https://example.com/v1")
    engine = CacheSignatureEngine()
    rules = CacheSignatureEngine(normalizers=("uuid", "timestamp"))
    only = CacheSignatureEngine(normalizers=("timestamp",))
    for text in ("hello", f"hello {uuid.UUID(int=3, version=4)}", f"{uuid.UUID(int=3)} 2026-01-02T03:04:05Z"):
        one = call(text, 0, request=chat(text, stream=True, user="u", temperature=0.5))
        options = {"kind": one.kind, "scope": {"api_base": "https://example.com/v1/"}}
        signed = signer.sign(one)
        assert engine.compute_signature(one.request, **options).digest.startswith(signed.exact.hex())
        assert rules.compute_signature(one.request, **options).digest.startswith(signed.normalized.hex())
        if len(signed.stripped) == 2:
            digest = only.compute_signature(one.request, **options).digest
            assert digest.startswith(signed.without[0].hex())


def test_what_has_no_canonical_form_is_paid_for_and_never_cached():
    found = reckon(*(call("", at, request={"model": "m", "prompt": "\ud800"}) for at in (0, 5)))
    assert (found.never_cached, found.total.calls, found.avoided.calls) == (2, 2, 0)


def test_an_unknown_price_is_unknown_and_no_usage_is_no_token():
    free = {"request": {"model": "in-house", "prompt": "x"}, "kind": "openai.completions"}
    found = reckon(*(call("", at, **free) for at in (0, 5)))
    assert (found.avoided.cost, found.avoided.unpriced, found.avoided.total_tokens) == (None, 1, 110)
    found = reckon(*(call("a", at, facts=AnswerFacts()) for at in (0, 5)))
    assert (found.avoided.cost, found.avoided.unmetered, found.avoided.total_tokens) == (None, 1, 0)
    assert reckon(call("a", 0)).avoided.cost == 0


def test_tokens_are_guessed_only_where_that_is_wanted():
    calls = [call("a" * 40, at, facts=AnswerFacts(), answer_characters=80) for at in (0, 5)]
    found = reckon(*calls, guesses_tokens=True)
    assert (found.guessed, found.avoided.input_tokens, found.avoided.output_tokens) == (2, 10, 20)
    assert reckon(*calls).guessed == 0


def test_what_a_log_says_was_paid_is_believed_before_a_list_price():
    found = reckon(call("a", 0, cost=0.5), call("a", 5, cost=0.25))
    assert (found.total.cost, found.avoided.cost) == (0.75, 0.25)


def test_calls_without_a_latency_have_the_one_that_is_given():
    calls = [call("a", at, None) for at in (0.0, 2.0)]
    assert avoided(reckon(*calls)) == [1, 1, 1]
    found = reckon(*calls, latency=5.0)
    assert (avoided(found), found.untimed, found.latency) == ([0, 0, 1], 2, 5.0)


def test_calls_without_a_time_come_one_after_another():
    found = reckon(*(call("a", None, None) for _ in range(3)))
    assert (avoided(found), found.undated, found.first, found.span) == ([2, 2, 2], 3, None, 0.0)


def test_the_timeline_has_every_call_once():
    found = reckon(*(call(f"{at % 3}", float(at)) for at in range(200)))
    assert found.timeline is not None
    assert sum(found.timeline.calls) == 200
    assert sum(found.timeline.avoided) == found.avoided.calls


@pytest.mark.parametrize("wrong", [{"latency": -1.0}, {"ttl": -1.0}, {"normalizers": ("uid",)}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigError):
        Estimator(**wrong)


# --- Properties ---------------------------------------------------------------------------------------------

some_calls = st.lists(
    st.builds(
        lambda text, at, seconds: call(text, at, seconds),
        st.sampled_from(["a", "b", f"c {uuid.UUID(int=1, version=4)}", f"c {uuid.UUID(int=2, version=4)}"]),
        st.integers(0, 8_000).map(float),
        st.sampled_from([0.0, 1.0, 300.0]),
    ),
    max_size=40,
)


@given(some_calls, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=100)
def test_the_order_of_lines_does_not_matter(calls: list[LoggedCall], rng: random.Random):
    shuffled = list(calls)
    rng.shuffle(shuffled)
    assert reckon(*calls, normalizers=("uuid",)) == reckon(*shuffled, normalizers=("uuid",))


@given(some_calls)
@settings(deadline=None, max_examples=100)
def test_sums_are_those_of_their_parts(calls: list[LoggedCall]):
    found = reckon(*calls, normalizers=("uuid",))
    whole = Amount()
    for one in found.mechanisms:
        whole += one.added
        assert one.avoided == whole
    assert found.total.calls == len(calls)
    assert all(0 <= one.avoided.calls <= len(calls) for one in (*found.mechanisms, *found.scenarios))
    assert found.avoided.input_tokens == 10 * found.avoided.calls
    assert found.avoided.nano_usd == 210_000 * found.avoided.calls


@given(some_calls)
@settings(deadline=None, max_examples=100)
def test_single_flight_never_saves_less_than_the_same_keys_without(calls: list[LoggedCall]):
    found = reckon(*calls)
    assert found.mechanisms[2].added.calls >= 0


@given(some_calls)
@settings(deadline=None, max_examples=100)
def test_where_answers_come_at_once_each_mechanism_and_a_longer_time_save_more(calls: list[LoggedCall]):
    at_once = [call(one.request["messages"][0]["content"], one.at, 0.0) for one in calls]
    found = reckon(*at_once, normalizers=("uuid",))
    assert all(one.added.calls >= 0 for one in found.mechanisms)
    saved = [one.avoided.calls for one in found.scenarios]
    assert saved == sorted(saved)


# --- Shapes of logs -----------------------------------------------------------------------------------------


def read(*lines: Any, **columns: str) -> tuple[list[LoggedCall], LogReader]:
    reader = LogReader(columns)
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return list(reader.read(raw)), reader


USAGE = {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}
COMPLETION = {
    "object": "chat.completion",
    "created": 1_795_000_000,
    "model": "m-2026",
    "choices": [{"message": {"content": "yes!"}, "finish_reason": "length"}],
    "usage": USAGE,
}


def test_our_own_shape():
    line = {"timestamp": 1_795_000_000.5, "request": chat("a"), "latency": 0.25, "usage": USAGE}
    ((one,), reader) = read(line)
    assert (one.request, one.kind, one.at, one.seconds) == (chat("a"), "openai.chat", 1_795_000_000.5, 0.25)
    assert one.facts.usage == Usage(input_tokens=7, output_tokens=11)
    assert not reader.guesses
    ((one,), _) = read({"timestamp": 1, "request": chat("a")})
    assert (one.at, one.seconds, one.facts.usage) == (1.0, None, None)


def test_a_pair_of_openai_request_and_response():
    ((one,), reader) = read({"request": chat("a"), "response": COMPLETION})
    assert (one.at, one.facts.model, one.facts.finish_reasons) == (1_795_000_000, "m-2026", ("length",))
    assert one.facts.usage == Usage(input_tokens=7, output_tokens=11)
    assert one.answer_characters == 4
    assert reader.guesses == {"the time is that of the answer": 1}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ({"method": "POST", "url": "/v1/chat/completions", "body": chat("a")}, "openai.chat"),
        ({"url": "/v1/embeddings", "body": {"model": "e", "input": "a"}}, "openai.embeddings"),
        ({"url": "/v1/responses", "body": {"model": "m", "input": "a"}}, "openai.responses"),
        ({"request": {"url": "/v1/completions", "body": {"prompt": "a"}}}, "openai.completions"),
        (chat("a"), "openai.chat"),
        ("a prompt", "plain"),
    ],
)
def test_requests_alone(line: Any, kind: str):
    ((one,), _) = read(line)
    assert (one.kind, one.at) == (kind, None)


def litellm_line(**more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "call_type": "acompletion",
        "cache_hit": None,
        "status": "success",
        "startTime": 1_795_000_000.25,
        "endTime": 1_795_000_001.5,
        "response_time": 0.5,
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "hello"}],
        "model_parameters": {"temperature": 0.2, "stream": True},
        "prompt_tokens": 2,
        "completion_tokens": 6,
        "total_tokens": 8,
        "response_cost": 3.9e-06,
        "response": {"model": "gpt-4o-mini", "choices": [{"finish_reason": "stop", "message": {}}]},
        **more,
    }


def test_litellms_standard_logging_payload():
    ((one,), _) = read(litellm_line())
    assert one.request == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.2,
        "stream": True,
    }
    assert (one.kind, one.at, one.seconds, one.cost) == ("openai.chat", 1_795_000_000.25, 1.25, 3.9e-06)
    assert one.facts == AnswerFacts(
        model="gpt-4o-mini", usage=Usage(input_tokens=2, output_tokens=6), finish_reasons=("stop",)
    )
    ((one,), _) = read(litellm_line(call_type="aembedding", messages=["a", "b"], model_parameters={}))
    assert (one.kind, one.request) == ("openai.embeddings", {"model": "gpt-4o-mini", "input": ["a", "b"]})
    ((one,), _) = read(litellm_line(response_cost=0.0))
    assert one.cost is None


def test_what_litellm_has_redacted_is_not_taken_for_equal():
    redacted = [{"role": "user", "content": "redacted-by-litellm"}]
    calls, reader = read(litellm_line(messages=redacted), litellm_line(messages=None))
    assert (calls, reader.bad) == ([], 2)
    assert "redacted" in reader.named[0].reason


def test_failures_and_hits_of_another_cache_are_left_out():
    calls, reader = read(
        litellm_line(cache_hit=True),
        litellm_line(status="failure"),
        {"request": chat("a"), "error": {"message": "no"}},
        {"request": chat("a"), "response": {"status_code": 500, "body": {}}},
        litellm_line(call_type="aimage_generation"),
    )
    assert calls == []
    assert reader.left_out == {
        "answered by another cache": 1,
        "failed": 3,
        "a type of call that is not cached, or not logged whole": 1,
    }
    assert reader.bad == 0


def test_columns_may_be_mapped():
    line = {
        "created_at": "2026-11-18T12:00:00Z",
        "timestamp": "not this",
        "payload": {"body": chat("a")},
        "took_s": "0.5",
        "bill": {"in": 3, "out": 4, "usd": 0.125},
    }
    ((one,), reader) = read(
        line,
        timestamp="created_at",
        request="payload.body",
        latency="took_s",
        input_tokens="bill.in",
        output_tokens="bill.out",
        cost="bill.usd",
    )
    assert (one.at, one.seconds, one.cost) == (1_795_003_200.0, 0.5, 0.125)
    assert one.facts.usage == Usage(input_tokens=3, output_tokens=4)
    assert not reader.guesses
    with pytest.raises(ConfigError, match="timestamp"):
        LogReader({"when": "created_at"})


@pytest.mark.parametrize(
    ("value", "moment", "guess"),
    [
        (1_795_000_000, 1_795_000_000.0, ""),
        ("1795000000.5", 1_795_000_000.5, ""),
        (1_795_000_000_500, 1_795_000_000.5, "times are milliseconds"),
        (1_795_000_000_500_000, 1_795_000_000.5, "times are microseconds"),
        ("2026-11-18T11:06:40+00:00", 1_795_000_000.0, ""),
        ("2026-11-18T12:06:40+01:00", 1_795_000_000.0, ""),
        ("2026-11-18 11:06:40", 1_795_000_000.0, "times without a zone are UTC"),
    ],
)
def test_times_as_logs_spell_them(value: Any, moment: float, guess: str):
    assert moment_of(value) == (moment, guess)


@pytest.mark.parametrize(
    "value",
    [True, "yesterday", -5, float("nan"), 1e30, 10**400, [1], {}, "1e999", "0001-01-01T00:00:00+14:00"],
)
def test_what_is_no_time(value: Any):
    with pytest.raises(Unreadable):
        moment_of(value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"secret": ', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"7", "not an object"),
        (b'{"timestamp": 1}', "no request"),
        (b'{"request": {"secret": 1}}', "no messages"),
        (b'{"timestamp": "secret", "request": {"prompt": "x"}}', "time"),
        (b'{"latency": "secret", "request": {"prompt": "x"}}', "latency"),
        (b'{"latency": -1, "request": {"prompt": "x"}}', "latency"),
        (b'{"latency": 1e9, "request": {"prompt": "x"}}', "latency"),
        (b"[" * 5000, "not JSON"),
    ],
)
def test_a_bad_line_is_counted_and_named_and_not_quoted(line: bytes, words: str):
    calls, reader = read(chat("a"), line, b"", b"  \n", chat("b"))
    assert (len(calls), reader.bad, reader.lines) == (2, 1, 3)
    assert reader.named[0].line == 2
    assert words in reader.named[0].reason
    assert "secret" not in reader.named[0].reason


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "request",
                        "messages",
                        "timestamp",
                        "latency",
                        "usage",
                        "response",
                        "body",
                        "model",
                        "choices",
                        "startTime",
                        "endTime",
                        "prompt_tokens",
                        "prompt",
                        "content",
                        "status",
                        "call_type",
                    ]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
@settings(deadline=None, max_examples=300)
def test_no_line_ends_it(document: Any):
    calls, reader = read(json.dumps(document).encode(), chat("a"))
    assert reader.lines == 2
    assert len(calls) + reader.bad + sum(reader.left_out.values()) == 2
    reckon(*calls)
