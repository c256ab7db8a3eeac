"""Calibration: the bounds are exact, and the threshold that is chosen keeps what was promised."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.semantic.calibration import ALWAYS, NEVER, Calibration, calibrated, shipped
from llmcache_plugins.semantic.calibration.bounds import interval, is_at_most, upper_bound
from llmcache_plugins.semantic.embedders import MiniLMEmbedder
from llmcache_plugins.semantic.guards import Guard

if TYPE_CHECKING:
    from pathlib import Path

counted = st.integers(0, 400).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of)))
confidences = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99])


def made(scores: Any, same: Any, **more: Any) -> Calibration:
    return calibrated(scores, same, **{"embedder": "e", "guards": (), **more})


# --- Bounds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "of", "confidence", "bound"),
    [
        # Without one found, (1 - p)^n = 1 - confidence.
        (0, 299, 0.95, 1 - 0.05 ** (1 / 299)),
        (0, 1, 0.95, 0.95),
        # Clopper and Pearson's limits as R's binom.test gives them.
        (1, 10, 0.975, 0.4450161),
        (5, 100, 0.975, 0.1128349),
        (50, 100, 0.975, 0.6016788),
        (5, 5, 0.95, 1.0),
        (0, 0, 0.95, 1.0),
    ],
)
def test_the_bound_is_clopper_and_pearsons(found: int, of: int, confidence: float, bound: float):
    assert upper_bound(found, of, confidence) == pytest.approx(bound, abs=1e-6)


@given(counted, confidences)
def test_a_bound_is_never_below_what_was_counted(one: tuple[int, int], confidence: float):
    found, of = one
    low, high = interval(found, of, confidence)
    assert 0 <= low <= high <= 1
    if of:
        assert low - 1e-12 <= found / of <= upper_bound(found, of, confidence) + 1e-12


@given(counted, st.floats(0.001, 0.999), confidences)
def test_a_bound_and_the_question_whether_it_is_kept_agree(
    one: tuple[int, int], share: float, confidence: float
):
    bound = upper_bound(*one, confidence)
    if abs(bound - share) > 1e-9:
        assert is_at_most(share, *one, confidence) == (bound <= share)


@given(counted)
def test_more_found_less_seen_or_surer_is_a_higher_bound(one: tuple[int, int]):
    found, of = one
    bounds = [upper_bound(found, of, confidence) for confidence in (0.5, 0.8, 0.9, 0.95, 0.99)]
    assert bounds == sorted(bounds)
    if found < of:
        assert upper_bound(found, of) <= upper_bound(found + 1, of)
        assert upper_bound(found, of + 1) <= upper_bound(found, of)


@pytest.mark.parametrize(("share", "of"), [(0.01, 300), (0.01, 1000), (0.05, 60), (0.3, 25)])
def test_the_bound_covers_as_often_as_it_says(share: float, of: int):
    found = np.random.default_rng(7).binomial(of, share, size=20_000)
    covered = np.mean([upper_bound(int(one), of) >= share for one in found])
    assert covered >= 0.95 - 0.005


def test_many_are_counted_quickly_and_exactly():
    assert upper_bound(10_000, 1_000_000) == pytest.approx(
        0.01 + 1.645 * math.sqrt(0.01 * 0.99 / 1e6), rel=1e-3
    )


# --- The table ----------------------------------------------------------------------------------------------


def test_what_a_threshold_serves():
    one = made([0.9, 0.8, 0.7, ALWAYS, NEVER, 0.9], [True, False, True, True, True, False])
    assert (one.pairs, one.same) == (6, 4)
    rows = {row.threshold: (row.right, row.wrong) for row in one.table}
    assert rows[1.0] == (1, 0)
    assert rows[0.9025] == (1, 0)
    assert rows[0.9] == (2, 1)
    assert rows[0.8] == (2, 2)
    assert min(rows) == 0.7  # below, all thresholds serve the same
    assert rows[0.7] == (3, 2)
    row = one.at(0.85)
    assert (row.threshold, row.served) == (0.85, 3)
    figures = one.figures(row)
    assert [rate.value for rate in (figures.precision, figures.recall, figures.hit_rate, figures.error)] == [
        2 / 3,
        2 / 4,
        3 / 6,
        1 / 3,
    ]
    assert one.at(0.8501).threshold == 0.85
    assert one.at(1.01).threshold == 1
    assert one.at(0.1).threshold == 0.7


scores = st.floats(-1, 1) | st.sampled_from([ALWAYS, NEVER, 1.0, 0.0])
labelled = st.lists(st.tuples(scores, st.booleans()), min_size=1, max_size=60)


@given(labelled, st.randoms())
def test_a_table_counts_each_pair_in_any_order(pairs: list[tuple[float, bool]], random: Any):
    one = made(*zip(*pairs, strict=True))
    random.shuffle(pairs)
    assert made(*zip(*pairs, strict=True)) == one
    for row in one.table:
        served = [same for score, same in pairs if score >= row.threshold]
        assert (row.right, row.wrong) == (served.count(True), served.count(False))


@pytest.mark.parametrize(
    ("scores", "same", "words"),
    [
        ([], [], "no pairs"),
        ([math.nan], [True], "NaN"),
        ([0.5, 0.5], [True], "2 scores for 1 labels"),
        ([[0.5]], [[True]], "each pair has one of both"),
    ],
)
def test_what_cannot_be_counted_is_refused(scores: Any, same: Any, words: str):
    with pytest.raises(ConfigError, match=words):
        made(scores, same)


# --- The threshold ------------------------------------------------------------------------------------------


@given(labelled, st.sampled_from([0.0103, 0.0507, 0.2009, 0.5011, 0.9013]), confidences)
def test_the_threshold_keeps_its_target_and_none_lower_does(
    pairs: list[tuple[float, bool]], target: float, confidence: float
):
    one = made(*zip(*pairs, strict=True))
    threshold = one.threshold_for(target, confidence)
    for row in one.table:
        keeps = upper_bound(row.wrong, row.served, confidence) <= target
        if row.threshold == threshold:
            assert keeps
            assert row.wrong <= target * row.served
        elif threshold is None or row.threshold < threshold:
            assert not keeps


def test_few_hits_without_an_error_prove_nothing():
    assert made([0.9] * 298, [True] * 298).threshold_for(0.01) is None
    assert made([0.9] * 299, [True] * 299).threshold_for(0.01) == 0.9
    assert made([NEVER] * 500, [True] * 500).threshold_for(0.5) is None


def test_a_stricter_target_and_more_confidence_are_never_a_lower_threshold():
    rng = np.random.default_rng(5)
    values = rng.uniform(0.5, 1, 3000)
    one = made(values, rng.random(3000) < values**0.5)
    found = [one.threshold_for(target) or 2 for target in (0.02, 0.05, 0.1, 0.2)]
    assert found == sorted(found, reverse=True)
    assert (one.threshold_for(0.1, 0.99) or 2) >= (one.threshold_for(0.1, 0.9) or 2)


def test_the_choice_holds_for_pairs_that_were_not_seen():
    """The lowest of many thresholds is chosen, so luck has more than one chance: it keeps that in bounds.

    The share of false pairs below a score rises as the score falls, as that of cosines does; the true share
    at each threshold is known here.
    """
    rng = np.random.default_rng(11)
    grid = np.linspace(0.7, 1, 30_001)
    false_at = (1 - grid) * 0.4  # at this very score
    true_error = np.cumsum(false_at[::-1])[::-1] / np.arange(grid.size, 0, -1)  # at or above it
    chosen = []
    for _ in range(1000):
        values = rng.uniform(0.7, 1, 5000)
        same = rng.random(5000) >= np.interp(values, grid, false_at)
        threshold = made(values, same).threshold_for(0.02)
        chosen.append(0.0 if threshold is None else float(np.interp(threshold, grid, true_error)))
    assert np.mean(np.array(chosen) > 0.02) <= 0.06
    assert np.mean(chosen) > 0.01  # and it does not give away what could be won


@pytest.mark.parametrize("wrong", [0, 1, -0.1, 1.5, math.nan])
def test_a_target_is_a_share(wrong: float):
    one = made([0.5], [True])
    for call in (lambda: one.threshold_for(wrong), lambda: one.threshold_for(0.01, wrong)):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            call()


# --- The file -----------------------------------------------------------------------------------------------


@given(labelled)
def test_a_table_comes_back_as_it_was_saved(tmp_path_factory: Any, pairs: list[tuple[float, bool]]):
    path = tmp_path_factory.mktemp("tables") / "table.json"
    one = made(*zip(*pairs, strict=True), embedder="é", guards=("numbers", "dates"))
    one.save(path)
    assert Calibration.load(path) == one
    assert one.guards == ("dates", "numbers")


GOOD = {
    "embedder": "e",
    "guards": [],
    "pairs": 3,
    "same": 2,
    "table": [[0.5, 2, 1], [0.6, 1, 0]],
    "version": 1,
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "version is 2"),
        ({"table": [[0.6, 1, 0], [0.5, 2, 1]]}, "does not fit"),
        ({"table": [[0.5, 1, 0], [0.6, 2, 0]]}, "does not fit"),
        ({"table": [[0.5, 1, -1]]}, "does not fit"),
        ({"table": []}, "counts nothing"),
        ({"table": [[0.5, 3, 0]]}, "more at 0.5 than there are pairs"),
        ({"table": [[0.5, 1]]}, "no calibration table"),
        ({"pairs": "many"}, "no calibration table"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, change: dict[str, Any], words: str):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(GOOD))
    assert Calibration.load(path).pairs == 3
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(ConfigError, match=words):
        Calibration.load(path)
    path.write_bytes(b"\xff{")
    with pytest.raises(ConfigError, match="no calibration table"):
        Calibration.load(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        Calibration.load(tmp_path / "none.json")


def test_a_table_holds_numbers_alone():
    said = msgspec.to_builtins(made([0.5], [True]))
    assert set(said) == {"embedder", "guards", "pairs", "same", "table", "version"}


def test_the_default_embedder_has_its_table():
    one = shipped(MiniLMEmbedder.name, Guard)
    assert one is not None
    assert one.pairs > 5000
    assert one.threshold_for(0.03) < one.threshold_for(0.015) <= 1
    assert shipped(MiniLMEmbedder.name, [Guard.NUMBERS]) is None
    assert shipped("another", Guard) is None
