"""The keyring lets in what one of a terminal's passwords signs, and tells a stranger nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oplata.bank.keyring import Keyring
from oplata.bank.notification import Notification, parse
from oplata.errors import NotAuthentic, SettingsError
from tests.notifications import PASSWORD, TERMINAL_KEY, SignedNotification, notifications, signed_by_hand

KEYRING = Keyring({TERMINAL_KEY: ["the new one", PASSWORD], "another": ["secret of another"]})
BODY = {
    "TerminalKey": TERMINAL_KEY,
    "OrderId": "1",
    "PaymentId": 2,
    "Status": "CONFIRMED",
    "Success": True,
    "Amount": 100,
}


class _CountedFields(Mapping[str, str]):
    """Signed fields that count how many times a token is computed over them."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = fields
        self.times = 0

    def __getitem__(self, name: str) -> str:
        return self.fields[name]

    def __iter__(self) -> Iterator[str]:
        self.times += 1
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)


def _work(keyring: Keyring, body: bytes) -> tuple[str, int]:
    """How a notification was answered, and how many tokens were computed for the answer."""
    counted = _CountedFields(parse(body).fields)
    try:
        keyring.verify(msgspec.structs.replace(parse(body), fields=counted))
    except NotAuthentic as error:
        return str(error), counted.times
    return "genuine", counted.times


@given(notifications())
def test_whatever_the_bank_signs_is_genuine(sent: SignedNotification) -> None:
    KEYRING.verify(parse(sent.body))


@pytest.mark.parametrize("password", ["the new one", PASSWORD])
def test_every_password_that_is_valid_at_present_is_accepted(password: str) -> None:
    KEYRING.verify(parse(signed_by_hand(BODY, password)))


@pytest.mark.parametrize("password", ["secret of another", "", "The new one", "a password of no terminal"])
def test_no_other_password_is_accepted(password: str) -> None:
    with pytest.raises(NotAuthentic):
        KEYRING.verify(parse(signed_by_hand(BODY, password)))


@given(notifications(), st.data())
def test_a_body_with_any_signed_field_changed_is_not_genuine(sent: SignedNotification, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(sent.signed)))
    forged = msgspec.structs.replace(parse(sent.body), fields=sent.signed | {name: sent.signed[name] + "0"})

    with pytest.raises(NotAuthentic):
        KEYRING.verify(forged)


def test_a_password_in_the_body_opens_nothing() -> None:
    fields = {"TerminalKey": TERMINAL_KEY, "Password": "mine"}
    token = hashlib.sha256(f"mine{TERMINAL_KEY}".encode()).hexdigest()

    with pytest.raises(NotAuthentic):
        KEYRING.verify(
            Notification(terminal_key=TERMINAL_KEY, token=token, fields=fields, amount_kopecks=None, success=None)
        )


def test_a_password_in_the_body_makes_no_second_fact_of_one() -> None:
    body = signed_by_hand(BODY)
    smuggled = body.replace(b"{", b'{"Password":"unsigned",', 1)
    KEYRING.verify(parse(smuggled))

    assert parse(smuggled).event() == parse(body).event()


def test_an_unknown_terminal_costs_the_same_work_and_gets_the_same_answer() -> None:
    wrong = signed_by_hand(BODY, "wrong")
    stranger = signed_by_hand(BODY | {"TerminalKey": "stranger"}, "a password of no terminal")
    shorter = signed_by_hand(BODY | {"TerminalKey": "another"}, "wrong")
    answers = {_work(KEYRING, body) for body in (wrong, stranger, shorter)}

    assert answers == {("The terminal is unknown or the token is wrong.", 2)}


def test_the_first_password_to_fit_does_not_end_the_work() -> None:
    answers = {_work(KEYRING, signed_by_hand(BODY, password)) for password in ("the new one", PASSWORD)}

    assert answers == {("genuine", 2)}


def test_an_empty_keyring_knows_nobody() -> None:
    assert _work(Keyring({}), signed_by_hand(BODY)) == ("The terminal is unknown or the token is wrong.", 1)


def test_no_secret_is_shown() -> None:
    shown = f"{KEYRING!r} {KEYRING} {parse(signed_by_hand(BODY))!r}"

    assert repr(KEYRING) == f"Keyring({TERMINAL_KEY}, another)"
    assert all(secret not in shown for secret in (PASSWORD, "the new one", "secret of another", "Password"))
    assert parse(signed_by_hand(BODY)).token not in shown


def test_requests_are_signed_with_the_first_password() -> None:
    fields = {"TerminalKey": TERMINAL_KEY, "Amount": "1"}

    assert KEYRING.sign(fields, TERMINAL_KEY) == hashlib.sha256(f"1the new one{TERMINAL_KEY}".encode()).hexdigest()


def test_nothing_is_signed_for_a_terminal_that_is_not_ours() -> None:
    with pytest.raises(SettingsError, match="no password is set for terminal 'stranger'"):
        KEYRING.sign({}, "stranger")


def test_the_terminals_are_listed_in_order() -> None:
    assert KEYRING.terminal_keys == (TERMINAL_KEY, "another")


@pytest.mark.parametrize("passwords", [{"": ["p"]}, {"T": []}, {"T": [""]}, {"T": ["p", ""]}, {"T": "hunter2"}])
def test_a_terminal_without_a_key_or_a_list_of_passwords_is_refused(
    passwords: Mapping[str, Any | Sequence[str]],
) -> None:
    with pytest.raises(SettingsError, match="needs a key and a list of one or more passwords") as caught:
        Keyring(passwords)

    assert "hunter2" not in str(caught.value)
