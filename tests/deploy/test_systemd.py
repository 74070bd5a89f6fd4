"""systemd takes every unit without a complaint, and they are hardened."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.command import SCRIPT

UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
INSTALLED = "/opt/oplata/bin/oplata"
MOST_EXPOSED = "15"
"""In tenths, of ten; a unit without hardening has 96."""


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with the command where it lies on this machine: systemd looks for it."""
    for path in UNITS.iterdir():
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(text.replace(INSTALLED, str(SCRIPT)), encoding="utf-8")
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    assert program is not None, "systemd-analyze is missing: `make test` as root installs Debian's package systemd"
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_systemd_understands_every_line(units: Path) -> None:
    named = [units / name.replace("@.", "@1.") for name in SERVICES]
    shutil.copy(units / "oplata-worker@.service", units / "oplata-worker@1.service")

    done = analyze("verify", "--man=no", *map(str, named), str(units / "oplata-retention.timer"))

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_line_that_systemd_does_not_know_is_seen(units: Path) -> None:
    unit = units / "oplata-serve.service"
    unit.write_text(unit.read_text(encoding="utf-8").replace("Restart=always", "Restrat=always"), encoding="utf-8")

    assert "Restrat" in analyze("verify", "--man=no", str(unit)).stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_is_hardened(units: Path, name: str) -> None:
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}", str(units / name))

    assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_runs_a_command_that_there_is(units: Path, name: str) -> None:
    words = re.search(r"^ExecStart=(.*)$", (units / name).read_text(encoding="utf-8"), re.MULTILINE)
    assert words is not None

    done = subprocess.run([*words[1].split(), "--help"], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
