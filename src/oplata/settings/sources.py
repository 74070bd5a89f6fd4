"""Where values are found: the environment, ``.env``, ``oplata.toml``; and what may not stand there."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dotenv import dotenv_values
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, TomlConfigSettingsSource

from oplata.errors import SettingsError

PREFIX = "OPLATA_"
CONFIG_VARIABLE = "OPLATA_CONFIG"
DOTENV_FILE = ".env"
TOML_FILE = "oplata.toml"

_NOT_SETTINGS = re.compile(r"OPLATA_(CONFIG|TEST_.*)", re.IGNORECASE)


def found(cls: type[BaseSettings]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the surroundings say, and for each value where it stands. Raises ``SettingsError``."""
    toml_path = Path(os.environ.get(CONFIG_VARIABLE) or TOML_FILE)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for values, origin in (
        (_toml_values(cls, toml_path), f"{{name}} in {toml_path}"),
        (_dotenv_values(cls), f"{PREFIX}{{NAME}} in {DOTENV_FILE}"),
        (_environment_values(cls), f"{PREFIX}{{NAME}}"),
    ):
        merged |= values
        origins |= {name: origin.format(name=name, NAME=name.upper()) for name in values}
    return merged, origins


def refuse_unknown(cls: type[BaseSettings], names: Iterable[str], place: str, *, prefix: str = "") -> None:
    """Raise ``SettingsError`` for a name that is no setting, with the one that may have been meant."""
    known = cls.model_fields
    for name in names:
        if name in known:
            continue
        shown, near = _cased(name, prefix), difflib.get_close_matches(name, known, n=1)
        mend = f"Did you mean {_cased(near[0], prefix)}?" if near else "Take it away."
        raise SettingsError(f"{shown} in {place} is not a setting of oplata. {mend}")


def _environment_values(cls: type[BaseSettings]) -> dict[str, Any]:
    refuse_unknown(cls, _our_names(os.environ), "the environment", prefix=PREFIX)
    return EnvSettingsSource(cls)()


def _dotenv_values(cls: type[BaseSettings]) -> dict[str, Any]:
    try:
        refuse_unknown(cls, _our_names(dotenv_values(DOTENV_FILE)), DOTENV_FILE, prefix=PREFIX)
        values = DotEnvSettingsSource(cls, env_file=DOTENV_FILE)()
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{DOTENV_FILE} cannot be read as text in UTF-8. Mend it, or take it away.") from None
    return {name: value for name, value in values.items() if name in cls.model_fields}


def _toml_values(cls: type[BaseSettings], path: Path) -> dict[str, Any]:
    try:
        values = TomlConfigSettingsSource(cls, path)()
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from None
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{path} cannot be read as text in UTF-8. Mend it, or take it away.") from None
    if CONFIG_VARIABLE in os.environ and not path.is_file():
        raise SettingsError(
            f"{CONFIG_VARIABLE} names {path}, and there is no such file. Create it, or unset the variable."
        )
    refuse_unknown(cls, values, str(path))
    return values


def _our_names(variables: Mapping[str, str | None]) -> list[str]:
    ours = (name.upper() for name in variables if name.upper().startswith(PREFIX))
    return [name.removeprefix(PREFIX).lower() for name in ours if not _NOT_SETTINGS.fullmatch(name)]


def _cased(name: str, prefix: str) -> str:
    return f"{prefix}{name.upper()}" if prefix else name


class ServiceManager(NamedTuple):
    """What the service manager that started this process asks of it."""

    notify_socket: str | None
    watchdog_s: float | None


def service_manager() -> ServiceManager:
    """Where systemd listens, and within how many seconds it has to hear something; each None where it does not."""
    watchdog_us = os.environ.get("WATCHDOG_USEC", "")
    meant_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return ServiceManager(
        os.environ.get("NOTIFY_SOCKET") or None,
        int(watchdog_us) / 1_000_000 if watchdog_us.isdigit() and meant_for_us else None,
    )
