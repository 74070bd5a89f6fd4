"""The types of the orders' router, as ``oplata typescript`` writes them, for the compiler to judge."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.acceptance.command import oplata
from tests.rpc_conformance.processes import HERE as PACKAGES
from tests.rpc_conformance.processes import node_packages
from tests.typing.test_typescript import CHECKS, OPTIONS


@pytest.mark.parametrize("client", ["11.0", "11.25"])
def test_the_compiler_accepts_the_orders_router(client: str) -> None:
    node_packages()
    with tempfile.TemporaryDirectory(prefix=".typing-", dir=PACKAGES / "clients" / client) as directory:
        project = Path(directory)
        assert oplata("typescript", "--out", "app-router.ts", cwd=project).returncode == 0
        (project / "check.ts").write_text((CHECKS / "check.orders.ts").read_text("utf-8"), encoding="utf-8")
        config = {"compilerOptions": OPTIONS, "files": ["check.ts"]}
        (project / "tsconfig.json").write_text(json.dumps(config), encoding="utf-8")
        command = ["node", str(PACKAGES / "node_modules" / "typescript-7" / "bin" / "tsc"), "-p", "."]
        assert subprocess.run(command, cwd=project, capture_output=True, text=True, check=False).stdout == ""
