"""A parent heals its processes, passes signals on once, gives up loudly, and takes along nobody who works."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

from tests.acceptance.command import Running, environment, following
from tests.services.processes import ProcessId, alive, descendants, identify, wait_until_gone

ROOT = Path(__file__).resolve().parents[2]
WELL = 'print("born", post["number"], flush=True); sign(b"R"); signal.pause()'
"""Ready at once; SIGTERM ends it, as that ends any program that does not say otherwise."""


def family(processes: int, child: str, *options: str, **settings: str) -> AbstractContextManager[Running]:
    command = [sys.executable, "-m", "tests.acceptance.family", str(processes), child, *options]
    return following(command, cwd=ROOT, env=environment(settings), stdin=subprocess.PIPE)


def children(parent: Running) -> list[ProcessId]:
    identity = identify(parent.process.pid)
    assert identity is not None
    return descendants(identity)


def zombies(parent: Running) -> list[str]:
    tasks = Path(f"/proc/{parent.process.pid}/task/{parent.process.pid}/children").read_text(encoding="utf-8").split()
    return [pid for pid in tasks if "State:\tZ" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")]


def test_a_process_that_is_killed_is_replaced_and_one_signal_drains_all() -> None:
    with family(3, WELL) as parent:
        parent.line("oplata family is ready: 3 processes")
        first = children(parent)
        os.kill(first[0].pid, signal.SIGKILL)
        parent.line('{"action": "process.ended"')
        parent.line("born")
        assert len(children(parent)) == 3
        assert zombies(parent) == []
        everyone = children(parent)
        code = parent.stop()

    assert code == 0
    assert not any(map(alive, everyone))


def test_a_parent_that_is_killed_leaves_nobody_behind() -> None:
    """The child of this test does what each of ours does first."""
    guarded = (
        "import sys; sys.path[:0] = [" + repr(str(ROOT / "src")) + "]\n"
        "from oplata.cli.service.lifeline import Lifeline\n"
        "lifeline = Lifeline(os.dup(line.fileno())); line.close()\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('drains', flush=True))\n"
        "lifeline.leave_with_parent(0.3); lifeline.say(b'R')\n"
        "while True: time.sleep(60)"
    )
    with family(2, guarded) as parent:
        parent.line("oplata family is ready")
        orphans = children(parent)
        parent.process.kill()
        gone = [wait_until_gone(each, 10) for each in orphans]

    assert gone == [True, True]
    assert parent.lines.count("drains") == 2


def test_a_second_signal_leaves_at_once() -> None:
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN); sign(b'R')\nwhile True: time.sleep(60)"
    with family(2, stubborn) as parent:
        parent.line("oplata family is ready")
        everyone = children(parent)
        parent.process.send_signal(signal.SIGTERM)
        parent.line("oplata family is stopping")
        code = parent.stop(signal.SIGTERM)
        gone = [wait_until_gone(each, 5) for each in everyone]

    assert (code, gone) == (128 + signal.SIGTERM, [True, True])
    assert "oplata: left at once, as asked twice." in parent.lines
    # Nobody waited until a process that does not drain is killed for that.
    assert "process.killed" not in "".join(parent.lines)


def test_a_setting_that_is_wrong_ends_the_start_at_once() -> None:
    with family(2, "sys.exit(2)") as parent:
        assert parent.wait() == 2

    assert "did not start" in parent.lines[-1]
    assert sum("process.ended" in line for line in parent.lines) <= 4


def test_a_crash_loop_ends_loudly() -> None:
    with family(1, "sys.exit(7)") as parent:
        parent.line('{"action": "process.crash_loop"')
        assert parent.wait() == 1

    assert sum("process.ended" in line for line in parent.lines) == 8
    assert "exit codes: 7" in parent.lines[-1]


def test_one_that_crashes_does_not_end_those_that_work(tmp_path: Path) -> None:
    """A slip in oplata.toml keeps a process that was killed from coming back; its siblings go on."""
    sibling = tmp_path / "stands"
    # It stands until its sibling does: a family of which nobody ever stood would be told that it did not start.
    slip = f"while not os.path.exists({str(sibling)!r}): time.sleep(0.01)\nsys.exit(2)"
    child = f'if post["number"] == 1:\n    {slip.replace(chr(10), chr(10) + "    ")}\n{WELL}'
    with family(2, child) as parent:
        parent.line("born 2")
        time.sleep(0.5)
        sibling.touch()
        for _ in range(9):
            parent.line('{"action": "process.ended"')
        assert parent.process.poll() is None
        assert parent.stop() == 0


def test_a_process_without_progress_is_replaced() -> None:
    stuck = 'print("born", flush=True); sign(b"R"); time.sleep(600)'
    with family(1, stuck, "--impatient") as parent:
        parent.line("oplata family is ready")
        parent.line('{"action": "process.killed"')
        parent.line("born")
        parent.stop()


def test_a_family_that_was_frozen_as_a_whole_goes_on() -> None:
    beating = 'sign(b"R")\nwhile True: sign(b"."); time.sleep(0.05)'
    with family(1, beating, "--impatient") as parent:
        parent.line("oplata family is ready")
        everyone = children(parent)
        whole = [*(each.pid for each in everyone), parent.process.pid]
        for pid in whole:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(1.5)
        for pid in reversed(whole):
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.3)
        assert children(parent) == everyone
        assert parent.stop() == 0


def test_a_changed_file_starts_all_anew() -> None:
    with family(2, WELL, "--reload") as parent:
        parent.line("oplata family is ready")
        first = children(parent)
        assert parent.process.stdin is not None
        parent.process.stdin.write("shop.py\n")
        parent.process.stdin.flush()
        parent.line("oplata family starts anew: shop.py changed")
        parent.line("born")
        parent.line("born")
        assert not any(map(alive, first))
        assert "process.ended" not in "".join(parent.lines)
        parent.process.stdin.close()
        parent.stop()


def test_systemd_hears_of_readiness_progress_and_the_end(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        with family(1, WELL, NOTIFY_SOCKET=str(tmp_path / "notify")) as parent:
            heard = b""
            while b"READY=1" not in heard or b"WATCHDOG=1" not in heard:
                heard += systemd.recv(1000) + b"\n"
            parent.stop()
        while b"STOPPING=1" not in heard:
            heard += systemd.recv(1000) + b"\n"

    assert b"READY=1\nSTATUS=1 running" in heard
