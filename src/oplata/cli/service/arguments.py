"""The options that a command gets when it can run as several processes, and the command line of each of those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from oplata.cli.service.post import Post, PostType

Command = TypeVar("Command", bound=Callable[..., Any])

MAX_PROCESSES = 256

_OF_THE_PARENT = frozenset({"processes", "reload", "post"})


def can_be_several(command: Command) -> Command:
    """Give a command ``--processes``, ``--reload`` and, for a parent's use, ``--post``."""
    for option in (
        click.option("--post", type=PostType(), hidden=True, help="For a parent's use: which of its processes it is."),
        click.option(
            "--reload", is_flag=True, help="For development: start anew when a Python file or a setting changes."
        ),
        click.option(
            "--processes",
            type=click.IntRange(1, MAX_PROCESSES),
            metavar="N",
            help="Run N of them under a parent that starts again what ends, and drains all at one signal.",
        ),
    ):
        command = option(command)
    return command


def of_each(context: click.Context, **instead: object) -> list[str]:
    """The command and options of this command line without those of the parent, for one of its processes.

    ``instead`` names values that replace those that were typed.
    """
    words = [str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if name not in _OF_THE_PARENT and (typed or name in instead):
            words += _spelled(parameter, instead.get(name, context.params[name]))
    return words


def with_post(words: list[str], post: Post) -> list[str]:
    """The same, told which of the processes it is."""
    return [*words, "--post", str(post)]


def _spelled(parameter: click.Parameter, value: object) -> list[str]:
    option = parameter.opts[-1]
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return [option] if value else parameter.secondary_opts[:1]
    several = value if parameter.multiple and isinstance(value, list | tuple) else [value]
    return [word for each in several for word in (option, str(each))]
