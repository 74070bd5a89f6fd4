"""The terminals that a shop has, each with every password that is valid at present."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from oplata.bank.notification import Notification
from oplata.bank.token import matches, sign
from oplata.errors import NotAuthentic, SettingsError

_NOBODY = ("a password of no terminal",)


class Keyring:
    """Decides whether a notification is the bank's.

    While a password is being changed, the old and the new one are both listed. An unknown terminal costs as much time
    as a known one, and gets the same answer as a wrong token, so that nobody can ask which terminals exist.
    """

    def __init__(self, passwords: Mapping[str, Sequence[str]]) -> None:
        self.replace(passwords)

    def replace(self, passwords: Mapping[str, Sequence[str]]) -> None:
        """Have these passwords and no others, from the next notification on. Raises ``SettingsError``, and then the
        old ones stay.
        """
        for terminal_key, valid in passwords.items():
            # A lone string is a sequence too, and each of its characters would pass for a password.
            if not terminal_key or isinstance(valid, str) or not valid or not all(valid):
                raise SettingsError(f"terminal {terminal_key!r} needs a key and a list of one or more passwords")
        self._passwords = {terminal_key: tuple(valid) for terminal_key, valid in passwords.items()}
        self._most = max((len(valid) for valid in self._passwords.values()), default=1)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(sorted(self._passwords))})"

    @property
    def terminal_keys(self) -> tuple[str, ...]:
        """The terminals, sorted."""
        return tuple(sorted(self._passwords))

    def verify(self, notification: Notification) -> None:
        """Return if one of the terminal's passwords signs what arrived. Raises ``NotAuthentic``."""
        known = self._passwords.get(notification.terminal_key)
        candidates = known or _NOBODY
        genuine = False
        for place in range(self._most):
            password = candidates[min(place, len(candidates) - 1)]
            genuine |= matches(notification.fields, notification.token, password)
        if known is None or not genuine:
            raise NotAuthentic

    def seal(self, text: bytes) -> str:
        """A mark that only who knows one of our passwords can make: for what we send to ourselves.

        It is no token: the bank's tokens are made otherwise, so neither can pass for the other.
        """
        return _seal(text, next(iter(self._passwords.values()))[0])

    def is_sealed(self, text: bytes, mark: str) -> bool:
        """Whether one of the valid passwords made this mark."""
        genuine = False
        for password in (each for valid in self._passwords.values() for each in valid):
            genuine |= hmac.compare_digest(_seal(text, password).encode(), mark.encode("utf-8", "replace"))
        return genuine

    def sign(self, fields: Mapping[str, str], terminal_key: str) -> str:
        """The token with the terminal's first password. Raises ``SettingsError`` for a terminal that is not ours."""
        known = self._passwords.get(terminal_key)
        if known is None:
            raise SettingsError(f"no password is set for terminal {terminal_key!r}")
        return sign(fields, known[0])


def _seal(text: bytes, password: str) -> str:
    key = hashlib.sha256(b"oplata seal\0" + password.encode()).digest()
    return hmac.new(key, text, hashlib.sha256).hexdigest()
