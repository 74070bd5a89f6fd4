"""docs/monitoring.md names every metric there is, as the program tells it, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from oplata.observability.metrics import ALL

PAGE = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"
_ROW = re.compile(r"^\| `(oplata_\w+)` \| (\w+) \| (\w+) \| (?:`(\w+)`)? ?\| (.+) \|$", re.MULTILINE)


def test_the_page_has_a_row_for_every_metric_in_order() -> None:
    found = [(name, kind, label or None, told) for name, kind, _, label, told in _ROW.findall(PAGE.read_text("utf-8"))]
    assert found == [(each.name, each.kind, each.label, each.help) for each in ALL.values()]


def test_the_unit_of_a_metric_stands_in_its_name() -> None:
    for name, _, unit, _, _ in _ROW.findall(PAGE.read_text("utf-8")):
        assert unit == next((each for each in ("seconds", "bytes") if each in name), "count")


def test_counters_are_totals_and_nothing_else_is() -> None:
    assert [each.name for each in ALL.values() if (each.kind == "counter") != each.name.endswith("_total")] == []
