"""The page that lists procedures and calls them, used in a real browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.rpc_conformance.processes import HERE, free_port, node_packages, our_server, running


@pytest.fixture(scope="module", autouse=True)
def _packages() -> None:
    node_packages()


def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("The panel's test needs a browser on the PATH: apt-get install chromium.")
    return found


def test_the_page_is_used_with_mouse_and_keyboard_in_light_and_dark(tmp_path: Path) -> None:
    port = free_port()
    with running([*our_server(port), "--panel"], port):
        command = ["node", "panel.mjs", f"http://127.0.0.1:{port}/panel/", browser(), str(tmp_path)]
        outcome = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=100, check=False)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    steps = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [step for step in steps if step["failure"] is not None] == []
    assert len(steps) == 22
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "panel-dark.png",
        "panel-light.png",
        "panel-narrow.png",
    ]


def test_the_page_is_not_there_unless_asked_for() -> None:
    port = free_port()
    with running(our_server(port), port), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/panel/").status_code == 404


def test_the_page_allows_nothing_from_elsewhere() -> None:
    port = free_port()
    with running([*our_server(port), "--panel"], port), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        answer = client.get("/panel/")
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert client.get("/panel").headers["location"] == "/panel/"
        assert client.get("/panel/../secret").status_code == 404
        assert client.post("/panel/").status_code == 405
