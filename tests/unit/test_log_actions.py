"""Every line of the log names its action, by room and verb, so that it can be searched for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "src" / "oplata"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
ACTION = re.compile(r"[a-z]+\.[a-z_]+")


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a logger."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                owner = node.func.value
                if isinstance(owner, ast.Name) and owner.id in ("log", "_log"):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def actions(call: ast.Call) -> list[str]:
    """The names that a call may have: its action, or else what it says."""
    given = next((keyword.value for keyword in call.keywords if keyword.arg == "action"), None)
    named = given if given is not None else call.args[0]
    branches = [named.body, named.orelse] if isinstance(named, ast.IfExp) else [named]
    return [_written(each) for each in branches]


def _written(named: ast.expr) -> str:
    """The text as it stands there; a part of it that is put in at run time is taken to be a verb."""
    if isinstance(named, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "verb" for part in named.values)
    return str(named.value) if isinstance(named, ast.Constant) else ""


def test_every_line_has_an_action_of_a_room_and_a_verb() -> None:
    found = list(calls())
    assert len(found) > 40
    assert [place for place, call in found if not all(map(ACTION.fullmatch, actions(call)))] == []
