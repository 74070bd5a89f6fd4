"""What a user may import is a list, and the list is all that is visible."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import oplata


def test_what_is_visible_is_what_is_listed() -> None:
    assert dir(oplata) == oplata.__all__ == sorted(oplata.__all__)
    assert len(oplata.__all__) <= 15


@pytest.mark.parametrize("name", oplata.__all__)
def test_every_listed_name_can_be_had(name: str) -> None:
    assert getattr(oplata, name).__name__ == name


def test_a_name_that_is_not_listed_cannot_be_had() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Databse'"):
        oplata.Databse  # type: ignore[attr-defined]  # noqa: B018  # That it is not there is the claim.


def test_every_module_can_be_imported_alone() -> None:
    names = [each.name for each in pkgutil.walk_packages(oplata.__path__, "oplata.") if "migrations" not in each.name]

    assert [name for name in names if importlib.import_module(name).__name__ != name] == []
    assert "oplata.app" in names


def test_importing_oplata_or_its_help_imports_no_database_driver() -> None:
    script = (
        "import sys, oplata, oplata.cli.root as root; root.run(['--help']); "
        "print([name for name in ('sqlalchemy', 'pika', 'pydantic') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
