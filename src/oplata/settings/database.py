"""Where the orders are kept."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, SecretStr

from oplata.settings.values import url_of


class Database(BaseModel):
    """Where the orders are kept."""

    database_url: Annotated[SecretStr, url_of("sqlite", "postgresql")] = Field(
        SecretStr("sqlite:///oplata.db"),
        description="a URL such as sqlite:///oplata.db or postgresql://user:password@host:5432/shop",
    )
    database_pool_size: int = Field(5, ge=1, le=200, description="a number of connections from 1 to 200")
