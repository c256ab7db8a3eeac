"""What may be stored, and for how long: the rules as rows."""

from __future__ import annotations

import random
from typing import Any

import pytest

from llmcache_plugins import CachePolicy, ConfigError
from llmcache_plugins.models import AnswerFacts
from llmcache_plugins.policy import Refusal, admit, effective_ttl


@pytest.mark.parametrize(
    ("facts", "refusal"),
    [
        (AnswerFacts(), None),
        (AnswerFacts(finish_reasons=("stop",)), None),
        (AnswerFacts(finish_reasons=("STOP", "tool_calls")), None),
        (AnswerFacts(finish_reasons=("completed",)), None),
        (AnswerFacts(finish_reasons=("length",)), Refusal.TRUNCATED),
        (AnswerFacts(finish_reasons=("MAX_TOKENS",)), Refusal.TRUNCATED),
        (AnswerFacts(finish_reasons=("max_output_tokens",)), Refusal.TRUNCATED),
        (AnswerFacts(finish_reasons=("stop", "length")), Refusal.TRUNCATED),
        (AnswerFacts(finish_reasons=("content_filter",)), Refusal.FILTERED),
        (AnswerFacts(finish_reasons=("because",)), Refusal.UNKNOWN_FINISH),
        (AnswerFacts(empty_of_choices=True), Refusal.NO_CHOICES),
        (AnswerFacts(unfinished=True), Refusal.UNFINISHED),
    ],
)
def test_what_is_admitted(facts: AnswerFacts, refusal: Refusal | None):
    assert admit(facts) is refusal


@pytest.mark.parametrize(
    ("policy_ttl", "override", "ttl"),
    [(3600, None, 3600), (3600, 0, 0), (0, None, 0), (0, 5, 5), (60, 0.5, 0.5)],
)
def test_zero_is_zero_and_none_is_the_policy(policy_ttl: float, override: float | None, ttl: float):
    assert effective_ttl(CachePolicy(ttl=policy_ttl), override) == ttl


def test_jitter_only_ever_shortens():
    rng = random.Random(7)
    drawn = [effective_ttl(CachePolicy(ttl=100, jitter=0.2), None, rng=rng) for _ in range(200)]
    assert 80 <= min(drawn) < 85
    assert 95 < max(drawn) <= 100


@pytest.mark.parametrize(
    "wrong", [{"ttl": -1}, {"ttl": "60"}, {"ttl": 3_600_000_000}, {"jitter": 1.5}, {"jitter": -0.1}]
)
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigError):
        CachePolicy(**wrong)
