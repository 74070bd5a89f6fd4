"""No log line holds a secret or a body, whichever way it is written."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from oplata.observability.logging import configure, without_passwords


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_machine_reads_json_and_a_person_reads_text() -> None:
    machine, person = io.StringIO(), Terminal()
    for stream in (machine, person):
        configure("info", "auto", stream)
        structlog.get_logger("oplata.test").info("A batch was applied.", action="apply", size=3)

    line = json.loads(machine.getvalue())
    assert (line["event"], line["action"], line["size"], line["level"]) == ("A batch was applied.", "apply", 3, "info")
    assert "A batch was applied." in person.getvalue()
    assert not person.getvalue().startswith("{")


@pytest.mark.parametrize("form", ["json", "text"])
def test_secrets_and_bodies_are_hidden_at_any_depth(form: str) -> None:
    stream = io.StringIO()
    configure("info", "json" if form == "json" else "text", stream)

    structlog.get_logger("oplata.test").info(
        "hello",
        password="hidden",
        Token="hidden",
        Pan="hidden",
        card_number=4300000000000777,
        body=b"hidden",
        raw_body="hidden",
        fields={"Password": "hidden", "list": [{"ExpDate": "hidden"}], "bytes": b"hidden"},
        url="amqp://shop:hidden@host:5672/%2F",
        prefetch=1000,
        order_id="A-1",
    )

    written = stream.getvalue()
    assert "hidden" not in written
    assert "4300000000000777" not in written
    assert all(part in written for part in ("A-1", "1000", "amqp://shop:***@host", "6 bytes"))


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("postgresql://shop:hidden@db/shop", "postgresql://shop:***@db/shop"),
        ("amqp://shop:hid/den@host:5672/%2F", "amqp://shop:***@host:5672/%2F"),
        ("amqp://shop:hid@den@host/", "amqp://shop:***@host/"),
        ("postgresql://db/shop?user=u&password=hidden&ssl=on", "postgresql://db/shop?user=u&password=***&ssl=on"),
        ("https://crm.example/hooks?token=hidden", "https://crm.example/hooks?token=***"),
        ("amqp://host:5672/ and http://host:8080/", "amqp://host:5672/ and http://host:8080/"),
    ],
)
def test_the_password_of_a_url_is_hidden_wherever_it_stands(written: str, told: str) -> None:
    assert told == without_passwords(written)


def test_lines_of_libraries_and_tracebacks_pass_the_same_way() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)

    logging.getLogger("somebody.else").warning("cannot reach %s", "postgresql://shop:hidden@host/shop")
    where = "is away"
    try:
        raise ConnectionError(f"amqp://shop:hidden@host/ {where}")
    except ConnectionError:
        structlog.get_logger("oplata.test").exception("failed")

    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["event"] == "cannot reach postgresql://shop:***@host/shop"
    assert second["exception"].endswith("ConnectionError")
    assert "is away" not in second["exception"]
    assert "hidden" not in stream.getvalue()


def test_the_level_holds_for_us_and_for_libraries() -> None:
    stream = io.StringIO()
    configure("warning", "json", stream)

    structlog.get_logger("oplata.test").info("quiet")
    logging.getLogger("somebody.else").info("quiet")
    logging.getLogger("pika.connection").warning("quiet")
    structlog.get_logger("oplata.test").warning("loud")

    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud"]
