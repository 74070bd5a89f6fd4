"""How much a worker takes at once."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Worker(BaseModel):
    """How much a worker takes at once."""

    batch_size: int = Field(500, ge=1, le=2000, description="a number of messages from 1 to 2000, such as 500")
    prefetch: int = Field(
        1000, ge=1, le=2000, description="a number of messages from 1 to 2000 (a quorum queue takes no more)"
    )
