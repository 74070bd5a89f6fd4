"""What the program says about itself, and to whom."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, SecretStr

from oplata.settings.values import url_of


class Observing(BaseModel):
    """What the program says about itself, and to whom."""

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], BeforeValidator(lambda value: str(value).lower())
    ] = Field("info", description="debug, info, warning or error")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto (text in a terminal, else json), json or text"
    )
    log_accepted: float = Field(
        0.01, ge=0, le=1, description="the share of accepted callbacks that get a line in the log, from 0 to 1"
    )
    metrics_port: int | None = Field(
        None, ge=1, le=65_535, description="a TCP port from 1 to 65535, such as 9464; each further process adds one"
    )
    metrics_host: str = Field(
        "127.0.0.1", min_length=1, description="an address to listen on, such as 127.0.0.1 or 0.0.0.0"
    )
    survey_interval_s: float = Field(15, ge=1, le=3600, description="a number of seconds from 1 to 3600, such as 15")
    canary_interval_s: float = Field(
        0, ge=0, le=3600, description="0 for no canaries, or a number of seconds up to 3600, such as 10"
    )
    tracing: Literal["off", "on"] = Field("off", description="off or on")
    trace_url: Annotated[str, url_of("http", "https")] = Field(
        "http://127.0.0.1:4318/v1/traces",
        description="the URL of an OpenTelemetry collector, such as http://127.0.0.1:4318/v1/traces",
    )
    trace_sample: float = Field(1, ge=0, le=1, description="the share of callbacks that are traced, from 0 to 1")
    sentry_dsn: Annotated[SecretStr, url_of("http", "https")] | None = Field(
        None, description="a DSN such as https://key@sentry.example/1"
    )
    environment: str = Field(
        "production", min_length=1, max_length=64, description="a word of 1 to 64 characters, such as production"
    )
