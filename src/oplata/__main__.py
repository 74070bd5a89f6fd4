"""The ``oplata`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from oplata.cli.root import run  # Worker processes that are spawned import this file, not the CLI.

    sys.exit(run())


if __name__ == "__main__":
    main()
