"""The house stays tidy: short files and functions, rooms named by nouns, nothing unfinished, no test that looks away.

Each rule is a function from a file to its offences; it is held to the tree, and to a snippet that has to offend it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES = 400
FUNCTION_LINES = 70
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
SETTINGS = PurePosixPath("src/oplata/settings/sources.py")
CLI = PurePosixPath("src/oplata/cli")


class Source(NamedTuple):
    """One file: its path from the root of the project, its text, and the same as a tree."""

    path: PurePosixPath
    text: str
    tree: ast.Module


Rule = Callable[[Source], Iterator[str]]


def long_file(source: Source) -> Iterator[str]:
    lines = len(source.text.splitlines())
    if lines > FILE_LINES:
        yield f"has {lines} lines, more than {FILE_LINES}"


def long_function(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield f"{node.lineno}: {node.name} has {lines} lines, more than {FUNCTION_LINES}"


def vague_name(source: Source) -> Iterator[str]:
    for part in source.path.with_suffix("").parts:
        if not VAGUE_NAMES.isdisjoint(part.split("_")):
            yield f"{part!r} says nothing about what lives there"


def unfinished(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), start=1):
        for mark in re.findall(r"\b(?:TODO|FIXME|XXX|NotImplementedError|NotImplemented)\b", line):
            yield f"{number}: {mark}"


def stray_print(source: Source) -> Iterator[str]:
    if source.path.is_relative_to(CLI):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{node.lineno}: print() outside the commands"


def stray_environment(source: Source) -> Iterator[str]:
    """Also finds ``from os import environ``, for that names it too."""
    if source.path == SETTINGS:
        return
    names = {"environ", "environb", "getenv", "getenvb"}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            found = {node.attr} & names
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            found = {alias.name for alias in node.names} & names
        else:
            continue
        for name in found:
            yield f"{node.lineno}: os.{name} outside the settings"


def looking_away(source: Source) -> Iterator[str]:
    """A test that is skipped or expected to fail, by a mark, by a call, or by unittest."""
    names = {
        "skip",
        "skipif",
        "xfail",
        "importorskip",
        "SkipTest",
        "skipTest",
        "skipIf",
        "skipUnless",
        "expectedFailure",
    }
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr in names:
            yield f"{node.lineno}: {node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module in {"pytest", "unittest"}:
            for alias in node.names:
                if alias.name in names:
                    yield f"{node.lineno}: {alias.name}"


RULES_OF_SOURCE: list[Rule] = [long_file, long_function, vague_name, unfinished, stray_print, stray_environment]
RULES_OF_TESTS: list[Rule] = [vague_name, looking_away]


def read(path: str, text: str) -> Source:
    return Source(PurePosixPath(path), text, ast.parse(text))


def offences(folder: str, rule: Rule) -> list[str]:
    """What offends the rule in a folder, which has to hold something at all."""
    paths = sorted(path for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts)
    assert len(paths) > 10, f"{folder} holds almost nothing to look at"
    sources = (read(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths)
    return [f"{source.path}: {offence}" for source in sources for offence in rule(source)]


@pytest.mark.parametrize("rule", RULES_OF_SOURCE, ids=lambda rule: rule.__name__)
def test_the_source_is_tidy(rule: Rule) -> None:
    assert offences("src", rule) == []


@pytest.mark.parametrize("rule", RULES_OF_TESTS, ids=lambda rule: rule.__name__)
def test_the_tests_are_tidy(rule: Rule) -> None:
    assert offences("tests", rule) == []


ROOM = "src/oplata/worker/loop.py"
BODY = "    pass\n"


@pytest.mark.parametrize(
    ("rule", "path", "text", "expected"),
    [
        (long_file, ROOM, "x = 1\n" * 401, ["has 401 lines, more than 400"]),
        (long_file, ROOM, "x = 1\n" * 400, []),
        (long_function, ROOM, "def f():\n" + BODY * 70, ["1: f has 71 lines, more than 70"]),
        (long_function, ROOM, "async def f():\n" + BODY * 69, []),
        (vague_name, "src/oplata/helpers/x.py", "", ["'helpers' says nothing about what lives there"]),
        (vague_name, "src/oplata/queue_utils.py", "", ["'queue_utils' says nothing about what lives there"]),
        (vague_name, "src/oplata/commons.py", "", []),
        (unfinished, ROOM, "x = 1  # TODO: more\n", ["1: TODO"]),
        (unfinished, ROOM, "\nraise NotImplementedError\n", ["2: NotImplementedError"]),
        (unfinished, ROOM, "MASTODON = 1  # a FIXMEUP is none\n", []),
        (stray_print, ROOM, "print(1)\n", ["1: print() outside the commands"]),
        (stray_print, "src/oplata/cli/demo.py", "print(1)\n", []),
        (stray_environment, ROOM, "import os\nos.environ['A']\n", ["2: os.environ outside the settings"]),
        (stray_environment, ROOM, "import os\nos.getenv('A')\n", ["2: os.getenv outside the settings"]),
        (stray_environment, ROOM, "from os import environ\n", ["1: os.environ outside the settings"]),
        (stray_environment, "src/oplata/settings/sources.py", "import os\nos.environ['A']\n", []),
        (looking_away, "tests/test_x.py", "@pytest.mark.skip\ndef test_x(): ...\n", ["1: skip"]),
        (looking_away, "tests/test_x.py", "pytestmark = pytest.mark.xfail\n", ["1: xfail"]),
        (looking_away, "tests/test_x.py", "pytest.importorskip('pika')\n", ["1: importorskip"]),
        (looking_away, "tests/test_x.py", "from pytest import skip\n", ["1: skip"]),
        (looking_away, "tests/test_x.py", "def test_we_skip_nothing(): ...\n", []),
    ],
)
def test_each_rule_can_fail(rule: Rule, path: str, text: str, expected: list[str]) -> None:
    assert list(rule(read(path, text))) == expected
