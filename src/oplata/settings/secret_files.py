"""Secrets that lie in files of their own, as systemd, Docker and Kubernetes hand them over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from oplata.errors import SettingsError

SUFFIX = "_file"
MAX_BYTES = 64 * 1024


def names_of(secrets: Iterable[str]) -> frozenset[str]:
    """What the names of the files of these settings are called."""
    return frozenset(f"{name}{SUFFIX}" for name in secrets)


def read_secrets(paths: Mapping[str, str], beside: Mapping[str, str], shown: Mapping[str, str]) -> dict[str, str]:
    """The contents of these files, by the names of the settings that they hold.

    ``paths`` is by the name of the setting; ``beside`` says of the settings that are given in the same place by
    themselves how they are called there, and ``shown`` how the file's variable is. Raises ``SettingsError``.
    """
    for name in paths:
        if name in beside:
            both = f"Both {beside[name]} and {shown[name]} are set"
            raise SettingsError(f"{both}, and only one can be meant. Take one away.")
    return {name: _read(Path(path), shown[name]) for name, path in paths.items()}


def _read(path: Path, shown: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise SettingsError(f"{shown} names {path}, which is not text in UTF-8.") from None
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise SettingsError(
            f"{shown} names {path}, which cannot be read: {why}. "
            "Create it, readable for the user that oplata runs as, or take the setting away."
        ) from None
    if len(content) > MAX_BYTES:
        raise SettingsError(f"{shown} names {path}, which is longer than {MAX_BYTES} bytes and so holds no secret.")
    # An editor ends a file with a line's end, which is no part of the secret.
    secret = text.rstrip("\r\n")
    if not secret:
        raise SettingsError(f"{shown} names {path}, which is empty. Write the secret into it.")
    return secret
