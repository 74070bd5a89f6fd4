"""Where a callback comes from, and whether anything that comes from there is heard at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import msgspec

from oplata.errors import SettingsError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

TBANK = "tbank"
"""The word that stands for ``TBANK_NETWORKS`` in a setting."""

TBANK_NETWORKS: tuple[Network, ...] = tuple(
    IPv4Network(text)
    for text in (
        "91.194.226.0/23",
        "91.218.132.0/24",
        "91.218.133.0/24",
        "91.218.134.0/24",
        "91.218.135.0/24",
        "212.49.24.0/24",
        "212.233.80.0/24",
        "212.233.81.0/24",
        "212.233.82.0/24",
        "212.233.83.0/24",
    )
)
"""The networks that the bank says its notifications come from."""

MAX_HOPS = 32
"""More proxies than this in a row are nobody's."""


def networks_of(entries: Iterable[str]) -> tuple[Network, ...]:
    """The networks that a setting lists: addresses, ``address/length``, or ``tbank``. Raises ``SettingsError``."""
    networks: list[Network] = []
    for entry in entries:
        text = entry.strip()
        if text.lower() == TBANK:
            networks.extend(TBANK_NETWORKS)
            continue
        try:
            networks.append(ip_network(text))
        except ValueError as error:
            raise SettingsError(f"{text!r} is not a network such as 192.0.2.0/24, nor {TBANK!r}: {error}") from None
    return tuple(networks)


class Source(msgspec.Struct, frozen=True):
    """The sender's address as text, empty when it cannot be told, and whether it may speak."""

    address: str
    welcome: bool


class Gate:
    """Decides by the sender's address. Without ``networks`` everyone is welcome.

    ``X-Forwarded-For`` is believed only when the peer is one of ``trusted_proxies``, and is then read from the right:
    each proxy vouches for the address it wrote, and the first address that is no trusted proxy is the sender. What
    stands further left was written by the sender, and may say anything.
    """

    def __init__(self, networks: Sequence[Network] = (), trusted_proxies: Sequence[Network] = ()) -> None:
        self._networks = tuple(networks)
        self._proxies = tuple(trusted_proxies)
        self._open = not self._networks and not self._proxies

    def judge(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> Source:
        """Judge the peer's address (empty for a socket without addresses) and the headers, their names in lower case.

        A sender that cannot be told is refused when there is an allow-list; without one the peer stands in for it.
        """
        if self._open:
            return Source(peer, True)
        source = self._source(peer, headers)
        if not self._networks:
            return Source(str(source or peer), True)
        return Source(str(source or ""), source is not None and _within(source, self._networks))

    def _source(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> Address | None:
        address = _address(peer)
        if address is None or not _within(address, self._proxies):
            return address
        lines = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
        if not lines:
            return address
        hops = ",".join(lines).rsplit(",", MAX_HOPS)
        for hop in reversed(hops[-MAX_HOPS:]):
            address = _address(_without_port(hop.strip()))
            if address is None or not _within(address, self._proxies):
                return address
        # Only proxies vouch for proxies: the leftmost is itself the sender, unless there are too many to be true.
        return address if len(hops) <= MAX_HOPS else None


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A socket that serves both families shows an IPv4 peer as ::ffff:192.0.2.1.
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
