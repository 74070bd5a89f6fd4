"""``oplata trigger``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import httpx

    from oplata.settings import Settings

ANSWER_TIMEOUT_S = 15.0
"""The bank itself waits for 10 s."""


@click.command(short_help="Send one signed callback, as the bank would.")
@click.option("--order-id", required=True, help="The order that the callback is about.")
@click.option("--status", required=True, help="The bank's word, such as AUTHORIZED, CONFIRMED, REJECTED, REFUNDED.")
@click.option("--amount", required=True, type=click.IntRange(0), metavar="KOPECKS", help="19900 is 199 rubles.")
@click.option("--payment-id", type=click.IntRange(1), help="Made from the order's id if it is not given.")
@click.option("--terminal", metavar="KEY", help="Which terminal signs it; needed when there are several.")
@click.option("--url", help="Where to send it, instead of to OPLATA_HOST, OPLATA_PORT and OPLATA_CALLBACK_PATH.")
def trigger(
    order_id: str, status: str, amount: int, payment_id: int | None, terminal: str | None, url: str | None
) -> int:
    """Send one signed callback to a running `oplata up` or `oplata serve`, and print the answer. For development.

    It is signed with the terminal's first password, so the endpoint takes it for the bank's. Exit code 1 unless the
    answer was OK.
    """
    from oplata.bank.simulator.payload import as_json, payment, payment_id_for, signed
    from oplata.settings import Settings

    settings = Settings.load()
    key, password = _signer(settings.passwords(), terminal)
    success = status not in ("REJECTED", "AUTH_FAIL", "DEADLINE_EXPIRED", "ATTEMPTS_EXPIRED")
    fields = payment(key, order_id, payment_id or payment_id_for(order_id), status, amount, success=success)
    answer = _post(url or _own_url(settings), as_json(signed(fields, password)))
    accepted = answer.status_code == 200 and answer.content == b"OK"
    click.echo(f"{answer.status_code} {answer.text[:500]}")
    return 0 if accepted else 1


def _signer(passwords: dict[str, list[str]], terminal: str | None) -> tuple[str, str]:
    known = ", ".join(sorted(passwords))
    if terminal is None and len(passwords) > 1:
        raise click.UsageError(f"There are several terminals: say which with --terminal ({known}).")
    key = terminal or next(iter(passwords))
    if key not in passwords:
        raise click.UsageError(f"No terminal {key!r} is set; there is {known}.")
    return key, passwords[key][0]


def _own_url(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}{settings.callback_path}"


def _post(url: str, body: bytes) -> httpx.Response:
    import httpx

    try:
        # The environment may name a proxy, which has no business between a developer and his own machine.
        with httpx.Client(timeout=ANSWER_TIMEOUT_S, trust_env=False) as client:
            return client.post(url, content=body, headers={"content-type": "application/json"})
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise click.UsageError("--url is not a URL such as http://127.0.0.1:8080/api/tinkoff-callback.") from None
    except httpx.HTTPError as error:
        fault = str(error) or type(error).__name__
        raise click.ClickException(
            f"No answer from {url}: {fault}. Is `oplata up` or `oplata serve` running there?"
        ) from None
