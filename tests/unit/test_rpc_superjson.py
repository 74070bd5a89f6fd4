"""superjson read and written, also where somebody means harm."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import time
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import strategies

from oplata.rpc import RpcError
from oplata.rpc.codec import refuse_depth
from oplata.rpc.superjson import deserialize, iso_instant, serialize

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
UNDEFINED = {"json": None, "meta": {"values": ["undefined"], "v": 1}}


@pytest.mark.parametrize(
    ("tree", "document"),
    [
        ("world", {"json": "world"}),
        (msgspec.UNSET, UNDEFINED),
        (EPOCH, {"json": "1970-01-01T00:00:00.000Z", "meta": {"values": ["Date"], "v": 1}}),
        (
            {"a.b": {"c\\": [EPOCH]}},
            {
                "json": {"a.b": {"c\\": ["1970-01-01T00:00:00.000Z"]}},
                "meta": {"values": {"a\\.b.c\\\\.0": ["Date"]}, "v": 1},
            },
        ),
    ],
)
def test_what_is_written_has_the_form_of_the_capture_and_reads_back(tree: Any, document: Any) -> None:
    assert serialize(tree) == document
    assert deserialize(document, has_instants=True) == tree


@pytest.mark.parametrize(
    ("document", "value"),
    [
        ({"json": {"a": None}, "meta": {"values": {"a": ["undefined"]}, "v": 1}}, {}),
        ({"json": [None, 1], "meta": {"values": {"0": ["undefined"]}}}, [None, 1]),
        ({"json": "12345678901234567890", "meta": {"values": ["bigint"]}}, 12345678901234567890),
        ({"json": "Infinity", "meta": {"values": ["number"]}}, float("inf")),
        ({"json": [["k", "1"]], "meta": {"values": ["map", {"0.1": ["bigint"]}]}}, {"k": 1}),
        ({"json": ["a"], "meta": {"values": ["set"]}}, ["a"]),
        ({"json": {"a": {"x": 1}, "b": None}, "meta": {"referentialEqualities": {"a": ["b"]}}}, {"a": {"x": 1}, "b":
        {"x": 1}}), ({"a": 1}, msgspec.UNSET),
        (5, msgspec.UNSET),
    ],
)  # fmt: skip
def test_every_type_that_superjson_has_by_itself_is_read(document: Any, value: Any) -> None:
    assert deserialize(document) == value


def test_an_instant_without_a_zone_is_in_utc_and_others_are_moved_there() -> None:
    assert iso_instant(datetime.datetime(2026, 1, 2, 3, 4, 5, 678_900)) == "2026-01-02T03:04:05.678Z"  # noqa: DTZ001
    east = datetime.timezone(datetime.timedelta(hours=3))
    assert iso_instant(datetime.datetime(2026, 1, 2, 3, tzinfo=east)) == "2026-01-02T00:00:00.000Z"


def test_values_that_repeat_one_another_do_not_explode() -> None:
    names = [f"n{number}" for number in range(40)]
    tree: dict[str, Any] = {name: [None, None] for name in names}
    tree["n0"] = ["x"]
    pairs = itertools.pairwise(names)
    equalities = {one: [f"{other}.0", f"{other}.1"] for one, other in pairs}
    started = time.monotonic()
    with pytest.raises(RpcError, match="do not fit"):
        deserialize({"json": tree, "meta": {"referentialEqualities": equalities}})
    assert time.monotonic() - started < 2


def test_a_value_that_contains_itself_is_refused() -> None:
    with pytest.raises(RpcError, match="do not fit"):
        deserialize({"json": {"a": {"b": None}}, "meta": {"referentialEqualities": {"a": ["a.b"]}}})


def test_looking_for_depth_takes_one_pass() -> None:
    started = time.monotonic()
    refuse_depth(b"[]" * 40 + b'"' + b'\\"' * 500_000)
    assert time.monotonic() - started < 2


KEYS = strategies.sampled_from(["a", "b", "0", "1", "a.b", "0.0", "\\", ""])
JSON = strategies.recursive(
    strategies.none() | strategies.integers() | strategies.sampled_from(["x", "1", "NaN"]),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
KINDS = strategies.sampled_from(["Date", "undefined", "bigint", "number", "map", "set", "x"])
TREES = strategies.recursive(
    strategies.lists(KINDS, min_size=0, max_size=2),
    lambda inner: (
        strategies.dictionaries(KEYS, inner, max_size=3)
        | strategies.tuples(KINDS, strategies.dictionaries(KEYS, inner, max_size=2)).map(list)
    ),
    max_leaves=4,
)
METAS = strategies.fixed_dictionaries(
    {},
    optional={
        "values": TREES | JSON,
        "v": strategies.sampled_from([0, 1]),
        "referentialEqualities": JSON | strategies.dictionaries(KEYS, strategies.lists(KEYS, max_size=2), max_size=3),
    },
)


@hypothesis.settings(max_examples=500, deadline=None)
@hypothesis.given(json=JSON, meta=METAS | JSON)
def test_no_document_makes_us_fail(json: Any, meta: Any) -> None:
    with contextlib.suppress(RpcError):
        serialize(deserialize({"json": json, "meta": meta}, has_instants=True))
