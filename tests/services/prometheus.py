"""Prometheus as Debian packages it: its checker ``promtool``, and a server of our own for a while."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.services.server import ServiceError, free_port

PACKAGE = "prometheus"
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0


def installed() -> bool:
    """Whether both programs are on this machine."""
    return all(map(shutil.which, ("prometheus", "promtool")))


def promtool(*arguments: str, cwd: Path) -> str:
    """Run it and return what it says. Raises ``ServiceError`` when it is absent or complains."""
    if not installed():
        raise ServiceError(
            "The tests need promtool: run `make test` as root on Debian or Ubuntu, or install Prometheus"
        )
    done = subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise ServiceError(f"promtool {' '.join(arguments)} failed: {done.stdout}{done.stderr}")
    return done.stdout


class Prometheus:
    """A server that runs; ``query`` asks it."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression now. Raises for one that Prometheus does not understand."""
        answer = httpx.get(f"{self._url}/api/v1/query", params={"query": expression}, timeout=10)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        alerts = httpx.get(f"{self._url}/api/v1/alerts", timeout=10).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


@contextmanager
def scraping(targets: Sequence[str], rules: Path, *, interval_s: int) -> Iterator[Prometheus]:
    """A Prometheus that scrapes these and holds these rules, until the end of the block."""
    if not installed():
        raise ServiceError("This needs Prometheus: run `make test` as root on Debian or Ubuntu, or install it.")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="oplata-prometheus-") as directory:
        config = Path(directory) / "prometheus.yaml"
        config.write_text(
            f"global: {{scrape_interval: {interval_s}s, evaluation_interval: {interval_s}s}}\n"
            f"rule_files: ['{rules}']\n"
            f"scrape_configs: [{{job_name: oplata, static_configs: [{{targets: {list(targets)}}}]}}]\n",
            encoding="utf-8",
        )
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=error",
            ],
            stdin=subprocess.DEVNULL,
        )
        try:
            _await_ready(f"http://127.0.0.1:{port}", process)
            yield Prometheus(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            try:
                process.wait(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise ServiceError(f"Prometheus ended at its start, with code {process.returncode}.")
        try:
            if httpx.get(f"{url}/-/ready", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise ServiceError("Prometheus did not become ready.")
