"""From the exceptions of two databases and their drivers to our own: is it worth another try, or is it the data?"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from oplata.errors import Contention, DatabaseUnavailable, DataRejected, OplataError, SchemaError

_CONTENTION = frozenset({"40001", "40P01", "55P03", "57014"})
_SCHEMA = frozenset({"42P01", "42703", "42883", "3F000"})
# The connection, the server's state, its resources, the right to log in or to write: what passes, or a person mends.
_AWAY_CLASSES = frozenset({"08", "25", "28", "3D", "53", "57", "58"})
_AWAY = frozenset({"42501"})
# A value may also be too large for a limit of the server, such as that of an index row: class 54.
_DATA_CLASSES = frozenset({"22", "23", "54"})


@contextmanager
def mapped() -> Iterator[None]:
    """Raise what the block raises as one of ours. Messages name the kind of fault, never a row's values or a URL."""
    try:
        yield
    except OplataError:
        raise
    except DBAPIError as error:
        raise translate(error.orig) from error
    except (SQLAlchemyError, OSError, TimeoutError, sqlite3.Error, UnicodeEncodeError, OverflowError) as error:
        raise translate(error) from error
    except Exception as error:
        # While a connection is being made the driver's own exceptions come unwrapped.
        if getattr(error, "sqlstate", None) is None and not type(error).__module__.startswith("asyncpg"):
            raise
        raise translate(error) from error


def translate(error: BaseException | None) -> OplataError:
    """The exception of ours that says what this one means."""
    # SQLAlchemy wraps the driver's exception once more; the driver's own has the state.
    inner = error.__cause__ if error is not None and error.__cause__ is not None else error
    state = getattr(error, "sqlstate", None) or getattr(inner, "sqlstate", None)
    if isinstance(state, str):
        return _of_state(state, inner)
    refused = UnicodeEncodeError | OverflowError | sqlite3.IntegrityError | sqlite3.DataError
    if isinstance(error, refused) or isinstance(inner, UnicodeEncodeError | OverflowError):
        return DataRejected(f"the database refuses a value: {_kind(inner)}")
    if isinstance(error, sqlite3.OperationalError):
        return _of_sqlite(error)
    if isinstance(error, sqlite3.DatabaseError):
        return DatabaseUnavailable(f"the database cannot be used: {error}")
    return DatabaseUnavailable(f"the database cannot be reached: {_kind(inner)}")


def _of_state(state: str, error: BaseException | None) -> OplataError:
    if state in _CONTENTION:
        return Contention(f"the database gave way to another transaction: {_kind(error)} ({state})")
    if state in _SCHEMA:
        return SchemaError(f"the database's tables do not fit this version ({state}): run `oplata migrate`")
    if state[:2] in _DATA_CLASSES:
        return DataRejected(f"the database refuses a value: {_kind(error)} ({state})")
    if state[:2] in _AWAY_CLASSES or state in _AWAY:
        return DatabaseUnavailable(f"the database cannot serve us: {_kind(error)} ({state})")
    # A trigger of the shop's that raises, a corrupt page: as far as we can tell it is about these rows.
    return Contention(f"the database failed on these rows: {_kind(error)} ({state})")


def _of_sqlite(error: sqlite3.OperationalError) -> OplataError:
    text = str(error)
    if "locked" in text or "busy" in text:
        return Contention("another process holds the database's write lock")
    if "no such table" in text or "no such column" in text or "has no column" in text:
        return SchemaError("the database's tables do not fit this version: run `oplata migrate`")
    return DatabaseUnavailable(f"the database cannot be used: {text}")


def _kind(error: BaseException | None) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
