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
from oplata.settings import secret_files

PREFIX = "OPLATA_"
CONFIG_VARIABLE = "OPLATA_CONFIG"
DOTENV_FILE = ".env"
TOML_FILE = "oplata.toml"

_NOT_SETTINGS = re.compile(r"OPLATA_(CONFIG|TEST_.*)", re.IGNORECASE)


def found(cls: type[BaseSettings], secrets: frozenset[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the surroundings say, and for each value where it stands. Raises ``SettingsError``.

    Each of the ``secrets`` may lie in a file, which the same name with ``_file`` behind it names.
    """
    toml_path = Path(os.environ.get(CONFIG_VARIABLE) or TOML_FILE)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for place in (
        _Place(_toml_values(cls, toml_path, secrets), str(toml_path), ""),
        _Place(_dotenv_values(cls, secrets), DOTENV_FILE, PREFIX),
        _Place(_environment_values(cls, secrets), "", PREFIX),
    ):
        values, where = place.resolved(secrets)
        merged |= values
        origins |= where
    return merged, origins


class _Place(NamedTuple):
    """What one place says: settings, and names of files with secrets."""

    values: dict[str, Any]
    name: str
    prefix: str

    def shown(self, setting: str) -> str:
        """How a setting is called in a sentence when it stands here."""
        cased = _cased(setting, self.prefix)
        return f"{cased} in {self.name}" if self.name else cased

    def resolved(self, secrets: frozenset[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """The values, with secrets read from their files; and for each value where it stands."""
        files = secret_files.names_of(secrets)
        plain = {name: value for name, value in self.values.items() if name not in files}
        paths = {name.removesuffix(secret_files.SUFFIX): path for name, path in self.values.items() if name in files}
        shown = {name: self.shown(name + secret_files.SUFFIX) for name in paths}
        where = {name: self.shown(name) for name in plain}
        read = secret_files.read_secrets({name: str(path) for name, path in paths.items()}, where, shown)
        where |= {name: f"{shown[name]} ({paths[name]})" for name in read}
        return plain | read, where


def refuse_unknown(
    cls: type[BaseSettings], names: Iterable[str], place: str, *, prefix: str = "", files: frozenset[str] = frozenset()
) -> None:
    """Raise ``SettingsError`` for a name that is no setting, with the one that may have been meant."""
    known = {*cls.model_fields, *files}
    for name in names:
        if name in known:
            continue
        shown, near = _cased(name, prefix), difflib.get_close_matches(name, sorted(known), n=1)
        mend = f"Did you mean {_cased(near[0], prefix)}?" if near else "Take it away."
        if name.endswith(secret_files.SUFFIX) and name.removesuffix(secret_files.SUFFIX) in cls.model_fields:
            mend = f"{_cased(name.removesuffix(secret_files.SUFFIX), prefix)} is no secret, and is set by itself."
        raise SettingsError(f"{shown} in {place} is not a setting of oplata. {mend}")


def _environment_values(cls: type[BaseSettings], secrets: frozenset[str]) -> dict[str, Any]:
    files = secret_files.names_of(secrets)
    refuse_unknown(cls, _our_names(os.environ), "the environment", prefix=PREFIX, files=files)
    return EnvSettingsSource(cls)() | _files_named(os.environ, files)


def _dotenv_values(cls: type[BaseSettings], secrets: frozenset[str]) -> dict[str, Any]:
    files = secret_files.names_of(secrets)
    try:
        variables = dotenv_values(DOTENV_FILE)
        refuse_unknown(cls, _our_names(variables), DOTENV_FILE, prefix=PREFIX, files=files)
        values = DotEnvSettingsSource(cls, env_file=DOTENV_FILE)()
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{DOTENV_FILE} cannot be read as text in UTF-8. Mend it, or take it away.") from None
    return {name: value for name, value in values.items() if name in cls.model_fields} | _files_named(variables, files)


def _files_named(variables: Mapping[str, str | None], files: frozenset[str]) -> dict[str, str]:
    """The variables that name files with secrets. An empty one is none, as with every other."""
    named = ((name.upper().removeprefix(PREFIX).lower(), path) for name, path in variables.items())
    return {name: path for name, path in named if name in files and path}


def _toml_values(cls: type[BaseSettings], path: Path, secrets: frozenset[str]) -> dict[str, Any]:
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
    refuse_unknown(cls, values, str(path), files=secret_files.names_of(secrets))
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
