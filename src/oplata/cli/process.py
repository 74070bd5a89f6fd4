"""The commands that run until they are told to stop: ``up``, ``serve`` and ``worker``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import click
import structlog

from oplata.app import Oplata, Role
from oplata.cli.code import load_handlers
from oplata.cli.lifetime import listening, run_loop, signals_heard, until_stopped
from oplata.cli.service.post import Post
from oplata.cli.service.watched import Watched
from oplata.errors import OplataError
from oplata.observability.logging import configure, loop_failed, without_passwords
from oplata.observability.server import exposed
from oplata.settings import Settings
from oplata.settings.observers import reports_of

ORPHAN_EXTRA_S = 30.0

_log = structlog.get_logger("oplata.app")


def run_role(
    role: Role,
    settings: Settings,
    *,
    app: str | None = None,
    post: Post | None = None,
    reread: Callable[[], Settings],
) -> None:
    """Run this role until SIGTERM or SIGINT, then drain. Raises what ends it before.

    ``app`` is where the shop's own functions are, as ``module:name``. ``post`` is given by a parent that runs several.
    At SIGHUP the settings are read anew with ``reread``, and the terminals' passwords taken from them.
    """
    with reporting(settings):
        handlers = None if app is None else load_handlers(app)
        run_loop(_run(Oplata(settings, role=role, handlers=handlers), post, reread))


@contextlib.contextmanager
def reporting(settings: Settings) -> Iterator[None]:
    """The log, and reports of errors where they are wanted; also of the bug that ends the program."""
    reports = reports_of(settings)
    configure(settings.log_level, settings.log_format, reports=reports)
    try:
        yield
    except Exception as error:
        if _expected(error):
            raise
        # Python's own traceback would write out what the error says, which nobody has foreseen.
        _log.critical("A bug ended the program.", action="app.crash", exc_info=error)
        raise SystemExit(1) from None
    finally:
        if reports is not None:
            reports.close()


def _expected(error: Exception) -> bool:
    if isinstance(error, ExceptionGroup):
        return error.split(OplataError)[1] is None
    return isinstance(error, OplataError | click.ClickException | click.Abort)


async def _run(app: Oplata, post: Post | None, reread: Callable[[], Settings]) -> None:
    asyncio.get_running_loop().set_exception_handler(loop_failed)
    watched = Watched(str(app.role), post, progresses=app.progresses)
    if watched.lifeline is not None:
        watched.lifeline.leave_with_parent(app.settings.drain_timeout_s + ORPHAN_EXTRA_S)
    with signals_heard(
        on_hangup=lambda: app.rotate(reread),
        # Whoever signals the whole family sends each signal twice, once through the parent, whose end means "at once".
        twice_leaves=post is None,
    ) as stopping:
        async with watched.beating(), _running(app, post) as told:
            watched.ready(told)
            await until_stopped(stopping, app.watch())
            watched.stopping()
            click.echo(
                f"{watched.title} is stopping: it finishes what is in flight"
                + ("; a second signal leaves at once" if post is None else ""),
                err=True,
            )


@contextlib.asynccontextmanager
async def _running(app: Oplata, post: Post | None) -> AsyncIterator[str]:
    """The role, started; yields what there is to say about it."""
    settings = app.settings
    async with app, _measured(app, post):
        if app.role is Role.WORKER:
            queue = without_passwords(settings.queue_url.get_secret_value())
            yield f"is ready: it takes callbacks from {queue} and applies them to {app.database.name}"
            return
        await app.require_key()
        shared = None if post is None else post.port
        async with listening(app, settings.host, shared or settings.port, shared=shared is not None) as url:
            yield (
                f"is ready at {url}{settings.callback_path} - point the terminal's NotificationURL "
                f"at https://YOUR-PUBLIC-HOST{settings.callback_path}"
            )


@contextlib.asynccontextmanager
async def _measured(app: Oplata, post: Post | None) -> AsyncIterator[None]:
    """The metrics port, where one is wanted; each further process of a command has the next one."""
    port = app.settings.metrics_port
    if port is None:
        yield
        return
    further = 0 if post is None else post.number - 1
    async with exposed(app.exposition, app.settings.metrics_host, port + further) as url:
        _log.info("Metrics and health are told.", action="metrics.listen", url=url)
        yield
