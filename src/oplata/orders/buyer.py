"""A buyer's token: lets a browser watch one order for a short while, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence

import msgspec

from oplata.errors import OrderError
from oplata.orders.clock import wall_clock_ms

PREFIX = "oplata_buyer."
DEFAULT_LIFETIME_S = 3600
MAX_LIFETIME_S = 86_400
MAX_TOKEN_LENGTH = 500


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """What a token says: whoever holds it may see this order until then."""

    order_id: str
    expires_at_ms: int


class BuyerTokens:
    """Signs with the first of these keys, and believes all of them; so a key is changed without a token lost."""

    def __init__(self, keys: Sequence[bytes], *, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._keys = tuple(keys)
        self._now_ms = now_ms

    def mint(self, order_id: str, lifetime_s: int = DEFAULT_LIFETIME_S) -> tuple[str, Claim]:
        """A token for this order, and what it says. Raises ``OrderError`` where no signing key is set."""
        if not self._keys:
            raise OrderError("no key signs buyers' tokens: set OPLATA_BUYER_TOKEN_KEYS, and start anew")
        if not 1 <= lifetime_s <= MAX_LIFETIME_S:
            raise OrderError(f"a buyer's token lives 1 to {MAX_LIFETIME_S} seconds")
        claim = Claim(order_id, self._now_ms() + lifetime_s * 1000)
        said = _encoded(msgspec.json.encode(claim))
        return f"{PREFIX}{said}.{_encoded(_signature(self._keys[0], said))}", claim

    def read(self, token: str) -> Claim | None:
        """What a genuine token says that has not expired; None for every other text."""
        said, dot, signature = token.removeprefix(PREFIX).partition(".")
        if not token.startswith(PREFIX) or not dot or len(token) > MAX_TOKEN_LENGTH or not token.isascii():
            return None
        # All keys are tried whatever the first one says, so that the time tells nothing.
        genuine = [
            hmac.compare_digest(_encoded(_signature(key, said)).encode(), signature.encode()) for key in self._keys
        ]
        if not any(genuine):
            return None
        claim = msgspec.json.decode(_decoded(said), type=Claim)
        return claim if self._now_ms() < claim.expires_at_ms else None


def _signature(key: bytes, said: str) -> bytes:
    # The name keeps a signature of ours for something else from being taken for one of these.
    return hmac.new(key, b"oplata buyer token 1\0" + said.encode(), hashlib.sha256).digest()


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
