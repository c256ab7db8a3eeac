"""The dashboard and the alert rules as files: what Grafana, Prometheus and their readers must find there.

Whether the queries ask for what there is, tests/test_exposition.py says.
"""

from __future__ import annotations

import json
import re

import pytest
from promql import ALERTS, DASHBOARD, DOCS, PANELS, RULES

UNITS = {"currencyUSD", "s", "percentunit", "bytes", "short", "reqps", "ops", "none"}
ALERTING = [rule for rule in RULES if "alert" in rule]


def test_it_is_kept_as_it_can_be_edited_by_hand():
    text = (DOCS / "grafana" / "llmcache.json").read_text("utf-8")
    assert text == json.dumps(DASHBOARD, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_it_can_be_imported_anywhere():
    assert (DASHBOARD["uid"], DASHBOARD["schemaVersion"]) == ("llmcache", 42)
    assert "id" not in DASHBOARD
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "job"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert variables["job"]["datasource"] == chosen
    for panel in PANELS:
        assert panel["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in panel["targets"])


def test_each_panel_has_a_place_of_its_own():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_money_comes_first():
    first = min(PANELS, key=lambda panel: (panel["gridPos"]["y"], panel["gridPos"]["x"]))
    assert (first["title"], first["fieldConfig"]["defaults"]["unit"]) == ("Saved, net", "currencyUSD")


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_a_panel_says_what_it_shows_and_in_which_unit(panel):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    assert unit in UNITS
    assert panel["description"].endswith(".")
    assert len(panel["description"]) < 320
    for target in panel["targets"]:
        # Money, times and bytes are not taken for anything else.
        for word, wanted in {"cost_total": "currencyUSD", "quantile": "s", "size_bytes": "bytes"}.items():
            assert word not in target["expr"] or unit == wanted
        assert ("$__range" in target["expr"]) is (target["instant"] and not target["range"])
        assert 'job=~"$job"' in target["expr"]


@pytest.mark.parametrize("rule", ALERTING, ids=[rule["alert"] for rule in ALERTING])
def test_an_alert_says_what_is_wrong_and_where_is_said_what_to_do(rule):
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook"}
    assert annotations["summary"][-1] != "."
    assert annotations["description"].endswith(".")
    assert annotations["runbook"] == f"docs/telemetry.md#{rule['alert'].lower()}"
    headings = re.findall(r"^### (.+)$", (DOCS / "telemetry.md").read_text("utf-8"), re.MULTILINE)
    assert rule["alert"] in headings


def test_what_is_recorded_is_recorded_before_it_is_asked_for():
    assert [group["name"] for group in ALERTS["groups"]] == ["llmcache-rates", "llmcache"]
    for rule in RULES:
        if "record" in rule:
            # level:metric:operations, as Prometheus has it.
            assert re.fullmatch(r"job:llmcache_[a-z]+:[a-z0-9_]+", rule["record"])
