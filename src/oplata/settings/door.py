"""The shop's door: where it is, who may call, how often, and how many may watch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from oplata.settings.values import Listed, PlainPath, origin

_SigningKey = Annotated[SecretStr, Field(min_length=32)]


class Door(BaseModel):
    """The shop's door: where it is, who may call, how often, and how many may watch."""

    rpc: Literal["on", "off"] = Field("on", description="on (orders are served over tRPC) or off (callbacks alone are)")
    rpc_path: PlainPath = Field("/api/trpc", description="a path that begins with a slash, such as /api/trpc")
    rpc_origins: Annotated[tuple[Annotated[str, BeforeValidator(origin)], ...], NoDecode, Listed] = Field(
        (), description="sites whose pages may call, with commas between, such as https://shop.example"
    )
    insecure: bool = Field(False, description="true (whoever reaches the port may do everything) or false")
    buyer_token_keys: Annotated[tuple[_SigningKey, ...], NoDecode, Listed] = Field(
        (), description="random texts of at least 32 characters with commas between; the first one signs"
    )
    max_subscribers: int = Field(5000, ge=1, le=100_000, description="a number from 1 to 100000, such as 5000")
    rpc_key_rate: float = Field(
        500, gt=0, le=1_000_000, description="calls per second of one key, above 0, such as 500"
    )
    rpc_address_rate: float = Field(
        20, gt=0, le=1_000_000, description="calls per second of one address without a key, above 0, such as 20"
    )
