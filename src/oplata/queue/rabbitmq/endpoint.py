"""Where the broker is, and what to tell a person when it can't be reached; never shows the password."""

from __future__ import annotations

import socket
import ssl

import pika
from pika import exceptions

from oplata.errors import QueueUnavailable, SettingsError

_TCP_TIMEOUT_S = 4.0
_STACK_TIMEOUT_S = 6.0
"""Below the eight seconds that an endpoint may take to answer a bank, so that a second try fits in."""

_LONGEST_CHAIN = 12


class Endpoint:
    """A broker's address with its credentials, from ``amqp://user:password@host:port/vhost`` or ``amqps://``.

    Raises ``SettingsError`` for anything else. The text of an endpoint is its URL without the password.
    """

    def __init__(self, url: str, *, heartbeat_s: int) -> None:
        if not url.startswith(("amqp://", "amqps://")):
            raise SettingsError("The queue's URL must begin with amqp:// or amqps://.")
        self._url = url
        self._heartbeat_s = heartbeat_s
        parameters = self.parameters("check")
        self.host: str = parameters.host
        self.port: int = parameters.port
        self.vhost: str = parameters.virtual_host
        self.user: str = parameters.credentials.username

    def __repr__(self) -> str:
        return f"Endpoint({self.user}@{self.host}:{self.port}{'' if self.vhost == '/' else '/' + self.vhost})"

    def parameters(self, role: str) -> pika.URLParameters:
        """Return fresh connection parameters: pika writes into them what it negotiated."""
        try:
            parameters = pika.URLParameters(self._url)
            parameters.heartbeat = self._heartbeat_s
        except (ValueError, TypeError, LookupError, SyntaxError, OSError, AttributeError):
            # The cause is dropped on purpose: pika and urllib quote pieces of the URL, of which the password is one.
            raise SettingsError("The queue's URL is not of the form amqp://user:password@host:port/vhost.") from None
        parameters.connection_attempts = 1
        parameters.socket_timeout = _TCP_TIMEOUT_S
        parameters.stack_timeout = _STACK_TIMEOUT_S
        parameters.blocked_connection_timeout = None
        parameters.client_properties = {"connection_name": f"oplata {role}"}
        return parameters

    def explain(self, error: BaseException | None) -> QueueUnavailable:
        """Map whatever kept a connection from opening to a sentence that says what to mend."""
        return QueueUnavailable(self._sentence(_root_causes(error)))

    def _sentence(self, causes: list[BaseException]) -> str:
        place = f"{self.host}:{self.port}"
        for cause in causes:
            if isinstance(cause, exceptions.ProbableAuthenticationError | exceptions.AuthenticationError):
                return f'RabbitMQ at {place} refused the user "{self.user}": check the name and password in the URL.'
            if isinstance(cause, exceptions.ProbableAccessDeniedError):
                return (
                    f'RabbitMQ at {place} does not let the user "{self.user}" into the virtual host "{self.vhost}": '
                    "check that it exists (rabbitmqctl add_vhost) and the permissions (rabbitmqctl set_permissions)."
                )
            if isinstance(cause, exceptions.IncompatibleProtocolError):
                return f"What answers at {place} does not speak AMQP: check the port (5672, or 5671 with amqps)."
            if isinstance(cause, ssl.SSLError):
                return f"TLS with {place} failed ({cause.reason or 'handshake'}): check the certificate and the port."
            if isinstance(cause, socket.gaierror):
                return f'The host name "{self.host}" could not be resolved: check the name in the URL and DNS.'
            if isinstance(cause, ConnectionRefusedError):
                return f"Nothing accepts connections at {place}: is RabbitMQ running there?"
            if isinstance(cause, exceptions.ConnectionClosedByBroker):
                return f"RabbitMQ at {place} closed the connection: {cause.reply_text}"
        names = ", ".join(dict.fromkeys(type(cause).__name__ for cause in causes)) or "no answer in time"
        return (
            f"RabbitMQ at {place} could not be reached ({names}): check that it runs and that no firewall is between."
        )


def _root_causes(error: BaseException | None) -> list[BaseException]:
    """Unfold pika's wrappers, the most specific cause first."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting and len(found) < _LONGEST_CHAIN:
        current = waiting.pop()
        if not isinstance(current, BaseException):
            continue
        found.append(current)
        waiting.extend(getattr(current, "exceptions", ()))
        waiting.append(getattr(current, "exception", None))
        waiting.extend(argument for argument in current.args if isinstance(argument, BaseException))
    return found[::-1]
