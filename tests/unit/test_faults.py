"""What a fault of a database means: try again, wait, migrate, or give the value up."""

from __future__ import annotations

import sqlite3

import asyncpg
import pytest
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from oplata.errors import Contention, DatabaseUnavailable, DataRejected, OplataError, OrderError, SchemaError
from oplata.storage.faults import mapped, translate


class _DriverError(Exception):
    """As SQLAlchemy wraps what asyncpg raises: the state is on both."""

    def __init__(self, state: str) -> None:
        self.sqlstate = state


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (_DriverError("40P01"), Contention),
        (_DriverError("40001"), Contention),
        (_DriverError("55P03"), Contention),
        (_DriverError("57014"), Contention),
        (_DriverError("42P01"), SchemaError),
        (_DriverError("42703"), SchemaError),
        (_DriverError("22021"), DataRejected),
        (_DriverError("22003"), DataRejected),
        (_DriverError("23514"), DataRejected),
        (_DriverError("54000"), DataRejected),
        (_DriverError("57P01"), DatabaseUnavailable),
        (_DriverError("53300"), DatabaseUnavailable),
        (_DriverError("53100"), DatabaseUnavailable),
        (_DriverError("25P03"), DatabaseUnavailable),
        (_DriverError("25006"), DatabaseUnavailable),
        (_DriverError("28P01"), DatabaseUnavailable),
        (_DriverError("3D000"), DatabaseUnavailable),
        (_DriverError("XX000"), Contention),
        (_DriverError("P0001"), Contention),
        (asyncpg.InterfaceError("connection is closed"), DatabaseUnavailable),
        (ConnectionRefusedError(111, "Connection refused"), DatabaseUnavailable),
        (TimeoutError(), DatabaseUnavailable),
        (PoolTimeout("no connection was free"), DatabaseUnavailable),
        (sqlite3.OperationalError("database is locked"), Contention),
        (sqlite3.OperationalError("database schema is locked"), Contention),
        (sqlite3.OperationalError("no such table: events"), SchemaError),
        (sqlite3.OperationalError("table orders has no column named x"), SchemaError),
        (sqlite3.OperationalError("database or disk is full"), DatabaseUnavailable),
        (sqlite3.OperationalError("disk I/O error"), DatabaseUnavailable),
        (sqlite3.OperationalError("attempt to write a readonly database"), DatabaseUnavailable),
        (sqlite3.DatabaseError("file is not a database"), DatabaseUnavailable),
        (sqlite3.IntegrityError("CHECK constraint failed"), DataRejected),
        (sqlite3.DataError("string or blob too big"), DataRejected),
        (OverflowError("too large"), DataRejected),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), DataRejected),
        (None, DatabaseUnavailable),
    ],
    ids=repr,
)
def test_a_fault_is_the_exception_that_says_what_to_do(
    fault: BaseException | None, expected: type[OplataError]
) -> None:
    assert type(translate(fault)) is expected


def test_what_the_driver_cannot_encode_is_the_data_and_not_the_connection() -> None:
    # asyncpg encodes by itself, and borrows the server's SQLSTATE for what it cannot encode.
    raised = asyncpg.DataError("invalid input for query argument $1: value out of int64 range")
    wrapper = ProgrammingError("SELECT", {}, raised)
    assert wrapper.orig is raised
    with pytest.raises(DataRejected), mapped():
        raise wrapper


def test_a_statement_and_its_values_stay_out_of_the_sentence() -> None:
    fault = OperationalError("INSERT INTO payments", {"pan": "430000******0777"}, sqlite3.OperationalError("locked"))
    with pytest.raises(Contention) as caught, mapped():
        raise fault
    assert str(caught.value) == "another process holds the database's write lock"


@pytest.mark.parametrize("error", [OrderError("no"), ZeroDivisionError("not of a database")], ids=repr)
def test_what_is_no_fault_of_the_database_passes_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, mapped():
        raise error
    assert caught.value is error
