"""``Oplata`` inside somebody else's process: started by hand, by a lifespan, and more than once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from oplata import Oplata, OrderView, Role, Settings, SettingsError
from oplata.bank.simulator import payload

pytestmark = pytest.mark.anyio

PATH = "/api/tinkoff-callback"


def settings(folder: Path) -> Settings:
    return Settings(
        terminal_key="TestDEMO",
        terminal_password="open-sesame",
        queue_url=f"sqlite:///{folder / 'queue.db'}",
        database_url=f"sqlite:///{folder / 'orders.db'}",
    )


def body(order_id: str, amount_kopecks: int, payment_id: int = 1) -> bytes:
    fields = payload.payment("TestDEMO", order_id, payment_id, "CONFIRMED", amount_kopecks)
    return payload.as_json(payload.signed(fields, "open-sesame"))


async def post(app: Oplata, content: bytes) -> str:
    transport = httpx.ASGITransport(app=app.asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        return (await client.post(PATH, content=content)).text


async def paid(app: Oplata, order_id: str) -> OrderView:
    async with asyncio.timeout(20):
        while True:
            if (view := await app.orders.get(order_id)).status == "paid":
                return view
            await asyncio.sleep(0.02)


async def test_an_embedded_app_takes_a_callback_and_pays_the_order(tmp_path: Path) -> None:
    async with Oplata(settings(tmp_path)) as app:
        await app.orders.register("A-1", 500)
        assert await post(app, body("A-1", 500)) == "OK"

        assert (await paid(app, "A-1")).payments[0].status == "CONFIRMED"


async def test_its_lifespan_starts_and_stops_it(tmp_path: Path) -> None:
    app = Oplata(settings(tmp_path))

    async with app.asgi.router.lifespan_context(app.asgi):
        await app.orders.register("A-1", 500)
        await post(app, body("A-1", 500))
        await paid(app, "A-1")


async def test_it_may_be_started_and_stopped_repeatedly(tmp_path: Path) -> None:
    app = Oplata(settings(tmp_path))
    await app.stop()
    for order_id in ("A-1", "A-2"):
        await app.start()
        await app.start()
        await app.orders.register(order_id, 500)
        assert await post(app, body(order_id, 500, payment_id=int(order_id[-1]))) == "OK"
        await paid(app, order_id)
        await app.stop()
        await app.stop()


async def test_what_one_role_takes_another_applies(tmp_path: Path) -> None:
    async with Oplata(settings(tmp_path)) as first:
        await first.orders.register("A-1", 500)
    async with Oplata(settings(tmp_path), role=Role.SERVE) as serve:
        assert await post(serve, body("A-1", 500)) == "OK"
    async with Oplata(settings(tmp_path), role=Role.WORKER) as worker:
        await paid(worker, "A-1")


async def test_a_start_that_fails_leaves_nothing_running(tmp_path: Path) -> None:
    (tmp_path / "orders.db").write_bytes(b"this is no database" * 100)
    app = Oplata(settings(tmp_path))

    with pytest.raises(Exception, match="database"):
        await app.start()

    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("oplata")]
    (tmp_path / "orders.db").unlink()
    async with app:
        await app.orders.register("A-1", 500)


async def test_without_a_terminal_there_is_no_app() -> None:
    with pytest.raises(SettingsError, match="OPLATA_TERMINAL_KEY"):
        Oplata(Settings())
