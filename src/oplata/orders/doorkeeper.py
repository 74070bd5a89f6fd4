"""Recognises who calls: by an API key, by a buyer's token, or not at all; and slows down who calls too often."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import msgspec
import structlog

from oplata.errors import DatabaseUnavailable, OplataError
from oplata.observability.faults import describe
from oplata.orders.buckets import Buckets, neighbourhood
from oplata.orders.buyer import PREFIX, BuyerTokens
from oplata.orders.clock import wall_clock_ms
from oplata.orders.keys import digest_of, id_of
from oplata.orders.scopes import Scope
from oplata.orders.shop import Shop
from oplata.orders.visitor import Visitor, ended_at
from oplata.rpc import ContextRequest, RpcError
from oplata.storage.engine import Database
from oplata.storage.keys import KeyRow

KNOWN_S = 3.0
"""A key that was looked up is believed for so long; so long a revoked one may still open something."""

MAX_KNOWN = 1000
LOOKUPS = 4
"""How many keys are looked up at the same moment: strangers must not take every connection to the database."""

LOOKUP_TIMEOUT_S = 5.0
USED_EVERY_MS = 60_000
BUYER_STREAMS = 16
"""So many streams may be open for one order with buyers' tokens: one buyer must not take those of all the others."""

MAX_CREDENTIAL_LENGTH = 600

_log = structlog.get_logger("oplata.orders")
_NO_DIGEST = "0" * 64


AddressOf = Callable[[str, Sequence[tuple[bytes, bytes]]], str]
"""The address behind trusted proxies, of a peer and the request's headers."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Calls per second: of one key, of one buyer's order, of one address without either. A burst is twice as many.

    ``failures`` are wrong keys and tokens of one address; those are looked at more slowly than anything else.
    """

    key: float = 500
    buyer: float = 10
    address: float = 20
    failures: float = 0.2
    failure_burst: float = 20


class Doorkeeper:
    """Makes a visitor of each request.

    With ``open_to_all`` a request without a key may do everything; one with a key is still held to it. ``address_of``
    tells the address behind trusted proxies.
    """

    def __init__(
        self,
        database: Database,
        shop: Shop,
        tokens: BuyerTokens,
        *,
        address_of: AddressOf,
        open_to_all: bool = False,
        rates: Rates | None = None,
        now_ms: Callable[[], int] = wall_clock_ms,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        rates = rates or Rates()
        self._database = database
        self._shop = shop
        self._tokens = tokens
        self._address_of = address_of
        self._open_to_all = open_to_all
        self._now_ms = now_ms
        self._clock = clock
        self._keys, self._buyers, self._strangers = (
            Buckets(rate, 2 * rate, clock=clock) for rate in (rates.key, rates.buyer, rates.address)
        )
        self._failures = Buckets(rates.failures, rates.failure_burst, clock=clock)
        self._known: dict[str, tuple[KeyRow, float]] = {}
        self._lookups = asyncio.Semaphore(LOOKUPS)
        self._used: dict[str, int] = {}
        self._unwritten: dict[str, int] = {}
        self._writing: asyncio.Task[None] | None = None
        self._streams: dict[str, set[asyncio.Task[object]]] = {}
        self._buyer_streams: Counter[str] = Counter()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to end the streams of keys that open nothing any more."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="oplata-keys")

    async def stop(self) -> None:
        """Stop that."""
        tasks = [task for task in (self._watching, self._writing) if task is not None]
        self._watching = self._writing = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def recognise(self, request: ContextRequest) -> Visitor:
        """Who this is. Raises ``RpcError``: UNAUTHORIZED, TOO_MANY_REQUESTS, SERVICE_UNAVAILABLE."""
        calls = max(1, len(request.paths))
        address = neighbourhood(self._address_of(request.client[0] if request.client else "", request.scope["headers"]))
        credential = _bearer(request.headers)
        given = (request.connection_params or {}).get("token")
        if credential is None and given is not None:
            # The parameters of a stream stand in its URL, and URLs stand in logs: a key does not belong there.
            if not given.startswith(PREFIX):
                raise RpcError("UNAUTHORIZED", "Only a buyer's token is taken from the connection's parameters.")
            credential = given
        if credential is None:
            return self._stranger(request, address, calls)
        if credential.startswith(PREFIX):
            return self._buyer(request, credential, address, calls)
        return await self._holder(request, credential, address, calls)

    def _stranger(self, request: ContextRequest, address: str, calls: int) -> Visitor:
        if self._open_to_all:
            return Visitor(self._shop, "insecure", Scope.OPERATE)
        _grant(self._strangers, address, calls, request)
        return Visitor(self._shop, "nobody", None)

    def _buyer(self, request: ContextRequest, token: str, address: str, calls: int) -> Visitor:
        self._refuse_guessing(request, address)
        claim = self._tokens.read(token)
        if claim is None:
            raise self._wrong("buyer", address)
        _grant(self._buyers, claim.order_id, calls, request)
        left_s = (claim.expires_at_ms - self._now_ms()) / 1000
        hold = partial(self._held_by_buyer, claim.order_id, left_s)
        return Visitor(self._shop, "buyer", None, order_id=claim.order_id, hold=hold)

    async def _holder(self, request: ContextRequest, key: str, address: str, calls: int) -> Visitor:
        digest = digest_of(key) if len(key) <= MAX_CREDENTIAL_LENGTH else _NO_DIGEST
        known = self._known.get(digest)
        if known is None:
            # Only who has never been recognised here is held up: a stranger behind the same proxy costs a shop nothing.
            self._refuse_guessing(request, address)
        row = known[0] if known is not None and self._clock() < known[1] else await self._look_up(key, digest)
        if row is None or not row.is_good(self._now_ms()):
            self._known.pop(digest, None)
            raise self._wrong("key", address, id_of(key))
        _grant(self._keys, row.id, calls, request)
        self._note_use(row)
        return Visitor(self._shop, f"{row.name} ({row.id})", Scope(row.scope), hold=partial(self._held, row.id))

    async def _look_up(self, key: str, digest: str) -> KeyRow | None:
        key_id = id_of(key)
        if key_id is None:
            return None
        row = await self._read(key_id)
        # A key of an unknown id is compared as well, so that ids cannot be told apart by the time.
        if not hmac.compare_digest(digest, _NO_DIGEST if row is None else row.digest) or row is None:
            return None
        self._known.pop(digest, None)
        self._known[digest] = (row, self._clock() + KNOWN_S)
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        return row

    async def _read(self, key_id: str) -> KeyRow | None:
        try:
            async with (
                asyncio.timeout(LOOKUP_TIMEOUT_S),
                self._lookups,
                self._database.unit_of_work(read_only=True) as uow,
            ):
                return await uow.keys.get(key_id)
        except TimeoutError:
            raise DatabaseUnavailable("the database does not answer") from None

    def _refuse_guessing(self, request: ContextRequest, address: str) -> None:
        if not self._failures.has(address):
            request.response_headers.append(("retry-after", "5"))
            raise RpcError("TOO_MANY_REQUESTS", "Too many wrong keys or tokens came from this address; wait a little.")

    def _wrong(self, kind: str, address: str, key_id: str | None = None) -> RpcError:
        # Only what the bucket grants is logged: many that come at the same moment must not fill a disk with our lines.
        if self._failures.take(address):
            _log.warning(
                "A wrong credential was refused.",
                action="door.credential_refused",
                kind=kind,
                source=address,
                id=key_id,
            )
        return RpcError("UNAUTHORIZED", "This key or token opens nothing here: it is wrong, revoked or has expired.")

    def _note_use(self, row: KeyRow) -> None:
        now_ms = self._now_ms()
        if now_ms - max(row.last_used_at_ms or 0, self._used.get(row.id, 0)) < USED_EVERY_MS:
            return
        self._used[row.id] = self._unwritten[row.id] = now_ms
        if len(self._used) > MAX_KNOWN:
            self._used.clear()
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_use(), name="oplata-key-use")

    async def _write_use(self) -> None:
        """Beside the calls, and never in the way of one. What is lost here is lost without harm."""
        while self._unwritten:
            times, self._unwritten = self._unwritten, {}
            try:
                async with self._database.unit_of_work() as uow:
                    await uow.keys.used(times)
                    await uow.commit()
            except OplataError as error:
                for key_id in times:
                    self._used.pop(key_id, None)  # The next use is written again.
                _log.info("When keys were used was not noted.", action="door.key_use", error=describe(error))

    @contextlib.contextmanager
    def _held_by_buyer(self, order_id: str, left_s: float) -> Iterator[None]:
        if self._buyer_streams[order_id] >= BUYER_STREAMS:
            raise RpcError("SERVICE_UNAVAILABLE", "As many watch this order as may; come again.")
        self._buyer_streams[order_id] += 1
        try:
            with ended_at(left_s):
                yield
        finally:
            self._buyer_streams[order_id] -= 1
            if not self._buyer_streams[order_id]:
                del self._buyer_streams[order_id]

    @contextlib.contextmanager
    def _held(self, key_id: str) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  A stream is produced by a task.
        streams = self._streams.setdefault(key_id, set())
        streams.add(task)
        try:
            yield
        finally:
            streams.discard(task)
            if not streams:
                self._streams.pop(key_id, None)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(KNOWN_S)
            for key_id in sorted(self._streams):
                try:
                    row = await self._read(key_id)
                except OplataError:
                    continue  # Nobody can revoke a key meanwhile.
                if row is None or not row.is_good(self._now_ms()):
                    for task in self._streams.pop(key_id, set()):
                        task.cancel()


def _grant(buckets: Buckets, name: str, calls: int, request: ContextRequest) -> None:
    if not buckets.take(name, calls):
        request.response_headers.append(("retry-after", "1"))
        # A subscriber who is told the latter comes again; told the former, it would give up.
        code = "SERVICE_UNAVAILABLE" if request.headers.get("accept") == "text/event-stream" else "TOO_MANY_REQUESTS"
        raise RpcError(code, "Too many calls came at once; wait a little.")  # type: ignore[arg-type]  # Both are codes.


def _bearer(headers: Mapping[str, str]) -> str | None:
    given = headers.get("authorization")
    if given is None:
        return None
    scheme, _, credential = given.partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else given
