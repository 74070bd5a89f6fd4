"""Every exception that oplata raises on purpose.

    OplataError
    ├── Retryable                 the same thing may succeed later; nothing is wrong with the input
    │   ├── HandlerFailed         a handler of the shop raised, or took too long
    │   ├── QueueUnavailable      the queue could not be reached, or did not confirm in time
    │   │   ├── NotConfirmed      a message may or may not have become durable
    │   │   └── Overloaded        a limit on what is in flight was reached; nothing was sent
    │   ├── DatabaseUnavailable   the database could not be reached, or lost the connection
    │   │   └── Contention        a deadlock, a serialization failure or a lock that was not granted in time
    │   ├── FeedUnavailable       the feed has all the subscribers it takes, or was stopped
    │   ├── LeaseLost             another process tells this sink now, or we may not go on
    │   └── DeliveryFailed        a sink did not take a change this time
    └── Permanent                 repeating it changes nothing; a person or the sender has to act
        ├── SettingsError         a setting is missing or wrong
        ├── MoneyError            a text or number is not an amount of money
        ├── BadNotification       bytes that are not a notification of the bank
        ├── NotAuthentic          a notification whose terminal or token is not ours
        ├── DataRejected          the database refuses the values of a row
        ├── SchemaError           the database's tables are older or newer than this program
        ├── TopologyError         the broker holds a queue or exchange that differs from ours
        ├── AccessError           an API key cannot be made or changed as asked
        │   └── KeyNotFound       no API key has that id
        ├── NotFound              there is nothing of that id
        ├── DeliveryRefused       a sink says that it will never take this change
        ├── SinkNotFound          no sink of that name has been told anything
        └── OrderError            an order cannot be changed as asked
            ├── OrderNotFound     no order of that id is registered
            └── StatusRefused     an order may not go from the status it has to the one that was said

Whether a fault is worth retrying is its type. The first line of a class's docstring is its default message, so a bare
``raise NotConfirmed`` still speaks in a sentence. No message may carry a secret, a password or a token.
"""

from __future__ import annotations


class OplataError(Exception):
    """Something went wrong in oplata."""

    def __init__(self, message: str | None = None) -> None:
        # A class of somebody else may have no docstring, and ``python -OO`` leaves none at all.
        sentences = (type(self).__doc__ or "").strip().splitlines()
        super().__init__(message or (sentences[0] if sentences else type(self).__name__))


class Retryable(OplataError):
    """The same thing may succeed later."""


class HandlerFailed(Retryable):
    """A handler of the shop failed.

    ``order_id`` and ``version`` name the change that it failed on; both are None where no single one is to blame.
    """

    def __init__(self, message: str | None = None, *, order_id: str | None = None, version: int | None = None) -> None:
        super().__init__(message)
        self.order_id = order_id
        self.version = version


class QueueUnavailable(Retryable):
    """The queue could not be reached."""


class NotConfirmed(QueueUnavailable):
    """The queue did not confirm the message in time; it may or may not be stored."""


class Overloaded(QueueUnavailable):
    """Too many messages are waiting for the queue's confirmation; nothing was sent."""


class DatabaseUnavailable(Retryable):
    """The database could not be reached."""


class Contention(DatabaseUnavailable):
    """The database gave the rows to another transaction; trying again is safe."""


class FeedUnavailable(Retryable):
    """The feed takes no subscriber now."""


class LeaseLost(Retryable):
    """Another process tells this sink now."""


class DeliveryFailed(Retryable):
    """The sink did not take the change this time."""

    def __init__(self, message: str | None = None, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Permanent(OplataError):
    """Repeating this changes nothing."""


class SettingsError(Permanent):
    """A setting is missing or wrong."""


class MoneyError(Permanent):
    """This is not an amount of money."""


class BadNotification(Permanent):
    """These bytes are not a notification of the bank."""


class NotAuthentic(Permanent):
    """The terminal is unknown or the token is wrong."""


class DataRejected(Permanent):
    """The database refuses these values."""


class SchemaError(Permanent):
    """The database's tables do not fit this version of oplata."""


class TopologyError(Permanent):
    """The broker holds a queue or an exchange that differs from the one asked for."""


class AccessError(Permanent):
    """The API key cannot be made or changed as asked."""


class KeyNotFound(AccessError):
    """There is no such API key."""


class NotFound(Permanent):
    """There is nothing of that id here."""


class DeliveryRefused(Permanent):
    """The sink says that it will never take this change."""


class SinkNotFound(Permanent):
    """No sink of that name is known."""


class OrderError(Permanent):
    """The order cannot be changed as asked."""


class OrderNotFound(OrderError):
    """No such order is registered."""


class StatusRefused(OrderError):
    """An order cannot go from its status to that one."""
