"""Whom the relay tells of changes, and how."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import NoDecode

from oplata.errors import SettingsError
from oplata.feed.sinks.signing import secret_key
from oplata.settings.values import Listed, Seconds, url_of

MAX_SINKS = 50
TOLD_FIELDS = frozenset(
    {
        "event_id",
        "change_id",
        "order_id",
        "version",
        "status",
        "previous_status",
        "amount_kopecks",
        "review",
        "changed_at_ms",
    }
)
"""What a field of a procedure's input may hold."""


def _moment(value: object) -> object:
    """``now``, ``beginning``, or a moment in ISO 8601 (UTC where it names no zone) as milliseconds."""
    if value in ("now", "beginning") or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
    return round((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _known_fields(fields: dict[str, str]) -> dict[str, str]:
    if not fields or not TOLD_FIELDS.issuperset(fields.values()):
        raise ValueError(f"each field holds one of {', '.join(sorted(TOLD_FIELDS))}")
    return fields


def _key(secret: SecretStr) -> SecretStr:
    try:
        secret_key(secret.get_secret_value())
    except SettingsError as error:
        raise ValueError(str(error)) from None
    return secret


class _Sink(BaseModel):
    """What every sink may say."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    start: Annotated[Literal["now", "beginning"] | int, BeforeValidator(_moment)] = "now"
    concurrency: int = Field(16, ge=1, le=100)
    timeout_s: Seconds = Field(10, le=60)
    max_attempts: int = Field(30, ge=1, le=10_000)
    retry_delays_ms: tuple[Annotated[int, Field(ge=1, le=86_400_000)], ...] = Field(
        (1_000, 5_000, 30_000, 120_000, 600_000, 3_600_000), min_length=1, max_length=16
    )
    keep_days: int = Field(90, ge=1, le=36_500)


class TrpcSink(_Sink):
    """The shop's tRPC server."""

    kind: Literal["trpc"]
    url: Annotated[SecretStr, url_of("http", "https")]
    procedure: str = Field("orders.updateStatus", min_length=1, max_length=200)
    fields: Annotated[dict[str, str], AfterValidator(_known_fields)] = {"orderId": "order_id", "status": "status"}
    statuses: dict[str, str] = {}
    headers: dict[str, SecretStr] = {}
    transformer: Literal["none", "superjson"] = "none"
    batch: int = Field(16, ge=1, le=100)


class WebhookSink(_Sink):
    """A receiver of signed webhooks."""

    kind: Literal["webhook"]
    url: Annotated[SecretStr, url_of("http", "https")]
    secrets: tuple[Annotated[SecretStr, AfterValidator(_key)], ...] = Field(min_length=1, max_length=4)
    statuses: tuple[str, ...] = ()
    headers: dict[str, SecretStr] = {}


class AmqpSink(_Sink):
    """A topic exchange of RabbitMQ."""

    kind: Literal["amqp"]
    url: Annotated[SecretStr, url_of("amqp", "amqps")]
    exchange: str = Field("oplata.events", min_length=1, max_length=200)
    declare: Literal["active", "passive"] = "active"
    mandatory: bool = False
    statuses: tuple[str, ...] = ()


def _own_names(sinks: tuple[_Sink, ...]) -> tuple[_Sink, ...]:
    if len({sink.name for sink in sinks}) < len(sinks):
        raise ValueError("two sinks have one name")
    return sinks


AnySink = Annotated[TrpcSink | WebhookSink | AmqpSink, Field(discriminator="kind")]


class Feed(BaseModel):
    """Whom the relay tells of changes, and how."""

    sinks: Annotated[tuple[AnySink, ...], NoDecode, Listed, AfterValidator(_own_names)] = Field(
        (),
        max_length=MAX_SINKS,
        description='a list of sinks with names of their own, each as {"name": "shop", "kind": "trpc", "url": '
        '"https://..."}, or of the kind webhook or amqp; docs/settings.md says what else each may have',
    )
