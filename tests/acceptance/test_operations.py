"""What an operator types when something went wrong: dead, replay and verify, as commands."""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest

from oplata.bank.masking import masked_body
from oplata.bank.simulator.payload import as_json, payment, signed
from oplata.cli.letters import printable
from oplata.cli.moment import Moment, said
from tests.acceptance.command import oplata, running

TERMINAL = {"OPLATA_TERMINAL_KEY": "TestDEMO", "OPLATA_TERMINAL_PASSWORD": "open-sesame"}
OLD = {"OPLATA_TERMINAL_KEY": "TestDEMO", "OPLATA_TERMINAL_PASSWORD": "before"}

Services = dict[str, str]


@pytest.fixture(params=["sqlite", "servers"])
def services(request: pytest.FixtureRequest) -> Services:
    """The settings of both rooms: files in the directory, or RabbitMQ and PostgreSQL."""
    if request.param == "sqlite":
        return {}
    return {
        "OPLATA_QUEUE_URL": request.getfixturevalue("amqp_url"),
        "OPLATA_QUEUE_NAME": request.getfixturevalue("queue_name"),
        "OPLATA_DATABASE_URL": request.getfixturevalue("postgres_url"),
    }


def body(status: str, order_id: str, payment_id: int, amount: int = 500) -> bytes:
    return as_json(signed(payment("TestDEMO", order_id, payment_id, status, amount), "open-sesame"))


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def bury(cwd: Path, services: Services, *bodies: bytes) -> None:
    """Put these into the queue past the endpoint, and let a worker that has another password find them."""
    script = """
import asyncio, base64, sys
from oplata.queue.envelope import Envelope
from oplata.settings import Settings
from oplata.settings.stores import queue_of

async def main():
    queue = queue_of(Settings.load())
    await queue.start()
    for each in sys.argv[1:]:
        envelope = Envelope(body=base64.b64decode(each), headers={"x-token": "s3cret", "x-shop": "Cafe"})
        await queue.publisher().publish(envelope, timeout_s=20)
    await queue.stop()

asyncio.run(main())
"""
    import sys

    from tests.acceptance.command import environment

    encoded = [base64.b64encode(each).decode() for each in bodies]
    settings = environment({**OLD, **services})
    subprocess.run([sys.executable, "-c", script, *encoded], cwd=cwd, env=settings, check=True, timeout=60)
    with running("worker", cwd=cwd, **OLD, **services) as worker:
        worker.line("oplata worker is ready")
        deadline_s = time.monotonic() + 20
        while len(lines(oplata("dead", "list", "--json", cwd=cwd, **services))) < len(bodies):
            assert time.monotonic() < deadline_s, worker.lines
            time.sleep(0.1)
        worker.stop()


def test_a_letter_is_found_shown_tried_redriven_and_paid(tmp_path: Path, services: Services) -> None:
    oplata("migrate", cwd=tmp_path, **services)
    oplata("orders", "register", "--order-id", "A-1", "--amount", "500", cwd=tmp_path, **services)
    bury(tmp_path, services, body("CONFIRMED", "A-1", 1), body("CONFIRMED", "A-2", 2), b"\xff\x00 no text")

    def dead(*arguments: str) -> subprocess.CompletedProcess[str]:
        return oplata("dead", *arguments, cwd=tmp_path, **TERMINAL, **services)

    [found] = lines(dead("list", "--json", "--order", "A-1", "--reason", "not_authentic", "--since", "1h"))
    assert (found["state"], found["terminalKey"], found["verified"], found["timesSeen"]) == (
        "open",
        "TestDEMO",
        False,
        1,
    )
    assert dead("list", "--until", "1h").stdout == ""
    listed = dead("list").stdout
    assert (len(listed.splitlines()), "order A-1 (unverified)" in listed) == (3, True)

    shown = dead("show", str(found["id"]))
    assert ('"OrderId":"A-1"' in shown.stdout, '"Token":"***"' in shown.stdout) == (True, True)
    assert ("x-shop: Cafe" in shown.stdout, "s3cret" in shown.stdout) == (True, False)
    [broken] = lines(dead("list", "--json", "--reason", "unreadable"))
    [page] = lines(dead("show", str(broken["id"]), "--json"))
    assert (page["body"], base64.b64decode(page["bodyBase64"])) == (None, b"\xff\x00 no text")

    tried = dead("redrive", "--all", "--dry-run")
    assert "order A-1: pending -> paid" in tried.stdout
    assert tried.stdout.splitlines()[-1] == (
        "2 would be applied, 0 are known already and would change nothing, 1 would end here again; nothing was changed"
    )
    moves = [each for each in lines(dead("redrive", "--all", "--dry-run", "--json")) if "after" in each]
    assert moves == [{"orderId": "A-1", "before": "pending", "after": "paid", "review": None}]
    assert len(lines(dead("list", "--json"))) == 3

    done = dead("redrive", "--reason", "not_authentic", "--why", "the new password is set", "--who", "olga")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "2 redriven")
    with running("worker", cwd=tmp_path, **TERMINAL, **services) as worker:
        worker.line("oplata worker is ready")
        deadline_s = time.monotonic() + 20
        while "paid" not in (order := oplata("orders", "show", "A-1", cwd=tmp_path, **services).stdout):
            assert time.monotonic() < deadline_s, order
            time.sleep(0.1)
        worker.stop()

    discarded = dead("discard", str(broken["id"]), "--why", "noise", "--json")
    [settled] = lines(dead("list", "--json", "--state", "discarded"))
    assert lines(discarded)[0]["outcome"] == "discarded"
    assert (settled["settledWhy"], settled["settledBy"] != "") == ("noise", True)
    assert {each["settledBy"] for each in lines(dead("list", "--json", "--state", "redriven"))} == {"olga"}
    assert dead("list").stdout == ""
    verified = oplata("verify", cwd=tmp_path, **TERMINAL, **services)
    assert (verified.returncode, verified.stdout.splitlines()[-1]) == (0, "no gap was found")
    assert "dead letters: 0 open, 2 redriven, 1 discarded" in verified.stdout


def test_verify_fails_with_the_gaps_and_replay_mends_them(tmp_path: Path) -> None:
    oplata("migrate", cwd=tmp_path)
    oplata("orders", "register", "--order-id", "A-1", "--amount", "500", cwd=tmp_path)
    bury(tmp_path, {}, body("CONFIRMED", "A-1", 1))
    oplata("dead", "redrive", "--all", "--why", "test", cwd=tmp_path, **TERMINAL)
    with running("worker", cwd=tmp_path, **TERMINAL) as worker:
        worker.line("oplata worker is ready")
        deadline_s = time.monotonic() + 20
        while "paid" not in oplata("orders", "show", "A-1", cwd=tmp_path).stdout:
            assert time.monotonic() < deadline_s
        worker.stop()
    with closing(sqlite3.connect(tmp_path / "oplata.db")) as connection:
        connection.execute("DELETE FROM payments")
        connection.commit()

    broken = oplata("verify", cwd=tmp_path, **TERMINAL)
    as_lines = lines(oplata("verify", "--json", cwd=tmp_path, **TERMINAL))
    foretold = oplata("replay", "--all", "--dry-run", cwd=tmp_path, **TERMINAL)
    still = oplata("verify", cwd=tmp_path, **TERMINAL)
    mended = oplata("replay", "--from", "1h", "--json", cwd=tmp_path, **TERMINAL)
    whole = oplata("verify", cwd=tmp_path, **TERMINAL)

    assert (broken.returncode, still.returncode, whole.returncode) == (1, 1, 0)
    assert "gap (payments-orders): order A-1 is stored as paid; its payments make it pending" in broken.stdout
    assert (as_lines[-1]["kind"], as_lines[-1]["gaps"], as_lines[-1]["paidOrders"]) == ("account", 3, 1)
    assert [each["kind"] for each in as_lines[:-1]] == ["gap"] * 3
    assert "payment 1: no evidence -> CONFIRMED" in foretold.stdout
    assert foretold.stdout.endswith("; nothing was changed\n")
    assert lines(mended)[-1] == {
        "kind": "summary",
        "dryRun": False,
        "callbacks": 1,
        "unreadable": 0,
        "pruned": 0,
        "eventsRecorded": 0,
        "eventsRestored": 0,
        "payments": 1,
        "paymentsMended": 1,
        "orders": 1,
        "ordersRestored": 0,
        "ordersChanged": 0,
        "rollupsMended": 0,
    }


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("dead", "redrive", "--why", "x"), "--all"),
        (("dead", "redrive", "--state", "all", "--why", "x"), "--all"),
        (("dead", "redrive", "--all"), "--why"),
        (("dead", "redrive", "1", "--why", "  "), "--why"),
        (("dead", "discard", "--all"), "--why"),
        (("dead", "discard"), "--all"),
        (("dead", "list", "--since", "yesterday"), "2h or 3d"),
        (("dead", "list", "--state", "lost"), "redriven"),
        (("replay",), "--all"),
    ],
)
def test_what_is_missing_is_said_and_nothing_is_done(tmp_path: Path, arguments: tuple[str, ...], why: str) -> None:
    oplata("migrate", cwd=tmp_path)
    done = oplata(*arguments, cwd=tmp_path, **TERMINAL)
    assert (done.returncode, why in done.stderr) == (2, True)


def test_an_id_that_is_not_there_is_exit_code_1(tmp_path: Path) -> None:
    oplata("migrate", cwd=tmp_path)
    for arguments in (("show", "7"), ("redrive", "7", "--why", "x"), ("discard", "7", "--why", "x")):
        done = oplata("dead", *arguments, cwd=tmp_path, **TERMINAL)
        assert (done.returncode, "there is no dead letter 7" in done.stderr) == (1, True)


def test_without_tables_each_command_is_a_sentence(tmp_path: Path) -> None:
    for arguments in (("dead", "list"), ("replay", "--all"), ("verify",)):
        done = oplata(*arguments, cwd=tmp_path, **TERMINAL)
        assert (done.returncode, "oplata migrate" in done.stderr, "Traceback" in done.stderr) == (1, True, False)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"Token":"abc","Pan":"430000******0777"}', b'{"Token":"***","Pan":"430000******0777"}'),
        (b'{"token" : "a\\"b", "RebillId":123}', b'{"token" : "***", "RebillId":"***"}'),
        (b'{"Token":"cut off', b'{"Token":"***"'),
        (b"Amount=1&Token=abc&Password=x", b"Amount=1&Token=***&Password=***"),
        (b'{"Pan":"4111111111111111"}', b'{"Pan":"411111******1111"}'),
        (b"4111 1111 1111 1111!", b"411111******1111!"),
        (b'{"OrderId":"4111111111111112"}', b'{"OrderId":"4111111111111112"}'),
        (b'\xff{"Token":"abc"}', b'\xff{"Token":"***"}'),
    ],
)
def test_a_shown_body_holds_no_token_and_no_card_number(body: bytes, shown: bytes) -> None:
    assert masked_body(body) == shown


def test_nothing_that_a_terminal_obeys_is_printed() -> None:
    assert printable("a\x1b[2J\x07я\u202e\n\tb") == "a\\x1b[2J\\x07я\\u202e\n\tb"


def test_an_amount_of_thousands_is_printed_as_it_is_written(tmp_path: Path) -> None:
    oplata("migrate", cwd=tmp_path)
    registered = oplata("orders", "register", "--order-id", "A-1", "--amount", "1234567", cwd=tmp_path)
    assert registered.stdout == "A-1  pending  12\N{NO-BREAK SPACE}345.67 RUB\n"


def test_a_moment_is_a_time_or_an_age() -> None:
    read = Moment().convert
    now_ms = time.time_ns() // 1_000_000

    assert abs(now_ms - 7_200_000 - read("2h", None, None)) < 5_000
    assert abs(now_ms - 3 * 86_400_000 - read("3d", None, None)) < 5_000
    at_ms = round(datetime(2026, 3, 1, 9, 30, tzinfo=UTC).timestamp() * 1000)
    assert read("2026-03-01T12:30:00+03:00", None, None) == read("2026-03-01T09:30", None, None) == at_ms
    assert read("2026-03-01T09:30:00Z", None, None) == at_ms
    assert (said(at_ms), said(None), said(10**18)) == ("2026-03-01 09:30:00Z", "-", f"{10**18} ms")
    for wrong in ("", "h", "2 hours", "-1h", "2026-13-01"):
        with pytest.raises(click.BadParameter):
            read(wrong, None, None)
