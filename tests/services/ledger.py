"""The ledger of what runs: one file in ``.services/`` for each server, so that a crashed run's leftovers are found."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.services.processes import ProcessId, alive, identify, kill9
from tests.services.server import Kind

FOLDER = Path(__file__).resolve().parents[2] / ".services"
OWNER_VARIABLE = "OPLATA_TEST_RUN"


@dataclass
class Record:
    """One server. ``owner`` is the process that has to stop it; a shared one has none and runs until it is told.

    A ``common`` one is there for all processes of its owner's run.
    """

    name: str
    kind: Kind
    url: str
    directory: str
    owner: ProcessId | None
    processes: list[ProcessId] = field(default_factory=list)
    compose_project: str | None = None
    common: bool = False

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.json"


def own_this_run() -> None:
    """Make this process, and those that it starts, stop what they start by its own end at the latest."""
    owner = _this_process()
    os.environ[OWNER_VARIABLE] = f"{owner.pid} {owner.started}"


def owner_of_this_run() -> ProcessId:
    """The process that owns what this one starts: the one that began the run."""
    pid, _, started = os.environ.get(OWNER_VARIABLE, "").partition(" ")
    if pid and alive(owner := ProcessId(int(pid), int(started))):
        return owner
    return _this_process()


def of_this_run() -> list[Record]:
    """Every server in the ledger that was started by this run."""
    owner = owner_of_this_run()
    return [record for record in read() if record.owner == owner]


def share(url: str) -> None:
    """Let the other processes of this run find that server."""
    for record in of_this_run():
        if record.url == url:
            record.common = True
            write(record)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Hold the ledger against the other processes of this checkout."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write(record: Record) -> None:
    """Put a server into the ledger, or its new processes. The file is whole or absent, and only ours to read."""
    FOLDER.mkdir(exist_ok=True)
    draft = record.path.with_suffix(".draft")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(asdict(record)), encoding="utf-8")
    draft.replace(record.path)


def read() -> list[Record]:
    """Every server in the ledger."""
    records = []
    for path in sorted(FOLDER.glob("*.json")):
        with contextlib.suppress(FileNotFoundError):
            records.append(_record(json.loads(path.read_text(encoding="utf-8"))))
    return records


def erase(record: Record) -> None:
    """End what the record names, delete its data, and take it out of the ledger."""
    for process in record.processes:
        kill9(process)
    if record.compose_project is not None:
        # Imported here because a container writes itself into this ledger.
        from tests.services.containers import remove_project

        remove_project(record.compose_project)
    shutil.rmtree(record.directory, ignore_errors=True)
    record.path.unlink(missing_ok=True)


def sweep() -> None:
    """Erase what runs that died have left behind, and shared servers that have died themselves."""
    for record in read():
        abandoned = record.owner is not None and not alive(record.owner)
        dead = record.owner is None and record.compose_project is None and not any(map(alive, record.processes))
        if abandoned or dead:
            erase(record)


def _this_process() -> ProcessId:
    identity = identify(os.getpid())
    return identity if identity is not None else ProcessId(os.getpid(), 0)


def _record(fields: dict[str, Any]) -> Record:
    fields["owner"] = ProcessId(*fields["owner"]) if fields["owner"] else None
    fields["processes"] = [ProcessId(*process) for process in fields["processes"]]
    return Record(**fields)
