"""The played bank keeps its word: what it calls genuine verifies, and every order can end where it must."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

from oplata.bank.keyring import Keyring
from oplata.bank.notification import parse
from oplata.bank.simulator.stories import STORIES
from oplata.bank.simulator.traffic import Callback, Disorder, Happening, Registration, Traffic
from oplata.domain.events import Event, EventKind
from oplata.domain.order import judge
from oplata.domain.payment import PaymentKey, conclude, fold, moves_payment
from oplata.errors import BadNotification, NotAuthentic

PASSWORDS = {"First": "one", "Second": "two"}
KEYRING = Keyring({key: [password] for key, password in PASSWORDS.items()})


def play(seed: int, orders: int, disorder: Disorder | None = None) -> tuple[Traffic, list[Happening]]:
    traffic = Traffic(random.Random(seed), PASSWORDS, orders=orders, disorder=disorder)
    return traffic, list(traffic)


def callbacks(happenings: list[Happening]) -> list[Callback]:
    return [each for each in happenings if isinstance(each, Callback)]


def event(callback: Callback) -> Event | None:
    try:
        notification = parse(callback.body, callback.content_type)
        KEYRING.verify(notification)
    except (BadNotification, NotAuthentic):
        return None
    return notification.event()


def test_exactly_the_genuine_callbacks_verify() -> None:
    _, happenings = play(1, 300)

    told = callbacks(happenings)

    assert [each.what for each in told if (event(each) is not None) != each.genuine] == []
    assert any(not each.genuine for each in told)


def test_every_order_is_registered_once_and_ends_where_its_story_says() -> None:
    traffic, happenings = play(2, 300)
    events: dict[str, dict[PaymentKey, list[Event]]] = defaultdict(lambda: defaultdict(list))
    for told in filter(None, map(event, callbacks(happenings))):
        if moves_payment(told):
            events[told.order_id or ""][told.terminal_key, told.payment_id or ""].append(told)

    registered = Counter(each.order.order_id for each in happenings if isinstance(each, Registration))
    verdicts = {
        order.order_id: judge(
            order.amount_kopecks, {name: conclude(fold(seen)) for name, seen in events[order.order_id].items()}
        )
        for order in traffic.orders
    }

    assert registered == Counter(order.order_id for order in traffic.orders)
    assert [
        (order.order_id, order.story)
        for order in traffic.orders
        if (verdicts[order.order_id].status, verdicts[order.order_id].review is not None) != (order.ends, order.review)
    ] == []


def test_every_story_and_kind_and_form_of_disorder_is_played() -> None:
    traffic, happenings = play(3, 400)
    told = callbacks(happenings)
    events = list(filter(None, map(event, told)))
    digests = Counter(each.digest for each in events)

    assert {order.story for order in traffic.orders} == {story.name for story in STORIES}
    assert {each.kind for each in events} == set(EventKind) - {EventKind.OTHER}
    assert any(count > 1 for count in digests.values())
    assert any(b'"Success":"true"' in each.body for each in told)
    assert {each.what for each in told if not each.genuine} == {
        "a wrong token",
        "a changed amount",
        "a strange terminal",
        "a body that is no notification",
    }
    firsts: dict[str, str] = {}
    for each in happenings:
        if isinstance(each, Callback) and each.confirms:
            firsts.setdefault(each.confirms, "callback")
        elif isinstance(each, Registration):
            firsts.setdefault(each.order.order_id, "registration")
    assert set(firsts.values()) == {"callback", "registration"}


def test_one_seed_plays_one_stream() -> None:
    assert play(4, 50)[1] == play(4, 50)[1]
    assert play(4, 50)[1] != play(5, 50)[1]


def test_without_disorder_an_orders_callbacks_come_once_and_after_its_registration() -> None:
    _, happenings = play(6, 50, Disorder(repeat=0, forge=0, reorder=0, register_late=0))
    events = list(filter(None, map(event, callbacks(happenings))))
    registered: set[str] = set()

    for each in happenings:
        if isinstance(each, Registration):
            registered.add(each.order.order_id)
        else:
            assert each.confirms is None or each.confirms in registered
    assert len({told.digest for told in events}) == len(events) == len(callbacks(happenings))


def test_an_endless_stream_ends_its_orders_once_it_is_told_to_finish() -> None:
    traffic = Traffic(random.Random(7), PASSWORDS)
    stream = iter(traffic)
    seen = [next(stream) for _ in range(200)]

    traffic.finish()
    begun = len(traffic.orders)
    seen += list(stream)

    assert len(traffic.orders) == begun
    assert sum(isinstance(each, Registration) for each in seen) == begun
