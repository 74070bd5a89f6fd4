"""The callbacks that are sent: signed as the bank signs them, about 600 bytes each, no two alike."""

from __future__ import annotations

from oplata.bank.simulator.payload import as_json, payment, signed

TERMINAL_KEY = "1700000000000DEMO"
PASSWORD = "benchmark-password"
AMOUNT_KOPECKS = 19_900


def order_id(number: int) -> str:
    """The order that the callback of this number pays."""
    return f"order-{number:010}"


def body(number: int) -> bytes:
    """A CONFIRMED of about 600 bytes, with a payment and an order of its own."""
    told = payment(TERMINAL_KEY, order_id(number), 2_000_000_000 + number, "CONFIRMED", AMOUNT_KOPECKS)
    told |= {"CardId": 322264, "Pan": "430000******0777", "ExpDate": "1230", "RebillId": "145919"}
    # Nested, so that it is no part of the signature: what a shop has put into DATA comes back with every callback.
    told["Data"] = {
        "Email": "buyer@example.com",
        "Phone": "+79990000000",
        "Source": "cards",
        "Comment": "Two pizzas, no onions; the bell is broken, please call from the gate. " * 2,
    }
    return as_json(signed(told, PASSWORD))


def bodies(first: int, count: int) -> list[bytes]:
    """The callbacks of these numbers."""
    return [body(number) for number in range(first, first + count)]
