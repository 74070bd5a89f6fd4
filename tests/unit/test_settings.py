"""Settings are read once, from four places, and a wrong one is answered with a sentence that mends it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oplata.errors import SettingsError
from oplata.settings import Settings


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("OPLATA_"):
            monkeypatch.delenv(name)


def refusal() -> str:
    with pytest.raises(SettingsError) as refused:
        Settings.load()
    return str(refused.value)


def test_without_anything_set_the_defaults_hold() -> None:
    settings = Settings.load()

    assert settings.queue_url.get_secret_value() == "sqlite:///oplata-queue.db"
    assert settings.database_url.get_secret_value() == "sqlite:///oplata.db"
    assert (settings.queue_name, settings.queue_declare) == ("oplata.callbacks", "active")
    assert (settings.host, settings.port, settings.callback_path) == ("127.0.0.1", 8080, "/api/tinkoff-callback")
    assert (settings.batch_size, settings.prefetch, settings.max_in_flight) == (500, 1000, 2000)
    assert (settings.confirm_timeout_s, settings.body_timeout_s) == (8.0, 5.0)


def test_the_environment_outranks_dotenv_and_that_the_toml_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "oplata.toml").write_text('port = 1\nhost = "toml"\nqueue_name = "toml"\n', encoding="utf-8")
    (tmp_path / ".env").write_text("OPLATA_PORT=2\nOPLATA_HOST=dotenv\nOTHER=1\n", encoding="utf-8")
    monkeypatch.setenv("OPLATA_PORT", "3")

    settings = Settings.load()

    assert (settings.port, settings.host, settings.queue_name) == (3, "dotenv", "toml")
    assert Settings.load(port=4).port == 4


def test_values_given_in_python_are_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPLATA_PORT", "3")

    assert Settings().port == 8080
    assert Settings(port=1).port == 1


def test_terminals_may_be_one_or_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml = '[[terminals]]\nkey = "B"\npasswords = ["new", "old"]\n[[terminals]]\nkey = "C"\npasswords = ["c"]\n'
    (tmp_path / "oplata.toml").write_text(toml, encoding="utf-8")
    monkeypatch.setenv("OPLATA_TERMINAL_KEY", "A")
    monkeypatch.setenv("OPLATA_TERMINAL_PASSWORD", "a")

    assert Settings.load().passwords() == {"A": ["a"], "B": ["new", "old"], "C": ["c"]}

    monkeypatch.setenv("OPLATA_TERMINALS", '[{"key": "D", "passwords": ["d"]}]')
    assert Settings.load().passwords() == {"A": ["a"], "D": ["d"]}


def test_no_terminal_is_an_error_only_for_those_who_ask() -> None:
    settings = Settings.load()

    with pytest.raises(SettingsError, match="OPLATA_TERMINAL_KEY and OPLATA_TERMINAL_PASSWORD"):
        settings.passwords()


@pytest.mark.parametrize("name", ["OPLATA_TERMINAL_KEY", "OPLATA_TERMINAL_PASSWORD"])
def test_half_a_terminal_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "half")

    assert f"{name} is set and" in refusal()


def test_no_secret_is_in_a_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPLATA_TERMINALS", '[{"key": "A", "passwords": ["hidden-1"]}]')
    monkeypatch.setenv("OPLATA_QUEUE_URL", "amqp://user:hidden-2@host/")
    monkeypatch.setenv("OPLATA_DATABASE_URL", "postgresql://user:hidden-3@host/shop")

    settings = Settings.load()

    assert "hidden" not in repr(settings) + str(settings)
    assert settings.passwords() == {"A": ["hidden-1"]}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "PORT",
            "eighty",
            "OPLATA_PORT must be a TCP port from 0 (any free one) to 65535, such as 8080; it is 'eighty'.",
        ),
        ("PORT", "65536", "OPLATA_PORT must be a TCP port"),
        ("CALLBACK_PATH", "callback", "OPLATA_CALLBACK_PATH must be a path that begins with a slash"),
        ("QUEUE_DECLARE", "maybe", "OPLATA_QUEUE_DECLARE must be active"),
        ("QUEUE_RETRY_DELAYS_MS", "1000,soon", "OPLATA_QUEUE_RETRY_DELAYS_MS must be 1 to 16 delays in milliseconds"),
        ("PREFETCH", "2001", "a quorum queue takes no more"),
        ("BATCH_SIZE", "0", "OPLATA_BATCH_SIZE must be"),
        ("CONFIRM_TIMEOUT_S", "-1", "OPLATA_CONFIRM_TIMEOUT_S must be"),
        ("ALLOWED_NETWORKS", "tbank,everyone", "OPLATA_ALLOWED_NETWORKS must be networks"),
        ("LOG_LEVEL", "loud", "OPLATA_LOG_LEVEL must be debug"),
    ],
)
def test_a_wrong_value_is_shown_with_what_it_must_be(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(f"OPLATA_{name}", value)

    assert said in refusal()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QUEUE_URL", "redis://user:hidden@host/"),
        ("DATABASE_URL", "mysql://user:hidden@host/"),
        ("TRACE_URL", "ftp://user:hidden@collector/v1/traces"),
        ("TERMINALS", '[{"key": "A", "pasword": "hidden"}]'),
        ("TERMINALS", '[{"key": "A", "passwords": ["hidden"]'),
        ("TERMINALS", '[{"key": "A", "passwords": []}, "hidden"]'),
    ],
)
def test_a_wrong_value_that_may_hold_a_secret_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"OPLATA_{name}", value)

    said = refusal()

    assert f"OPLATA_{name} must be" in said
    assert "hidden" not in said


def test_every_wrong_setting_is_named_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "oplata.toml").write_text("prefetch = -1\n", encoding="utf-8")
    (tmp_path / ".env").write_text("OPLATA_BATCH_SIZE=none\n", encoding="utf-8")
    monkeypatch.setenv("OPLATA_PORT", "x")

    said = refusal()

    assert "OPLATA_PORT must be" in said
    assert "OPLATA_BATCH_SIZE in .env must be" in said
    assert "prefetch in oplata.toml must be" in said


def test_a_misspelt_name_is_refused_with_the_right_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPLATA_QUEUE_ULR", "sqlite:///x.db")
    assert refusal() == "OPLATA_QUEUE_ULR in the environment is not a setting of oplata. Did you mean OPLATA_QUEUE_URL?"

    monkeypatch.delenv("OPLATA_QUEUE_ULR")
    (tmp_path / "oplata.toml").write_text('databaseurl = "x"\n', encoding="utf-8")
    assert refusal() == "databaseurl in oplata.toml is not a setting of oplata. Did you mean database_url?"

    (tmp_path / "oplata.toml").unlink()
    (tmp_path / ".env").write_text("OPLATA_HOSTT=x\n", encoding="utf-8")
    assert refusal() == "OPLATA_HOSTT in .env is not a setting of oplata. Did you mean OPLATA_HOST?"

    with pytest.raises(SettingsError, match="Did you mean port"):
        Settings(prot=1)


def test_variables_of_the_tests_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPLATA_TEST_AMQP_URL", "amqp://x")

    assert Settings.load() == Settings()


def test_the_toml_file_may_be_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.toml").write_text(
        'queue_name = "tinkoff_payments"\nqueue_declare = "passive"\n', encoding="utf-8"
    )
    monkeypatch.setenv("OPLATA_CONFIG", str(tmp_path / "shop.toml"))
    settings = Settings.load()
    assert (settings.queue_name, settings.queue_declare) == ("tinkoff_payments", "passive")

    monkeypatch.setenv("OPLATA_CONFIG", "nowhere.toml")
    assert "there is no such file" in refusal()


def test_a_file_that_is_not_toml_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "oplata.toml").write_text("port: 1\n", encoding="utf-8")
    assert refusal().startswith("oplata.toml is not valid TOML")

    (tmp_path / "oplata.toml").write_bytes(b"\xff\xfe")
    assert refusal().startswith("oplata.toml cannot be read as text")


def test_lists_are_written_with_commas_or_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "oplata.toml").write_text('trusted_proxies = ["10.0.0.0/8"]\n', encoding="utf-8")
    monkeypatch.setenv("OPLATA_ALLOWED_NETWORKS", "tbank, 192.0.2.7")
    monkeypatch.setenv("OPLATA_QUEUE_RETRY_DELAYS_MS", "[100, 200]")

    settings = Settings.load()

    assert settings.allowed_networks == ("tbank", "192.0.2.7/32")
    assert settings.trusted_proxies == ("10.0.0.0/8",)
    assert settings.queue_retry_delays_ms == (100, 200)


def test_an_empty_variable_is_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPLATA_PORT", "")

    assert Settings.load().port == 8080
