"""Notifications as the bank might send them: every kind, signed by an implementation of the token that is not ours."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from oplata.domain.events import EventKind

TERMINAL_KEY = "1700000000001DEMO"
PASSWORD = "пароль Q7 of a test"


@dataclass(frozen=True)
class Field:
    """One root field: its name, its value as JSON text, and the text that the token covers, or None where it is not."""

    name: str
    literal: str
    signed: str | None


@dataclass(frozen=True)
class SignedNotification:
    """A body with the token of ``password`` in it, and what it is known to be."""

    kind: EventKind
    fields: tuple[Field, ...]
    password: str = PASSWORD

    @property
    def token(self) -> str:
        return token_by_hand(self.fields, self.password)

    @property
    def signed(self) -> dict[str, str]:
        return {field.name: field.signed for field in self.fields if field.signed is not None}

    @property
    def body(self) -> bytes:
        return self.body_with(self.token)

    def body_with(self, token: str) -> bytes:
        pairs = [*((field.name, field.literal) for field in self.fields), ("Token", json.dumps(token))]
        return json_object(pairs).encode()

    def in_order(self, fields: Sequence[Field]) -> SignedNotification:
        return SignedNotification(self.kind, tuple(fields), self.password)

    def all_strings(self) -> SignedNotification:
        """As an old terminal sends it: every scalar a string, and nothing else."""
        return self.in_order([text(field.name, field.signed) for field in self.fields if field.signed is not None])


def token_by_hand(fields: Sequence[Field], password: str) -> str:
    """The token, written another way than in the program: UTF-32 bytes sort as code points do."""
    pairs = [(field.name, field.signed) for field in fields if field.signed is not None]
    pairs.append(("Password", password))
    pairs.sort(key=lambda pair: pair[0].encode("utf-32-be"))
    digest = hashlib.new("sha256")
    for _, value in pairs:
        digest.update(value.encode("utf-8"))
    return digest.hexdigest()


def json_object(pairs: Sequence[tuple[str, str]]) -> str:
    """The JSON text of an object whose values are JSON already; repeated names stay."""
    return "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{literal}" for name, literal in pairs) + "}"


def text(name: str, value: str) -> Field:
    return Field(name, json.dumps(value, ensure_ascii=False), value)


def escaped(name: str, value: str) -> Field:
    return Field(name, json.dumps(value, ensure_ascii=True), value)


def number(name: str, literal: str) -> Field:
    return Field(name, literal, literal)


def truth(name: str, value: bool) -> Field:
    return Field(name, "true" if value else "false", "true" if value else "false")


def unsigned(name: str, literal: str) -> Field:
    return Field(name, literal, None)


def signed_by_hand(values: Mapping[str, object], password: str = PASSWORD) -> bytes:
    """The signed body of a few plain values; a None is a null, a dictionary or list is nested."""
    fields = []
    for name, value in values.items():
        literal = json.dumps(value, ensure_ascii=False)
        if value is None or isinstance(value, dict | list):
            fields.append(unsigned(name, literal))
        else:
            fields.append(Field(name, literal, value if isinstance(value, str) else literal))
    return SignedNotification(EventKind.OTHER, tuple(fields), password).body


_KNOWN = frozenset(
    {
        "TerminalKey",
        "Token",
        "Password",
        "OrderId",
        "PaymentId",
        "CustomerKey",
        "RequestKey",
        "AccountToken",
        "Status",
        "NotificationType",
        "Success",
        "Amount",
        "ErrorCode",
        "CardId",
        "RebillId",
        "Pan",
        "ExpDate",
        "Message",
        "Details",
        "SpAccumulationId",
        "DATA",
        "Data",
        "Receipt",
        "Type",
        "BankMemberName",
    }
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
IDS = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=36)
BANK_IDS = st.integers(1, 10**13).map(str)
AMOUNTS = st.integers(0, 10**10)
NUMBERS = st.one_of(
    st.integers(-(10**25), 10**25).map(str),
    st.sampled_from(["0", "-0", "1.0", "1.50", "1e3", "1E+3", "12345678901234567890", "0.1", "100.00"]),
)
STATUSES = st.sampled_from(["AUTHORIZED", "CONFIRMED", "REVERSED", "CANCELED", "REFUNDED", "REJECTED", "NEWS_TO_US"])
NESTED = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
).filter(lambda value: isinstance(value, list | dict))


def _either(name: str, digits: st.SearchStrategy[str]) -> st.SearchStrategy[Field]:
    """The bank sends ids as numbers in one notification and as strings in the next."""
    return digits.flatmap(lambda value: st.sampled_from([number(name, value), text(name, value)]))


def _success() -> st.SearchStrategy[Field]:
    return st.sampled_from([truth("Success", True), truth("Success", False), text("Success", "true")])


def _cards() -> st.SearchStrategy[list[Field]]:
    odd_ids = st.sampled_from([number("RebillId", "0"), text("RebillId", ""), number("RebillId", "1741204285536")])
    pans = st.sampled_from(["430000******0777", "430000**0777", "+7 (900) ***-**-00", "T-Pay_account"])
    return st.tuples(odd_ids, _either("CardId", BANK_IDS), pans.map(lambda pan: text("Pan", pan))).map(list)


def _scalars(name: str) -> st.SearchStrategy[Field]:
    return st.one_of(
        TEXTS.map(lambda value: text(name, value)),
        TEXTS.map(lambda value: escaped(name, value)),
        NUMBERS.map(lambda literal: number(name, literal)),
        st.booleans().map(lambda value: truth(name, value)),
    )


def unknown_fields() -> st.SearchStrategy[list[Field]]:
    """Root fields that nobody has heard of, of every JSON type, under names in any script."""
    names = TEXTS.filter(lambda name: name not in _KNOWN)

    def one(name: str) -> st.SearchStrategy[Field]:
        return st.one_of(
            _scalars(name),
            st.just(unsigned(name, "null")),
            NESTED.map(lambda value: unsigned(name, json.dumps(value, ensure_ascii=False))),
        )

    return st.lists(names, max_size=5, unique=True).flatmap(lambda chosen: st.tuples(*map(one, chosen)).map(list))


def _notification(kind: EventKind, *parts: st.SearchStrategy[Field]) -> st.SearchStrategy[SignedNotification]:
    data = st.sampled_from(
        [[], [unsigned("DATA", "null")], [unsigned("Data", '{"Route":"TCB"}')], [text("DATA", "{}")]]
    )
    known = st.tuples(*parts)

    def built(pieces: tuple[tuple[Field, ...], list[Field], list[Field], list[Field]]) -> list[Field]:
        by_name = {field.name: field for group in pieces for field in group}
        return [text("TerminalKey", TERMINAL_KEY), *by_name.values()]

    fields = st.tuples(known, _cards(), data, unknown_fields()).map(built).flatmap(st.permutations)
    return fields.map(lambda chosen: SignedNotification(kind, tuple(chosen)))


def payments() -> st.SearchStrategy[SignedNotification]:
    return _notification(
        EventKind.PAYMENT,
        _either("OrderId", BANK_IDS) | IDS.map(lambda value: text("OrderId", value)),
        _either("PaymentId", BANK_IDS),
        STATUSES.map(lambda status: text("Status", status)),
        _success(),
        _either("Amount", AMOUNTS.map(str)),
        st.just(text("ErrorCode", "0")),
    )


def receipts() -> st.SearchStrategy[SignedNotification]:
    return _notification(
        EventKind.RECEIPT,
        IDS.map(lambda value: text("OrderId", value)),
        _either("PaymentId", BANK_IDS),
        st.just(text("Status", "RECEIPT")),
        _success(),
        _either("Amount", AMOUNTS.map(str)),
        st.just(text("Type", "Income")),
        st.just(unsigned("Receipt", '{"Items":[{"Name":"чай","Quantity":1.0}]}')),
    )


def card_links() -> st.SearchStrategy[SignedNotification]:
    return _notification(
        EventKind.CARD_LINK,
        IDS.map(lambda value: text("CustomerKey", value)),
        IDS.map(lambda value: text("RequestKey", value)),
        _either("PaymentId", BANK_IDS),
        st.sampled_from(["COMPLETED", "REJECTED"]).map(lambda status: text("Status", status)),
        _success(),
        st.sampled_from([text("NotificationType", "LINKCARD"), unsigned("NotificationType", "null")]),
    )


def account_links() -> st.SearchStrategy[SignedNotification]:
    return _notification(
        EventKind.ACCOUNT_LINK,
        IDS.map(lambda value: text("RequestKey", value)),
        IDS.map(lambda value: text("AccountToken", value)),
        st.sampled_from(["ACTIVE", "INACTIVE"]).map(lambda status: text("Status", status)),
        _success(),
        st.just(text("BankMemberName", "Промсвязьбанк")),
        st.sampled_from([text("NotificationType", "LINKACCOUNT"), unsigned("NotificationType", "null")]),
    )


def others() -> st.SearchStrategy[SignedNotification]:
    """Signed, and of a kind that does not exist yet."""
    return _notification(EventKind.OTHER, st.just(text("NotificationType", "SOMETHING_NEW")), _success())


def notifications() -> st.SearchStrategy[SignedNotification]:
    """Any notification of any kind."""
    return st.one_of(payments(), receipts(), card_links(), account_links(), others())
