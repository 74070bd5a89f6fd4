"""What a worker does about a failure, as a table."""

from __future__ import annotations

import pytest

from oplata.errors import (
    Contention,
    DatabaseUnavailable,
    DataRejected,
    OrderNotFound,
    QueueUnavailable,
    SchemaError,
    SettingsError,
)
from oplata.worker.retry import CONTENTION_TRIES, MAX_ATTEMPTS, Remedy, remedy, rung_delay_ms

MANY = 1_000_000


@pytest.mark.parametrize(
    ("error", "size", "tries", "expected"),
    [
        (DataRejected(), 500, 1, Remedy.SPLIT),
        (DataRejected(), 2, 1, Remedy.SPLIT),
        (DataRejected(), 2, MANY, Remedy.SPLIT),
        (DataRejected(), 1, 1, Remedy.BURY),
        (DataRejected(), 1, MANY, Remedy.BURY),
        (Contention(), 500, 1, Remedy.AGAIN),
        (Contention(), 1, CONTENTION_TRIES - 1, Remedy.AGAIN),
        (Contention(), 500, CONTENTION_TRIES, Remedy.SPLIT),
        (Contention(), 2, MANY, Remedy.SPLIT),
        (Contention(), 1, CONTENTION_TRIES, Remedy.LATER),
        (Contention(), 1, MANY, Remedy.LATER),
        (DatabaseUnavailable(), 1, 1, Remedy.PAUSE),
        (DatabaseUnavailable(), 500, MANY, Remedy.PAUSE),
        (SchemaError(), 1, 1, Remedy.PAUSE),
        (SchemaError(), 500, MANY, Remedy.PAUSE),
        (ZeroDivisionError(), 500, 1, Remedy.SPLIT),
        (ZeroDivisionError(), 1, 1, Remedy.LATER),
    ],
)
def test_each_failure_has_its_remedy(error: Exception, size: int, tries: int, expected: Remedy) -> None:
    assert expected is remedy(error, size=size, tries=tries, attempt=1)


@pytest.mark.parametrize("error", [OrderNotFound(), SettingsError(), QueueUnavailable(), KeyError("x")], ids=repr)
def test_what_nobody_foresaw_holds_up_no_other_message_and_is_given_up_in_the_end(error: Exception) -> None:
    assert Remedy.SPLIT is remedy(error, size=2, tries=1, attempt=1)
    assert Remedy.LATER is remedy(error, size=1, tries=1, attempt=MAX_ATTEMPTS - 1)
    assert Remedy.BURY is remedy(error, size=1, tries=1, attempt=MAX_ATTEMPTS)


def test_a_message_that_others_keep_from_its_rows_is_given_up_only_after_all_its_attempts() -> None:
    assert Remedy.LATER is remedy(Contention(), size=1, tries=MANY, attempt=MAX_ATTEMPTS - 1)
    assert Remedy.BURY is remedy(Contention(), size=1, tries=MANY, attempt=MAX_ATTEMPTS)


@pytest.mark.parametrize(
    ("attempt", "expected"), [(0, 1_000), (1, 1_000), (2, 5_000), (3, 30_000), (4, 30_000), (MANY, 30_000)]
)
def test_each_attempt_climbs_one_rung_and_the_last_one_serves_all_others(attempt: int, expected: int) -> None:
    assert expected == rung_delay_ms(attempt, (1_000, 5_000, 30_000))


@pytest.mark.parametrize("error", [DatabaseUnavailable(), SchemaError()], ids=repr)
@pytest.mark.parametrize("size", [1, 2, 500])
@pytest.mark.parametrize("attempt", [1, MANY])
def test_a_database_that_is_away_costs_no_message_an_attempt(error: Exception, size: int, attempt: int) -> None:
    assert Remedy.PAUSE is remedy(error, size=size, tries=MANY, attempt=attempt)
