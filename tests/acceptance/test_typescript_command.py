"""``oplata typescript`` writes a router's types, and says when they are of yesterday."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.command import environment, oplata

SHOP = '''
from oplata.rpc import Router

router = Router()


@router.query
async def pizza_name(pizza_id: int) -> str:
    """Finds one."""
    return f"pizza {pizza_id}"
'''


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A directory of somebody's own, with a router in it."""
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    return tmp_path


def through_the_module(*arguments: str, cwd: Path) -> str:
    command = [sys.executable, "-m", "oplata.rpc", "typescript", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment({}), capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


@pytest.mark.parametrize("options", [(), ("--client", "v10"), ("--transformer", "superjson")])
def test_the_command_writes_what_the_module_writes(shop: Path, options: tuple[str, ...]) -> None:
    written = oplata("typescript", "shop:router", *options, cwd=shop)

    assert (0, "") == (written.returncode, written.stderr)
    assert through_the_module("shop:router", *options, cwd=shop) == written.stdout
    assert "pizzaName" in written.stdout
    assert "Finds one." in written.stdout


def test_the_options_change_what_is_written(shop: Path) -> None:
    texts = {oplata("typescript", "shop:router", *options, cwd=shop).stdout for options in ((), ("--client", "v10"))}

    assert 2 == len(texts)


def test_a_file_passes_the_check_until_the_router_changes(shop: Path) -> None:
    file = shop / "app-router.ts"
    options = ("typescript", "shop:router", "--out", str(file))

    assert 1 == oplata(*options, "--check", cwd=shop).returncode
    assert not file.exists()
    assert 0 == oplata(*options, cwd=shop).returncode
    assert 0 == oplata(*options, "--check", cwd=shop).returncode
    before = file.read_text(encoding="utf-8")
    (shop / "shop.py").write_text(SHOP.replace("pizza_name", "pizza_title"), encoding="utf-8")
    refused = oplata(*options, "--check", cwd=shop)

    assert 1 == refused.returncode
    assert "is not what the router says now" in refused.stderr
    assert before == file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("shop",), "not of the form module:router"),
        (("shop:nothing",), "cannot be loaded"),
        (("absent:router",), "cannot be loaded"),
        (("shop:router", "--check"), "--check needs the FILE"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(shop: Path, arguments: tuple[str, ...], sentence: str) -> None:
    refused = oplata("typescript", *arguments, cwd=shop)

    assert 2 == refused.returncode
    assert sentence in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_help_shows_a_newcomer_both_sides(shop: Path) -> None:
    told = oplata("typescript", "--help", cwd=shop)

    assert 0 == told.returncode
    assert "oplata typescript --out src/app-router.ts" in told.stdout
    assert "import type { AppRouter }" in told.stdout
    assert "typescript" in oplata("--help", cwd=shop).stdout
