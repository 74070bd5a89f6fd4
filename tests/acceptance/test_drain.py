"""A restart in good order while callbacks come in: whoever sent one over an open connection is answered."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from oplata.bank.simulator.traffic import Callback
from tests.acceptance.test_kill9 import house
from tests.chaos.bank import Bank
from tests.chaos.facts import happenings
from tests.chaos.line import Endpoint

pytestmark = pytest.mark.anyio

SEED = 21
CALLBACKS = 3_000
RATE = 400.0
RESTARTS = 3
SETTLE_S = 50.0


async def test_a_restart_in_good_order_answers_every_request(tmp_path: Path) -> None:
    async with house(tmp_path, "embedded", {}) as here:
        bank = Bank([Endpoint(here.port)], random.Random(SEED), resend_s=(0.05, 0.3))
        told = (each for each in happenings(SEED, CALLBACKS) if isinstance(each, Callback))
        pouring = asyncio.create_task(bank.pour(told, RATE))
        for _ in range(RESTARTS):
            begun = bank.ledger.accepted
            while bank.ledger.accepted < begun + RATE / 2:  # noqa: ASYNC110  It is another process that accepts.
                await asyncio.sleep(0.02)
            await here.serve.stop()
            await here.serve.start()
            await here.serve.until_said("is ready")
        await pouring
        ledger = await bank.settle(SETTLE_S)

    assert ledger.pending == []
    assert here.serve.codes == [0] * (RESTARTS + 1)
    assert {answer for answer in ledger.outcomes if "forged" not in answer} <= {"200", "refused"}
    assert ledger.resets == []
