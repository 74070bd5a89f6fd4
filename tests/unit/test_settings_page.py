"""The page of settings tells of each one, and of its true default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from oplata.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
ROWS = {
    name: default
    for names, defaults in re.findall(r"^\| (`OPLATA_[^|]+) \|([^|]*)\|", PAGE, re.MULTILINE)
    for name, default in zip(re.findall(r"OPLATA_(\w+)", names), [*defaults.strip().split(", "), "", ""], strict=False)
}


def test_the_page_names_every_setting_and_no_other() -> None:
    assert {name.upper() for name in Settings.model_fields} == set(ROWS)


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"ALLOWED_NETWORKS", "TRUSTED_PROXIES"}))
def test_the_page_tells_the_default(name: str) -> None:
    default = Settings.model_fields[name.lower()].default
    value = default.get_secret_value() if isinstance(default, SecretStr) else default
    written = ",".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)
    assert (written.lower() if isinstance(value, bool) else written) == ROWS[name].strip("`")
