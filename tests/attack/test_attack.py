"""An attacker with the source and no key gets nowhere, and the bank is heard meanwhile. ``make attack`` does more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attack.__main__ import attack
from tests.attack.target import target
from tests.attack.tries import TRIES

pytestmark = pytest.mark.anyio


@pytest.mark.timeout(300)
async def test_no_attack_gets_further_than_it_may(tmp_path: Path) -> None:
    with target(tmp_path) as at:
        assert [name for name, _ in await attack(at, 0.05)] == [each.__name__ for each in TRIES]
