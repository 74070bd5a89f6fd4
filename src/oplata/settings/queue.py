"""The queue, its retry ladder, and the spool that stands in for a broker that is away."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, SecretStr
from pydantic_settings import NoDecode

from oplata.queue.base import DEFAULT_RETRY_DELAYS_MS
from oplata.settings.values import Listed, Seconds, url_of


class Queue(BaseModel):
    """The queue, its retry ladder, and the spool that stands in for a broker that is away."""

    queue_url: Annotated[SecretStr, url_of("sqlite", "amqp", "amqps")] = Field(
        SecretStr("sqlite:///oplata-queue.db"),
        description="a URL such as sqlite:///oplata-queue.db or amqp://user:password@host:5672/%2F",
    )
    queue_name: str = Field(
        "oplata.callbacks", min_length=1, max_length=200, description="a queue's name of 1 to 200 characters"
    )
    queue_declare: Literal["active", "passive"] = Field(
        "active", description="active (we declare the queue) or passive (someone else has, and we use it as it is)"
    )
    queue_retry_delays_ms: Annotated[tuple[Annotated[int, Field(ge=1, le=86_400_000)], ...], NoDecode, Listed] = Field(
        DEFAULT_RETRY_DELAYS_MS,
        min_length=1,
        max_length=16,
        description="1 to 16 delays in milliseconds with commas between, such as 1000,5000,30000",
    )
    max_attempts: int = Field(
        20, ge=1, le=10_000, description="a number of attempts from 1 to 10000, after which a message is a dead letter"
    )
    spool: Literal["on", "off"] = Field(
        "on", description="on (a broker that is away is stood in for by a local file) or off (the answer is 503 then)"
    )
    spool_path: str = Field("oplata-spool.db", min_length=1, description="the name of a file on a local disk")
    spool_patience_s: Seconds = Field(2, description="a number of seconds above 0 and below OPLATA_CONFIRM_TIMEOUT_S")
    spool_max_bytes: int = Field(
        256 * 2**20, ge=2**20, le=2**40, description="a number of bytes from 1048576, such as 268435456"
    )
    spool_min_free_bytes: int = Field(
        64 * 2**20, ge=0, le=2**50, description="a number of bytes of the disk to leave free, such as 67108864"
    )
