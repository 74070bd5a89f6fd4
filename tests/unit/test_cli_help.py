"""Every command explains itself, and every failure is a sentence with an exit code."""

from __future__ import annotations

import click
import pytest

from oplata.cli.checkup import judge_clock
from oplata.cli.root import COMMANDS, root, run
from oplata.errors import TopologyError


def every_command() -> list[tuple[str, ...]]:
    paths: list[tuple[str, ...]] = []
    context = click.Context(root)
    for name in COMMANDS:
        command = root.get_command(context, name)
        paths.append((name,))
        if isinstance(command, click.Group):
            paths.extend((name, inner) for inner in command.list_commands(context))
    return paths


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_every_command_has_a_help_that_says_what_each_option_is(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    command: click.Command = root
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found

    assert run([*path, "--help"]) == 0
    assert f"Usage: oplata {' '.join(path)}" in capsys.readouterr().out
    assert command.short_help
    assert len(command.help or "") > len(command.short_help)
    assert [each.name for each in command.params if isinstance(each, click.Option) and not each.help] == []


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["demo", "--nonsense"], ["orders", "show"], ["trigger"], ["orders", "register", "--order-id", "A"]],
)
def test_a_wrong_command_line_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "Error: " in capsys.readouterr().err


def test_the_clock_is_judged_by_its_year_and_by_the_databases() -> None:
    now_ms = 1_795_000_000_000

    assert judge_clock(now_ms, now_ms + 4_000).ok
    assert judge_clock(now_ms, None).ok
    assert not judge_clock(now_ms, now_ms - 6_000).ok
    assert not judge_clock(0, None).ok
    assert not judge_clock(-1, None).ok
    assert not judge_clock(10**17, None).ok


def test_an_expected_failure_among_tasks_is_a_sentence_and_a_bug_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_with(*errors: Exception) -> None:
        def main(**_: object) -> None:
            raise ExceptionGroup("tasks", [ExceptionGroup("inner", errors)])

        monkeypatch.setattr(root, "main", main)

    fail_with(TopologyError("The queue differs"))
    assert run([]) == 1
    assert capsys.readouterr().err == "oplata: The queue differs.\n"

    fail_with(TopologyError("The queue differs"), ValueError("a bug"))
    with pytest.raises(ExceptionGroup):
        run([])
