"""``python -m tests.services install | start | stop``: what ``make test``, ``make services`` and its end call."""

from __future__ import annotations

import shutil
import sys

from tests.services import containers, find, ledger, node, packages, prometheus, release
from tests.services.server import KINDS, TITLES, ServiceError


def install() -> None:
    """See to it that all that the tests need can be had, and install what is missing where that is possible."""
    folder = release.root()
    if folder is not None and not release.made(folder):
        if packages.installable() and shutil.which("debootstrap") is None:
            packages.install(["debootstrap"])
        release.make(folder)
    missing = [kind for kind in KINDS if find.given(kind) is None and not find.programs_installed(kind)]
    if packages.installable():
        names = [packages.PACKAGES[kind] for kind in missing]
        if not prometheus.installed():
            names.append(prometheus.PACKAGE)
        if not node.on_path():
            names += packages.NODE
        if shutil.which("systemd-analyze") is None:
            names.append(packages.SYSTEMD)
        if not any(map(shutil.which, packages.BROWSERS)):
            names.append(packages.BROWSERS[0])
        if names:
            packages.install(names)
    elif missing and not containers.installed():
        raise ServiceError(find.how_to_get(missing[0]))
    node.ready()
    node.ready(node.DEPLOY)


def start() -> None:
    """Leave every service running for many test runs, and print where they are."""
    install()
    ledger.sweep()
    for kind in KINDS:
        url = find.given(kind) or find.left_running(kind) or find.private(kind, shared=True).url
        sys.stdout.write(f"{find.VARIABLES[kind]}={url}\n")
        sys.stdout.flush()


def stop() -> None:
    """Stop what ``start`` left running in this checkout, and what crashed runs left behind."""
    ledger.sweep()
    for record in ledger.read():
        if record.owner is None:
            ledger.erase(record)
            sys.stdout.write(f"{TITLES[record.kind]} was stopped.\n")


COMMANDS = {"install": install, "start": start, "stop": stop}


def main(arguments: list[str]) -> int:
    """Run one command; 1 when a service cannot be had, 2 for a command that does not exist."""
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        sys.stderr.write(f"Usage: python -m tests.services {' | '.join(COMMANDS)}\n")
        return 2
    try:
        COMMANDS[arguments[0]]()
    except ServiceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
