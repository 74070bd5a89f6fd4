"""``oplata typescript``."""

from __future__ import annotations

from pathlib import Path

import click

OURS = "oplata.orders.router:router"


@click.command(short_help="Write a tRPC router's types for TypeScript.")
@click.argument("router", metavar="[MODULE:ROUTER]", default=OURS)
@click.option("--client", type=click.Choice(("v10", "v11")), default="v11", show_default=True, help="@trpc/client's.")
@click.option(
    "--transformer",
    type=click.Choice(("none", "superjson")),
    default="none",
    show_default=True,
    help="What the router is served with.",
)
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="This file, not the standard output.")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if FILE is not what would be written.")
def typescript(router: str, client: str, transformer: str, out: Path | None, check: bool) -> int:
    """Write the types of the orders' router, so that TypeScript can call it with every name and type checked.

    For a router of your own, MODULE:ROUTER is where it is in Python, seen from this directory: a Router, an RpcApp, or
    a function without parameters that returns one. The file imports nothing; in TypeScript, give it to the client:

    \b
        oplata typescript --out src/app-router.ts
    \b
        import type { AppRouter } from './app-router';
        const shop = createTRPCClient<AppRouter>({ links: [httpBatchLink({ url: '/api/trpc' })] });

    Write it again after every change in Python; in CI, --check says when that was forgotten.
    """
    from oplata.rpc.__main__ import main

    if check and out is None:
        raise click.UsageError("--check needs the FILE to look at: --out FILE.")
    arguments = ["typescript", "--client", client, "--transformer", transformer]
    if out is not None:
        arguments += ["--out", str(out)]
    if check:
        arguments.append("--check")
    return main([*arguments, "--", router])
