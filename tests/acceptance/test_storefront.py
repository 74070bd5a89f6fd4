"""A shop's own pages call our router, with the types that ``oplata typescript`` writes: compiled, and run."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.street import TERMINAL, Street, notification, tell
from tests.chaos.offspring import Offspring, migrate
from tests.services.node import Node

pytestmark = pytest.mark.anyio

DOOR = {"OPLATA_INSECURE": "false", "OPLATA_BUYER_TOKEN_KEYS": "0123456789abcdef" * 2}


@pytest.fixture
def project(node: Node, tmp_path: Path) -> Path:
    """The example, in a directory of its own with the same packages."""
    folder = tmp_path / "storefront"
    folder.mkdir()
    for name in ("package.json", "tsconfig.json", "storefront.ts"):
        shutil.copy(node.folder / name, folder)
    (folder / "node_modules").symlink_to(node.folder / "node_modules")
    return folder


def compiled(node: Node, project: Path) -> str:
    """The compiler's complaints; nothing if it has none."""
    command = [node.program, str(node.folder / "node_modules/typescript/bin/tsc"), "-p", "."]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=100, check=False).stdout


async def test_their_frontend_calls_ours_with_the_generated_types(node: Node, project: Path, tmp_path: Path) -> None:
    street = Street(node, tmp_path, TERMINAL | DOOR)
    try:
        await street.run("typescript", "--out", str(project / "app-router.ts"))
        assert await asyncio.to_thread(compiled, node, project) == ""
        await migrate(tmp_path, TERMINAL)
        key = json.loads(await street.run("keys", "create", "shop", "--scope", "write", "--json"))["key"]
        up, url = await street.ours("up")
        settings = {"RPC_URL": f"{url}/api/trpc", "API_KEY": key, "ORDER_ID": "A-1"}
        command = [node.program, str(project / "built" / "storefront.js")]
        pages = await street.begin(Offspring("storefront", command, folder=project, settings=settings))
        await pages.until_said("event A-1 1 pending")
        assert await tell(url, notification("A-1", 1)) == "OK"

        assert await pages.ended() == 0, pages.tail()
        assert pages.tail().splitlines() == [
            "registered A-1 19900 pending",
            "of another order: FORBIDDEN",
            "storefront is ready",
            "event A-1 1 pending true",
            "event A-1 2 paid true",
        ]
        assert await up.stop() == 0, up.tail()
    finally:
        await street.clear()


async def test_the_compiler_refuses_what_the_router_does_not_know(node: Node, project: Path, tmp_path: Path) -> None:
    await Street(node, tmp_path, TERMINAL).run("typescript", "--out", str(project / "app-router.ts"))
    source = (project / "storefront.ts").read_text(encoding="utf-8")
    (project / "storefront.ts").write_text(
        source.replace("amount: 19_900", "amount: '199'").replace("data.status === 'paid'", "data.status === 'payed'"),
        encoding="utf-8",
    )

    complaints = await asyncio.to_thread(compiled, node, project)

    assert "Type 'string' is not assignable to type 'number'" in complaints
    assert '"payed"' in complaints
