"""From the bytes of a notification to the fact inside it: read, check the shape, keep everything that arrived."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from enum import Enum
from urllib.parse import parse_qsl

import msgspec

from oplata.bank.token import TOKEN, NumberText, signed_fields
from oplata.domain.events import Event, EventKind, digest_of
from oplata.domain.money import kopecks
from oplata.errors import BadNotification, MoneyError

MAX_DEPTH = 32
"""Receipts nest four deep; more than this is nobody's notification."""

MAX_FIELDS = 500
MAX_ID_LENGTH = 128
"""The bank's ids are at most 36 characters long."""

_IDS = ("OrderId", "PaymentId", "CustomerKey", "RequestKey", "AccountToken")
_WORDS = ("Status", "NotificationType", "TerminalKey")
_SCALARS = ("ErrorCode", "CardId", "RebillId", "Pan", "ExpDate", "Message", "Details", "SpAccumulationId")


class _Shape(Enum):
    """What a field may be; the value ends the sentence that refuses it."""

    WORD = "a string"
    ID = "a string or an integer"
    SCALAR = "a string or a number"


_SHAPES = dict.fromkeys(_WORDS, _Shape.WORD) | dict.fromkeys(_IDS, _Shape.ID) | dict.fromkeys(_SCALARS, _Shape.SCALAR)
_INTEGER = re.compile(r"-?\d+", re.ASCII)
_COLUMNS = frozenset({"TerminalKey", "OrderId", "PaymentId", "Status", "Success", "Amount"})


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """A body of the right shape, not yet verified.

    ``fields`` are the scalars that the token covers, by name, as the text that arrived.
    """

    terminal_key: str
    token: str
    fields: Mapping[str, str]
    amount_kopecks: int | None
    success: bool | None

    def __repr__(self) -> str:
        return f"Notification(terminal_key={self.terminal_key!r}, fields={sorted(self.fields)})"

    def event(self) -> Event:
        """The fact that this notification tells. Ask for it only once the token is verified."""
        fields = self.fields
        return Event(
            digest=digest_of(fields),
            kind=_kind(fields),
            terminal_key=self.terminal_key,
            order_id=fields.get("OrderId") or None,
            payment_id=fields.get("PaymentId") or None,
            status=fields.get("Status", ""),
            success=self.success,
            amount_kopecks=self.amount_kopecks,
            details={name: text for name, text in fields.items() if name not in _COLUMNS},
        )


def parse(body: bytes, content_type: str = "application/json") -> Notification:
    """Read a notification. Raises ``BadNotification`` with a sentence that says what is wrong with it.

    JSON is expected whatever the content type says, but for a form that says so and does not begin with a brace.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadNotification(f"the body is not valid UTF-8: byte {error.start} is wrong") from None
    if "\x00" in text:
        raise BadNotification("the body holds a NUL character")
    # Some clients call everything a form; no form begins with a brace.
    form = _media_type(content_type) == "application/x-www-form-urlencoded" and not text.lstrip().startswith("{")
    root = _form(text) if form else _json(text)
    _require(root)
    # UTF-8 holds no lone surrogate and this text no NUL; only an escape can bring one in.
    if form or "\\u" in text:
        _check_text(root)
    _check_types(root)
    fields = signed_fields(root.items())
    return Notification(
        terminal_key=fields["TerminalKey"],
        token=str(root[TOKEN]),
        fields=fields,
        amount_kopecks=_amount(root.get("Amount")),
        success=_success(root.get("Success")),
    )


def _media_type(content_type: str) -> str:
    if content_type == "application/json":
        return content_type
    return content_type.partition(";")[0].strip().lower()


class _Pairs(list[tuple[str, object]]):
    """An object as it arrived, repeats and all; only the root is looked into."""


def _json(text: str) -> dict[str, object]:
    if not text or text.isspace():
        raise BadNotification("the body is empty; a JSON object was expected")
    _check_depth(text)
    try:
        root = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadNotification(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    if not isinstance(root, _Pairs):
        raise BadNotification("the body is JSON, but not an object")
    return _without_repeats(root)


def _form(text: str) -> dict[str, object]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_FIELDS)
    except UnicodeDecodeError:
        raise BadNotification("the form is not valid UTF-8") from None
    except ValueError:
        raise BadNotification("the body is not a form of name=value pairs") from None
    # A nested object in a form is spread over names such as DATA[Phone]; nested fields are not signed.
    return _without_repeats(_Pairs((name, value) for name, value in pairs if "[" not in name))


def _without_repeats(pairs: _Pairs) -> dict[str, object]:
    if len(pairs) > MAX_FIELDS:
        raise BadNotification(f"the body has more than {MAX_FIELDS} fields")
    root = dict(pairs)
    if len(root) == len(pairs):
        return root
    # Readers disagree on which of two counts, so what was signed may not be what is read.
    twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
    raise BadNotification(f"the field {_quoted(twice)} stands twice")


def _refuse_constant(name: str) -> object:
    raise BadNotification(f"the body is not JSON: {name} is not a number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_Pairs, parse_int=NumberText, parse_float=NumberText, parse_constant=_refuse_constant
)
# A string that never ends is taken to the end, so that no body makes this scan start over at every quote.
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


def _check_depth(text: str) -> None:
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise BadNotification(f"the body is nested more than {MAX_DEPTH} deep")


def _require(root: Mapping[str, object]) -> None:
    for name in ("TerminalKey", TOKEN):
        value = root.get(name)
        if value is None or value == "":
            raise BadNotification(f"the field {name} is missing")
        if not isinstance(value, str) or isinstance(value, NumberText):
            raise BadNotification(f"the field {name} is not a string")


def _check_text(root: Mapping[str, object]) -> None:
    for name, value in root.items():
        if not _storable(name) or (isinstance(value, str) and not _storable(value)):
            raise BadNotification(f"the field {_quoted(name)} holds a character that is not text")


def _check_types(root: Mapping[str, object]) -> None:
    for name, value in root.items():
        # A string that is not long is right everywhere, and what the bank sends nearly always.
        if type(value) is str and len(value) <= MAX_ID_LENGTH:
            continue
        shape = _SHAPES.get(name)
        if shape is None or value is None:
            continue
        if type(value) is not str and not _fits(value, shape):
            raise BadNotification(f"the field {name} is not {shape.value}")
        if shape is not _Shape.SCALAR and isinstance(value, str) and len(value) > MAX_ID_LENGTH:
            raise BadNotification(f"the field {name} is longer than {MAX_ID_LENGTH} characters")


def _fits(value: object, shape: _Shape) -> bool:
    if not isinstance(value, str) or shape is _Shape.WORD:
        return False
    return shape is _Shape.SCALAR or _INTEGER.fullmatch(value) is not None


def _storable(text: str) -> bool:
    # A lone surrogate has no UTF-8 and so no token; PostgreSQL holds no NUL in a text.
    return "\x00" not in text and (text.isascii() or not _SURROGATE.search(text))


_SURROGATE = re.compile("[\ud800-\udfff]")


def _amount(value: object) -> int | None:
    if value is None or value == "":
        return None
    try:
        return kopecks(value if isinstance(value, str) else "")
    except MoneyError as error:
        raise BadNotification(f"the field Amount is wrong: {error}") from None


def _success(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    # Old bodies are all strings.
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise BadNotification("the field Success is neither true nor false")


def _kind(fields: Mapping[str, str]) -> EventKind:
    if fields.get("Status") == "RECEIPT":
        return EventKind.RECEIPT
    named = fields.get("NotificationType", "").upper()
    if named == "LINKACCOUNT":
        return EventKind.ACCOUNT_LINK
    if named == "LINKCARD":
        return EventKind.CARD_LINK
    if fields.get("OrderId") and fields.get("PaymentId") and fields.get("Status"):
        return EventKind.PAYMENT
    # Terminals of the older protocol send links without a type: there is a request, and no order.
    if fields.get("RequestKey"):
        return EventKind.ACCOUNT_LINK if fields.get("AccountToken") else EventKind.CARD_LINK
    return EventKind.OTHER


def _quoted(name: str) -> str:
    """A field's name, safe to show: it comes from whoever sent the body."""
    return json.dumps(name if len(name) <= 40 else name[:40] + "…")
