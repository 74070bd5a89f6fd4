"""What ``oplata doctor`` looks at. Each check ends as a finding: a sentence, and whether all is well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec

from oplata.errors import OplataError, SettingsError
from oplata.observability.logging import without_passwords
from oplata.settings import Settings
from oplata.settings.stores import database_of, queue_of, spool_of
from oplata.storage.engine import Database
from oplata.storage.handling import Waiting

CHECK_TIMEOUT_S = 15.0
MAX_LATE_S = 300
COUNT_LIMIT = 10_000
MAX_SKEW_MS = 5_000
"""Further apart than this, times in the log and in the tables tell different stories."""

_SANE_YEARS = range(2024, 2100)


class Finding(msgspec.Struct, frozen=True):
    """What one check came to."""

    check: str
    ok: bool
    message: str


def now_ms() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


async def examine(now_ms: Callable[[], int] = now_ms) -> list[Finding]:
    """Run every check that the settings allow; one that fails does not keep the others from running."""
    try:
        settings = Settings.load()
    except SettingsError as error:
        return [Finding("settings", False, str(error)), judge_clock(now_ms(), None)]
    database = database_of(settings)
    await database.start()
    try:
        return [
            _terminals(settings),
            await _finding(
                "queue", lambda: _queue(settings), "OPLATA_QUEUE_URL", settings.queue_url.get_secret_value()
            ),
            *await _spool(settings),
            await _finding("database", database.check, "OPLATA_DATABASE_URL", settings.database_url.get_secret_value()),
            *judge_handlers(now_ms(), await _waiting(database)),
            judge_clock(now_ms(), await _database_ms(database)),
        ]
    finally:
        await database.stop()


def judge_clock(ours_ms: int, theirs_ms: int | None) -> Finding:
    """Whether this machine's clock can be right, given the database server's, or None where that cannot be asked."""
    seconds = ours_ms // 1000
    said = datetime.fromtimestamp(seconds, UTC).isoformat() if 0 <= seconds < 2**36 else f"{seconds} s"
    mend = "Turn on time synchronisation (timedatectl set-ntp true)."
    if not 0 <= seconds < 2**36 or datetime.fromtimestamp(seconds, UTC).year not in _SANE_YEARS:
        return Finding("clock", False, f"The clock says {said}, which cannot be. {mend}")
    if theirs_ms is None:
        return Finding("clock", True, f"The clock says {said}; there was no other one to compare it with.")
    skew_ms = ours_ms - theirs_ms
    if abs(skew_ms) > MAX_SKEW_MS:
        where = "ahead of" if skew_ms > 0 else "behind"
        return Finding("clock", False, f"The clock is {abs(skew_ms) / 1000:.1f} s {where} the database's. {mend}")
    return Finding("clock", True, f"The clock says {said}, {abs(skew_ms)} ms from the database's.")


def judge_handlers(now_ms: int, waiting: Waiting | None) -> list[Finding]:
    """Whether the shop's handlers keep up, of which nothing is said where there are none."""
    if waiting is None:
        return []
    late_s = waiting.late_s(now_ms)
    if late_s > MAX_LATE_S:
        said = (
            f"Changes wait for your handlers, the first for {late_s:.0f} s. Start a worker with --app, or see its log."
        )
        return [Finding("handlers", False, said)]
    return [Finding("handlers", True, f"{waiting.orders} orders wait for your handlers, and none for long.")]


def _terminals(settings: Settings) -> Finding:
    try:
        terminals = settings.passwords()
    except SettingsError as error:
        return Finding("settings", False, str(error))
    return Finding("settings", True, f"The settings are complete; terminals: {', '.join(sorted(terminals))}.")


async def _queue(settings: Settings) -> str:
    queue = queue_of(settings)
    await queue.start()
    try:
        return await queue.check()
    finally:
        await queue.stop()


async def _spool(settings: Settings) -> list[Finding]:
    """The file that stands in for the broker, where there is one: how much lies in it, and since when."""
    spool = spool_of(settings)
    if spool is None:
        return []

    async def examination() -> str:
        await spool.start()
        try:
            depth, age_ms = await spool.depth(), await spool.oldest_age_ms()
            waiting = depth.ready + depth.unacked + depth.retry + depth.dead
            since = "" if age_ms is None else f", the oldest for {age_ms / 1000:.0f} s"
            return f"{waiting} callbacks wait in the spool{since}. {await spool.check()}"
        finally:
            await spool.stop()

    return [await _finding("spool", examination, "OPLATA_SPOOL_PATH", settings.spool_path)]


async def _finding(check: str, examination: Callable[[], Awaitable[str]], variable: str, url: str) -> Finding:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            message = await examination()
    except TimeoutError:
        fault = f"There was no answer within {CHECK_TIMEOUT_S:.0f} s"
    except OplataError as error:
        fault = str(error)
    else:
        return Finding(check, True, _sentence(message))
    return Finding(check, False, f"{_sentence(fault)} {variable} is {without_passwords(url)}.")


async def _waiting(database: Database) -> Waiting | None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S), database.unit_of_work(read_only=True) as uow:
            return await uow.handling.waiting(limit=COUNT_LIMIT)
    except (OplataError, TimeoutError):
        return None  # What is wrong with the database is said above.


async def _database_ms(database: Database) -> int | None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await database.now_ms()
    except (OplataError, TimeoutError):
        return None


def _sentence(text: str) -> str:
    whole = text[:1].upper() + text[1:]
    return whole if whole.endswith((".", "!", "?")) else f"{whole}."
