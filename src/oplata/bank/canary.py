"""What a canary says: when it was sent, under our own seal. It is no notification, and can never be taken for one."""

from __future__ import annotations

import msgspec

from oplata.bank.keyring import Keyring

CONTENT_TYPE = "application/vnd.oplata.canary"


class _Canary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sent_at_ms: int
    seal: str


def canary(keyring: Keyring, sent_at_ms: int) -> bytes:
    """The body of a canary that is sent now."""
    return msgspec.json.encode(_Canary(sent_at_ms, keyring.seal(_sealed(sent_at_ms))))


def sent_at_ms(keyring: Keyring, body: bytes) -> int | None:
    """When this canary was sent; None for what is none of ours."""
    try:
        read = msgspec.json.decode(body, type=_Canary)
    except msgspec.MsgspecError:
        return None
    return read.sent_at_ms if keyring.is_sealed(_sealed(read.sent_at_ms), read.seal) else None


def _sealed(sent_at_ms: int) -> bytes:
    return b"canary %d" % sent_at_ms
