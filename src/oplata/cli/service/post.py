"""Which of its processes a parent means: its number, its end of the lifeline, and the port that all of them share."""

from __future__ import annotations

import click
import msgspec


class Post(msgspec.Struct, frozen=True, kw_only=True):
    """``number`` counts from 1. ``port`` is the shared one, or None where nobody listens."""

    number: int
    lifeline_fd: int
    port: int | None = None

    def __str__(self) -> str:
        return msgspec.json.encode(self).decode()


class PostType(click.ParamType[Post]):
    """What a parent writes on the command line of its processes."""

    name = "post"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Post:
        if isinstance(value, Post):
            return value
        try:
            return msgspec.json.decode(str(value), type=Post)
        except msgspec.MsgspecError:
            self.fail("it is for oplata's own use: a parent tells its processes apart by it", param, ctx)
