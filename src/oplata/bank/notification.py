"""From the bytes of a notification to the fact inside it: read, check the shape, keep everything that arrived."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
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

MAX_QUICK_LENGTH = 8192
"""What is longer is read in one way only: the bank sends next to none of it, and reading it in vain takes its time."""

_IDS = ("OrderId", "PaymentId", "CustomerKey", "RequestKey", "AccountToken")
_WORDS = ("Status", "NotificationType", "TerminalKey")
_SCALARS = ("ErrorCode", "CardId", "RebillId", "Pan", "ExpDate", "Message", "Details", "SpAccumulationId")


class _Shape(Enum):
    """What a field may be; the value ends the sentence that refuses it."""

    WORD = "a string"
    ID = "a string or an integer"
    SCALAR = "a string or a number"


_SHAPES = dict.fromkeys(_WORDS, _Shape.WORD) | dict.fromkeys(_IDS, _Shape.ID) | dict.fromkeys(_SCALARS, _Shape.SCALAR)
_SHORT_NUMBER = 10 ** (MAX_ID_LENGTH - 1)
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
    terminal_key, token = _text_of(root, "TerminalKey"), _text_of(root, TOKEN)
    # UTF-8 holds no lone surrogate and this text no NUL; only an escape can bring one in.
    if form or ("\\" in text and "\\u" in text):
        _check_text(root)
    fields = _fields(root)
    return Notification(
        terminal_key=terminal_key,
        token=token,
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
    root = _read_quickly(text) if len(text) <= MAX_QUICK_LENGTH else None
    return _read_exactly(text) if root is None else root


def _read_quickly(text: str) -> dict[str, object] | None:
    """The object, where nothing in it could be read in two ways; in a third of the time that exactness takes.

    Whole numbers are integers here, for their digits are their text. An object that names a field twice has more
    colons than it has names when it is read; so has one with a colon in a text. There those colons are counted that
    may follow a name, the colons of all names among them; if that is still too many, the other way decides.
    """
    try:
        root = _QUICK.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    names = _names_in(root, 1)
    if len(root) > MAX_FIELDS or (names != text.count(":") and names != sum(map(text.count, _AFTER_A_NAME))):
        return None
    # But for the one whole number that is written in two ways.
    return None if 0 in root.values() and _MINUS_NOUGHT.search(text) else root


def _names_in(value: dict[str, object] | list[object], depth: int) -> int:
    """How many names the objects in it have; some number that is too large for what is nested too deep."""
    if depth > MAX_DEPTH:
        return sys.maxsize
    nested: Iterable[object] = value
    names = 0
    if isinstance(value, dict):
        names, nested = len(value), value.values()
    for each in nested:
        if type(each) is dict or type(each) is list:
            names += _names_in(each, depth + 1)
    return names


def _read_exactly(text: str) -> dict[str, object]:
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
# Between a name's last quote and its colon stands nothing but what JSON calls space.
_AFTER_A_NAME = ('":', " :", "\t:", "\n:", "\r:")
_MINUS_NOUGHT = re.compile(r":\s*-0\s*[,}]")
_QUICK = msgspec.json.Decoder(dict[str, object], float_hook=NumberText)
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


def _text_of(root: Mapping[str, object], name: str) -> str:
    value = root.get(name)
    if value is None or value == "":
        raise BadNotification(f"the field {name} is missing")
    if type(value) is not str:
        raise BadNotification(f"the field {name} is not a string")
    return value


def _check_text(root: Mapping[str, object]) -> None:
    for name, value in root.items():
        if not _storable(name) or (isinstance(value, str) and not _storable(value)):
            raise BadNotification(f"the field {_quoted(name)} holds a character that is not text")


def _fields(root: Mapping[str, object]) -> dict[str, str]:
    """The fields that the token covers, each checked before."""
    for name, value in root.items():
        # A string that is not long is right everywhere, and what the bank sends nearly always.
        if (type(value) is not str or len(value) > MAX_ID_LENGTH) and name in _SHAPES:
            _check_type(name, value, _SHAPES[name])
    return signed_fields(root.items())


def _check_type(name: str, value: object, shape: _Shape) -> None:
    if value is None:
        return
    if type(value) is not str and not _fits(value, shape):
        raise BadNotification(f"the field {name} is not {shape.value}")
    if shape is _Shape.SCALAR or (type(value) is int and abs(value) < _SHORT_NUMBER):
        return
    if len(str(value)) > MAX_ID_LENGTH:
        raise BadNotification(f"the field {name} is longer than {MAX_ID_LENGTH} characters")


def _fits(value: object, shape: _Shape) -> bool:
    if shape is _Shape.WORD or not isinstance(value, str | int) or isinstance(value, bool):
        return False
    if isinstance(value, int):
        return True
    return shape is _Shape.SCALAR or _INTEGER.fullmatch(value) is not None


def _storable(text: str) -> bool:
    # A lone surrogate has no UTF-8 and so no token; PostgreSQL holds no NUL in a text.
    return "\x00" not in text and (text.isascii() or not _SURROGATE.search(text))


_SURROGATE = re.compile("[\ud800-\udfff]")


def _amount(value: object) -> int | None:
    if value is None or value == "":
        return None
    try:
        return kopecks(value if isinstance(value, (str, int)) and not isinstance(value, bool) else "")
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
