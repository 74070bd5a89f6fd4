"""Our errors as a client is told of them."""

from __future__ import annotations

from oplata.errors import (
    DatabaseUnavailable,
    DataRejected,
    MoneyError,
    NotFound,
    OrderError,
    OrderNotFound,
    QueueUnavailable,
    Retryable,
    SchemaError,
    StatusRefused,
)
from oplata.rpc import RpcError

_AWAY = "The database is away for the moment; try again soon."


def translated(error: Exception) -> RpcError | None:
    """What a client is told of an error of ours; None for one that nobody foresaw, which is logged and not told."""
    match error:
        case OrderNotFound() | NotFound():
            return RpcError("NOT_FOUND", str(error))
        case StatusRefused():
            return RpcError("CONFLICT", str(error))
        case OrderError() | MoneyError():
            return RpcError("BAD_REQUEST", str(error))
        case DataRejected():
            return RpcError("BAD_REQUEST", "The database refuses a value of this call.")
        case DatabaseUnavailable() | SchemaError():
            # What these say is for the operator, and stands in the log.
            return RpcError("SERVICE_UNAVAILABLE", _AWAY)
        case QueueUnavailable():
            return RpcError("SERVICE_UNAVAILABLE", "The queue is away for the moment; try again soon.")
        case Retryable():
            return RpcError("SERVICE_UNAVAILABLE", str(error))
    return None
