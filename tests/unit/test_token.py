"""The token: over everything scalar that arrived, as the text that arrived, sorted by code point."""

from __future__ import annotations

import hashlib
import json
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oplata.bank.notification import parse
from oplata.bank.token import NumberText, matches, sign, signed_fields, token_of
from tests.notifications import PASSWORD, SignedNotification, json_object, notifications

VECTORS = json.loads((Path(__file__).parent.parent / "data" / "signed.json").read_text())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["what"])
def test_a_published_token_comes_out(vector: dict[str, Any]) -> None:
    assert token_of(vector["fields"], vector["password"]) == vector["token"]


@given(notifications())
def test_the_token_is_the_one_that_another_implementation_computes(sent: SignedNotification) -> None:
    assert sign(parse(sent.body).fields, PASSWORD) == sent.token


@given(notifications())
def test_what_is_signed_is_every_scalar_that_arrived_and_nothing_else(sent: SignedNotification) -> None:
    assert parse(sent.body).fields == sent.signed


@pytest.mark.parametrize(
    ("literal", "signed"),
    [
        ("false", "false"),
        ("true", "true"),
        ("0", "0"),
        ('""', ""),
        ("1.0", "1.0"),
        ("1.50", "1.50"),
        ("-0", "-0"),
        ("1e3", "1e3"),
        ("1E+3", "1E+3"),
        ("12345678901234567890", "12345678901234567890"),
        ('"007"', "007"),
        (r'"\u0447\u0430\u0439"', "чай"),
        ('"чай 😀"', "чай 😀"),
        (r'"\ud83d\ude00"', "😀"),
        (r'"a\/b"', "a/b"),
    ],
)
def test_a_scalar_is_signed_by_its_text(literal: str, signed: str) -> None:
    body = json_object([("Field", literal), ("TerminalKey", '"T"'), ("Token", '"t"')])

    assert sign(parse(body.encode()).fields, "p") == _hash(signed + "p" + "T")


@pytest.mark.parametrize("literal", ["null", "{}", "[]", '{"a":"b"}', '["a",1]'])
@pytest.mark.parametrize("name", ["DATA", "Data", "Receipt", "Shops", "AnythingElse"])
def test_a_null_or_nested_value_is_not_signed(name: str, literal: str) -> None:
    body = json_object([(name, literal), ("TerminalKey", '"T"'), ("Token", '"t"')])

    assert sign(parse(body.encode()).fields, "p") == _hash("p" + "T")


def test_data_that_arrives_as_a_string_is_signed() -> None:
    body = json_object([("DATA", r'"{\"Phone\":\"1\"}"'), ("TerminalKey", '"T"'), ("Token", '"t"')])

    assert sign(parse(body.encode()).fields, "p") == _hash('{"Phone":"1"}' + "p" + "T")


def test_names_sort_by_code_point_and_the_password_among_them() -> None:
    fields = {
        "IP": "1",
        "InfoEmail": "2",
        "a": "6",
        "Z": "5",
        "Pan": "3",
        "PayType": "4",
        "ё": "7",
        "\uffff": "8",
        "😀": "9",
    }

    assert sign(fields, "|") == _hash("1" + "2" + "3" + "|" + "4" + "5" + "6" + "7" + "8" + "9")


def test_the_token_itself_and_a_field_named_password_are_not_signed() -> None:
    fields = {"Token": "x", "Password": "y", "A": "1"}

    assert signed_fields(fields.items()) == {"A": "1"}
    assert token_of(fields, "p") == _hash("1p")


def test_python_values_are_signed_as_their_json() -> None:
    fields: dict[str, object] = {
        "a": 1,
        "b": True,
        "c": False,
        "d": 1.5,
        "e": None,
        "f": {},
        "g": [],
        "h": "",
        "i": 10**20,
    }

    assert signed_fields(fields.items()) == {
        "a": "1",
        "b": "true",
        "c": "false",
        "d": "1.5",
        "h": "",
        "i": "100000000000000000000",
    }


def test_what_is_signed_is_plain_text_that_any_serializer_takes() -> None:
    class Modern(StrEnum):
        WORD = "word"

    class Old(str, Enum):  # noqa: UP042  The older spelling prints as "Old.WORD", and must not.
        WORD = "word"

    fields = signed_fields([("a", NumberText("1.0")), ("b", Modern.WORD), ("c", Old.WORD)])

    assert [(value, type(value)) for value in fields.values()] == [("1.0", str), ("word", str), ("word", str)]
    assert msgspec.json.encode(fields) == b'{"a":"1.0","b":"word","c":"word"}'


@given(notifications(), st.text(max_size=70))
def test_only_the_token_itself_matches(sent: SignedNotification, token: str) -> None:
    assert matches(sent.signed, sent.token, PASSWORD)
    assert not matches(sent.signed, token, PASSWORD)
    assert not matches(sent.signed, sent.token, PASSWORD + " ")


def test_a_token_that_is_no_text_at_all_just_does_not_match() -> None:
    assert not matches({"A": "1"}, "\ud800", "p")
