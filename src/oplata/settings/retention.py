"""What may be taken out of the database once it is old."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Retention(BaseModel):
    """What may be taken out of the database once it is old."""

    retention_bodies_days: int | None = Field(
        None, ge=1, le=36_500, description="a number of days from 1 to 36500, after which callbacks' bodies may go"
    )
