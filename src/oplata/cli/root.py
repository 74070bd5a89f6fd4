"""The ``oplata`` command: what its subcommands are, and how a failure becomes a sentence and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from oplata.errors import OplataError, SettingsError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

COMMANDS = (
    "demo",
    "up",
    "serve",
    "worker",
    "relay",
    "sinks",
    "migrate",
    "doctor",
    "config",
    "keys",
    "orders",
    "payments",
    "callbacks",
    "stats",
    "audit",
    "trigger",
    "dead",
    "replay",
    "verify",
    "retention",
    "typescript",
)
"""In the order in which a newcomer meets them; each is the name of a file here and of the command in it."""


class Commands(click.Group):
    """Finds each command in its own file."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"oplata.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101  # The table above and the files are both ours.
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="oplata", message="%(prog)s %(version)s")
def root() -> None:
    """Turn a bank's payment callbacks into paid orders, and lose none.

    To see it work, with nothing to install or configure, run `oplata demo`.

    For real: set OPLATA_TERMINAL_KEY and OPLATA_TERMINAL_PASSWORD, ask `oplata doctor` what is missing, and run
    `oplata up`. Every setting is read from the environment, from .env and from oplata.toml.

    Exit codes: 0 it worked, 1 it failed, 2 the command or a setting is wrong.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code. What went wrong is said in a sentence on standard error."""
    try:
        outcome = root.main(
            args=None if arguments is None else list(arguments), prog_name="oplata", standalone_mode=False
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SettingsError as error:
        return _said(error, USAGE)
    except OplataError as error:
        return _said(error, FAILED)
    except ExceptionGroup as group:
        # Tasks that run side by side fail as a group; a group that holds a bug of ours is left to be a traceback.
        expected, bugs = group.split(OplataError)
        if expected is None or bugs is not None:
            raise
        return _said(_first(expected), FAILED)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone. Python would complain once more when it flushes on its way out.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return outcome if isinstance(outcome, int) else OK


def _first(group: ExceptionGroup[OplataError]) -> OplataError:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, ExceptionGroup) else inner


def _said(error: OplataError, code: int) -> int:
    text = str(error)
    click.echo(f"oplata: {text if text.endswith(('.', '!', '?')) else text + '.'}", err=True)
    return code
