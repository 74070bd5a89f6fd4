"""The secret of a webhook, and what is signed with it. Standard Webhooks says how."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from oplata.errors import SettingsError

SECRET_PREFIX = "whsec_"  # noqa: S105  What a secret begins with is none.
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64


def secret_key(secret: str) -> bytes:
    """The bytes of a secret such as ``whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw``. Raises ``SettingsError``."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise SettingsError(
            f"A webhook's secret is {SECRET_PREFIX} and the base64 of {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} random "
            f"bytes. Make one: echo {SECRET_PREFIX}$(openssl rand -base64 32)"
        )
    return key


def signatures(keys: Sequence[bytes], event_id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``: one signature for each key, so that a receiver may change its own in time."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
