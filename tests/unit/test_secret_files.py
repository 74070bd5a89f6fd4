"""A secret may lie in a file of its own, and what is wrong with that file is said in a sentence without the secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from oplata.errors import SettingsError
from oplata.settings import Settings
from oplata.settings.model import SECRETS
from tests.unit.test_settings import nothing_around, refusal

__all__ = ["nothing_around"]


@pytest.fixture(autouse=True)
def a_terminal_without_a_password(nothing_around: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPLATA_TERMINAL_KEY", "A")


def test_a_secret_is_read_from_its_file_without_the_end_of_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_bytes(b" pa55 word \r\n")
    monkeypatch.setenv("OPLATA_TERMINAL_PASSWORD_FILE", "password")

    assert Settings.load().passwords() == {"A": [" pa55 word "]}


def test_a_password_file_may_hold_the_new_one_and_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text("new\nold\n", encoding="utf-8")
    monkeypatch.setenv("OPLATA_TERMINAL_PASSWORD_FILE", str(tmp_path / "password"))

    assert Settings.load().passwords() == {"A": ["new", "old"]}


@pytest.mark.parametrize("place", ["environment", ".env", "oplata.toml"])
@pytest.mark.parametrize("name", sorted(SECRETS - {"terminals", "terminal_password"}))
def test_every_secret_may_lie_in_a_file_that_any_place_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    monkeypatch.setenv("OPLATA_TERMINAL_PASSWORD", "x")
    (tmp_path / "secret").write_text("nonsense://hidden", encoding="utf-8")
    if place == "environment":
        monkeypatch.setenv(f"OPLATA_{name.upper()}_FILE", "secret")
    elif place == ".env":
        (tmp_path / ".env").write_text(f"OPLATA_{name.upper()}_FILE=secret\n", encoding="utf-8")
    else:
        (tmp_path / "oplata.toml").write_text(f'{name}_file = "secret"\n', encoding="utf-8")

    said = loaded_or_refused(name)

    # A value that cannot be meant is refused like any other: by the place where it stands, and unshown.
    assert said == "nonsense://hidden" or (f"{name}_file" in said.lower() and "hidden" not in said)


def loaded_or_refused(name: str) -> str:
    try:
        return str(getattr(Settings.load(), name).get_secret_value())
    except SettingsError as error:
        return str(error)


def test_terminals_in_a_file_are_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPLATA_TERMINAL_KEY")
    (tmp_path / "terminals").write_text('[{"key": "B", "passwords": ["b"]}]', encoding="utf-8")
    monkeypatch.setenv("OPLATA_TERMINALS_FILE", "terminals")

    assert Settings.load().passwords() == {"B": ["b"]}


def test_a_secret_in_two_ways_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPLATA_TERMINAL_PASSWORD", "x")
    monkeypatch.setenv("OPLATA_TERMINAL_PASSWORD_FILE", "password")

    assert refusal() == (
        "Both OPLATA_TERMINAL_PASSWORD and OPLATA_TERMINAL_PASSWORD_FILE are set, and only one can be meant. "
        "Take one away."
    )


def test_a_secret_in_two_ways_is_told_as_it_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "my_file.toml"
    config.write_text('terminal_password = "x"\nterminal_password_file = "password"\n', encoding="utf-8")
    monkeypatch.setenv("OPLATA_CONFIG", str(config))

    assert refusal().startswith(f"Both terminal_password in {config} and terminal_password_file in {config} are set")


def test_a_file_in_a_higher_place_outranks_a_value_in_a_lower_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("OPLATA_TERMINAL_PASSWORD=from-dotenv\n", encoding="utf-8")
    (tmp_path / "password").write_text("from-file", encoding="utf-8")
    monkeypatch.setenv("OPLATA_TERMINAL_PASSWORD_FILE", "password")

    assert Settings.load().passwords() == {"A": ["from-file"]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: no such file"),
        (b"", "which is empty"),
        (b"\n", "which is empty"),
        (b"\xff\xfe", "is not text in UTF-8"),
        (b"x" * 70_000, "longer than"),
    ],
)
def test_a_file_without_a_secret_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "password").write_bytes(content)
    monkeypatch.setenv("OPLATA_TERMINAL_PASSWORD_FILE", "password")

    assert "OPLATA_TERMINAL_PASSWORD_FILE names password" in refusal()
    assert said in refusal()


def test_a_folder_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPLATA_TERMINAL_PASSWORD_FILE", str(tmp_path))

    assert "cannot be read: is a directory" in refusal()


def test_only_secrets_have_files_and_a_slip_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPLATA_PORT_FILE", "x")
    assert refusal().endswith("OPLATA_PORT is no secret, and is set by itself.")

    monkeypatch.delenv("OPLATA_PORT_FILE")
    monkeypatch.setenv("OPLATA_TERMINAL_PASWORD_FILE", "x")
    assert refusal().endswith("Did you mean OPLATA_TERMINAL_PASSWORD_FILE?")


def test_every_setting_is_explained_and_no_secret_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text("hidden-1", encoding="utf-8")
    (tmp_path / ".env").write_text("OPLATA_PORT=2\n", encoding="utf-8")
    terminals = '[[terminals]]\nkey = "B"\npasswords = ["hidden-2"]\n'
    (tmp_path / "oplata.toml").write_text(f'queue_name = "q"\n{terminals}', encoding="utf-8")
    monkeypatch.setenv("OPLATA_TERMINAL_PASSWORD_FILE", "password")
    monkeypatch.setenv("OPLATA_DATABASE_URL", "postgresql://shop:hidden-3@db/shop")
    monkeypatch.setenv("OPLATA_TRACE_URL", "https://shop:hidden-4@collector/v1/traces")

    explained = {each.name: (each.shown, each.origin) for each in Settings.explain()}

    assert set(explained) == set(Settings.model_fields)
    assert "hidden" not in str(explained)
    assert explained["terminal_password"] == ("***", "OPLATA_TERMINAL_PASSWORD_FILE (password)")
    assert explained["terminals"] == ("***", "terminals in oplata.toml")
    assert explained["database_url"] == ("postgresql://shop:***@db/shop", "OPLATA_DATABASE_URL")
    assert explained["port"] == ("2", "OPLATA_PORT in .env")
    assert explained["queue_name"] == ("q", "queue_name in oplata.toml")
    assert explained["batch_size"] == ("500", "default")
