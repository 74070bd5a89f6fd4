"""A real process, keys from the command line, and the client that shops have."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.acceptance.command import oplata, running
from tests.rpc_conformance.processes import HERE as PACKAGES
from tests.rpc_conformance.processes import node_packages

TERMINAL = {"OPLATA_TERMINAL_KEY": "TestDEMO", "OPLATA_TERMINAL_PASSWORD": "open-sesame"}
DOOR = {**TERMINAL, "OPLATA_INSECURE": "false", "OPLATA_BUYER_TOKEN_KEYS": "0123456789abcdef" * 2}


def a_key(cwd: Path, scope: str) -> str:
    made = oplata("keys", "create", f"the {scope} key", "--scope", scope, cwd=cwd)
    assert (made.returncode, made.stderr.count(made.stdout.strip())) == (0, 0)
    return made.stdout.strip()


def test_the_client_from_npm_calls_and_watches_and_gets_no_further_than_its_key(tmp_path: Path) -> None:
    node_packages()
    refused = oplata("up", "--port", "0", cwd=tmp_path, **DOOR)
    assert refused.returncode == 2
    assert "There is no API key that opens /api/trpc. Make one with `oplata keys create" in refused.stderr
    keys = {scope: a_key(tmp_path, scope) for scope in ("read", "write")}
    with running("up", "--port", "0", cwd=tmp_path, **DOOR) as up:
        url = up.line("oplata up is ready").split()[5].removesuffix("/api/tinkoff-callback") + "/api/trpc"
        given = json.dumps({"url": url, **keys})
        command = ["node", "orders.mjs", given]
        done = subprocess.run(command, cwd=PACKAGES, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert up.stop() == 0
    assert json.loads(done.stdout) == {
        "registered": ["pending", 100, 0],
        "fetch": [[401, "UNAUTHORIZED"], [403, "FORBIDDEN"], [200, "paid"], [200, "paid"]],
        "watched": ["pending", "paid"],
        "resumed": [[True, "paid"]],
        "buyer": ["FORBIDDEN", "FORBIDDEN", "FORBIDDEN", "paid", "UNAUTHORIZED"],
    }
    logged = "\n".join(up.lines)
    assert not any(key.rpartition("_")[2] in logged for key in keys.values())
    audit = [json.loads(line) for line in oplata("audit", "--json", cwd=tmp_path).stdout.splitlines()]
    assert [each["action"] for each in audit] == ["order.status", "key.created", "key.created"]
    assert audit[0]["actor"].startswith("the write key (")


def test_the_commands_do_what_the_calls_do(tmp_path: Path) -> None:
    oplata("migrate", cwd=tmp_path)
    oplata("orders", "register", "--order-id", "A-1", "--amount", "500", cwd=tmp_path)
    said = oplata("orders", "status", "A-1", "paid", "--why", "in cash", "--who", "olga", cwd=tmp_path)
    assert said.stdout == "A-1  paid  5.00 RUB  (olga said paid)\n"
    back = oplata("orders", "status", "A-1", "pending", cwd=tmp_path)
    assert (back.returncode, "does not go back" in back.stderr) == (1, True)
    listed = oplata("orders", "list", "--text", "A-", "--no-review", "--since", "1h", "--json", cwd=tmp_path)
    assert [json.loads(line)["orderId"] for line in listed.stdout.splitlines()] == ["A-1"]
    assert oplata("orders", "list", "--review", cwd=tmp_path).stdout == ""
    token = oplata(
        "orders", "buyer-token", "A-1", cwd=tmp_path, OPLATA_BUYER_TOKEN_KEYS=DOOR["OPLATA_BUYER_TOKEN_KEYS"]
    )
    assert token.stdout.startswith("oplata_buyer.")
    assert "set OPLATA_BUYER_TOKEN_KEYS" in oplata("orders", "buyer-token", "A-1", cwd=tmp_path).stderr
    stats = json.loads(oplata("stats", "--json", cwd=tmp_path).stdout)
    assert stats["orders"] == [{"status": "paid", "orders": 1, "kopecks": 500}]
    withdrawn = oplata("orders", "withdraw", "A-1", "--why", "a slip", cwd=tmp_path)
    assert withdrawn.stdout == "A-1  pending  5.00 RUB\n"
    subjects = oplata("audit", "--subject", "order:A-1", "--json", cwd=tmp_path).stdout.splitlines()
    assert [json.loads(line)["reason"] for line in subjects] == ["a slip", "in cash"]
    key_id = json.loads(oplata("keys", "create", "x", "--scope", "read", "--json", cwd=tmp_path).stdout)["id"]
    assert "revoked" in oplata("keys", "revoke", key_id, "--why", "test", cwd=tmp_path).stdout
    assert "no key 123: `oplata keys list`" in oplata("keys", "revoke", "123", "--why", "test", cwd=tmp_path).stderr
    for empty in (("payments", "list"), ("callbacks", "list")):
        assert (oplata(*empty, cwd=tmp_path).returncode, oplata(*empty, cwd=tmp_path).stdout) == (0, "")
