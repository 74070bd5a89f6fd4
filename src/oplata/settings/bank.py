"""Whose callbacks are taken: the shop's terminals and their passwords."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, SecretStr
from pydantic_settings import NoDecode

from oplata.settings.values import Listed, Terminal


class Bank(BaseModel):
    """Whose callbacks are taken: the shop's terminals and their passwords."""

    terminal_key: str | None = Field(None, description="the TerminalKey that the bank gave you")
    terminal_password: SecretStr | None = Field(None, description="the password of the terminal")
    terminals: Annotated[tuple[Terminal, ...], NoDecode, Listed] = Field(
        (), description='a list of terminals, each as {"key": "...", "passwords": ["..."]}'
    )
