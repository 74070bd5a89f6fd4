"""The shop of ``examples/handlers``, as its reader would run it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.acceptance.command import oplata, running
from tests.databases import execute, select_all

pytestmark = pytest.mark.anyio

EXAMPLE = Path(__file__).parents[2] / "examples" / "handlers"
TERMINAL = {"OPLATA_TERMINAL_KEY": "TestDEMO", "OPLATA_TERMINAL_PASSWORD": "open-sesame"}
WAIT_S = 30.0


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    return {
        **TERMINAL,
        "OPLATA_PORT": "0",
        "OPLATA_QUEUE_URL": f"sqlite:///{tmp_path / 'queue.db'}",
        "OPLATA_DATABASE_URL": f"sqlite:///{tmp_path / 'shop.db'}",
    }


def tables() -> list[str]:
    return [each for each in (EXAMPLE / "tables.sql").read_text("utf-8").split(";") if each.strip()]


async def until_shipped(url: str, expected: list[tuple[object, ...]]) -> None:
    ends_at_s = time.monotonic() + WAIT_S
    query = "SELECT order_id, state, amount_kopecks FROM shipments ORDER BY order_id"
    while await select_all(url, query) != expected:
        assert time.monotonic() < ends_at_s, await select_all(url, query)
        await asyncio.sleep(0.05)


async def test_the_example_ships_what_was_paid_and_holds_back_what_was_refunded(settings: dict[str, str]) -> None:
    url = settings["OPLATA_DATABASE_URL"]
    await execute(url, *tables())
    with running("up", "--app", "shop:app", cwd=EXAMPLE, **settings) as up:
        port = up.line("oplata up is ready").partition("http://127.0.0.1:")[2].partition("/")[0]

        async def run(*arguments: str) -> None:
            done = await asyncio.to_thread(oplata, *arguments, cwd=EXAMPLE, **(settings | {"OPLATA_PORT": port}))
            assert done.returncode == 0, done.stderr

        async def tell(number: int, status: str, amount: int) -> None:
            told = ("--order-id", f"A-{number}", "--payment-id", str(number), "--status", status)
            await run("trigger", *told, "--amount", str(amount))

        async def register(number: int) -> None:
            await run("orders", "register", "--order-id", f"A-{number}", "--amount", "19900")

        # The third is paid before the shop has told of it.
        await asyncio.gather(register(1), register(2), tell(3, "CONFIRMED", 19_900))
        await asyncio.gather(tell(1, "CONFIRMED", 19_900), tell(2, "CONFIRMED", 19_900), register(3))
        await tell(2, "REFUNDED", 0)
        await until_shipped(
            url, [("A-1", "to be packed", 19_900), ("A-2", "held back", 19_900), ("A-3", "to be packed", 19_900)]
        )
        assert up.stop() == 0


def test_an_app_that_cannot_be_loaded_ends_the_command_with_a_sentence(settings: dict[str, str]) -> None:
    refused = oplata("worker", "--app", "shop:application", cwd=EXAMPLE, **settings)

    assert (2, "") == (refused.returncode, refused.stdout)
    assert (
        refused.stderr
        == "oplata: --app shop:application: the module shop has no application. Did you mean --app shop:app?\n"
    )
