"""Mistakes that the simulation was not made for: written down one evening, from every room, and left as they are."""

from __future__ import annotations

from oplata.ingest import answer
from oplata.ingest.callback import Callback
from oplata.orders import commands
from oplata.queue.rabbitmq.confirms import Confirms
from oplata.queue.rabbitmq.consumer import RabbitConsumer
from oplata.queue.rabbitmq.publisher import RabbitPublisher
from oplata.queue.spool import SpoolingPublisher
from oplata.queue.sqlite import lane, store
from oplata.queue.sqlite import queue as sqlite_queue
from oplata.queue.sqlite.lane import Lane
from oplata.storage import engine
from oplata.storage.changes import ChangeLog
from oplata.storage.events import EventStore
from oplata.worker import apply as worker_apply
from oplata.worker import batch, settlement
from oplata.worker import loop as worker_loop
from oplata.worker.batch import Part
from oplata.worker.settlement import Settlement
from tests.simulation import breakages
from tests.simulation import wrong_turns as wrong
from tests.simulation.mutant import (
    Mutant,
    always,
    on_rabbitmq,
    on_sqlite,
    replaced,
    with_much_trouble,
    with_spool,
)

UNFORESEEN = (
    Mutant(name="a late confirm is OK", patches=[replaced(answer, "UNCONFIRMED", answer.OK)]),
    Mutant(name="a full house is OK", patches=[replaced(answer, "OVERLOADED", answer.OK)]),
    Mutant(
        name="the body is written anew",
        patches=[replaced(Callback, "_envelope", wrong.written_anew)],
        needs=always,
    ),
    Mutant(
        name="a returned message is confirmed",
        patches=[replaced(RabbitPublisher, "_on_return", wrong.a_return_is_nothing)],
        needs=on_rabbitmq,
    ),
    Mutant(
        name="a confirm is for the next one",
        patches=[replaced(Confirms, "settle", wrong.confirm_the_next)],
        needs=on_rabbitmq,
    ),
    Mutant(
        name="what goes back is acked",
        patches=[
            replaced(RabbitConsumer, "retry", wrong.put_off_every_other_time),
            replaced(RabbitConsumer, "release", wrong.release_by_ack),
        ],
        needs=on_rabbitmq,
    ),
    Mutant(
        name="a stop acks what is in hand",
        patches=[replaced(RabbitConsumer, "close", wrong.close_by_ack)],
        needs=on_rabbitmq,
    ),
    Mutant(
        name="the spool is not waited for",
        patches=[replaced(SpoolingPublisher, "publish", wrong.spool_unwaited)],
        needs=with_spool,
    ),
    Mutant(
        name="a full spool is OK",
        patches=[replaced(SpoolingPublisher, "publish", wrong.spool_hopefully)],
        needs=with_spool,
    ),
    Mutant(
        name="the spool forgets what was too much",
        patches=[replaced(SpoolingPublisher, "_forward", wrong.forward_overloads)],
        needs=with_spool,
    ),
    Mutant(
        name="the queue's file is never synced",
        patches=[replaced(lane, "transact", wrong.transact_unsynced)],
        needs=on_sqlite,
    ),
    Mutant(
        name="a publish shares an unsynced commit",
        patches=[replaced(Lane, "submit", wrong.publish_as_if_it_did_not_matter)],
        needs=on_sqlite,
    ),
    Mutant(
        name="the orders are synced now and then",
        patches=[replaced(engine, "_sqlite_engine", wrong.hasty_engine)],
        needs=on_sqlite,
    ),
    Mutant(
        name="a failed commit of the file counts",
        patches=[replaced(lane, "_after_a_failure", wrong.failure_is_success)],
        needs=on_sqlite,
    ),
    Mutant(
        name="a publish that took too long is confirmed",
        patches=[replaced(sqlite_queue.SqlitePublisher, "publish", wrong.late_is_confirmed)],
        needs=on_sqlite,
    ),
    Mutant(
        name="a clock that was set back is not noticed",
        patches=[
            replaced(store, "_CLOCK_WAS_SET_BACK", "SELECT ?1, ?2"),
            replaced(store, "_WANTS", store._WANTS.replace("set_at_ms > ?", "set_at_ms > ? AND 0")),
        ],
        needs=on_sqlite,
    ),
    Mutant(
        name="what was put off never becomes ready",
        patches=[replaced(store, "_PROMOTE", store._PROMOTE.replace("due_at_ms = 0", "due_at_ms = due_at_ms"))],
        needs=on_sqlite,
    ),
    Mutant(
        name="a stop deletes what is in hand",
        patches=[replaced(store, "_RELEASE_ONE", wrong.DELETE_LEASED + " AND id = ? AND leases = ?")],
        needs=on_sqlite,
    ),
    Mutant(
        name="what a dead worker held is deleted",
        patches=[replaced(store, "_COUNT_DEATHS", "SELECT ?1, ?2"), replaced(store, "_RELEASE", wrong.DELETE_LEASED)],
        needs=on_sqlite,
    ),
    Mutant(
        name="event and effect commit apart",
        patches=[replaced(EventStore, "record", wrong.record_by_itself)],
        needs=with_much_trouble,
    ),
    Mutant(
        name="a failed batch is committed as far as it got",
        patches=[replaced(Settlement, "_commit", wrong.commit_what_there_is)],
        needs=with_much_trouble,
    ),
    Mutant(name="the first status wins", patches=[replaced(worker_apply, "join", wrong.the_first_wins)], needs=always),
    Mutant(
        name="only the highest amount is kept",
        patches=[replaced(worker_apply, "join", wrong.the_highest_wins)],
        needs=always,
    ),
    Mutant(
        name="Success is not looked at",
        patches=[replaced(worker_apply, "evidence_of", wrong.every_claim_counts)],
        needs=always,
    ),
    Mutant(
        name="a batch forgets the order's other payments",
        patches=[replaced(worker_apply, "reach_verdicts", breakages.ignore_earlier)],
        needs=always,
    ),
    Mutant(
        name="a registration decides nothing",
        patches=[replaced(commands, "reach_verdicts", breakages.decide_nothing)],
        needs=always,
    ),
    Mutant(name="a change is told twice", patches=[replaced(ChangeLog, "append", wrong.tell_twice)], needs=always),
    Mutant(
        name="a held lock buries",
        patches=[replaced(settlement, "remedy", wrong.lock_buries)],
        needs=with_much_trouble,
    ),
    Mutant(
        name="a refused value holds up the queue",
        patches=[replaced(settlement, "remedy", wrong.refusal_pauses)],
        needs=always,
    ),
    Mutant(
        name="a surprise buries at once",
        patches=[replaced(settlement, "remedy", wrong.surprise_buries)],
        needs=with_much_trouble,
    ),
    Mutant(
        name="a split loses a dead letter",
        patches=[replaced(Part, "halves", wrong.halve_the_works_alone)],
        needs=with_much_trouble,
    ),
    Mutant(
        name="what comes again is taken for known",
        patches=[replaced(Settlement, "settle", wrong.skip_a_part_of_one)],
        needs=with_much_trouble,
    ),
    Mutant(
        name="what comes again among others is skipped",
        patches=[replaced(worker_loop, "read", wrong.read_redelivered_as_known)],
        needs=with_much_trouble,
    ),
    Mutant(
        name="the broker's dead letters are passed over",
        patches=[replaced(worker_loop, "read_dead", wrong.no_dead_letters(batch.read_dead))],
        needs=lambda shape: shape.faults > 0 and shape.may_give_up,
    ),
)
