"""No secret and no card gets out: they are fed through all of the program, and every output is searched for them.

The outputs are the log of each process, what is printed, the metrics, the health pages, the spans and the reports to
Sentry, and what the commands show.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.command import Running, oplata, running
from tests.notifications import signed_by_hand
from tests.services.recorder import Recorder, recorder
from tests.services.server import free_port

PASSWORD = "open-sesame-5tz"
CARD, CARD_ID, REBILL, EXPIRY = "4300009876540774", "cardid-771122", "rebill-994411", "1229-exp"
MAIL, WRONG_TOKEN, DSN_KEY = "olga.buyer@example.test", "f" * 63 + "7", "dsnkey4711"
HANDLER_WORD = "handler-said-card-4300009876540774"
HIDDEN = (PASSWORD, CARD, CARD_ID, REBILL, EXPIRY, MAIL, WRONG_TOKEN, DSN_KEY, HANDLER_WORD)

SHOP = f"""
from oplata import Handlers
app = Handlers()

@app.on("refunded")
async def ship(change, tx):
    raise RuntimeError("{HANDLER_WORD[::-1]}"[::-1])
"""


def notification(order_id: str, status: str = "CONFIRMED", **more: object) -> dict[str, object]:
    fields: dict[str, object] = {
        "TerminalKey": "TestDEMO",
        "OrderId": order_id,
        "PaymentId": f"7{order_id[-1]}",
        "Status": status,
        "Success": True,
        "Amount": 500,
        "ErrorCode": "0",
        "Pan": CARD,
        "CardId": CARD_ID,
        "RebillId": REBILL,
        "ExpDate": EXPIRY,
        "Email": MAIL,
    }
    return fields | more


@pytest.fixture
def sink() -> Iterator[Recorder]:
    with recorder() as recording:
        yield recording


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.1)


def feed(url: str) -> list[str]:
    """Good and bad callbacks; returns the tokens that were right."""
    tokens: list[str] = []
    good = [notification("A-1"), notification("A-1"), notification("A-2"), notification("A-1", "REFUNDED")]
    for fields in good:
        body = signed_by_hand(fields, PASSWORD)
        tokens.append(json.loads(body)["Token"])
        assert httpx.post(url, content=body).text == "OK"
    bad: list[bytes] = [
        json.dumps(notification("A-3", Token=WRONG_TOKEN)).encode(),
        json.dumps(notification("A-3", Token=[CARD])).encode(),
        json.dumps(notification("A-3")).encode()[:-9],
        f"Pan={CARD}&Token={WRONG_TOKEN}".encode(),
        CARD.encode() + b"\xff" * 40,
        b"",
    ]
    for body in bad:
        assert httpx.post(url, content=body).status_code in (400, 403)
    assert httpx.post(f"{url}?pan={CARD}", content=b"{}", headers={"content-encoding": "x"}).status_code == 400
    assert httpx.get(f"{url}/{CARD}", headers={"cookie": PASSWORD}).status_code == 404
    return tokens


def bury(folder: Path) -> None:
    """Put what cannot be applied past the endpoint, as somebody else who writes to the queue might."""
    program = (
        "import asyncio, sys\n"
        "from oplata.queue.envelope import Envelope\n"
        "from oplata.queue.sqlite import SqliteQueue\n"
        "async def main():\n"
        "    queue = SqliteQueue('oplata-queue.db')\n"
        "    await queue.start()\n"
        "    for body in sys.argv[1:]:\n"
        "        envelope = Envelope(body=body.encode(), headers={'x-pan': body[:60]})\n"
        "        await queue.publisher().publish(envelope, timeout_s=5)\n"
        "    await queue.stop()\n"
        "asyncio.run(main())\n"
    )
    wrong = json.dumps(notification("A-4", Token=WRONG_TOKEN))
    subprocess.run([sys.executable, "-c", program, wrong, f"no json {CARD}"], cwd=folder, check=True, timeout=60)


def test_no_secret_and_no_card_gets_out(tmp_path: Path, sink: Recorder) -> None:
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    port = free_port()
    settings = {
        "OPLATA_TERMINAL_KEY": "TestDEMO",
        "OPLATA_TERMINAL_PASSWORD": PASSWORD,
        "OPLATA_LOG_LEVEL": "debug",
        "OPLATA_LOG_ACCEPTED": "1",
        "OPLATA_METRICS_PORT": str(port),
        "OPLATA_SURVEY_INTERVAL_S": "1",
        "OPLATA_CANARY_INTERVAL_S": "1",
        "OPLATA_TRACING": "on",
        "OPLATA_TRACE_URL": f"{sink.url}/v1/traces",
        "OPLATA_SENTRY_DSN": sink.url.replace("http://", f"http://{DSN_KEY}@") + "/7",
        "OPLATA_MAX_ATTEMPTS": "1",
        "PYTHONPATH": str(tmp_path),
    }
    with running("up", "--port", "0", "--app", "shop:app", cwd=tmp_path, **settings) as up:
        ready = up.line("oplata up is ready")
        oplata("orders", "register", "--order-id", "A-1", "--amount", "500", cwd=tmp_path, **settings)
        tokens = feed(next(word for word in ready.split() if word.startswith("http://")))
        bury(tmp_path)
        base = f"http://127.0.0.1:{port}"
        eventually(lambda: 'reason="handler_failed"' in httpx.get(f"{base}/metrics").text, "a handler failed")
        eventually(lambda: 'reason="not_authentic"' in httpx.get(f"{base}/metrics").text, "a letter was buried")
        pages = [httpx.get(f"{base}{path}").text for path in ("/metrics", "/healthz", "/readyz")]
        shown = [
            oplata(*command.split(), cwd=tmp_path, **settings)
            for command in ("dead list --json", "dead show 1", "orders show A-1 --json", "config show")
        ]
        assert up.stop() == 0
    spans, reports = sink.bodies("/v1/traces"), sink.bodies("/envelope")
    outputs: dict[str, bytes] = {
        "log": "\n".join(up.lines).encode(),
        "pages": "\n".join(pages).encode(),
        "spans": b"\n".join(spans),
        "reports": b"\n".join(reports),
        "commands": "\n".join(each.stdout + each.stderr for each in shown).encode(),
    }
    for name, wanted in _SEEN.items():
        assert [each for each in wanted if each.encode() not in outputs[name]] == [], name
    found = {
        (name, secret) for name, output in outputs.items() for secret in (*HIDDEN, *tokens) if secret.encode() in output
    }
    # Whoever asks to see a dead letter sees the buyer's address in its body.
    assert found == {("commands", MAIL)}
    assert _lines(up, "callback.accepted") == 4


_SEEN = {
    "log": ("callback.accepted", "callback.refused", "worker.bury", "A-1", "trace_id"),
    "pages": ("oplata_callbacks_total", '"status":"ok"'),
    "spans": ("callback", "publish", "apply", "A-1"),
    "reports": ("worker.bury", "not_authentic", "handler_failed", "A-4"),
    "commands": ("not_authentic", "A-1", "terminal_password"),
}
"""What has to be there, so that an output that says nothing at all is not taken for one that hides well."""


def _lines(up: Running, action: str) -> int:
    return sum(f'"action": "{action}"' in line for line in up.lines)
