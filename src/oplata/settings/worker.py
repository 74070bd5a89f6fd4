"""How much a worker takes at once, and how long the shop's own code may take."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Worker(BaseModel):
    """How much a worker takes at once, and how long the shop's own code may take."""

    batch_size: int = Field(500, ge=1, le=2000, description="a number of messages from 1 to 2000, such as 500")
    prefetch: int = Field(
        1000, ge=1, le=2000, description="a number of messages from 1 to 2000 (a quorum queue takes no more)"
    )
    handler_timeout_s: float = Field(
        5,
        gt=0,
        le=25,
        description="a number of seconds above 0 and at most 25: the rows of an order are held meanwhile",
    )
