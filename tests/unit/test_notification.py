"""From bytes to a fact: every kind is read, every refusal says why, and nothing but a refusal is ever raised."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oplata.bank import notification
from oplata.bank.notification import MAX_DEPTH, MAX_FIELDS, MAX_ID_LENGTH, Notification, parse
from oplata.domain.events import Event, EventKind
from oplata.domain.payment import moves_payment
from oplata.errors import BadNotification
from tests.notifications import SignedNotification, json_object, notifications, payments, signed_by_hand

BODIES = json.loads((Path(__file__).parent.parent / "data" / "bodies.json").read_text())
FORM = "application/x-www-form-urlencoded"
MAX_BODY_BYTES = 65_536


def _body(**values: object) -> bytes:
    return json.dumps({"TerminalKey": "T", "Token": "t"} | values).encode()


def _raw(*pairs: tuple[str, str]) -> bytes:
    return json_object([("TerminalKey", '"T"'), ("Token", '"t"'), *pairs]).encode()


def _refusal(body: bytes, content_type: str = "application/json") -> str:
    with pytest.raises(BadNotification) as caught:
        parse(body, content_type)
    return str(caught.value)


@pytest.mark.parametrize("known", BODIES, ids=lambda known: known["what"])
def test_a_body_that_a_merchant_received_is_read(known: dict[str, Any]) -> None:
    body = known["body"]
    event = parse(signed_by_hand(body)).event()

    assert (event.kind, event.status, event.amount_kopecks) == (known["kind"], known["status"], known["amount_kopecks"])
    assert event.order_id == body.get("OrderId")
    assert event.payment_id == (str(body["PaymentId"]) if "PaymentId" in body else None)
    assert event.success is (body["Success"] in (True, "true"))
    assert event.terminal_key == body["TerminalKey"]


@given(notifications())
def test_every_kind_is_told_apart(sent: SignedNotification) -> None:
    event = parse(sent.body).event()

    assert event.kind is sent.kind
    assert moves_payment(event) == (sent.kind is EventKind.PAYMENT and event.status != "NEWS_TO_US")


@given(notifications())
def test_every_scalar_that_arrived_is_kept_as_its_text(sent: SignedNotification) -> None:
    event = parse(sent.body).event()
    columns = {"TerminalKey", "OrderId", "PaymentId", "Status", "Success", "Amount"}

    assert event.details == {name: value for name, value in sent.signed.items() if name not in columns}


@given(payments())
def test_one_payment_is_read_alike_from_json_from_all_strings_and_from_a_form(sent: SignedNotification) -> None:
    plain = sent.in_order([field for field in sent.all_strings().fields if "[" not in field.name])
    form = urlencode({**plain.signed, "Token": plain.token, "Data[Route]": "TCB"}).encode()
    events = [parse(plain.body).event(), parse(form, f"{FORM}; charset=utf-8").event()]

    assert events[0] == events[1]
    assert parse(form, FORM).token == plain.token


@pytest.mark.parametrize(
    "content_type", ["", "application/json; charset=utf-8", "text/plain", "APPLICATION/JSON", "нет"]
)
def test_json_is_read_whatever_it_is_called(content_type: str) -> None:
    assert parse(_body(OrderId="1"), content_type) == parse(_body(OrderId="1"))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"\xff", "the body is not valid UTF-8: byte 0 is wrong"),
        (b'{"a":"\xed\xa0\x80"}', "the body is not valid UTF-8: byte 6 is wrong"),
        (b"", "the body is empty; a JSON object was expected"),
        (b" \n", "the body is empty; a JSON object was expected"),
        (b"nonsense", "the body is not JSON: Expecting value at character 0"),
        (b"{} {}", "the body is not JSON: Extra data at character 3"),
        (b"[]", "the body is JSON, but not an object"),
        (b'"text"', "the body is JSON, but not an object"),
        (b"null", "the body is JSON, but not an object"),
        (b'{"Amount":NaN}', "the body is not JSON: NaN is not a number"),
        (b'{"Amount":-Infinity}', "the body is not JSON: -Infinity is not a number"),
        (b'{"a":1,"a":1}', 'the field "a" stands twice'),
        (b'{"\\u0061":1,"a":1}', 'the field "a" stands twice'),
        (b"{}", "the field TerminalKey is missing"),
        (b'{"TerminalKey":""}', "the field TerminalKey is missing"),
        (b'{"TerminalKey":null}', "the field TerminalKey is missing"),
        (b'{"TerminalKey":1}', "the field TerminalKey is not a string"),
        (b'{"TerminalKey":{}}', "the field TerminalKey is not a string"),
        (b'{"TerminalKey":"T"}', "the field Token is missing"),
        (b'{"TerminalKey":"T","Token":false}', "the field Token is not a string"),
        (_raw(("OrderId", r'"\ud800"')), 'the field "OrderId" holds a character that is not text'),
        (_raw(("x", r'"\u0000"')), 'the field "x" holds a character that is not text'),
        (_raw(("y", r'"\udfff"')), 'the field "y" holds a character that is not text'),
        (_body(**{"n" * 50: 1, "\x00": 1}), 'the field "\\u0000" holds a character that is not text'),
        (_body(Status=1), "the field Status is not a string"),
        (_body(Status=[]), "the field Status is not a string"),
        (_body(NotificationType=True), "the field NotificationType is not a string"),
        (_body(OrderId=True), "the field OrderId is not a string or an integer"),
        (_body(OrderId={}), "the field OrderId is not a string or an integer"),
        (_raw(("PaymentId", "1.0")), "the field PaymentId is not a string or an integer"),
        (_raw(("PaymentId", "1e3")), "the field PaymentId is not a string or an integer"),
        (_body(ErrorCode=False), "the field ErrorCode is not a string or a number"),
        (_body(Pan=["4300"]), "the field Pan is not a string or a number"),
        (_body(OrderId="1" * (MAX_ID_LENGTH + 1)), "the field OrderId is longer than 128 characters"),
        (_body(PaymentId=10**MAX_ID_LENGTH), "the field PaymentId is longer than 128 characters"),
        (_body(TerminalKey="T" * 129), "the field TerminalKey is longer than 128 characters"),
        (_body(Success=1), "the field Success is neither true nor false"),
        (_body(Success="yes"), "the field Success is neither true nor false"),
        (_body(Success=[]), "the field Success is neither true nor false"),
        (_body(Amount=-1), "the field Amount is wrong: an amount is a whole number of kopecks, such as 19900"),
        (_body(Amount=1.5), "the field Amount is wrong: an amount is a whole number of kopecks, such as 19900"),
        (_body(Amount=True), "the field Amount is wrong: an amount is a whole number of kopecks, such as 19900"),
        (_body(Amount={}), "the field Amount is wrong: an amount is a whole number of kopecks, such as 19900"),
        (_body(Amount=10**30), "the field Amount is wrong: an amount is at most 1000000000000000 kopecks"),
        (_body(Amount="1" * 31), "the field Amount is wrong: an amount is at most 1000000000000000 kopecks"),
        (_body(Amount=10**16), "the field Amount is wrong: an amount is at most 1000000000000000 kopecks"),
        (_body(**{f"f{i}": 1 for i in range(MAX_FIELDS)}), "the body has more than 500 fields"),
    ],
)
def test_a_refusal_says_what_is_wrong(body: bytes, sentence: str) -> None:
    assert _refusal(body) == sentence


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"nonsense", "the body is not a form of name=value pairs"),
        (b"a=%ff", "the form is not valid UTF-8"),
        (b"", "the field TerminalKey is missing"),
        (b"a=1&a=2", 'the field "a" stands twice'),
        (b"&".join(b"f%d=" % i for i in range(MAX_FIELDS + 1)), "the body is not a form of name=value pairs"),
        (b"TerminalKey=T&Token=t&OrderId=%00", 'the field "OrderId" holds a character that is not text'),
        (b"TerminalKey=T&Token=t&Success=1", "the field Success is neither true nor false"),
    ],
)
def test_a_refusal_of_a_form_says_what_is_wrong(body: bytes, sentence: str) -> None:
    assert _refusal(body, FORM) == sentence


def test_a_long_name_is_shown_short() -> None:
    assert _refusal(b'{"%s":1,"%s":1}' % (b"n" * 99, b"n" * 99)) == f'the field "{"n" * 40}\\u2026" stands twice'


def test_a_refusal_never_repeats_a_value_that_was_sent() -> None:
    shown = [_refusal(_body(Success="4300111122223333")), _refusal(_body(Amount="4300111122223333x"))]

    assert all("4300111122223333" not in sentence for sentence in shown)


@pytest.mark.parametrize("literal", ["null", '""'])
def test_an_empty_value_is_no_value(literal: str) -> None:
    event = parse(_raw(("OrderId", literal), ("PaymentId", literal), ("Amount", literal))).event()

    assert (event.order_id, event.payment_id, event.amount_kopecks) == (None, None, None)


@pytest.mark.parametrize(
    ("literal", "success"),
    [("true", True), ('"true"', True), ('"True"', True), ("false", False), ('"false"', False), ("null", None)],
)
def test_success_is_read_from_a_truth_value_or_its_word(literal: str, success: bool | None) -> None:
    assert parse(_raw(("Success", literal))).event().success is success


def test_what_only_looks_like_brackets_is_not_nesting() -> None:
    body = _raw(("Message", '"' + '[{\\"' * 500 + '"'), ("Data", "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)))

    assert parse(body).fields["Message"] == '[{"' * 500


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_one_level_too_deep_is_refused(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    inner = "1" if closing == "}" else ""

    assert isinstance(parse(_raw(("D", opening * 31 + inner + closing * 31))), Notification)
    assert _refusal(_raw(("D", opening * 32 + inner + closing * 32))) == "the body is nested more than 32 deep"


def _read(body: bytes, content_type: str) -> Event | None:
    try:
        return parse(body, content_type).event()
    except BadNotification as error:
        sentence = str(error)
    assert sentence.isprintable()
    assert len(sentence) < 300
    return None


CONTENT_TYPES = st.sampled_from(["application/json", FORM, "", "text/plain"])
JSON_PIECES = st.sampled_from(
    [
        *'{}[]",:\\',
        "\\u",
        "d800",
        "\\ud800",
        "\\u0000",
        "NaN",
        "-",
        "1e",
        "1",
        ".",
        "true",
        "null",
        '"TerminalKey":',
        '"a"',
        " ",
        "é",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["\ud800", "\x00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(
    ["TerminalKey", "Token", "OrderId", "PaymentId", "Status", "Success", "Amount", "RebillId", "NotificationType", "x"]
)


@given(st.binary(), CONTENT_TYPES)
def test_any_bytes_are_read_or_refused(body: bytes, content_type: str) -> None:
    _read(body, content_type)


@given(st.lists(JSON_PIECES, max_size=60).map("".join), CONTENT_TYPES)
@settings(max_examples=300)
def test_anything_like_json_is_read_or_refused(body: str, content_type: str) -> None:
    _read(body.encode(), content_type)


@given(st.dictionaries(NAMES, VALUES))
@settings(max_examples=300)
@example({"OrderId": "\ud800"})
def test_any_value_in_any_field_is_read_or_refused(values: dict[str, object]) -> None:
    event = _read(json.dumps({"TerminalKey": "T", "Token": "t"} | values).encode(), "")

    if event is not None:
        assert all(isinstance(value, str) for value in event.details.values())
        "".join([event.digest, event.order_id or "", event.payment_id or "", *event.details.values()]).encode()


def _said_of(body: bytes) -> Notification | str:
    try:
        return parse(body)
    except BadNotification as error:
        return str(error)


NUMBERS = st.sampled_from(
    ["0", "-0", "-0.0", "1.0", "1.10", "1e5", "1E400", "1234567890" * 3, "1" * 129, "-7", "01", "2."]
)
TEXTS = st.sampled_from(
    ['"a"', '"b:c"', '"-0"', '"\\u0041"', '"\\ud800"', '"é"', '""', '"[{"', "null", "true", "false"]
)
FIELD_NAMES = st.sampled_from(["OrderId", "PaymentId", "Amount", "Success", "Pan", "x", "Password", "OrderI\\u0064"])
SPACES = st.sampled_from(["", "", " ", "\n\t"])


def _objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.tuples(SPACES, FIELD_NAMES, SPACES, values, SPACES)
    members = st.lists(member.map(lambda m: f'{m[0]}"{m[1]}"{m[2]}:{m[3]}{m[4]}'), max_size=5)
    return members.map(lambda several: "{" + ",".join(several) + "}")


JSON_TEXTS = st.recursive(
    NUMBERS | TEXTS,
    lambda inner: _objects(inner) | st.lists(inner, max_size=3).map(lambda several: "[" + ",".join(several) + "]"),
    max_leaves=8,
)


@given(_objects(JSON_TEXTS))
@settings(max_examples=500)
@example('{"Amount":-0}')
@example('{"Amount": -0 ,"Success":false}')
@example('{"OrderId":"-0","Success":false}')
@example('{"Amount":' + "1" * 30 + "}")
@example('{"PaymentId":' + "1" * 129 + "}")
@example('{"PaymentId":-' + "1" * 128 + "}")
@example('{"PaymentId":-' + "1" * 127 + "}")
@example('{"OrderId":"1","OrderId":"2"}')
@example('{"OrderId" :"1","OrderId":"2"}')
@example('{"OrderId" :"1","OrderId":"2","x":":"}')
@example('{"OrderId"\n:"1","OrderId"\t:"2","x":"a:"}')
@example('{"x":{"OrderId":1,"OrderId":2}}')
@example('{"x":' + "[" * 32 + "]" * 32 + "}")
@example('{"x":' + "[" * 31 + "]" * 31 + "}")
@example('{"x":' + "[" * 9999 + "]" * 9999 + "}")
@example("{" + ",".join(f'"f{number}":1' for number in range(MAX_FIELDS)) + "}")
def test_what_is_read_quickly_is_what_is_read_exactly(text: str) -> None:
    body = ('{"TerminalKey":"T","Token":"t"' + ("," + text[1:] if len(text) > 2 else "}")).encode()
    with mock.patch.object(notification, "_read_quickly", return_value=None):
        exactly = _said_of(body)
    assert exactly == _said_of(body)


def test_what_the_bank_sends_is_read_quickly() -> None:
    """A guard of the speed; a receipt has colons in its texts, of a time and an address."""
    bodies = [signed_by_hand(known["body"]) for known in BODIES]
    bodies.append(_body(ReceiptDatetime="2026-11-25T12:00:00+03:00", Url="https://consumer.example/1"))
    bodies.append(_body(Message=" : "))  # It might be the colon of a name.
    slow = [body for body in bodies if notification._read_quickly(body.decode()) is None]
    assert slow == bodies[-1:]


def test_what_is_far_longer_than_a_notification_is_read_once() -> None:
    with mock.patch.object(notification, "_QUICK") as quick:
        parse(_body(Message="a" * 16_384))
    assert quick.mock_calls == []


@given(notifications(), st.data())
def test_a_notification_cut_or_damaged_anywhere_is_read_or_refused(
    sent: SignedNotification, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(sent.body) - 1))
    _read(sent.body[:place], "")
    _read(sent.body[:place] + data.draw(st.binary(max_size=3)) + sent.body[place + 1 :], "")


EVIL = {
    "deep arrays": b"[" * MAX_BODY_BYTES,
    "deep objects": b'{"a":' * (MAX_BODY_BYTES // 5),
    "deep inside a field": _raw(("D", "[" * 60_000)),
    "quotes": b'"' * MAX_BODY_BYTES,
    "brackets and quotes": b'["' * (MAX_BODY_BYTES // 2),
    "escaped quotes": b'[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["' + b'\\"' * 30_000,
    "backslashes": b"[" * 40 + b"\\" * 60_000,
    "a string that never ends, many times": b"[" * 40 + b'"\\' * 30_000,
    "a huge integer": _raw(("Amount", "9" * 60_000)),
    "a huge id": _raw(("OrderId", "9" * 60_000)),
    "a huge fraction": _raw(("Amount", "1." + "0" * 60_000)),
    "a huge exponent": _raw(("Amount", "1e" + "9" * 60_000)),
    "many keys": _raw(*((f"k{i}", "1") for i in range(10_000))),
    "one key many times": b"{" + b",".join([b'"a":1'] * 10_000) + b"}",
    "many keys in a field": _raw(("D", json_object([(f"k{i}", "1") for i in range(7_000)]))),
    "spaces": b" " * MAX_BODY_BYTES,
    "a long form": b"a=1&" * (MAX_BODY_BYTES // 4),
    "percents": b"a=" + b"%" * 60_000,
}


@pytest.mark.parametrize("content_type", ["application/json", FORM])
@pytest.mark.parametrize("name", EVIL)
def test_no_body_takes_long(name: str, content_type: str) -> None:
    """An honest body takes some tens of microseconds; a quadratic scan of 64 KiB takes tens of seconds."""
    started = time.process_time()
    _read(EVIL[name], content_type)

    assert time.process_time() - started < 1.0


def test_json_that_is_called_a_form_is_read_as_what_it_is() -> None:
    read = parse(b' {"TerminalKey": "T", "Token": "t", "OrderId": "1"}', "application/x-www-form-urlencoded")

    assert {"TerminalKey": "T", "OrderId": "1"} == read.fields


def test_a_raw_nul_is_refused_even_where_no_signed_field_holds_it() -> None:
    with pytest.raises(BadNotification, match="NUL"):
        parse(b"TerminalKey=T&Token=t&DATA[x]=a\x00b", "application/x-www-form-urlencoded")
