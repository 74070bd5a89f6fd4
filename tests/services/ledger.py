"""The ledger of what runs: one file in ``.services/`` for each server, so that a crashed run's leftovers are found."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.services.processes import ProcessId, alive, identify, kill9
from tests.services.server import Kind

FOLDER = Path(__file__).resolve().parents[2] / ".services"


@dataclass
class Record:
    """One server. ``owner`` is the process that has to stop it; a shared one has none and runs until it is told."""

    name: str
    kind: Kind
    url: str
    directory: str
    owner: ProcessId | None
    processes: list[ProcessId] = field(default_factory=list)
    compose_project: str | None = None

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.json"


def owner_of_this_run() -> ProcessId:
    """This process, as the owner of what it starts."""
    identity = identify(os.getpid())
    return identity if identity is not None else ProcessId(os.getpid(), 0)


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


def _record(fields: dict[str, Any]) -> Record:
    fields["owner"] = ProcessId(*fields["owner"]) if fields["owner"] else None
    fields["processes"] = [ProcessId(*process) for process in fields["processes"]]
    return Record(**fields)
