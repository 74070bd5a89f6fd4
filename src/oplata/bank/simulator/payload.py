"""Notification bodies as the bank writes them, signed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from urllib.parse import urlencode

from oplata.bank.token import TOKEN, token_of

Payload = dict[str, object]


def payment(
    terminal_key: str, order_id: str, payment_id: int, status: str, amount_kopecks: int, *, success: bool = True
) -> Payload:
    """The fields that every payment's notification has, in the bank's order and types."""
    return {
        "TerminalKey": terminal_key,
        "OrderId": order_id,
        "Success": success,
        "Status": status,
        "PaymentId": payment_id,
        "ErrorCode": "0" if success else "1051",
        "Amount": amount_kopecks,
    }


def receipt(terminal_key: str, order_id: str, payment_id: int, amount_kopecks: int) -> Payload:
    """A fiscal receipt: its items are nested, and so outside the signature."""
    items = [{"Name": "Goods", "Price": amount_kopecks, "Quantity": 1, "Amount": amount_kopecks, "Tax": "none"}]
    return {
        **payment(terminal_key, order_id, payment_id, "RECEIPT", amount_kopecks),
        "FiscalNumber": payment_id % 500 + 1,
        "ShiftNumber": payment_id % 90 + 1,
        "FnNumber": "9999078900001234",
        "FiscalDocumentNumber": payment_id % 100_000,
        "FiscalDocumentAttribute": payment_id % 1_000_000_007,
        "Type": "Income",
        "Receipt": {"Items": items, "Taxation": "usn_income"},
    }


def card_link(terminal_key: str, payment_id: int, customer: str) -> Payload:
    """A saved card: it names no order and no amount."""
    return {
        "TerminalKey": terminal_key,
        "CustomerKey": customer,
        "RequestKey": hashlib.md5(customer.encode(), usedforsecurity=False).hexdigest(),
        "Success": True,
        "Status": "COMPLETED",
        "PaymentId": str(payment_id),
        "ErrorCode": "0",
        "CardId": payment_id % 1_000_000_000,
        "Pan": "430000******0777",
        "ExpDate": "1230",
        "NotificationType": "LINKCARD",
        "RebillId": str(payment_id * 7),
    }


def account_link(terminal_key: str, customer: str) -> Payload:
    """An account that was bound through the fast payment system."""
    request = hashlib.sha256(customer.encode()).hexdigest()[:32].upper()
    return {
        "TerminalKey": terminal_key,
        "RequestKey": request,
        "Status": "ACTIVE",
        "AccountToken": request[::-1],
        "BankMemberId": "100000000004",
        "BankMemberName": "Пример банка",
        "NotificationType": "LINKACCOUNT",
        "Success": True,
        "Message": "OK",
        "ErrorCode": "0",
    }


def all_strings(payload: Mapping[str, object]) -> Payload:
    """The same as terminals of the older protocol send it: every scalar is a string."""
    return {name: _as_string(value) for name, value in payload.items() if not isinstance(value, dict | list)}


def signed(payload: Mapping[str, object], password: str) -> Payload:
    """With its token."""
    return {**payload, TOKEN: token_of(payload, password)}


def as_json(payload: Mapping[str, object], *, indent: int | None = None) -> bytes:
    """The body; ``indent`` changes the bytes and not the fact."""
    separators = (",", ":") if indent is None else None
    return json.dumps(payload, ensure_ascii=False, indent=indent, separators=separators).encode()


def as_form(payload: Mapping[str, object]) -> bytes:
    """The body as ``application/x-www-form-urlencoded``; the payload holds strings alone."""
    return urlencode({name: str(value) for name, value in payload.items()}).encode()


def payment_id_for(order_id: str) -> int:
    """A payment id that depends on the order alone, so that its AUTHORIZED and CONFIRMED meet in one payment."""
    return 1_000_000_000 + int.from_bytes(hashlib.sha256(order_id.encode()).digest()[:5], "big") % 9_000_000_000


def _as_string(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
