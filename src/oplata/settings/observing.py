"""What the program says about itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field


class Observing(BaseModel):
    """What the program says about itself."""

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], BeforeValidator(lambda value: str(value).lower())
    ] = Field("info", description="debug, info, warning or error")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto (text in a terminal, else json), json or text"
    )
