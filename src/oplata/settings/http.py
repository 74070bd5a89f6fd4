"""The endpoint: where it listens, whom it hears, and how long a callback may take."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field
from pydantic_settings import NoDecode

from oplata.settings.values import Listed, Network, PlainPath, Seconds


class Http(BaseModel):
    """The endpoint: where it listens, whom it hears, and how long a callback may take."""

    callback_path: PlainPath = Field(
        "/api/tinkoff-callback", description="a path that begins with a slash, such as /api/tinkoff-callback"
    )
    host: str = Field("127.0.0.1", min_length=1, description="an address to listen on, such as 127.0.0.1 or 0.0.0.0")
    port: int = Field(8080, ge=0, le=65535, description="a TCP port from 0 (any free one) to 65535, such as 8080")
    confirm_timeout_s: Seconds = Field(8, description="a number of seconds above 0; the bank itself waits for 10")
    body_timeout_s: Seconds = Field(5, description="a number of seconds above 0, such as 5")
    keep_alive_s: int = Field(5, ge=1, le=3600, description="a whole number of seconds from 1 to 3600, such as 5")
    drain_timeout_s: Seconds = Field(20, description="a number of seconds above 0, such as 20")
    max_in_flight: int = Field(2000, ge=1, le=1_000_000, description="a number from 1 to 1000000, such as 2000")
    allowed_networks: Annotated[tuple[Network, ...], NoDecode, Listed] = Field(
        (), description="networks with commas between, such as 91.194.226.0/23, or tbank for the bank's own"
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, Listed] = Field(
        (), description="addresses or networks of your proxies with commas between, such as 10.0.0.0/8"
    )
