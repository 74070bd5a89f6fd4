"""Every alert has a page and a case in which it fires; alerts and dashboard ask for metrics that there are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oplata.observability.metrics import ALL
from tests.monitoring.files import DASHBOARD, PROMETHEUS, ROOT, alerts, cases, names, queries
from tests.services.prometheus import promtool

OF_THE_CLIENT = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
RUNBOOKS = ROOT / "docs" / "runbooks"


def test_prometheus_understands_the_rules_and_each_case_comes_out() -> None:
    promtool("check", "rules", "alerts.yaml", cwd=PROMETHEUS)
    promtool("check", "config", "prometheus.yaml", cwd=PROMETHEUS)
    promtool("test", "rules", "alerts_test.yaml", cwd=PROMETHEUS)


def test_each_alert_has_a_case_in_which_it_is_quiet_first_and_then_fires() -> None:
    told = {
        case["name"]: [
            bool(each["exp_alerts"]) for each in case["alert_rule_test"] if each["alertname"] == case["name"]
        ]
        for case in cases()
    }
    assert told == {alert["alert"]: [False, True] for alert in alerts()}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_each_alert_leads_to_its_page(alert: dict[str, dict[str, str]]) -> None:
    page = Path(ROOT / alert["annotations"]["runbook"]).read_text(encoding="utf-8")
    assert page.startswith(f"# {alert['alert']}\n")
    assert " ".join(str(alert["expr"]).split()) in page
    assert f"Severity: {alert['labels']['severity']}." in " ".join(page.split())
    assert "\n## What it means\n" in page
    assert "\n## What to do\n\n1. " in page


def test_there_is_no_page_without_an_alert() -> None:
    assert {path.name for path in RUNBOOKS.glob("*.md")} == {
        Path(alert["annotations"]["runbook"]).name for alert in alerts()
    }


def test_alerts_and_dashboard_ask_for_metrics_that_there_are() -> None:
    asked = [str(alert["expr"]) for alert in alerts()] + [each for exprs in queries().values() for each in exprs]
    known = set(ALL) | OF_THE_CLIENT
    assert {name for each in asked for name in names(each)} <= known
    assert [each for each in asked if not names(each) and "up{" not in each] == []


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for exprs in queries().values() for each in exprs for name in names(each)}
    assert set(ALL) - shown == set()


def test_the_panels_do_not_overlap_and_their_ids_are_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells
