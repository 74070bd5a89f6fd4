"""What a setting's value may be: lists, networks, paths, URLs, seconds, passwords."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

TBANK = "tbank"
"""Stands in ``allowed_networks`` for the networks that the bank publishes."""


def listed(value: object) -> object:
    """A list from the environment: JSON, or values with commas between."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith(("[", "{")):
        parsed = json.loads(text)
        return parsed if isinstance(parsed, list) else [parsed]
    return [part.strip() for part in text.split(",") if part.strip()]


def network_text(value: object) -> str:
    """A network in its usual form, or the word for the bank's own."""
    text = str(value)
    return TBANK if text.lower() == TBANK else str(ipaddress.ip_network(text, strict=False))


def plain_path(value: object) -> object:
    """A path without anything that a router or a browser would take for more than a path."""
    if not isinstance(value, str) or not re.fullmatch(r"/[^\s?#{}]*", value):
        raise ValueError("not a path")
    return value


def origin(value: object) -> str:
    """A site as browsers name it: scheme, host, and a port that is not the usual one."""
    text = str(value).rstrip("/").lower()
    if not re.fullmatch(r"https?://[^\s/?#@*]+", text):
        raise ValueError("not a site such as https://shop.example")
    return text


def url_of(*schemes: str) -> BeforeValidator:
    """A check that a URL begins with one of these schemes and names something."""

    def check(value: object) -> object:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        scheme, separator, rest = text.partition("://") if isinstance(text, str) else ("", "", "")
        if scheme not in schemes or not separator or not rest.strip("/"):
            raise ValueError("not such a URL")
        return value

    return BeforeValidator(check)


Listed = BeforeValidator(listed)
PlainPath = Annotated[str, BeforeValidator(plain_path)]
Network = Annotated[str, BeforeValidator(network_text)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Password = Annotated[SecretStr, Field(min_length=1)]


class Terminal(BaseModel):
    """One terminal of the shop, with every password that is valid at present; the first one signs."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    key: Annotated[str, Field(min_length=1, max_length=128)]
    passwords: Annotated[tuple[Password, ...], Field(min_length=1)]
