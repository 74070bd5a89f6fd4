"""The program, broken on purpose, each time in one way that a careful person might break it. Each must be found out."""

from __future__ import annotations

from unittest import mock

from oplata.domain import order, status
from oplata.ingest.callback import Callback
from oplata.orders import commands
from oplata.queue.rabbitmq import consumer as rabbit_consumer
from oplata.queue.rabbitmq.confirms import Confirms
from oplata.queue.rabbitmq.consumer import RabbitConsumer
from oplata.queue.rabbitmq.publisher import RabbitPublisher
from oplata.queue.spool import SpoolingPublisher
from oplata.queue.sqlite import queue as sqlite_queue
from oplata.queue.sqlite.store import SqliteStore
from oplata.storage import verdicts
from oplata.storage.changes import ChangeLog
from oplata.storage.dead_letters import DeadLetters
from oplata.storage.events import EventStore
from oplata.worker import apply as worker_apply
from oplata.worker import backlog as worker_backlog
from oplata.worker import loop as worker_loop
from oplata.worker import settlement
from oplata.worker.batch import Part
from oplata.worker.handling import Handling
from oplata.worker.settlement import Settlement
from tests.simulation import breakages
from tests.simulation.mutant import Mutant, always, on_rabbitmq, on_sqlite, replaced, with_much_trouble, with_spool
from tests.simulation.unforeseen import UNFORESEEN

_AUTHORIZED_LAST = {"AUTHORIZED": status.StatusRule(99, status.Phase.HELD)}

MUTANTS: dict[str, Mutant] = {
    each.name: each
    for each in (
        Mutant(name="ack before commit", patches=[replaced(Settlement, "settle", breakages.ack_first)]),
        Mutant(name="OK before the confirm", patches=[replaced(Callback, "_publish", breakages.answer_first)]),
        Mutant(name="OK without a confirm", patches=[replaced(Callback, "_publish", breakages.answer_anyway)]),
        Mutant(
            name="what was sent is durable", patches=[replaced(RabbitPublisher, "begin", breakages.sent_is_durable)]
        ),
        Mutant(
            name="what is in doubt is durable", patches=[replaced(RabbitPublisher, "begin", breakages.doubt_is_durable)]
        ),
        Mutant(name="OK while in doubt", patches=[replaced(Callback, "_try_again", breakages.doubt_is_told_as_it_is)]),
        Mutant(
            name="select, then insert",
            patches=[
                replaced(Settlement, "_commit", breakages.select_before),
                replaced(EventStore, "record", breakages.plain_insert),
            ],
        ),
        Mutant(name="a cache of events seen", patches=[replaced(EventStore, "record", breakages.remember)]),
        Mutant(
            name="the last status wins",
            patches=[replaced(worker_apply, "join", lambda left, right: right or left)],
            needs=always,
        ),
        Mutant(
            name="AUTHORIZED after CONFIRMED is news",
            patches=[lambda: mock.patch.dict(status.PAYMENT_STATUSES, _AUTHORIZED_LAST)],
            needs=always,
        ),
        Mutant(
            name="the worker does not verify",
            patches=[replaced(worker_loop, "read", breakages.trust_anyone)],
            needs=always,
        ),
        Mutant(
            name="ingest does not verify",
            patches=[replaced(Callback, "_verify", lambda _self, _body, _content_type: None)],
            needs=always,
        ),
        Mutant(
            name="a registration overlooks earlier payments",
            patches=[replaced(commands, "reach_verdicts", breakages.ignore_earlier)],
            needs=always,
        ),
        Mutant(
            name="a split drops the neighbours",
            patches=[replaced(Part, "halves", breakages.halve_wrongly)],
            needs=with_much_trouble,
        ),
        Mutant(
            name="a dead letter is not stored",
            patches=[replaced(DeadLetters, "bury", breakages.bury_nothing)],
            needs=always,
        ),
        Mutant(
            name="changes are told outside the transaction",
            patches=[
                replaced(ChangeLog, "append", breakages.stash),
                replaced(Settlement, "_commit", breakages.tell_later),
            ],
            needs=always,
        ),
        Mutant(
            name="a retry acks before the rung has it",
            patches=[replaced(RabbitConsumer, "retry", breakages.ack_then_publish)],
            needs=on_rabbitmq,
        ),
        Mutant(
            name="the spool forgets before the confirm",
            patches=[replaced(SpoolingPublisher, "_forward", breakages.forget_first)],
            needs=with_spool,
        ),
        Mutant(
            name="an outage acks",
            patches=[replaced(Settlement, "settle", breakages.ack_in_outage)],
            needs=with_much_trouble,
        ),
        Mutant(
            name="a lost commit counts as done", patches=[replaced(Settlement, "_commit", breakages.swallow_outage)]
        ),
        Mutant(
            name="a wrong amount pays",
            patches=[replaced(order, "_mismatch", lambda _amount, _payment: None)],
            needs=always,
        ),
        Mutant(
            name="ack multiple reaches too far",
            patches=[replaced(rabbit_consumer, "plan", lambda _unsettled, tags: (max(tags, default=0), []))],
            needs=on_rabbitmq,
        ),
        Mutant(
            name="a lost connection confirms",
            patches=[replaced(Confirms, "lose_all", breakages.lost_is_confirmed)],
            needs=on_rabbitmq,
        ),
        Mutant(
            name="a refusal confirms",
            patches=[replaced(Confirms, "settle", breakages.refused_is_confirmed)],
            needs=on_rabbitmq,
        ),
        Mutant(
            name="the file's publish is not waited for",
            patches=[replaced(sqlite_queue.SqlitePublisher, "publish", breakages.publish_unwaited)],
            needs=on_sqlite,
        ),
        Mutant(
            name="what the file was given is durable",
            patches=[replaced(sqlite_queue.SqlitePublisher, "begin", breakages.written_is_durable)],
            needs=on_sqlite,
        ),
        Mutant(
            name="what the file refused is durable",
            patches=[replaced(sqlite_queue.SqlitePublisher, "begin", breakages.refused_is_durable)],
            needs=on_sqlite,
        ),
        Mutant(
            name="a full disk confirms",
            patches=[replaced(sqlite_queue.SqlitePublisher, "publish", breakages.publish_hopefully)],
            needs=on_sqlite,
        ),
        Mutant(
            name="what is put off is acked",
            patches=[replaced(Settlement, "_put_off", breakages.ack_what_is_put_off)],
            needs=with_much_trouble,
        ),
        Mutant(
            name="announce before commit",
            patches=[
                replaced(Settlement, "_commit", breakages.commit_for_the_hasty),
                replaced(settlement, "apply", breakages.announce_first),
            ],
        ),
        Mutant(name="an outage buries", patches=[replaced(settlement, "remedy", breakages.outage_is_final)]),
        Mutant(
            name="a change of the review is not told",
            patches=[replaced(verdicts, "_change", breakages.change_without_review)],
            needs=always,
        ),
        Mutant(
            name="the spool forgets what failed",
            patches=[replaced(SpoolingPublisher, "_forward", breakages.forward_once)],
            needs=with_spool,
        ),
        Mutant(
            name="acks of an older connection count",
            patches=[replaced(RabbitConsumer, "_current_tags", breakages.any_generation)],
            needs=on_rabbitmq,
        ),
        Mutant(
            name="a handler's failure is forgotten",
            patches=[replaced(Handling, "run", breakages.forget_failures)],
            needs=with_much_trouble,
        ),
        Mutant(
            name="what was handled is not marked",
            patches=[replaced(ChangeLog, "append", breakages.append_unmarked)],
            needs=always,
        ),
        Mutant(
            name="nobody looks for what was changed elsewhere",
            patches=[replaced(worker_backlog.Backlog, "run", breakages.look_for_nothing)],
            needs=always,
        ),
        Mutant(
            name="a dead worker keeps its messages",
            patches=[replaced(SqliteStore, "_lost_seats", breakages.nobody_is_lost)],
            needs=on_sqlite,
        ),
        *UNFORESEEN,
    )
}
"""By name. Each has to die within the seeds of ``test_mutants.py``."""
