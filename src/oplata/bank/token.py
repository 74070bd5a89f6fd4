"""The bank's signature over root-level fields, for requests and notifications alike.

Every scalar that arrived is signed, known to us or not; the password is sorted in among them; values are joined with
nothing between and hashed with SHA-256. Nested objects, arrays, nulls and the token itself are left out.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping

PASSWORD = "Password"  # noqa: S105  The name of the field, not a password.
TOKEN = "Token"  # noqa: S105

_UNSIGNED = frozenset({TOKEN, PASSWORD})


class NumberText(str):
    """A JSON number kept as the text that arrived: ``1.0`` and ``1`` sign differently, and big integers stay whole."""

    __slots__ = ()


def signed_fields(fields: Iterable[tuple[str, object]]) -> dict[str, str]:
    """The fields that the token covers, as the text that it covers them by."""
    signed: dict[str, str] = {}
    for name, value in fields:
        if name in _UNSIGNED:
            # A field named Password would be replaced by the password when signing: nothing vouches for its value.
            continue
        if type(value) is str:
            signed[name] = value
        elif isinstance(value, bool):
            signed[name] = "true" if value else "false"
        elif isinstance(value, int):
            signed[name] = str(value)
        elif isinstance(value, str):
            signed[name] = str.__str__(value)  # A plain string, because serializers refuse its subclasses.
        elif isinstance(value, float):
            signed[name] = json.dumps(value, allow_nan=False)
    return signed


def sign(fields: Mapping[str, str], password: str) -> str:
    """The token of these signed fields, in lower-case hex."""
    names = sorted(fields)
    texts = [fields[name] for name in names]
    texts.insert(bisect_left(names, PASSWORD), password)
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def token_of(payload: Mapping[str, object], password: str) -> str:
    """The token of a request or notification given as a dictionary of Python values."""
    return sign(signed_fields(payload.items()), password)


def matches(fields: Mapping[str, str], token: str, password: str) -> bool:
    """Whether this is the token of these fields; the comparison takes the same time wherever they differ."""
    return hmac.compare_digest(sign(fields, password).encode(), token.encode("utf-8", "replace"))
