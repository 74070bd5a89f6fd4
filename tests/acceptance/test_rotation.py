"""A password is changed under load, without a restart and without a refused callback."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.command import Running, oplata, running
from tests.acceptance.test_commands import url_in
from tests.databases import select_all
from tests.notifications import TERMINAL_KEY, signed_by_hand

pytestmark = pytest.mark.anyio

CLIENTS = 4


class Load:
    """Callbacks without a pause, signed with whatever password the bank has at the moment."""

    def __init__(self, url: str, password: str) -> None:
        self._host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
        self._port = int(port)
        self.password = password
        self.answers: Counter[str] = Counter()
        self.going = True
        self._sent = 0

    async def run(self) -> None:
        """Send until ``going`` is taken away."""
        await asyncio.gather(*(self._client() for _ in range(CLIENTS)))

    async def more(self, count: int) -> None:
        """Wait until so many more were answered."""
        enough = self.answers.total() + count
        deadline_s = time.monotonic() + 30
        while self.answers.total() < enough:
            assert time.monotonic() < deadline_s, self.answers
            await asyncio.sleep(0.02)

    async def _client(self) -> None:
        while self.going:
            self._sent += 1
            fields = {"TerminalKey": TERMINAL_KEY, "OrderId": f"o{self._sent}", "PaymentId": self._sent}
            body = signed_by_hand(fields | {"Status": "NEW", "Success": True, "Amount": 100}, self.password)
            reader, writer = await asyncio.open_connection(self._host, self._port)
            head = f"POST /api/tinkoff-callback HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
            status = (await asyncio.wait_for(reader.read(), 20)).split(b"\r\n", 1)[0].decode()
            self.answers[status] += 1
            writer.close()
            await writer.wait_closed()
            await asyncio.sleep(0.005)


async def hang_up(process: Running, said: str, times: int) -> None:
    process.process.send_signal(signal.SIGHUP)
    for _ in range(times):
        await asyncio.to_thread(process.line, '{"action": "app.rotate"')
    assert sum(said in line for line in process.lines) >= times, process.lines


async def test_a_password_is_rotated_under_load_and_nothing_is_refused(tmp_path: Path) -> None:
    secret, settings = tmp_path / "password", {"OPLATA_TERMINAL_KEY": TERMINAL_KEY}
    settings["OPLATA_TERMINAL_PASSWORD_FILE"] = str(secret)
    secret.write_text("old\n", encoding="utf-8")
    oplata("migrate", cwd=tmp_path)
    with running("serve", "--port", "0", "--processes", "2", cwd=tmp_path, **settings) as serve:
        url = url_in(serve.line("oplata serve 1 is ready"))
        await asyncio.to_thread(serve.line, "oplata serve is ready")
        load = Load(url, "old")
        sending = asyncio.create_task(load.run())
        await load.more(40)
        secret.write_text("new\nold\n", encoding="utf-8")
        await hang_up(serve, "were read anew", 2)
        load.password = "new"
        await load.more(40)
        # What was queued before lies there with the old password, and the worker has not begun.
        with running("worker", cwd=tmp_path, **settings) as worker:
            await asyncio.to_thread(worker.line, "oplata worker is ready")
            secret.write_text("", encoding="utf-8")
            await hang_up(serve, "the passwords stay", 2)
            await load.more(20)
            secret.write_text("new", encoding="utf-8")
            await until_applied(tmp_path, load.answers.total() - CLIENTS)
            await hang_up(serve, "were read anew", 2)
            await hang_up(worker, "were read anew", 1)
            await load.more(20)
            load.going = False
            await sending
            await until_applied(tmp_path, load.answers.total())
            assert await asyncio.to_thread(worker.stop) == 0
        assert await asyncio.to_thread(serve.stop) == 0

    assert set(load.answers) == {"HTTP/1.1 200 OK"}
    assert await select_all(f"sqlite:///{tmp_path / 'oplata.db'}", "SELECT count(*) FROM dead_letters") == [(0,)]


async def until_applied(folder: Path, count: int) -> None:
    deadline_s = time.monotonic() + 30
    rows: list[tuple[object, ...]] = []
    while time.monotonic() < deadline_s:
        rows = await select_all(f"sqlite:///{folder / 'oplata.db'}", "SELECT count(*) FROM events")
        if int(str(rows[0][0])) >= count:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{rows} of {count} were applied in time")
