"""Every setting, read once. Nothing else in oplata reads the environment; rooms are given plain values.

A setting is looked for, in this order, among the values given in Python, the environment (``OPLATA_PORT``), a ``.env``
file in the working directory, and ``oplata.toml`` there (``port = 8080``; another file is named by ``OPLATA_CONFIG``).
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from dotenv import dotenv_values
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from oplata.errors import SettingsError
from oplata.queue.base import DEFAULT_RETRY_DELAYS_MS

PREFIX = "OPLATA_"
CONFIG_VARIABLE = "OPLATA_CONFIG"
DOTENV_FILE = ".env"
TOML_FILE = "oplata.toml"
TBANK = "tbank"
"""Stands in ``allowed_networks`` for the networks that the bank publishes."""

_NOT_SETTINGS = re.compile(r"OPLATA_(CONFIG|TEST_.*)", re.IGNORECASE)
_QUEUE_SCHEMES = ("sqlite", "amqp", "amqps")
_DATABASE_SCHEMES = ("sqlite", "postgresql")
_LONGEST_SHOWN = 60
_SECRET = frozenset({"terminal_password", "terminals", "queue_url", "database_url"})


def _listed(value: object) -> object:
    """A list from the environment: JSON, or values with commas between."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith(("[", "{")):
        parsed = json.loads(text)
        return parsed if isinstance(parsed, list) else [parsed]
    return [part.strip() for part in text.split(",") if part.strip()]


def _network(value: object) -> str:
    text = str(value)
    return TBANK if text.lower() == TBANK else str(ipaddress.ip_network(text, strict=False))


def _path(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"/[^\s?#{}]*", value):
        raise ValueError("not a path")
    return value


def _url_of(*schemes: str) -> BeforeValidator:
    def check(value: object) -> object:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        scheme, separator, rest = text.partition("://") if isinstance(text, str) else ("", "", "")
        if scheme not in schemes or not separator or not rest.strip("/"):
            raise ValueError("not such a URL")
        return value

    return BeforeValidator(check)


Network = Annotated[str, BeforeValidator(_network)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Password = Annotated[SecretStr, Field(min_length=1)]


class Terminal(BaseModel):
    """One terminal of the shop, with every password that is valid at present; the first one signs."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    key: Annotated[str, Field(min_length=1, max_length=128)]
    passwords: Annotated[tuple[Password, ...], Field(min_length=1)]


class Settings(BaseSettings):
    """One frozen value. ``Settings(port=0)`` takes values and defaults; ``Settings.load()`` reads the surroundings too.

    Each description completes the sentence "this setting must be ...", which is what a wrong value is answered with.
    Raises ``SettingsError``.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    terminal_key: str | None = Field(None, description="the TerminalKey that the bank gave you")
    terminal_password: SecretStr | None = Field(None, description="the password of the terminal")
    terminals: Annotated[tuple[Terminal, ...], NoDecode, BeforeValidator(_listed)] = Field(
        (), description='a list of terminals, each as {"key": "...", "passwords": ["..."]}'
    )
    queue_url: Annotated[SecretStr, _url_of(*_QUEUE_SCHEMES)] = Field(
        SecretStr("sqlite:///oplata-queue.db"),
        description="a URL such as sqlite:///oplata-queue.db or amqp://user:password@host:5672/%2F",
    )
    queue_name: str = Field(
        "oplata.callbacks", min_length=1, max_length=200, description="a queue's name of 1 to 200 characters"
    )
    queue_declare: Literal["active", "passive"] = Field(
        "active", description="active (we declare the queue) or passive (someone else has, and we use it as it is)"
    )
    queue_retry_delays_ms: Annotated[
        tuple[Annotated[int, Field(ge=1, le=86_400_000)], ...], NoDecode, BeforeValidator(_listed)
    ] = Field(
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
    database_url: Annotated[SecretStr, _url_of(*_DATABASE_SCHEMES)] = Field(
        SecretStr("sqlite:///oplata.db"),
        description="a URL such as sqlite:///oplata.db or postgresql://user:password@host:5432/shop",
    )
    database_pool_size: int = Field(5, ge=1, le=200, description="a number of connections from 1 to 200")
    callback_path: Annotated[str, BeforeValidator(_path)] = Field(
        "/api/tinkoff-callback", description="a path that begins with a slash, such as /api/tinkoff-callback"
    )
    host: str = Field("127.0.0.1", min_length=1, description="an address to listen on, such as 127.0.0.1 or 0.0.0.0")
    port: int = Field(8080, ge=0, le=65535, description="a TCP port from 0 (any free one) to 65535, such as 8080")
    confirm_timeout_s: Seconds = Field(8, description="a number of seconds above 0; the bank itself waits for 10")
    body_timeout_s: Seconds = Field(5, description="a number of seconds above 0, such as 5")
    drain_timeout_s: Seconds = Field(20, description="a number of seconds above 0, such as 20")
    max_in_flight: int = Field(2000, ge=1, le=1_000_000, description="a number from 1 to 1000000, such as 2000")
    batch_size: int = Field(500, ge=1, le=2000, description="a number of messages from 1 to 2000, such as 500")
    prefetch: int = Field(
        1000, ge=1, le=2000, description="a number of messages from 1 to 2000 (a quorum queue takes no more)"
    )
    allowed_networks: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_listed)] = Field(
        (), description="networks with commas between, such as 91.194.226.0/23, or tbank for the bank's own"
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_listed)] = Field(
        (), description="addresses or networks of your proxies with commas between, such as 10.0.0.0/8"
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], BeforeValidator(lambda value: str(value).lower())
    ] = Field("info", description="debug, info, warning or error")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto (text in a terminal, else json), json or text"
    )

    def __init__(self, *, _origins: Mapping[str, str] | None = None, **values: Any) -> None:
        _refuse_unknown(values, "the arguments of Settings")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_sentences(error, values, _origins or {})) from None
        self._require_whole_terminal()

    @classmethod
    def load(cls, **values: Any) -> Self:
        """Read the environment, ``.env`` and ``oplata.toml``; ``values`` stand above all of them."""
        toml_path = Path(os.environ.get(CONFIG_VARIABLE) or TOML_FILE)
        merged: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for found, origin in (
            (_toml_values(cls, toml_path), f"{{name}} in {toml_path}"),
            (_dotenv_values(cls), f"{PREFIX}{{NAME}} in {DOTENV_FILE}"),
            (_environment_values(cls), f"{PREFIX}{{NAME}}"),
        ):
            merged |= found
            origins |= {name: origin.format(name=name, NAME=name.upper()) for name in found}
        return cls(_origins=origins, **(merged | values))

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
        found: dict[str, list[str]] = {}
        if self.terminal_key and self.terminal_password is not None:
            found[self.terminal_key] = [self.terminal_password.get_secret_value()]
        for terminal in self.terminals:
            found.setdefault(terminal.key, []).extend(password.get_secret_value() for password in terminal.passwords)
        if not found:
            raise SettingsError(
                "No terminal is set, so no callback could be verified. Set OPLATA_TERMINAL_KEY and "
                "OPLATA_TERMINAL_PASSWORD, or list your [[terminals]] in oplata.toml."
            )
        return found

    def _require_whole_terminal(self) -> None:
        if bool(self.terminal_key) == (self.terminal_password is not None):
            return
        here, missing = ("KEY", "PASSWORD") if self.terminal_key else ("PASSWORD", "KEY")
        raise SettingsError(
            f"{PREFIX}TERMINAL_{here} is set and {PREFIX}TERMINAL_{missing} is not. "
            "A terminal needs both: set the other one too."
        )


def chosen(**options: object) -> dict[str, Any]:
    """The options that were given on a command line, as values for ``Settings.load``."""
    return {name: value for name, value in options.items() if value is not None}


def _environment_values(cls: type[Settings]) -> dict[str, Any]:
    _refuse_unknown(_our_names(os.environ), "the environment", prefix=PREFIX)
    return EnvSettingsSource(cls)()


def _dotenv_values(cls: type[Settings]) -> dict[str, Any]:
    try:
        _refuse_unknown(_our_names(dotenv_values(DOTENV_FILE)), DOTENV_FILE, prefix=PREFIX)
        found = DotEnvSettingsSource(cls, env_file=DOTENV_FILE)()
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{DOTENV_FILE} cannot be read as text in UTF-8. Mend it, or take it away.") from None
    return {name: value for name, value in found.items() if name in cls.model_fields}


def _toml_values(cls: type[Settings], path: Path) -> dict[str, Any]:
    try:
        found = TomlConfigSettingsSource(cls, path)()
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from None
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{path} cannot be read as text in UTF-8. Mend it, or take it away.") from None
    if CONFIG_VARIABLE in os.environ and not path.is_file():
        raise SettingsError(
            f"{CONFIG_VARIABLE} names {path}, and there is no such file. Create it, or unset the variable."
        )
    _refuse_unknown(found, str(path))
    return found


def _our_names(variables: Mapping[str, str | None]) -> list[str]:
    ours = (name.upper() for name in variables if name.upper().startswith(PREFIX))
    return [name.removeprefix(PREFIX).lower() for name in ours if not _NOT_SETTINGS.fullmatch(name)]


def _refuse_unknown(names: Iterable[str], place: str, *, prefix: str = "") -> None:
    known = Settings.model_fields
    for name in names:
        if name in known:
            continue
        shown, near = _cased(name, prefix), difflib.get_close_matches(name, known, n=1)
        mend = f"Did you mean {_cased(near[0], prefix)}?" if near else "Take it away."
        raise SettingsError(f"{shown} in {place} is not a setting of oplata. {mend}")


def _cased(name: str, prefix: str) -> str:
    return f"{prefix}{name.upper()}" if prefix else name


def _sentences(error: ValidationError, values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """One sentence for each setting that is wrong; the value is shown unless it may hold a secret."""
    names = dict.fromkeys(str(problem["loc"][0]) for problem in error.errors(include_url=False, include_input=False))
    return " ".join(_sentence(name, values.get(name), origins.get(name, name)) for name in names)


def _sentence(name: str, value: object, shown_name: str) -> str:
    must = f"{shown_name} must be {Settings.model_fields[name].description}"
    if name in _SECRET:
        return f"{must}. What stands there is not shown, as it may hold a password."
    shown = repr(value)
    return f"{must}; it is {shown if len(shown) <= _LONGEST_SHOWN else shown[:_LONGEST_SHOWN] + '…'}."
