"""Dead letters: kept with all that is known of them, searched, redriven, discarded, and never applied unverified."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from oplata.bank.keyring import Keyring
from oplata.errors import NotConfirmed
from oplata.orders.commands import Orders
from oplata.queue.base import Publisher, Queue
from oplata.queue.envelope import ATTEMPT_HEADER, SOURCE_HEADER, Delivery, Envelope, HeaderValue
from oplata.queue.rabbitmq import RabbitQueue
from oplata.queue.sqlite import SqliteQueue
from oplata.storage.dead_letters import Buried, State, Wanted
from oplata.storage.engine import Database
from oplata.storage.settling import Act, Outcome, Trial
from oplata.worker.batch import NOT_AUTHENTIC, UNREADABLE, dead_letter, read
from oplata.worker.claims import claimed
from oplata.worker.loop import Worker
from oplata.worker.redrive import Redrive
from tests.databases import KEYRING, NOW_MS, ORDER_KOPECKS, apply_all, callback, execute, select_all, stored
from tests.notifications import PASSWORD, TERMINAL_KEY

pytestmark = pytest.mark.anyio

ACT = Act(who="olga", why="the password was put right")
OTHERS = Keyring({TERMINAL_KEY: ["another password"]})
EVERY = Wanted()


@pytest.fixture(params=["sqlite", "rabbitmq"])
async def queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Queue]:
    queue: Queue = (
        SqliteQueue(tmp_path / "queue.db")
        if request.param == "sqlite"
        else RabbitQueue(request.getfixturevalue("amqp_url"), request.getfixturevalue("queue_name"))
    )
    await queue.start()
    yield queue
    await queue.stop()


async def bury(
    database: Database,
    *bodies: bytes,
    keyring: Keyring = OTHERS,
    at_ms: int = NOW_MS,
    headers: dict[str, HeaderValue] | None = None,
    attempt: int = 1,
) -> None:
    """Take these up as a worker with that keyring does; all of them die."""
    envelopes = [Envelope(body=body, headers=headers or {}) for body in bodies]
    part = read([Delivery(envelope=each, attempt=attempt) for each in envelopes], keyring, at_ms)
    assert not part.works
    async with database.unit_of_work() as uow:
        await uow.dead_letters.bury([letter for _, letter in part.poison])
        await uow.commit()


async def letters(database: Database, wanted: Wanted = Wanted(state=None)) -> list[Buried]:  # noqa: B008  It is frozen.
    async with database.unit_of_work(read_only=True) as uow:
        return (await uow.dead_letters.search(wanted, limit=1000)).rows


async def redriven(
    database: Database, publisher: Publisher, wanted: Wanted = EVERY, batch_size: int = 100
) -> list[Outcome]:
    work = Redrive(database, now_ms=lambda: NOW_MS + 1, batch_size=batch_size)
    return [outcome async for outcome in work.redrive(publisher, wanted, ACT, limit=1000)]


async def rehearsed(database: Database, keyring: Keyring = KEYRING, wanted: Wanted = EVERY) -> list[Trial]:
    return [trial async for trial in Redrive(database).rehearse(keyring, wanted, limit=1000)]


async def work(queue: Queue, database: Database, until: Callable[[Worker], bool], keyring: Keyring = KEYRING) -> Worker:
    """Run a worker until it has done so much."""
    worker = Worker(queue=queue, database=database, keyring=keyring, now_ms=lambda: NOW_MS + 2)
    running = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(30):
            while not until(worker):  # noqa: ASYNC110  A count has no event.
                await asyncio.sleep(0.02)
    finally:
        worker.stop()
        await running
    return worker


async def everything(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Every column of every table."""
    tables = ("callbacks", "events", "payments", "orders", "changes", "dead_letters", "audit")
    return {table: sorted(await select_all(url, f"SELECT * FROM {table}"), key=repr) for table in tables}  # noqa: S608


class Publishing:
    """A publisher that counts, and does something after each confirm."""

    def __init__(self, publisher: Publisher, after: Callable[[], None] = lambda: None) -> None:
        self._publisher = publisher
        self._after = after
        self.sent: list[Envelope] = []

    async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
        await self._publisher.publish(envelope, timeout_s=timeout_s)
        self.sent.append(envelope)
        self._after()


class Nowhere:
    """A publisher without a queue behind it: all is taken, or what the test says is refused."""

    def __init__(self, refuse: Callable[[Envelope], bool] = lambda _: False) -> None:
        self._refuse = refuse
        self.sent: list[Envelope] = []

    async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
        if self._refuse(envelope):
            raise NotConfirmed
        self.sent.append(envelope)


async def test_a_dead_letter_keeps_its_bytes_headers_reason_times_and_attempts(database: Database) -> None:
    headers: dict[str, HeaderValue] = {SOURCE_HEADER: "192.0.2.1", "x-shop": "Уют"}
    await bury(database, callback(), headers=headers, attempt=4)
    await bury(database, callback(), headers=headers, attempt=6, at_ms=NOW_MS + 50)

    [buried] = await letters(database)

    letter = buried.letter
    assert (letter.body, letter.headers, letter.reason) == (callback(), headers, NOT_AUTHENTIC)
    assert (buried.first_seen_at_ms, letter.seen_at_ms, buried.times_seen) == (NOW_MS, NOW_MS + 50, 2)
    assert (letter.attempts, buried.state, buried.settled_by) == (6, State.OPEN, None)


async def test_what_nobody_verified_is_searched_by_what_it_claims_and_marked_so(database: Database) -> None:
    await bury(database, callback(order_id="A-1"), b'{"TerminalKey": "T", "OrderId": 77, broken')

    found = await letters(database, Wanted(order_id="A-1"))
    broken = await letters(database, Wanted(terminal_key="T"))

    assert [(each.letter.order_id, each.letter.terminal_key, each.letter.verified) for each in found + broken] == [
        ("A-1", TERMINAL_KEY, False),
        ("77", "T", False),
    ]
    assert await letters(database, Wanted(order_id="A")) == []


async def test_what_was_verified_before_it_died_is_marked_so() -> None:
    delivery = Delivery(envelope=Envelope(body=callback()), attempt=3)
    event = read([delivery], KEYRING, NOW_MS).works[0].event
    letter = dead_letter(delivery, "rejected_by_database", "why", NOW_MS, event)
    assert (letter.verified, letter.terminal_key, letter.order_id, letter.attempts) == (
        True,
        TERMINAL_KEY,
        "order-1",
        3,
    )


@pytest.mark.parametrize(
    ("body", "claims"),
    [
        (b'{"OrderId":"a\\"b","TerminalKey":"T"}', ("T", 'a"b')),
        (b'{"TerminalKey" : "T", "OrderId" : 12}', ("T", "12")),
        (b"TerminalKey=T&OrderId=a%20b&Amount=1", ("T", "a b")),
        (b'{"OrderId":"\\u001b[2J","TerminalKey":""}', (None, None)),
        (b'{"OrderId":"' + b"x" * 500 + b'"}', (None, None)),
        (b"[" * 100_000 + b'"OrderId":"late"', (None, None)),
        (b'{"OrderId":"\\ud800"}', (None, None)),
        (b"\xff\xfe\x00", (None, None)),
        (b"", (None, None)),
    ],
)
async def test_a_claim_is_read_from_any_bytes_and_is_fit_to_be_shown(
    body: bytes, claims: tuple[str | None, str | None]
) -> None:
    assert claimed(body) == claims


async def test_each_filter_leaves_what_it_says(database: Database) -> None:
    await bury(database, callback(order_id="A"), at_ms=NOW_MS)
    await bury(database, b"not JSON", at_ms=NOW_MS + 10)
    await bury(database, callback(order_id="B"), at_ms=NOW_MS + 20)
    [b, broken, a] = await letters(database)

    async def found(wanted: Wanted) -> list[int]:
        return [each.id for each in await letters(database, wanted)]

    assert await found(Wanted(reason=UNREADABLE)) == [broken.id]
    assert await found(Wanted(since_ms=NOW_MS + 10)) == [b.id, broken.id]
    assert await found(Wanted(until_ms=NOW_MS + 10)) == [a.id]
    assert await found(Wanted(terminal_key=TERMINAL_KEY)) == [b.id, a.id]
    assert await found(Wanted(order_id="B", reason=UNREADABLE)) == []
    assert await found(Wanted(ids=[a.id, broken.id])) == [broken.id, a.id]
    assert await found(Wanted(ids=[])) == []
    assert await found(Wanted(state=State.DISCARDED)) == []


async def test_a_redriven_letter_takes_effect_and_is_marked_with_who_and_why(
    database: Database, queue: Queue, database_url: str
) -> None:
    await Orders(database).register("order-1", ORDER_KOPECKS)
    await bury(database, callback(), headers={ATTEMPT_HEADER: 5, SOURCE_HEADER: "192.0.2.1"})
    publishing = Publishing(queue.publisher())

    [outcome] = await redriven(database, publishing)
    await work(queue, database, lambda worker: worker.stats.applied == 1)

    [envelope] = publishing.sent
    assert (envelope.body, envelope.headers, len(envelope.message_id)) == (callback(), {SOURCE_HEADER: "192.0.2.1"}, 32)
    assert outcome.settled
    assert await select_all(database_url, "SELECT status FROM orders") == [("paid",)]
    [buried] = await letters(database)
    assert (buried.state, buried.settled_at_ms, buried.settled_by, buried.settled_why) == (
        State.REDRIVEN,
        NOW_MS + 1,
        ACT.who,
        ACT.why,
    )
    async with database.unit_of_work(read_only=True) as uow:
        [entry] = await uow.audit.newest(subject=f"dead_letter:{buried.id}", limit=10)
    assert (entry.actor, entry.reason, entry.action, entry.at_ms) == (
        ACT.who,
        ACT.why,
        "dead_letter.redriven",
        NOW_MS + 1,
    )
    assert entry.details == {"reason": NOT_AUTHENTIC, "timesSeen": 1, "marked": True}


async def test_a_letter_that_dies_again_is_open_again_and_counted(database: Database, queue: Queue) -> None:
    await bury(database, callback())
    await redriven(database, queue.publisher())

    await work(queue, database, lambda worker: worker.stats.buried == 1, keyring=OTHERS)

    [buried] = await letters(database)
    assert (buried.state, buried.times_seen, buried.settled_by, buried.settled_why) == (State.OPEN, 2, None, None)


async def test_a_letter_that_comes_again_while_it_is_redriven_stays_open(database: Database) -> None:
    """The worker may be quicker than the mark: what it buried in between is news, and must not be marked as done."""
    await bury(database, callback())

    class Quick(Nowhere):
        async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
            await bury(database, envelope.body)

    [outcome] = await redriven(database, Quick())

    [buried] = await letters(database)
    assert (outcome.settled, buried.state, buried.times_seen) == (False, State.OPEN, 2)
    async with database.unit_of_work(read_only=True) as uow:
        [entry] = await uow.audit.newest(limit=10)
    assert entry.details["marked"] is False


async def test_redriving_twice_publishes_once(database: Database) -> None:
    await bury(database, callback())
    publisher = Nowhere()
    assert [len(await redriven(database, publisher)) for _ in range(2)] == [1, 0]
    assert len(publisher.sent) == 1


async def test_two_people_who_redrive_at_once_mark_it_once_and_it_takes_effect_once(
    database: Database, queue: Queue, database_url: str
) -> None:
    await Orders(database).register("order-1", ORDER_KOPECKS)
    await bury(database, callback())
    together = asyncio.Barrier(2)

    class Waiting(Publishing):
        async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
            await together.wait()
            await super().publish(envelope, timeout_s=timeout_s)

    outcomes = await asyncio.gather(*(redriven(database, Waiting(queue.publisher())) for _ in range(2)))
    await work(queue, database, lambda worker: worker.stats.applied + worker.stats.repeats == 2)

    assert sorted(outcome.settled for each in outcomes for outcome in each) == [False, True]
    assert await select_all(database_url, "SELECT status, version FROM orders") == [("paid", 2)]
    assert await select_all(database_url, "SELECT count(*) FROM events") == [(1,)]


async def test_a_crash_between_the_confirm_and_the_mark_leaves_it_open_and_a_second_redrive_is_harmless(
    database: Database, queue: Queue, database_url: str
) -> None:
    await Orders(database).register("order-1", ORDER_KOPECKS)
    await bury(database, callback())

    def die() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await redriven(database, Publishing(queue.publisher(), die))
    [buried] = await letters(database)
    await redriven(database, queue.publisher())
    await work(queue, database, lambda worker: worker.stats.applied + worker.stats.repeats == 2)

    assert buried.state is State.OPEN
    assert [each.state for each in await letters(database)] == [State.REDRIVEN]
    assert await select_all(database_url, "SELECT status, version FROM orders") == [("paid", 2)]


async def test_what_the_queue_does_not_confirm_stays_open_and_its_neighbours_are_marked(database: Database) -> None:
    await bury(database, *(callback(order_id=f"order-{number}") for number in range(5)))
    publisher = Nowhere(lambda envelope: b"order-2" in envelope.body)

    with pytest.raises(NotConfirmed):
        await redriven(database, publisher)

    states = {each.letter.order_id: each.state for each in await letters(database)}
    assert states.pop("order-2") is State.OPEN
    assert set(states.values()) == {State.REDRIVEN}


@pytest.mark.parametrize("batch_size", [1, 2, 100])
async def test_batches_take_each_letter_once_whatever_their_size(database: Database, batch_size: int) -> None:
    await bury(database, *(callback(order_id=f"order-{number}") for number in range(5)))
    publisher = Nowhere()

    outcomes = await redriven(database, publisher, batch_size=batch_size)

    assert [outcome.letter.id for outcome in outcomes] == sorted(each.id for each in await letters(database))
    assert len({envelope.message_id for envelope in publisher.sent}) == 5


async def test_a_limit_takes_the_oldest(database: Database) -> None:
    for number in range(3):
        await bury(database, callback(order_id=f"order-{number}"))
    work = Redrive(database, batch_size=1)
    assert [each.letter.letter.order_id async for each in work.discard(EVERY, ACT, limit=2)] == ["order-0", "order-1"]


async def test_a_discarded_letter_keeps_its_bytes_and_is_open_again_when_it_comes_again(database: Database) -> None:
    await bury(database, callback())
    outcomes = [each async for each in Redrive(database).discard(EVERY, ACT, limit=10)]
    [discarded] = await letters(database)
    await bury(database, callback())
    [again] = await letters(database)

    assert [outcome.settled for outcome in outcomes] == [True]
    assert (discarded.state, discarded.settled_by, discarded.letter.body) == (State.DISCARDED, ACT.who, callback())
    assert (again.state, again.times_seen) == (State.OPEN, 2)
    async with database.unit_of_work(read_only=True) as uow:
        assert [entry.action for entry in await uow.audit.newest(limit=10)] == ["dead_letter.discarded"]


async def test_a_rehearsal_says_what_every_letter_and_order_would_become_and_changes_nothing(
    database: Database, database_url: str
) -> None:
    await Orders(database).register("order-1", ORDER_KOPECKS)
    await apply_all(database, callback("AUTHORIZED"))
    await bury(database, callback("AUTHORIZED"), callback(), b"not JSON", callback(order_id="unknown", payment_id="2"))
    before = await everything(database_url)

    [trial] = await rehearsed(database)
    [refused] = await rehearsed(database, OTHERS)

    said = {each.letter.letter.body: (each.buried_again, each.fresh, each.order_id) for each in trial.prospects}
    assert said.pop(b"not JSON")[0] == "unreadable: the body is not JSON: Expecting value at character 0"
    assert said == {
        callback("AUTHORIZED"): (None, False, "order-1"),
        callback(): (None, True, "order-1"),
        callback(order_id="unknown", payment_id="2"): (None, True, "unknown"),
    }
    assert [(move.order_id, move.before, move.after) for move in trial.moves] == [("order-1", "authorized", "paid")]
    assert all(each.buried_again for each in refused.prospects)
    assert await everything(database_url) == before


async def test_a_rehearsal_finds_the_one_that_the_database_refuses_among_its_neighbours(
    database: Database, database_url: str
) -> None:
    await bury(database, *(callback(order_id=f"order-{number}", payment_id=f"{number}") for number in range(4)))
    await apply_all(database, callback("AUTHORIZED", order_id="order-2", payment_id="2"))
    await execute(database_url, "UPDATE payments SET evidence = 'nonsense'")

    [trial] = await rehearsed(database)

    assert [each.order_id for each in trial.prospects if each.buried_again is not None] == ["order-2"]
    assert sum(each.fresh for each in trial.prospects) == 3


async def test_redriving_races_delivery_and_every_order_is_paid_once(
    database: Database, queue: Queue, database_url: str
) -> None:
    """The bank repeats the very callbacks that are redriven, while two workers work."""
    bodies = [callback(order_id=f"order-{number}", payment_id=f"{number}") for number in range(30)]
    for number in range(30):
        await Orders(database).register(f"order-{number}", ORDER_KOPECKS)
    await bury(database, *bodies)

    async def deliver() -> None:
        for body in reversed(bodies):
            await queue.publisher().publish(Envelope(body=body), timeout_s=10)

    def done(worker: Worker) -> bool:
        counted.setdefault(id(worker), worker)
        return sum(each.stats.applied + each.stats.repeats for each in counted.values()) >= 60

    counted: dict[int, Worker] = {}
    await asyncio.gather(
        deliver(),
        redriven(database, queue.publisher(), batch_size=7),
        work(queue, database, done),
        work(queue, database, done),
    )

    assert await select_all(database_url, "SELECT DISTINCT status, version FROM orders") == [("paid", 2)]
    assert {each.state for each in await letters(database)} == {State.REDRIVEN}
    assert len((await stored(database_url))["events"]) == 30


async def test_the_password_is_in_no_table(database: Database, database_url: str) -> None:
    await bury(database, callback())
    await redriven(database, Nowhere())
    assert PASSWORD not in json.dumps(await everything(database_url), default=repr, ensure_ascii=False)
