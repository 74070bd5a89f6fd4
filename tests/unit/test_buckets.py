"""How often somebody may call, and that what is remembered of callers has a limit."""

from __future__ import annotations

from oplata.orders.buckets import Buckets, neighbourhood


class _Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_bucket_grants_a_burst_and_then_as_much_as_flows_in() -> None:
    clock = _Clock()
    buckets = Buckets(1, 2, clock=clock)
    assert [buckets.take("a") for _ in range(3)] == [True, True, False]
    clock.now_s = 1.0
    assert [buckets.take("a"), buckets.take("a")] == [True, False]


def test_however_many_strangers_come_only_so_many_are_remembered() -> None:
    buckets = Buckets(1, 2, clock=_Clock(), max_buckets=3)
    assert [buckets.take(name) for name in ("a", "b", "c", "d")] == [True] * 4
    assert len(buckets) == 3


def test_more_than_a_whole_bucket_needs_a_full_one_and_is_paid_back() -> None:
    buckets = Buckets(1, 2, clock=_Clock())
    assert buckets.take("e", 100)
    assert not buckets.take("e")


def test_a_caller_over_ipv4_is_one_by_itself_also_on_a_socket_of_both_families() -> None:
    assert neighbourhood("::ffff:192.0.2.1") == neighbourhood("192.0.2.1") != neighbourhood("::ffff:192.0.2.2")


def test_a_household_of_ipv6_is_one_caller() -> None:
    assert neighbourhood("2001:db8:1:2:3::4") == neighbourhood("2001:db8:1:2::5") != neighbourhood("2001:db8:1:3::5")
