"""``python -m oplata.rpc typescript module:router`` writes the router's types for TypeScript."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from oplata.rpc.errors import DeclarationError
from oplata.rpc.target import load_router
from oplata.rpc.typescript import emit


def main(arguments: list[str] | None = None) -> int:
    """0 if all is well; 1 where ``--check`` finds another text; 2 for a router that cannot be loaded."""
    parser = argparse.ArgumentParser(prog="python -m oplata.rpc", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("typescript", help="write app-router.ts")
    command.add_argument("router", help="module:router, a Router, an RpcApp or a function that returns one")
    command.add_argument("--client", choices=("v10", "v11"), default="v11")
    command.add_argument("--transformer", choices=("none", "superjson"), default="none")
    command.add_argument("--out", type=Path, help="a file instead of the standard output")
    command.add_argument("--check", action="store_true", help="write nothing; fail if --out holds another text")
    given = parser.parse_args(arguments)
    try:
        text = emit(load_router(given.router), client=given.client, transformer=given.transformer)
    except DeclarationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return _deliver(text, given.out, is_check=given.check)


def _deliver(text: str, out: Path | None, *, is_check: bool) -> int:
    if out is None:
        sys.stdout.write(text)
        return 0
    if is_check:
        if out.exists() and out.read_text(encoding="utf-8") == text:
            return 0
        sys.stderr.write(f"{out} is not what the router says now; write it again without --check.\n")
        return 1
    out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
