"""The README's first command, run as a newcomer runs it."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.acceptance.command import SCRIPT, environment, oplata, running

STATUSES = ("unregistered", "pending", "authorized", "paid", "partially_refunded", "refunded", "canceled", "failed")


def rows(output: str) -> dict[str, str]:
    """The summary's names and values."""
    found = (re.fullmatch(r"\s*(\S.*?)\s{2,}(\S+)", line) for line in output.rpartition("\n\n")[2].splitlines())
    return {match[1]: match[2] for match in found if match}


def test_a_demo_of_n_orders_stops_by_itself_with_rows_that_add_up(tmp_path: Path) -> None:
    done = oplata("demo", "--orders", "40", "--seed", "3", cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    found = rows(done.stdout)
    number = {name: int(value) for name, value in found.items() if value.isdigit()}
    assert number["sent"] == number["accepted"] + number["refused"]
    assert number["accepted"] == number["applied"] + number["repeats absorbed"]
    assert number["orders"] == 40 == sum(number.get(status, 0) for status in STATUSES)
    assert number["lost"] == 0
    assert min(number["refused"], number["repeats absorbed"], number["paid"]) > 0
    assert 0 < float(found["callback to paid, median ms"]) <= float(found["callback to paid, p99 ms"])
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_plays_the_same_orders(tmp_path: Path) -> None:
    first, second = (rows(oplata("demo", "--orders", "8", "--seed", "5", cwd=tmp_path).stdout) for _ in range(2))

    for times in (first, second):
        del times["callback to paid, median ms"], times["callback to paid, p99 ms"]
    assert first == second


def test_ctrl_c_ends_an_endless_demo_with_its_summary(tmp_path: Path) -> None:
    with running("demo", "--rate", "40", cwd=tmp_path) as demo:
        demo.line("order-0002  new -> pending")
        code = demo.stop(signal.SIGINT)

    assert code == 0
    assert rows("\n".join(demo.lines))["lost"] == "0"


def test_the_demo_ignores_the_settings_around_it(tmp_path: Path) -> None:
    (tmp_path / "oplata.toml").write_text("nonsense = 1\n", encoding="utf-8")

    done = oplata("demo", "--orders", "1", cwd=tmp_path, OPLATA_PORT="nonsense", OPLATA_DATABASE_URL="mysql://x")

    assert (done.returncode, done.stderr) == (0, "")


def test_the_demo_is_ready_soon(tmp_path: Path) -> None:
    begun_s = time.monotonic()
    with running("demo", cwd=tmp_path) as demo:
        demo.line("oplata demo is ready")
        ready_s = time.monotonic() - begun_s
        demo.stop()

    # Three seconds are promised on a machine of one's own; the tests share theirs.
    assert ready_s < 10


def test_a_reader_that_goes_away_ends_the_demo_quietly(tmp_path: Path) -> None:
    shell = f"'{SCRIPT}' demo 2>stderr | head -1"

    done = subprocess.run(
        ["sh", "-c", shell], cwd=tmp_path, env=environment({}), capture_output=True, timeout=60, check=True
    )

    assert done.stdout.startswith(b"oplata demo is ready")
    assert (tmp_path / "stderr").read_text(encoding="utf-8") == ""


@pytest.mark.parametrize("number", ["0", "-1", "100001", "many", "1.5"])
def test_an_absurd_number_of_orders_is_a_usage_error(tmp_path: Path, number: str) -> None:
    done = oplata("demo", "--orders", number, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert "--orders" in done.stderr
