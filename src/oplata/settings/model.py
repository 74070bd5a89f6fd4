"""All settings as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from oplata.errors import SettingsError
from oplata.observability.logging import HIDDEN, without_passwords
from oplata.settings.bank import Bank
from oplata.settings.database import Database
from oplata.settings.door import Door
from oplata.settings.feed import Feed
from oplata.settings.http import Http
from oplata.settings.observing import Observing
from oplata.settings.queue import Queue
from oplata.settings.retention import Retention
from oplata.settings.sources import PREFIX, found, refuse_unknown
from oplata.settings.worker import Worker

_LONGEST_SHOWN = 60
SECRETS = frozenset(
    {"terminal_password", "terminals", "queue_url", "database_url", "sentry_dsn", "buyer_token_keys", "sinks"}
)

PASSWORD_SETTINGS = frozenset({"terminal_key", "terminal_password", "terminals"})
"""What is read anew at SIGHUP."""


class Settings(Bank, Http, Door, Queue, Database, Worker, Retention, Feed, Observing, BaseSettings):
    """One frozen value. ``Settings(port=0)`` takes values and defaults; ``Settings.load()`` reads the surroundings too.

    Each description completes the sentence "this setting must be ...", which is what a wrong value is answered with.
    Raises ``SettingsError``.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    def __init__(self, *, _origins: Mapping[str, str] | None = None, **values: Any) -> None:
        refuse_unknown(type(self), values, "the arguments of Settings")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_sentences(error, values, _origins or {})) from None
        self._require_whole_terminal()

    @classmethod
    def load(cls, **values: Any) -> Self:
        """Read the environment, ``.env`` and ``oplata.toml``; ``values`` stand above all of them."""
        merged, origins = found(cls, SECRETS)
        return cls(_origins=origins, **(merged | values))

    @classmethod
    def explain(cls) -> list[Explained]:
        """Every setting as ``load`` finds it, and where. Raises ``SettingsError``."""
        merged, origins = found(cls, SECRETS)
        settings = cls(_origins=origins, **merged)
        return [
            Explained(name, _shown(name, getattr(settings, name)), origins.get(name, "default"))
            for name in cls.model_fields
        ]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Values alone: ``load`` asks every other source itself, so that an error can say where a value stood."""
        return (init_settings,)

    def passwords(self) -> dict[str, list[str]]:
        """The valid passwords of each terminal, for a ``Keyring``. Raises ``SettingsError`` when there is none."""
        valid: dict[str, list[str]] = {}
        if self.terminal_key and self.terminal_password is not None:
            lines = self.terminal_password.get_secret_value().splitlines()
            valid[self.terminal_key] = [line for line in lines if line]
        for terminal in self.terminals:
            valid.setdefault(terminal.key, []).extend(password.get_secret_value() for password in terminal.passwords)
        if not valid:
            raise SettingsError(
                "No terminal is set, so no callback could be verified. Set OPLATA_TERMINAL_KEY and "
                "OPLATA_TERMINAL_PASSWORD, or list your [[terminals]] in oplata.toml."
            )
        return valid

    def differing(self, other: Settings) -> list[str]:
        """The names of the settings that differ, sorted."""
        return sorted(name for name in type(self).model_fields if getattr(self, name) != getattr(other, name))

    def _require_whole_terminal(self) -> None:
        if bool(self.terminal_key) == (self.terminal_password is not None):
            return
        here, missing = ("KEY", "PASSWORD") if self.terminal_key else ("PASSWORD", "KEY")
        raise SettingsError(
            f"{PREFIX}TERMINAL_{here} is set and {PREFIX}TERMINAL_{missing} is not. "
            "A terminal needs both: set the other one too."
        )


class Explained(NamedTuple):
    """One setting: its value as it may be shown, and where that stands."""

    name: str
    shown: str
    origin: str


def chosen(**options: object) -> dict[str, Any]:
    """The options that were given on a command line, as values for ``Settings.load``."""
    return {name: value for name, value in options.items() if value is not None}


def _shown(name: str, value: object) -> str:
    """A value as it may be shown. Of a URL all but the password is; of any other secret only that it is set."""
    if value is None or value == ():
        return ""
    if isinstance(value, SecretStr) and name.endswith("_url"):
        return without_passwords(value.get_secret_value())
    if name in SECRETS or isinstance(value, SecretStr):
        return HIDDEN
    return without_passwords(",".join(map(str, value)) if isinstance(value, tuple) else str(value))


def _sentences(error: ValidationError, values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """One sentence for each setting that is wrong; the value is shown unless it may hold a secret."""
    places: dict[str, str] = {}
    for problem in error.errors(include_url=False, include_input=False):
        name, *inner = map(str, problem["loc"])
        places.setdefault(name, ".".join(inner))
    return " ".join(_sentence(name, values.get(name), origins.get(name, name), place) for name, place in places.items())


def _sentence(name: str, value: object, shown_name: str, place: str) -> str:
    must = f"{shown_name} must be {Settings.model_fields[name].description}"
    if name in SECRETS:
        at = f" Wrong is {place}." if place else ""
        return f"{must}.{at} What stands there is not shown, as it may hold a password."
    shown = without_passwords(repr(value))
    return f"{must}; it is {shown if len(shown) <= _LONGEST_SHOWN else shown[:_LONGEST_SHOWN] + '…'}."
