"""Log lines: JSON for machines, text in a terminal, and in neither a password, a token, a card number or a body."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from opentelemetry import trace
from structlog.typing import Processor

from oplata.observability.faults import describe
from oplata.observability.reports import Reports

HIDDEN = "***"

_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|authorization|cookie|api_?key|^pan$|_pan$|card_?(number|id)|exp_?date|rebill|cvc|cvv",
    re.IGNORECASE,
)
_BODY_KEY = re.compile(r"(^|_)(body|payload|raw)$", re.IGNORECASE)
# The password of a URL such as amqp://user:password@host; the user's name stays, it helps.
# It goes to the last "@", since a password that was not escaped may hold anything else.
_URL_PASSWORD = re.compile(r"(\w+://[^\s:/@]*):[^\s\"']*@")
_QUERY_PASSWORD = re.compile(r"([?&]\w*(?:password|secret|token)=)[^&\s\"']*", re.IGNORECASE)
_DEEPEST = 6
_ACTION = re.compile(r"[a-z_]+\.[a-z_]+")

_CHATTY = {
    "uvicorn.access": logging.WARNING,
    "pika": logging.CRITICAL,
    "alembic": logging.WARNING,
    "httpx": logging.WARNING,
}
"""Libraries whose ordinary chatter is not news; pika tells of every connection attempt, and so do we."""


_log = structlog.get_logger("oplata.app")


def configure(
    level: str = "info",
    form: Literal["auto", "json", "text"] = "auto",
    stream: TextIO | None = None,
    *,
    reports: Reports | None = None,
) -> None:
    """Send every log line of this process, our own and the libraries', to ``stream`` (standard error if None).

    Those of errors go to ``reports`` as well, when there are any.
    """
    target = sys.stderr if stream is None else stream
    text = form == "text" or (form == "auto" and target.isatty())
    shared = _shared_processors()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _Telling(reports),
                *_renderers(text=text, colors=text and target.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # What libraries say in detail may be statements with the values in them: theirs is never asked for.
    root.setLevel(max(logging.getLevelName(level.upper()), logging.INFO))
    logging.getLogger("oplata").setLevel(level.upper())
    for name, quietest in _CHATTY.items():
        logging.getLogger(name).setLevel(max(quietest, root.level))


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The structlog processor that hides what no log may hold, at any depth; a body is told by its length alone."""
    return {key: _safe(key, value, 0) for key, value in event.items()}


def without_passwords(text: str) -> str:
    """This text, with the password of every URL in it hidden."""
    return _QUERY_PASSWORD.sub(rf"\1{HIDDEN}", _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text))


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_action,
        _with_trace,
    ]


def _with_action(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A line that is but the name of an action has it as its action."""
    said = event.get("event")
    if "action" not in event and isinstance(said, str) and _ACTION.fullmatch(said):
        event["action"] = said
    return event


def _with_trace(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The trace that the line belongs to, where there is one."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event.setdefault("trace_id", f"{context.trace_id:032x}")
    return event


class _Telling:
    """What may be told of a line: its error without what a stranger's error says, and nothing secret.

    It is the last step before the rendering, so that nothing that an earlier step adds slips past it.
    """

    def __init__(self, reports: Reports | None) -> None:
        self._reports = reports

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        error = _error_of(event.pop("exc_info", None))
        if error is not None:
            event["exception"] = describe(error)
        told = redact(logger, method, event)
        if self._reports is not None:
            self._reports.report(str(told.get("level", method)), told, error)
        return told


def loop_failed(_loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """The event loop's exception handler: asyncio's own writes out what the error says, and of which task."""
    error = context.get("exception")
    _log.error(
        "A task failed, and nobody waits for it.",
        action="loop.failed",
        said=str(context.get("message", "")) if error is None else type(error).__qualname__,
        exc_info=error if isinstance(error, BaseException) else None,
    )


def _error_of(given: object) -> BaseException | None:
    """The exception that a log call means by ``exc_info``."""
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        return given[1] if isinstance(given[1], BaseException) else None
    return sys.exc_info()[1] if given else None


def _renderers(*, text: bool, colors: bool) -> list[Processor]:
    if text:
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]
    return [structlog.processors.JSONRenderer(ensure_ascii=False)]


def _safe(key: str, value: object, depth: int) -> object:
    if value is None or isinstance(value, bool | int | float):
        return HIDDEN if value is not None and not isinstance(value, bool) and _SECRET_KEY.search(key) else value
    if _SECRET_KEY.search(key):
        return HIDDEN
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if _BODY_KEY.search(key):
        return f"<{len(value)} characters>" if isinstance(value, str) else "<a body>"
    if isinstance(value, str):
        return without_passwords(value)
    if depth >= _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        return {str(name): _safe(str(name), inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_safe(key, inner, depth + 1) for inner in value]
    return without_passwords(str(value))
