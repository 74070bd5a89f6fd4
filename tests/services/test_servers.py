"""The private servers are real: a kill is a kill, the data outlives it, and nothing is left running."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pika
import pytest

from tests.services import containers, find, ledger, release
from tests.services.breakable import NEW_QUEUE_S, Breakable
from tests.services.node import Node
from tests.services.processes import ProcessId, alive, ask_to_end, descendants, identify, kill9
from tests.services.server import ServiceError, answers, free_port


@pytest.mark.anyio
async def test_committed_rows_outlive_a_kill_of_the_database(database_server: Breakable) -> None:
    connection = await asyncpg.connect(database_server.url)
    await connection.execute("CREATE TABLE survivor AS SELECT 42 AS answer")

    await database_server.kill9()

    with pytest.raises((OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
        await connection.execute("SELECT 1")
    with pytest.raises(OSError, match="Connect"):
        await asyncpg.connect(database_server.url)
    connection.terminate()

    await database_server.start()
    connection = await asyncpg.connect(database_server.url)
    assert await connection.fetchval("SELECT answer FROM survivor") == 42
    assert await connection.fetchval("SHOW fsync") == "on"
    await connection.execute("DROP TABLE survivor")
    await connection.close()


@pytest.mark.anyio
async def test_confirmed_messages_outlive_a_kill_and_a_restart_of_the_broker(
    broker: Breakable, queue_name: str
) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        channel.queue_declare(queue_name, durable=True, arguments={"x-queue-type": "quorum"})
        channel.confirm_delivery()
        await asyncio.sleep(NEW_QUEUE_S)
        channel.basic_publish("", queue_name, b"kept", pika.BasicProperties(delivery_mode=2), mandatory=True)

    await broker.kill9()
    assert not answers("amqp", "127.0.0.1", broker.port)
    await broker.start()
    await broker.restart()

    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        assert channel.basic_get(queue_name, auto_ack=True)[2] == b"kept"
        channel.queue_delete(queue_name)


@pytest.mark.anyio
async def test_each_test_has_an_empty_database_of_its_own(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    tables = await connection.fetch("SELECT * FROM pg_tables WHERE schemaname = 'public'")
    await connection.close()

    assert tables == []


def test_a_kill_takes_children_that_lead_their_own_session() -> None:
    script = "import subprocess, time; subprocess.Popen(['sleep', '60'], start_new_session=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", script])
    identity = identify(parent.pid)
    assert identity is not None
    deadline = time.monotonic() + 10
    while not (children := descendants(identity)) and time.monotonic() < deadline:
        time.sleep(0.01)

    kill9(identity)

    assert (parent.wait(), len(children), [alive(child) for child in children]) == (-signal.SIGKILL, 1, [False])


def test_a_process_id_that_was_given_out_again_is_somebody_else() -> None:
    mine = ledger.owner_of_this_run()
    earlier = ProcessId(mine.pid, mine.started - 1)

    assert not ask_to_end_would_reach(earlier)
    assert alive(mine)


def ask_to_end_would_reach(process: ProcessId) -> bool:
    """Signals of a stranger's id go nowhere: were this one sent, the run would end here."""
    assert ask_to_end(process, signal.SIGKILL, 0.1)
    return alive(process)


def test_what_a_dead_run_left_behind_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "FOLDER", tmp_path / "ledger")
    data = tmp_path / "data"
    data.mkdir()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as left:
        identity = identify(left.pid)
        assert identity is not None
        dead_owner = ProcessId(os.getpid(), 1)
        record = ledger.Record("left", "amqp", "amqp://127.0.0.1:1/", str(data), dead_owner, [identity])
        ledger.write(record)

        ledger.sweep()

    assert (left.returncode, data.exists(), ledger.read()) == (-signal.SIGKILL, False, [])


def test_a_server_of_a_living_run_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "FOLDER", tmp_path / "ledger")
    owner = ledger.owner_of_this_run()
    record = ledger.Record("mine", "database", "postgresql://127.0.0.1:1/", str(tmp_path), owner, [owner])
    ledger.write(record)

    ledger.sweep()

    assert ledger.read() == [record]


def test_a_url_in_the_environment_that_nobody_answers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPLATA_TEST_AMQP_URL", f"amqp://guest:hidden@127.0.0.1:{free_port()}/")

    with pytest.raises(ServiceError, match=r"OPLATA_TEST_AMQP_URL names 127.0.0.1:.*no RabbitMQ") as caught:
        find.given("amqp")
    assert "hidden" not in str(caught.value)


def test_where_there_is_nothing_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "programs_installed", lambda kind: False)
    monkeypatch.setattr(containers, "installed", lambda: False)

    with pytest.raises(ServiceError, match=r"need PostgreSQL: run `make services` as root.*OPLATA_TEST_DATABASE_URL"):
        find.private("database")


def test_a_free_port_lies_below_those_of_outgoing_connections() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        assert 20_000 <= port < 32_000


def test_node_finds_the_packages_of_the_tests(node: Node) -> None:
    done = subprocess.run(
        [node.program, "-p", "typeof require('amqplib').connect"],
        cwd=node.folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert done.stdout.strip() == "function"


def test_a_release_that_is_no_word_is_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(release.VARIABLE, "../etc")
    with pytest.raises(ServiceError, match="the name of a Debian release, such as trixie"):
        release.root()


def test_a_program_of_another_release_runs_in_its_folder_and_under_its_user(tmp_path: Path) -> None:
    command = release.entering(tmp_path, ["initdb", "-D", "/srv/data"], "postgres")
    assert ["--userspec=postgres:postgres", str(tmp_path), "initdb", "-D", "/srv/data"] == command[-5:]


def test_a_user_of_another_release_has_the_numbers_of_that_release(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\npostgres:x:101:103::/:/bin/sh\n", encoding="utf-8")
    assert release.ids_of(tmp_path, "postgres") == (101, 103)
