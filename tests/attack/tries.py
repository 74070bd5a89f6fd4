"""The attacks. Each returns what happened, in a sentence, and raises ``AssertionError`` if it got too far."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
from collections import Counter

import httpx

from oplata.orders.router import router
from tests.attack.target import JSON, ORDER, Bank, Target, a_callback, shown


def visitor(number: int, timeout_s: float = 20.0) -> httpx.AsyncClient:
    """Somebody at an address of its own, so that nobody is held up for what another has done before."""
    return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(local_address=f"127.0.1.{number}"), timeout=timeout_s)


async def without_a_key(target: Target, scale: float) -> str:
    """Call every procedure, by GET and POST, with no key at all."""
    codes: Counter[object] = Counter()
    for number, (path, procedure) in enumerate(router.procedures().items(), start=100):
        async with visitor(number) as client:
            url = f"{target.door}/{path}"
            answers = [await client.get(url), await client.post(url, json={"orderId": ORDER, "status": "paid"})]
        expected = {"query": [401, 405], "mutation": [405, 401], "subscription": [200, 200]}[procedure.kind]
        assert [answer.status_code for answer in answers] == expected, path
        if procedure.kind == "subscription":
            # A stream begins before it is known what is wrong, and says so in its only event.
            told = ["UNAUTHORIZED", "METHOD_NOT_SUPPORTED"]
            assert [word in answer.text for word, answer in zip(told, answers, strict=True)] == [True, True], path
        for answer in answers:
            codes[answer.status_code] += 1
            assert '"result"' not in answer.text, path
    assert target.words_of_strangers() == 0
    return f"answers {shown(codes)}; nothing was read, nothing changed"


async def enumerate_keys(target: Target, scale: float) -> str:
    """Guess keys, and the ids of keys, from one address."""
    codes: Counter[object] = Counter()
    real_id = target.key.split("_")[1]
    async with httpx.AsyncClient() as client:
        for number in range(int(500 * scale)):
            key_id = real_id if number % 2 else secrets.token_hex(6)
            headers = {"authorization": f"Bearer oplata_{key_id}_{secrets.token_hex(32)}"}
            codes[(await client.get(f"{target.door}/stats.overview", headers=headers)).status_code] += 1
        assert set(codes) <= {401, 429}, codes
        # Who holds a key is not held up by the stranger at the same address, once it was recognised.
        good = {"authorization": f"Bearer {target.key}"}
        await asyncio.sleep(6)
        assert (await client.get(f"{target.door}/stats.overview", headers=good)).status_code == 200
    assert not any(secret in line for line in target.lines for secret in (target.key.split("_")[2],))
    return f"answers {shown(codes)}; a known id and an unknown one are answered alike"


async def enumerate_orders(target: Target, scale: float) -> str:
    """With a buyer's token of one order, look for others."""
    codes: Counter[object] = Counter()
    headers = {"authorization": f"Bearer {target.token}"}
    async with visitor(20) as client:
        for order_id in ("A-2", "bank", "", "%", "A-1\x00", "A-1 ", "a-1", "../A-1", "A-10"):
            params = {"input": json.dumps({"orderId": order_id})}
            answer = await client.get(f"{target.door}/orders.get", params=params, headers=headers)
            codes[answer.status_code] += 1
            assert answer.status_code == 403, (order_id, answer.text)
    return f"answers {shown(codes)}, whether there is such an order or not"


async def forge_tokens(target: Target, scale: float) -> str:
    """Sign buyers' tokens with keys that are not ours, cut them, extend them, and change what they say."""
    said = base64.urlsafe_b64encode(json.dumps(["A-1", 9_999_999_999_999]).encode()).decode().rstrip("=")
    digests = [hmac.new(key, said.encode(), hashlib.sha256).digest() for key in (b"", b"secret", b"oplata")]
    tokens = [f"oplata_buyer.{said}.{base64.urlsafe_b64encode(each).decode().rstrip('=')}" for each in digests]
    body, _, signature = target.token.rpartition(".")
    tokens += [f"{body}.", body, f"{body}.{signature[:-1]}", f"{body}.{signature}A", f"oplata_buyer.{said}.{signature}"]
    codes: Counter[object] = Counter()
    for number, token in enumerate(tokens):
        # One alone would be held up before its last guess was looked at.
        async with visitor(1 + number) as client:
            params = {"input": json.dumps({"orderId": "A-1"})}
            headers = {"authorization": f"Bearer {token}"}
            codes[(await client.get(f"{target.door}/orders.get", params=params, headers=headers)).status_code] += 1
    assert set(codes) == {401}, codes
    return f"answers {shown(codes)}"


async def forge_callbacks(target: Target, scale: float) -> str:
    """Say that the order is paid, with the token of another body, none, an empty one, and an unsigned field changed."""
    before = target.order()
    genuine = json.loads(a_callback(1, "NEW", ORDER))
    claim = {**genuine, "Status": "CONFIRMED"}
    forged: list[object] = [
        claim,
        {**claim, "Token": ""},
        {**claim, "Token": None},
        {k: v for k, v in claim.items() if k != "Token"},
    ]
    forged += [{**claim, "Token": "0" * 64}, {**claim, "TerminalKey": "Other"}, [claim], {"Status": "CONFIRMED"}]
    codes: Counter[object] = Counter()
    async with httpx.AsyncClient() as client:
        for each in forged:
            codes[(await client.post(target.callback, json=each)).status_code] += 1
        odd = (b"", b"{", b"\xff", b'{"a":' * 5000, b"Token=x&Status=CONFIRMED")
        for body in odd:
            codes[(await client.post(target.callback, content=body, headers=JSON)).status_code] += 1
    await asyncio.sleep(1)
    assert 200 not in codes
    assert target.order() == before
    return f"answers {shown(codes)}; the order is {before[0]}, as it was"


async def replay_callbacks(target: Target, scale: float) -> str:
    """Send one genuine callback again and again, as somebody who has read the traffic could."""
    body = a_callback(7, "CONFIRMED", ORDER)
    async with httpx.AsyncClient() as client:
        for _ in range(int(100 * scale)):
            assert (await client.post(target.callback, content=body, headers=JSON)).text == "OK"
    async with asyncio.timeout(20):
        while target.order()[0] != "paid":  # noqa: ASYNC110  It comes about in another process.
            await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    assert target.order() == ("paid", 2)
    return "every one is answered OK; the order went to paid once, with one change in the log"


async def flood(target: Target, scale: float) -> str:
    """Call without a key as fast as one machine can, while the bank calls."""
    codes: Counter[object] = Counter()
    bank = Bank(target.callback)
    calling = asyncio.create_task(bank.run())
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=50)) as client:

        async def one() -> None:
            for _ in range(int(60 * scale)):
                codes[(await client.get(f"{target.door}/orders.list")).status_code] += 1

        await asyncio.gather(*(one() for _ in range(50)))
    calling.cancel()
    assert set(codes) <= {401, 429}
    assert {said for said, _ in bank.answers} == {"OK"}, Counter(said for said, _ in bank.answers)
    return f"answers {shown(codes)}; {bank.summary()}"


async def large_bodies(target: Target, scale: float) -> str:
    """Send 10 MB to both addresses, announced, chunked, and with a length that lies; and headers without end."""
    size = int(10_000_000 * scale)
    told: Counter[object] = Counter()

    async def chunks() -> object:
        for _ in range(size // 10_000):
            yield b"x" * 10_000

    async with visitor(30) as client:
        for url in (target.callback, f"{target.door}/orders.updateStatus"):
            for content in (b"x" * size, chunks()):
                try:
                    answer = await client.post(url, content=content, headers=JSON)  # type: ignore[arg-type]
                    told[answer.status_code] += 1
                    assert answer.status_code in (413, 401, 415), answer.status_code
                except httpx.HTTPError as error:
                    told[type(error).__name__] += 1  # It was cut off while it still sent.
            headers = {f"x-{number}": "y" * 1000 for number in range(100)}
            told[(await client.post(url, content=b"{}", headers={**JSON, **headers})).status_code] += 1
    return f"answers {shown(told)}; nothing beyond the limit is kept in memory"


async def connections(target: Target, scale: float) -> str:
    """Open 10,000 connections: a third says nothing, a third half a head, a third a whole request and then nothing."""
    wanted = int(10_000 * scale)
    opened: list[asyncio.StreamWriter] = []
    failed = 0
    bank = Bank(target.callback)
    calling = asyncio.create_task(bank.run())
    heads = (
        b"",
        b"POST /api/trpc/orders.list HTTP/1.1\r\nHost: x\r\nX-",
        b"GET /api/trpc/x HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    try:
        for number in range(wanted):
            try:
                _, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", target.port), 5)
            except (OSError, TimeoutError):
                failed += 1
                continue
            writer.write(heads[number % 3])
            opened.append(writer)
        await asyncio.sleep(3)
    finally:
        calling.cancel()
        for writer in opened:
            writer.close()
    said = Counter(answer for answer, _ in bank.answers)
    assert said["OK"] > 0
    assert said["OK"] >= 0.99 * said.total(), said
    return f"{len(opened)} were opened and {failed} refused; {bank.summary()}"


async def slow_streams(target: Target, scale: float) -> str:
    """Subscribe without a key, with one that is wrong, and with a good token for another order."""
    told: Counter[object] = Counter()
    async with visitor(40) as client:
        for headers, expected in (
            ({}, "UNAUTHORIZED"),
            ({"authorization": f"Bearer oplata_{'0' * 12}_{'0' * 64}"}, "UNAUTHORIZED"),
            ({"authorization": f"Bearer {target.token}"}, "FORBIDDEN"),
        ):
            params = {"input": json.dumps({"orderId": "bank"})}
            answer = await client.get(f"{target.door}/orders.onStatusChange", params=params, headers=headers)
            told[expected] += 1
            assert expected in answer.text
            assert "orderId" not in answer.text
    return f"each stream ends at once with {shown(told)}"


TRIES = (
    without_a_key,
    enumerate_keys,
    enumerate_orders,
    forge_tokens,
    forge_callbacks,
    replay_callbacks,
    flood,
    large_bodies,
    connections,
    slow_streams,
)
