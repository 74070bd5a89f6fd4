"""The distributed shape: ``serve`` and ``worker`` as separate processes, on RabbitMQ and PostgreSQL."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.acceptance.command import oplata, running

TERMINAL = {"OPLATA_TERMINAL_KEY": "TestDEMO", "OPLATA_TERMINAL_PASSWORD": "open-sesame"}


def test_a_callback_becomes_a_paid_order_through_rabbitmq_and_postgresql(
    tmp_path: Path, amqp_url: str, postgres_url: str, queue_name: str
) -> None:
    settings = {
        **TERMINAL,
        "OPLATA_QUEUE_URL": amqp_url,
        "OPLATA_QUEUE_NAME": queue_name,
        "OPLATA_DATABASE_URL": postgres_url,
    }
    assert oplata("migrate", cwd=tmp_path, **settings).returncode == 0
    doctor = oplata("doctor", cwd=tmp_path, **settings)
    assert doctor.returncode == 0, doctor.stdout
    oplata("orders", "register", "--order-id", "A-1", "--amount", "500", cwd=tmp_path, **settings)

    with (
        running("worker", cwd=tmp_path, **settings) as worker,
        running("serve", "--port", "0", cwd=tmp_path, **settings) as serve,
    ):
        ready = serve.line("oplata serve is ready")
        worker.line("oplata worker is ready")
        url = next(word for word in ready.split() if word.startswith("http://"))
        order = ("--order-id", "A-1", "--status", "CONFIRMED", "--amount", "500", "--url", url)
        answers = [oplata("trigger", *order, cwd=tmp_path, **settings).stdout for _ in range(2)]
        deadline_s = time.monotonic() + 20
        while True:
            shown = json.loads(oplata("orders", "show", "A-1", "--json", cwd=tmp_path, **settings).stdout)
            if shown["status"] == "paid" or time.monotonic() > deadline_s:
                break
            time.sleep(0.05)
        codes = (serve.stop(), worker.stop())

    assert (answers, codes, shown["status"]) == (["200 OK\n"] * 2, (0, 0), "paid")
    passwords = [url.partition("://")[2].partition("@")[0].partition(":")[2] for url in (amqp_url, postgres_url)]
    written = "\n".join([*serve.lines, *worker.lines, doctor.stdout])
    assert [password for password in passwords if password and password in written] == []


def test_a_database_that_is_away_keeps_the_worker_waiting_and_loses_nothing(tmp_path: Path) -> None:
    nowhere = {**TERMINAL, "OPLATA_DATABASE_URL": "postgresql://shop:hidden@127.0.0.1:1/shop"}
    with running("worker", cwd=tmp_path, **nowhere) as worker:
        worker.line("oplata worker is ready")
        code = worker.stop()
    sick = oplata("orders", "list", cwd=tmp_path, **nowhere)

    assert code == 0
    assert (sick.returncode, sick.stdout) == (1, "")
    assert "Traceback" not in sick.stderr
    assert "hidden" not in sick.stderr + "\n".join(worker.lines)
