"""What may be told of an error."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

from oplata.errors import OplataError

MAX_CAUSES = 4


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it, at most some steps; of a group its first one."""
    cause: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if cause is None:
            return
        yield cause
        first = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        cause = first or cause.__cause__ or cause.__context__


def describe(error: BaseException) -> str:
    """What one of our own errors says; of any other, where it was raised and of which type it and its causes are.

    Never what those say: the message of an error that nobody foresaw may hold the body, and so may its variables.
    """
    if isinstance(error, OplataError):
        return f"{type(error).__name__}: {error}"
    return "\n".join(
        "".join(traceback.format_tb(cause.__traceback__)) + type(cause).__qualname__ for cause in causes(error)
    )
