"""What may be told of an error."""

from __future__ import annotations

import traceback

from oplata.errors import OplataError

MAX_CAUSES = 4


def describe(error: BaseException) -> str:
    """What one of our own errors says; of any other, where it was raised and of which type it and its causes are.

    Never what those say: the message of an error that nobody foresaw may hold the body, and so may its variables.
    """
    if isinstance(error, OplataError):
        return f"{type(error).__name__}: {error}"
    told: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(told) < MAX_CAUSES:
        told.append("".join(traceback.format_tb(cause.__traceback__)) + type(cause).__qualname__)
        cause = cause.__cause__ or cause.__context__
    return "\n".join(told)
