"""What lies in ``deploy/`` for whoever watches: the alerts, their cases, and the dashboard's queries."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "oplata.json"
ALERTS = PROMETHEUS / "alerts.yaml"

_NAME = re.compile(r"\b(?:oplata|process)_[a-z_]+\b")
_SERIES = re.compile(r"_(bucket|sum|count)$")


def alerts() -> list[dict[str, Any]]:
    """The rules, as they stand in the file."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def cases() -> list[dict[str, Any]]:
    """The cases of promtool."""
    found: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
    return found


def queries() -> dict[str, list[str]]:
    """The dashboard's expressions by the title of their panel."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return {
        panel["title"]: [target["expr"] for target in panel["targets"]] for panel in panels if panel["type"] != "row"
    }


def names(expression: str) -> set[str]:
    """The metrics that an expression asks for, by the names that we give them."""
    return {_SERIES.sub("", name) for name in _NAME.findall(expression)}
