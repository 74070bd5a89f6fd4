"""Log lines: JSON for machines, text in a terminal, and in neither a password, a token, a card number or a body."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import Processor

HIDDEN = "***"

_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|authorization|cookie|api_?key|^pan$|_pan$|card_?(number|id)|exp_?date|rebill|cvc|cvv",
    re.IGNORECASE,
)
_BODY_KEY = re.compile(r"(^|_)(body|payload|raw)$", re.IGNORECASE)
# The password of a URL such as amqp://user:password@host; the user's name stays, it helps.
_URL_PASSWORD = re.compile(r"(\w+://[^\s:/@]*):[^\s/]*@")
_DEEPEST = 6

_CHATTY = {
    "uvicorn.access": logging.WARNING,
    "pika": logging.CRITICAL,
    "alembic": logging.WARNING,
    "httpx": logging.WARNING,
}
"""Libraries whose ordinary chatter is not news; pika tells of every connection attempt, and so do we."""


def configure(
    level: str = "info", form: Literal["auto", "json", "text"] = "auto", stream: TextIO | None = None
) -> None:
    """Send every log line of this process, our own and the libraries', to ``stream`` (standard error if None)."""
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
                *_renderers(text=text, colors=text and target.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, quietest in _CHATTY.items():
        logging.getLogger(name).setLevel(max(quietest, root.level))


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The structlog processor that hides what no log may hold, at any depth; a body is told by its length alone."""
    return {key: _safe(key, value, 0) for key, value in event.items()}


def without_passwords(text: str) -> str:
    """This text, with the password of every URL in it hidden."""
    return _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text)


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _renderers(*, text: bool, colors: bool) -> list[Processor]:
    # Redaction is the last step before the rendering, so that nothing that an earlier step adds slips past it.
    if text:
        plain = structlog.dev.plain_traceback
        console = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)
        return [structlog.processors.format_exc_info, redact, console]
    return [structlog.processors.format_exc_info, redact, structlog.processors.JSONRenderer(ensure_ascii=False)]


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
