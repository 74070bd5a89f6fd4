"""The shop's door: who may come in, what each may do, and that nothing changes for anybody else."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from oplata import Oplata, Role, Settings
from oplata.errors import SettingsError
from oplata.orders.router import router
from oplata.orders.scopes import Scope
from oplata.orders.visitor import Visitor
from oplata.rpc import RpcError
from oplata.storage.dead_letters import DeadLetter
from tests.databases import NOW_MS, apply_all, callback, select_all
from tests.notifications import PASSWORD, TERMINAL_KEY

pytestmark = pytest.mark.anyio

SIGNING = ("a" * 32, "b" * 32)
WAIT_S = 20.0


def settings(folder: Path, **more: Any) -> Settings:
    given: dict[str, Any] = {
        "terminal_key": TERMINAL_KEY,
        "terminal_password": PASSWORD,
        "queue_url": f"sqlite:///{folder / 'queue.db'}",
        "database_url": f"sqlite:///{folder / 'oplata.db'}",
        "buyer_token_keys": SIGNING,
    }
    return Settings(**(given | more))


class Shop:
    """The program, and whoever calls it over HTTP."""

    def __init__(self, app: Oplata, address: str = "192.0.2.1") -> None:
        self.app = app
        self.keys: dict[str, str] = {}
        transport = httpx.ASGITransport(app.asgi, client=(address, 1))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://shop")

    async def call(self, path: str, *, key: str | None = None, **given: object) -> httpx.Response:
        """As a client without a library does it: queries by GET, mutations by POST."""
        headers = {} if key is None else {"authorization": f"Bearer {self.keys.get(key, key)}"}
        if router.procedures()[path].kind == "mutation":
            return await self.http.post(f"/api/trpc/{path}", json=given, headers=headers)
        query = {"input": json.dumps(given)} if given else {}
        return await self.http.get(f"/api/trpc/{path}", params=query, headers=headers)

    async def told(self, path: str, *, key: str | None = "operate", **given: object) -> Any:
        answer = await self.call(path, key=key, **given)
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]["data"]


@asynccontextmanager
async def opened(folder: Path, **more: Any) -> AsyncIterator[Shop]:
    async with Oplata(settings(folder, **more)) as app:
        shop = Shop(app)
        for scope in Scope:
            shop.keys[scope.value] = (await app.keys.create(scope.value, scope, who="test")).key
        async with shop.http:
            yield shop


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened(tmp_path) as shop:
        await shop.told("orders.register", orderId="A-1", amount=19_900)
        yield shop


async def until(ask: Callable[[], Awaitable[Any]], enough: Callable[[Any], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not enough(await ask()):  # noqa: ASYNC110  What is waited for happens behind the database.
            await asyncio.sleep(0.1)


def at(shop: Shop, time_s: float) -> None:
    """For who keeps the door it is this moment now, and stays it: what was granted does not grow again meanwhile."""
    keeper = shop.app.door._keeper
    keeper._now_ms = lambda: round(time_s * 1000)
    keeper._clock = lambda: time_s
    for buckets in (keeper._keys, keeper._buyers, keeper._strangers, keeper._failures):
        buckets._clock = keeper._clock


async def stored(shop: Shop) -> list[Any]:
    url = shop.app.settings.database_url.get_secret_value()
    return [await select_all(url, f"SELECT * FROM {table}") for table in ("orders", "words", "changes")]  # noqa: S608


async def test_the_call_as_shops_write_it_makes_an_order_paid(shop: Shop) -> None:
    answer = await shop.http.post(
        "/api/trpc/orders.updateStatus",
        content=b'{"orderId":"A-1","status":"paid"}',
        headers={"content-type": "application/json", "authorization": f"Bearer {shop.keys['write']}"},
    )
    data = answer.json()["result"]["data"]
    assert (answer.status_code, data["status"], data["word"]["status"]) == (200, "paid", "paid")
    [entry] = (await shop.told("audit.list", subject="order:A-1"))["items"]
    assert (entry["action"], entry["actor"].startswith("write (")) == ("order.status", True)


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (None, 401),
        ("oplata_" + "0" * 12 + "_" + "0" * 64, 401),
        ("nonsense", 401),
        ("read", 403),
        ("write", 200),
        ("operate", 200),
    ],
)
async def test_only_a_key_of_the_scope_changes_anything(shop: Shop, key: str | None, status: int) -> None:
    before = await stored(shop)
    answer = await shop.call("orders.updateStatus", key=key, orderId="A-1", status="paid")
    assert (answer.status_code, (await stored(shop) == before)) == (status, status != 200)


async def test_every_procedure_asks_for_a_scope_and_refuses_those_below_it(shop: Shop) -> None:
    """The door of each is looked at: nobody may add a procedure and forget it."""
    ladder: list[str | None] = [None, "read", "write", "operate"]
    for path, procedure in router.procedures().items():
        if procedure.kind == "subscription":
            continue
        needed = ladder.index(procedure.meta["scope"])
        codes = [(await shop.call(path, key=key)).status_code for key in ladder]
        refused = [401, *[403] * (needed - 1)]
        assert codes[:needed] == refused, path
        assert set(codes[needed:]) <= {200, 400}, path


async def test_a_buyer_sees_its_own_order_and_nothing_else(shop: Shop) -> None:
    await shop.told("orders.register", orderId="A-2", amount=100)
    await apply_all(shop.app.database, callback("CONFIRMED", 5, order_id="A-1"))
    minted = await shop.told("orders.buyerToken", key="write", orderId="A-1", lifetimeS=60)
    token = minted["token"]
    own = await shop.told("orders.get", key=token, orderId="A-1")
    assert (own["orderId"], own["review"], own["word"]) == ("A-1", None, None)
    assert (await shop.told("orders.get", orderId="A-1"))["review"] is not None
    for other in ("A-2", "no such order"):
        assert (await shop.call("orders.get", key=token, orderId=other)).status_code == 403
    for path, procedure in router.procedures().items():
        if procedure.kind != "subscription" and path != "orders.get":
            assert (await shop.call(path, key=token)).status_code == 403, path


async def test_a_forged_or_stale_token_opens_nothing_and_a_changed_key_loses_none(shop: Shop) -> None:
    token = (await shop.told("orders.buyerToken", orderId="A-1"))["token"]
    said, _, signature = token.removeprefix("oplata_buyer.").partition(".")
    forged = [f"oplata_buyer.{said}.{'A' * len(signature)}", f"oplata_buyer.{said[:-4]}AAAA.{signature}"]
    forged += ["oplata_buyer.", f"oplata_buyer.{said}", token + "A", f"oplata_buyer.{said}.\u00e9"]
    for each in forged:
        headers = {b"authorization": f"Bearer {each}".encode("latin-1")}
        answer = await shop.http.get("/api/trpc/orders.get?input=%7B%22orderId%22%3A%22A-1%22%7D", headers=headers)
        assert answer.status_code == 401, each
    tokens = type(shop.app.shop.tokens)
    soon = tokens([SIGNING[0].encode()], now_ms=lambda: NOW_MS)
    assert soon.read(tokens([SIGNING[0].encode()], now_ms=lambda: NOW_MS - 60_000).mint("A-1", 60)[0]) is None
    old_key = tokens([SIGNING[1].encode()]).mint("A-1")[0]
    assert (await shop.told("orders.get", key=old_key, orderId="A-1"))["orderId"] == "A-1"


async def test_a_revoked_key_dies_within_seconds_and_an_expired_one_at_once(shop: Shop) -> None:
    await shop.told("stats.overview", key="read")
    [found] = [key for key in await shop.app.keys.list() if key.name == "read"]
    await shop.app.keys.revoke(found.id, who="olga", why="lost")
    await until(lambda: shop.call("stats.overview", key="read"), lambda answer: answer.status_code == 401)
    brief = await shop.app.keys.create("brief", Scope.READ, who="test", lifetime_ms=1_000)
    expires_at = brief.view.expires_at
    assert expires_at is not None
    at(shop, (expires_at - 1) / 1000)
    assert (await shop.call("stats.overview", key=brief.key)).status_code == 200
    at(shop, expires_at / 1000)
    assert (await shop.call("stats.overview", key=brief.key)).status_code == 401


async def test_no_key_lies_in_the_database_and_its_use_is_noted(shop: Shop, tmp_path: Path) -> None:
    await shop.told("stats.overview", key="read")
    await until(shop.app.keys.list, lambda keys: any(key.last_used_at for key in keys if key.name == "read"))
    written = await asyncio.to_thread(lambda: b"".join(path.read_bytes() for path in tmp_path.glob("oplata.db*")))
    for key in shop.keys.values():
        assert key.rpartition("_")[2].encode() not in written


async def test_wrong_keys_are_slowed_down_by_address_and_logged_without_the_secret(shop: Shop) -> None:
    stranger = Shop(shop.app, "192.0.2.99")
    wrong = "oplata_" + "a" * 12 + "_" + "c" * 64
    await shop.told("stats.overview", key="read")
    at(shop, time.time())
    async with stranger.http:
        with structlog.testing.capture_logs() as lines:
            codes = [(await stranger.call("stats.overview", key=wrong)).status_code for _ in range(30)]
        assert codes == [401] * 20 + [429] * 10
        # A key that was seen before is not held up by a stranger behind the same proxy.
        known = Shop(shop.app, "192.0.2.99")
        async with known.http:
            assert (await known.call("stats.overview", key=shop.keys["read"])).status_code == 200
    refused = [line for line in lines if line["action"] == "door.credential_refused"]
    assert len(refused) == codes.count(401)
    assert {(line["source"], line["id"]) for line in refused} == {("192.0.2.99", "a" * 12)}
    assert "c" * 64 not in repr(lines)


async def test_wrong_keys_that_come_at_the_same_moment_fill_no_log(shop: Shop) -> None:
    stranger = Shop(shop.app, "192.0.2.99")
    wrong = "oplata_" + "a" * 12 + "_" + "c" * 64
    async with stranger.http:
        with structlog.testing.capture_logs() as lines:
            answers = await asyncio.gather(*(stranger.call("stats.overview", key=wrong) for _ in range(60)))
    assert {answer.status_code for answer in answers} == {401}
    assert len([line for line in lines if line["action"] == "door.credential_refused"]) <= 21


async def test_a_websocket_is_turned_away_whatever_key_it_brings(shop: Shop) -> None:
    """One key for all that is ever said on a socket would be counted once, and outlive its revocation."""
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/api/trpc/", "raw_path": b"/api/trpc/", "query_string": b"", "scheme": "ws"}
    headers = [(b"authorization", f"Bearer {shop.keys['operate']}".encode())]
    await shop.app.asgi({**scope, "headers": headers, "client": ("192.0.2.1", 1)}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_a_key_and_an_address_may_call_so_often_and_no_more(tmp_path: Path) -> None:
    async with opened(tmp_path, rpc_key_rate=5, rpc_address_rate=2) as shop:
        now_s = round(time.time())
        at(shop, now_s)
        codes = [(await shop.call("stats.overview", key="read")).status_code for _ in range(15)]
        strangers = [(await shop.call("stats.overview")).status_code for _ in range(8)]
        other = await shop.call("stats.overview", key="write")
        at(shop, now_s + 1)
        later = [(await shop.call("stats.overview", key="read")).status_code for _ in range(6)]
    assert (codes, other.status_code) == ([200] * 10 + [429] * 5, 200)
    assert strangers == [401] * 4 + [429] * 4
    assert later == [200] * 5 + [429]


async def test_a_query_s_key_is_not_taken_from_the_url(shop: Shop) -> None:
    """URLs stand in the logs of proxies."""
    for params in (
        {"connectionParams": json.dumps({"token": shop.keys["read"]})},
        {"authorization": shop.keys["read"]},
    ):
        assert (await shop.http.get("/api/trpc/stats.overview", params=params)).status_code == 401
    token = (await shop.told("orders.buyerToken", orderId="A-1"))["token"]
    asked = {"connectionParams": json.dumps({"token": token}), "input": json.dumps({"orderId": "A-1"})}
    assert (await shop.http.get("/api/trpc/orders.get", params=asked)).status_code == 200


async def test_every_answer_has_its_headers_and_only_named_sites_may_read_it(tmp_path: Path) -> None:
    async with opened(tmp_path, rpc_origins=("https://shop.example",)) as shop:
        ours = await shop.http.get("/api/trpc/stats.overview", headers={"origin": "https://shop.example"})
        theirs = await shop.http.get("/api/trpc/stats.overview", headers={"origin": "https://evil.example"})
    assert ours.headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-origin" not in theirs.headers
    for answer in (ours, theirs):
        shown = [answer.headers[name] for name in ("x-content-type-options", "cache-control", "referrer-policy")]
        assert shown == ["nosniff", "no-store", "no-referrer"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_a_body_or_a_batch_that_is_too_large_is_refused_and_changes_nothing(shop: Shop) -> None:
    before = await stored(shop)
    headers = {"authorization": f"Bearer {shop.keys['write']}", "content-type": "application/json"}
    body = b'{"orderId":"A-1","status":"paid","reason":"' + b"x" * 10_000_000 + b'"}'
    large = await shop.http.post("/api/trpc/orders.updateStatus", content=body, headers=headers)
    paths = ",".join(["orders.updateStatus"] * 51)
    batch = await shop.http.post(f"/api/trpc/{paths}?batch=1", content=b"{}", headers=headers)
    assert (large.status_code, batch.status_code, await stored(shop)) == (413, 400, before)


async def test_lists_page_by_cursor_and_filter(shop: Shop) -> None:
    for number in range(2, 8):
        await shop.told("orders.register", orderId=f"B-{number}", amount=100 * number)
    await shop.told("orders.updateStatus", orderId="B-3", status="canceled")
    await apply_all(shop.app.database, callback("CONFIRMED", 300, order_id="B-3", payment_id="9"))
    seen, cursor = [], None
    while True:
        page = await shop.told("orders.list", key="read", limit=2, text="B-", **({"cursor": cursor} if cursor else {}))
        seen += [each["orderId"] for each in page["items"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert (sorted(seen), len(seen)) == ([f"B-{number}" for number in range(2, 8)], 6)
    assert [each["orderId"] for each in (await shop.told("orders.list", review=True))["items"]] == ["B-3"]
    assert [each["orderId"] for each in (await shop.told("orders.list", status="paid"))["items"]] == ["B-3"]
    assert (await shop.told("orders.list", until=0))["items"] == []
    [payment] = (await shop.told("payments.list", orderId="B-3"))["items"]
    [line] = (await shop.told("callbacks.list", orderId="B-3"))["items"]
    full = await shop.told("callbacks.get", id=line["id"])
    assert (payment["paymentId"], payment["status"], line["timesSeen"]) == ("9", "CONFIRMED", 1)
    assert ('"Token":"***"' in full["body"], [each["status"] for each in full["changes"]]) == (True, ["paid"])
    facts = (await shop.told("payments.get", paymentId="9", terminalKey=TERMINAL_KEY))["facts"]
    assert [(fact["status"], fact["callback"]) for fact in facts] == [("CONFIRMED", line["id"])]
    for path in ("orders.list", "payments.list", "callbacks.list", "audit.list", "deadLetters.list"):
        assert (await shop.call(path, key="read", cursor="W10")).status_code == 400, path
        assert (await shop.call(path, key="read", cursor="\u2603")).status_code == 400, path


async def test_dead_letters_are_tried_redriven_and_discarded_over_rpc(shop: Shop) -> None:
    bodies = (callback("CONFIRMED", 19_900, order_id="A-1"), b"no body of the bank")
    async with shop.app.database.unit_of_work() as uow:
        await uow.dead_letters.bury(
            [
                DeadLetter(reason="test", detail="", body=body, content_type="", headers={}, seen_at_ms=NOW_MS)
                for body in bodies
            ]
        )
        await uow.commit()
    ids = [each["id"] for each in (await shop.told("deadLetters.list"))["items"]]
    assert len(ids) == 2
    unnarrowed = await shop.call("deadLetters.redrive", key="operate", choice={}, why="test")
    assert unnarrowed.status_code == 400
    everything = {"everything": True}
    tried = await shop.told("deadLetters.redrive", choice=everything, why="test", dryRun=True)
    assert sorted(each["outcome"] for each in tried["letters"]) == ["apply", "bury"]
    assert tried["orders"] == [{"orderId": "A-1", "before": "pending", "after": "paid", "review": None}]
    [bad] = [each["id"] for each in tried["letters"] if each["outcome"] == "bury"]
    done = await shop.told("deadLetters.discard", choice={"ids": [bad]}, why="noise")
    assert [each["outcome"] for each in done["letters"]] == ["discarded"]
    done = await shop.told("deadLetters.redrive", choice=everything, why="mended")
    assert [each["outcome"] for each in done["letters"]] == ["redriven"]
    await until(lambda: shop.told("orders.get", orderId="A-1"), lambda order: order["status"] == "paid")
    assert (await shop.told("deadLetters.get", id=bad))["settledWhy"] == "noise"
    overview = await shop.told("stats.overview")
    assert (overview["orders"], overview["deadLetters"]) == ([{"status": "paid", "orders": 1, "kopecks": 19_900}], 0)


async def test_errors_are_told_by_their_code_and_never_by_what_lies_behind(shop: Shop) -> None:
    await apply_all(shop.app.database, callback("CONFIRMED", 19_900, order_id="A-1"))
    unpaid = await shop.call("orders.updateStatus", key="write", orderId="A-1", status="canceled")
    assert (unpaid.status_code, "by the bank's own word" in unpaid.text) == (409, True)
    assert (await shop.call("orders.updateStatus", key="write", orderId="Z", status="paid")).status_code == 404
    assert (await shop.call("orders.updateStatus", key="write", orderId="A-1", status="gone")).status_code == 400
    assert (await shop.call("orders.register", key="write", orderId="A-1", amount=1)).status_code == 400
    assert (await shop.call("orders.get", key="read", orderId="nul\x00")).status_code in (400, 404)
    assert (await shop.call("callbacks.get", key="read", id="x")).status_code == 404


async def test_the_same_calls_work_from_python(shop: Shop) -> None:
    caller = shop.app.caller("olga")
    assert (await caller.orders.update_status(order_id="A-1", status="paid")).status == "paid"
    with pytest.raises(RpcError) as refused:
        await caller.orders.update_status(order_id="A-1", status="pending")
    assert refused.value.code == "CONFLICT"
    assert (await caller.audit.list(subject="order:A-1")).items[0].actor == "olga"


async def test_changes_are_told_from_the_last_id_on_and_a_buyer_hears_of_its_own_order_alone(shop: Shop) -> None:
    caller = shop.app.caller()

    async def told(count: int, **given: Any) -> list[tuple[str, str, str]]:
        async with asyncio.timeout(10), aclosing(caller.orders.on_status_change(**given)) as changes:
            return [(each.id, each.data.order_id, each.data.status) async for each in amount(changes, count)]

    first = await told(1, order_id="A-1")
    await shop.told("orders.register", orderId="A-2", amount=100)
    await shop.told("orders.updateStatus", orderId="A-1", status="paid")
    assert [each[1:] for each in first] == [("A-1", "pending")]
    rest = await told(2, last_event_id=first[0][0])
    assert [each[1:] for each in rest] == [("A-2", "pending"), ("A-1", "paid")]
    assert await told(1, order_id="A-1", last_event_id=first[0][0]) == [rest[1]]
    live = asyncio.create_task(told(2))
    await until(lambda: asyncio.sleep(0, shop.app.hub.subscribers), bool)
    await shop.told("orders.updateStatus", orderId="A-2", status="canceled")
    await apply_all(shop.app.database, callback("CONFIRMED", 100, order_id="A-2", payment_id="7"))
    shop.app.hub.wake()
    assert [each[1:] for each in await live] == [("A-2", "canceled"), ("A-2", "paid")]
    buyer = Visitor(shop.app.shop, "buyer", None, order_id="A-2")
    stream = router.caller(buyer).orders.on_status_change(order_id="A-2")
    async with aclosing(stream) as changes:
        assert [(each.data.status, each.data.review) async for each in amount(changes, 1)] == [("paid", None)]
    for other in ({"order_id": "A-1"}, {}):
        with pytest.raises(RpcError) as refused:
            await anext(router.caller(buyer).orders.on_status_change(**other))
        assert refused.value.code == "FORBIDDEN"


async def amount(items: AsyncIterator[Any], count: int) -> AsyncIterator[Any]:
    for _ in range(count):
        yield await anext(items)


async def test_callbacks_are_taken_while_the_database_is_away_and_rpc_says_so(tmp_path: Path, free_port: int) -> None:
    away = f"postgresql://nobody:x@127.0.0.1:{free_port}/none"
    async with Oplata(settings(tmp_path, database_url=away), role=Role.SERVE) as app:
        await app.require_key()
        shop = Shop(app)
        async with shop.http:
            headers = {"content-type": "application/json"}
            taken = await shop.http.post("/api/tinkoff-callback", content=callback(), headers=headers)
            key = "oplata_" + "0" * 12 + "_" + "0" * 64
            answer = await shop.call("orders.get", key=key, orderId="A-1")
            stranger = await shop.call("orders.get", orderId="A-1")
    assert (taken.status_code, taken.text) == (200, "OK")
    assert (answer.status_code, stranger.status_code) == (503, 401)
    assert answer.json()["error"]["message"] == "The database is away for the moment; try again soon."


async def test_without_a_key_nothing_starts_that_serves_orders_unless_it_is_told_so(tmp_path: Path) -> None:
    async with Oplata(settings(tmp_path)) as app:
        with pytest.raises(SettingsError, match=r"no API key .*`oplata keys create NAME --scope write`"):
            await app.require_key()
        await app.keys.create("first", Scope.READ, who="test")
        await app.require_key()
    async with Oplata(settings(tmp_path / "other", insecure=True)) as app:
        await app.require_key()
        shop = Shop(app)
        async with shop.http:
            assert (await shop.call("stats.overview")).status_code == 200
    async with Oplata(settings(tmp_path / "third", rpc="off")) as app:
        await app.require_key()
        shop = Shop(app)
        async with shop.http:
            assert (await shop.call("stats.overview")).status_code == 404
