"""From what the settings say of a sink to the sink itself, with how it is told and where it begins."""

from __future__ import annotations

import random
from collections.abc import Iterable

from oplata.feed.lane import Options
from oplata.feed.relay import Target
from oplata.feed.schedule import Schedule
from oplata.feed.sinks.base import Sink
from oplata.settings.feed import AmqpSink, AnySink, WebhookSink


def targets_of(sinks: Iterable[AnySink]) -> list[Target]:
    """The sinks that these settings describe. Raises ``SettingsError``."""
    return [_target(settings) for settings in sinks]


def _target(settings: AnySink) -> Target:
    return Target(
        name=settings.name,
        sink=_sink(settings),
        options=Options(
            concurrency=settings.concurrency,
            timeout_s=settings.timeout_s,
            schedule=Schedule(delays_ms=settings.retry_delays_ms, max_attempts=settings.max_attempts),
            keep_days=settings.keep_days,
        ),
        start=settings.start,
    )


def _sink(settings: AnySink) -> Sink:
    # What only one kind needs, such as an HTTP client, is imported for that kind.
    url, timeout_s = settings.url.get_secret_value(), settings.timeout_s
    if isinstance(settings, AmqpSink):
        from oplata.feed.sinks.amqp import AmqpSink as AmqpTold
        from oplata.queue.rabbitmq.topic import Topic

        topic = Topic(
            url,
            settings.exchange,
            declare=settings.declare,
            mandatory=settings.mandatory,
            rng=random.SystemRandom(),
        )
        return AmqpTold(topic, timeout_s=timeout_s, statuses=settings.statuses)
    headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
    if isinstance(settings, WebhookSink):
        from oplata.feed.sinks.webhook import WebhookSink as WebhookTold

        secrets = [secret.get_secret_value() for secret in settings.secrets]
        return WebhookTold(url, secrets, headers=headers, statuses=settings.statuses, timeout_s=timeout_s)
    from oplata.feed.sinks.trpc import TrpcSink as TrpcTold

    return TrpcTold(
        url,
        procedure=settings.procedure,
        fields=settings.fields,
        statuses=settings.statuses,
        headers=headers,
        transformer=settings.transformer,
        batch=settings.batch,
        timeout_s=timeout_s,
    )
