"""Unmodified clients of every version that matters, over every link and transformer, against us and against the
original.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.rpc_conformance.mutants import MUTANTS
from tests.rpc_conformance.processes import check, free_port, node_packages, our_server, running, their_server

NEWEST = "11.25"
VERSIONS = ("10.45", "11.0", "11.13", "11.18", NEWEST)
# The original has no procedure that refuses to be batched.
ONLY_OURS = ["refused whole"]
COUNTED = {True: 104, False: 118}


@pytest.fixture(scope="module", autouse=True)
def _packages() -> None:
    node_packages()


@pytest.fixture(scope="module")
def ours() -> Iterator[str]:
    port = free_port()
    with running(our_server(port), port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def theirs() -> Iterator[str]:
    port = free_port()
    with running(their_server(NEWEST, port), port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def theirs_of_v10() -> Iterator[str]:
    port = free_port()
    with running(their_server("10.45", port), port):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_finds_everything_as_it_expects(version: str, ours: str, theirs: str, theirs_of_v10: str) -> None:
    is_old = version.startswith("10.")
    control = theirs_of_v10 if is_old else theirs
    targets: list[dict[str, Any]] = [
        {"name": "ours", "url": ours},
        {"name": "control", "url": control, "without": ONLY_OURS},
    ]
    outcomes = check(version, targets)
    assert [outcome for outcome in outcomes if outcome.get("failure", True) is not None] == []
    # A check that did not run has not passed either.
    assert len(outcomes) == 2 * COUNTED[is_old] - 4


def test_every_kind_of_check_can_fail() -> None:
    port = free_port()
    with running([sys.executable, "mutants.py", str(port)], port):
        targets: list[dict[str, Any]] = [
            {
                "name": name,
                "url": f"http://127.0.0.1:{port}/{name}",
                "only": list(mutant.kills),
                "patience_ms": 1_000,
            }
            for name, mutant in MUTANTS.items()
        ]
        outcomes = [outcome for outcome in check(NEWEST, targets) if "uncaught" not in outcome]
    wanted = {(name, kill) for name, mutant in MUTANTS.items() for kill in mutant.kills}
    asked = {(each["target"], f"{each['link']}/{each['transformer']}/{each['check']}") for each in outcomes}
    assert asked == wanted
    survivors = [outcome for outcome in outcomes if outcome["failure"] is None]
    assert survivors == []
    kinds_of_checks = {kill.split("/")[2] for _, kill in wanted}
    assert kinds_of_checks == _all_checks()


def _all_checks() -> set[str]:
    """Every name of a check that the newest client has, asked of a target that nobody serves."""
    nobody = {"name": "nobody", "url": f"http://127.0.0.1:{free_port()}", "patience_ms": 300}
    return {outcome["check"] for outcome in check(NEWEST, [nobody]) if "uncaught" not in outcome}


JSON = {"content-type": "application/json"}
REQUESTS: list[tuple[str, str, dict[str, str], bytes]] = [
    ("GET", "/hello", {}, b""),
    ("GET", "/fail", {}, b""),
    ("GET", "/not.there", {}, b""),
    ("GET", "/add", {}, b""),
    ("POST", "/hello", JSON, b""),
    ("PUT", "/hello", JSON, b"1"),
    ("POST", "/noin", {}, b""),
    ("POST", "/add", {"content-type": "text/plain"}, b"{}"),
    ("POST", "/add", {"content-type": "Application/JSON; charset=utf-8"}, b'{"a":1,"b":2}'),
    ("HEAD", "/hello", {}, b""),
    ("GET", "/hello,fail?batch=1", {}, b""),
    ("GET", "/fail,fail?batch=1", {}, b""),
    ("GET", "/hello,nil?batch=1&input=%7B%7D", {}, b""),
    ("GET", "/hello,nope?batch=1", {}, b""),
    ("GET", "/hello,add?batch=1", {}, b""),
    ("GET", "/forever,forever?batch=1", {}, b""),
    ("GET", "/post.byId,hello?batch=1&input=1", {}, b""),
    ("GET", "/hello", {"trpc-accept": "application/jsonl"}, b""),
    ("GET", "/fail?batch=1", {"trpc-accept": "application/jsonl"}, b""),
    ("GET", "/subErr", {}, b""),
    ("POST", "/subErr", JSON, b""),
    ("GET", "/subErr?connectionParams=%7Bx", {}, b""),
    ("GET", "/%E0%A4%A", {}, b""),
]


def statuses(base: str) -> list[tuple[str, str, int]]:
    with httpx.Client(timeout=10) as client:
        return [
            (method, path, client.request(method, base + path, headers=headers, content=body or None).status_code)
            for method, path, headers, body in REQUESTS
        ]


def test_http_statuses_are_those_of_the_original(ours: str, theirs: str) -> None:
    """Clients look at the body alone, so that only raw requests show the status."""
    assert statuses(ours + "/trpc") == statuses(theirs + "/trpc")


def test_a_wrong_status_is_noticed(theirs: str) -> None:
    port = free_port()
    with running([sys.executable, "mutants.py", str(port)], port):
        assert statuses(f"http://127.0.0.1:{port}/status/trpc") != statuses(theirs + "/trpc")
