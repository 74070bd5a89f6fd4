"""Who is let in by address: the sender is found behind trusted proxies alone, and is never guessed."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oplata.errors import SettingsError
from oplata.ingest.networks import MAX_HOPS, TBANK_NETWORKS, Gate, Network, Source, networks_of

BANK = networks_of(["192.0.2.0/24", "2001:db8:b::/48"])
PROXIES = networks_of(["10.0.0.0/8", "fd00::/8"])


def judged(peer: str, *forwarded: str, networks: tuple[Network, ...] = BANK) -> Source:
    headers = [(b"host", b"shop"), *((b"x-forwarded-for", line.encode("latin-1")) for line in forwarded)]
    return Gate(networks, PROXIES).judge(peer, headers)


def test_without_a_list_everyone_is_welcome() -> None:
    assert Gate().judge("203.0.113.9", []) == Source("203.0.113.9", True)
    assert Gate().judge("", []) == Source("", True)


def test_the_word_tbank_stands_for_the_banks_published_networks() -> None:
    assert networks_of(["tbank"]) == TBANK_NETWORKS
    assert networks_of([" TBank ", "192.0.2.1"]) == (*TBANK_NETWORKS, ip_network("192.0.2.1/32"))
    gate = Gate(networks_of(["tbank"]))
    assert [gate.judge(peer, []).welcome for peer in ("91.194.227.255", "212.233.83.1", "91.194.228.0")] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("text", ["", "bank", "192.0.2.1/24", "300.1.1.1", "::/129"])
def test_what_is_no_network_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(SettingsError, match="is not a network"):
        networks_of([text])


@pytest.mark.parametrize(
    ("peer", "forwarded", "address", "welcome"),
    [
        ("192.0.2.7", [], "192.0.2.7", True),
        ("::ffff:192.0.2.7", [], "192.0.2.7", True),
        ("2001:db8:b::7", [], "2001:db8:b::7", True),
        ("203.0.113.9", [], "203.0.113.9", False),
        ("203.0.113.9", ["192.0.2.7"], "203.0.113.9", False),
        ("10.1.1.1", ["192.0.2.7"], "192.0.2.7", True),
        ("::ffff:10.1.1.1", ["::ffff:192.0.2.7"], "192.0.2.7", True),
        ("10.1.1.1", ["192.0.2.7, 10.2.2.2, fd00::3"], "192.0.2.7", True),
        ("10.1.1.1", ["192.0.2.7", "10.2.2.2"], "192.0.2.7", True),
        ("10.1.1.1", ["192.0.2.7, 203.0.113.9"], "203.0.113.9", False),
        ("10.1.1.1", ["192.0.2.7", "203.0.113.9, 10.2.2.2"], "203.0.113.9", False),
        ("10.1.1.1", ["203.0.113.9, 192.0.2.7"], "192.0.2.7", True),
        ("10.1.1.1", ["<script>, 192.0.2.7"], "192.0.2.7", True),
        ("10.1.1.1", ["192.0.2.7:4711"], "192.0.2.7", True),
        ("10.1.1.1", ["[2001:db8:b::7]:4711"], "2001:db8:b::7", True),
        ("10.1.1.1", ["192.0.2.7, unknown"], "", False),
        ("10.1.1.1", ["192.0.2.7,"], "", False),
        ("10.1.1.1", [""], "", False),
        ("10.1.1.1", ["192.0.2.07"], "", False),
        ("10.1.1.1", ["10.3.3.3"], "10.3.3.3", False),
        ("10.1.1.1", [], "10.1.1.1", False),
        ("", [], "", False),
        ("", ["192.0.2.7"], "", False),
    ],
)
def test_the_sender_is_the_last_address_that_is_no_trusted_proxy(
    peer: str, forwarded: list[str], address: str, welcome: bool
) -> None:
    assert judged(peer, *forwarded) == Source(address, welcome)


def test_more_proxies_in_a_row_than_are_believable_are_refused() -> None:
    enough = ["192.0.2.7", *["10.2.2.2"] * (MAX_HOPS - 1)]

    assert judged("10.1.1.1", ", ".join(enough)) == Source("192.0.2.7", True)
    assert judged("10.1.1.1", ", ".join([*enough, "10.2.2.2"])) == Source("", False)


def test_with_proxies_and_no_list_the_sender_is_named_and_never_refused() -> None:
    assert judged("10.1.1.1", "203.0.113.9", networks=()) == Source("203.0.113.9", True)
    assert judged("10.1.1.1", "nonsense", networks=()) == Source("10.1.1.1", True)


@given(prefix=st.text(st.characters(codec="latin-1"), max_size=60))
def test_nothing_that_a_sender_writes_before_its_address_opens_the_gate(prefix: str) -> None:
    assert judged("10.1.1.1", f"{prefix}, 203.0.113.9") == Source("203.0.113.9", False)


@given(line=st.text(st.characters(codec="latin-1"), max_size=60))
def test_any_header_at_all_is_judged_without_an_error(line: str) -> None:
    assert judged("203.0.113.9", line).welcome is False
    assert judged("10.1.1.1", line).welcome is False
