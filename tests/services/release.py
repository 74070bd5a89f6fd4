"""The services of a newer Debian, in a folder of their own beside this machine's: ``OPLATA_TEST_DEBIAN=trixie``.

The folder holds a small system without a kernel, made by debootstrap. A program of it runs with that folder as its
root, in a mount namespace that ends with it, and with this machine's ``/tmp``, ``/proc`` and loopback.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.services.server import ServiceError

VARIABLE = "OPLATA_TEST_DEBIAN"
FOLDER = Path(__file__).resolve().parents[2] / ".services"
PACKAGES = ("rabbitmq-server", "postgresql")
MAKING_TIMEOUT_S = 900
_COMPLETE = "made-for-oplata"
_ENTER = 'mount --bind /tmp "$0/tmp" && mount --bind /proc "$0/proc" && exec chroot "$@"'


def root() -> Path | None:
    """Where the release that the environment names lies; None when this machine's own services are meant."""
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    if not name.isalpha():
        raise ServiceError(f"{VARIABLE} must be the name of a Debian release, such as trixie; it is {name!r}.")
    return FOLDER / f"debian-{name}"


def made(folder: Path) -> bool:
    """True once the folder holds the whole release."""
    return (folder / _COMPLETE).exists()


def make(folder: Path) -> None:
    """Fetch the release from where this machine gets its own packages. Takes about a minute, and 800 MB."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise ServiceError(f"{VARIABLE} needs root and debootstrap: apt-get install debootstrap, as root.")
    name = folder.name.removeprefix("debian-")
    sys.stdout.write(f"Making {folder} with debootstrap.\n")
    sys.stdout.flush()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    packages = f"--include={','.join(PACKAGES)}"
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", packages, name, str(folder), _mirror()],
        capture_output=True,
        text=True,
        timeout=MAKING_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise ServiceError(f"debootstrap of {name} failed: {(done.stderr or done.stdout).strip()[-1000:]}")
    (folder / _COMPLETE).touch()


def entering(folder: Path, command: list[str], user: str | None) -> list[str]:
    """The command as it has to be run here; it replaces the process that runs it, so the id stays the same."""
    becoming = [] if user is None else [f"--userspec={user}:{user}"]
    namespace = ["unshare", "--mount", "--propagation", "private"]
    return [*namespace, "sh", "-c", _ENTER, str(folder), *becoming, str(folder), *command]


def ids_of(folder: Path, user: str) -> tuple[int, int]:
    """The numbers of a user and its group in the release; this machine may know the name by others."""
    for line in (folder / "etc/passwd").read_text(encoding="utf-8").splitlines():
        name, _, uid, gid, *_ = line.split(":")
        if name == user:
            return int(uid), int(gid)
    raise ServiceError(f"{folder} has no user {user}.")


def _mirror() -> str:
    listed = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(COMPONENT) $(REPO_URI)"]
    done = subprocess.run(listed, capture_output=True, text=True, timeout=60, check=False)
    for line in done.stdout.splitlines():
        origin, component, uri = line.split(" ", 2)
        if origin == "Debian" and component == "main" and "security" not in uri:
            return uri
    raise ServiceError(f"apt names no place that Debian's packages come from, so {VARIABLE} cannot be had.")
