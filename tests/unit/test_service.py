"""What a parent decides and writes: when to start again, and the command line of each process."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import click
import pytest

from oplata.cli.root import root
from oplata.cli.service import crashes
from oplata.cli.service.arguments import of_each, with_post
from oplata.cli.service.crashes import BASE_S, CAP_S, CRASH_LIMIT, SHORTEST_S, STABLE_S, Crashes
from oplata.cli.service.offspring import Offspring
from oplata.cli.service.post import Post
from oplata.cli.service.reload import changes
from oplata.errors import SettingsError


def test_pauses_grow_and_have_a_ceiling_until_it_is_hopeless() -> None:
    ends, pauses = Crashes(random.Random(1)), []
    while not ends.hopeless:
        pauses.append(ends.ended(1.0))

    assert len(pauses) == CRASH_LIMIT
    ceilings = [SHORTEST_S + min(CAP_S, BASE_S * 2**number) for number in range(CRASH_LIMIT)]
    assert all(SHORTEST_S <= pause <= ceiling for pause, ceiling in zip(pauses, ceilings, strict=True))
    assert max(pauses) > BASE_S


def test_a_long_life_begins_a_new_count() -> None:
    ends = Crashes(random.Random(1))
    for _ in range(CRASH_LIMIT):
        ends.ended(1.0)
    ends.ended(STABLE_S)

    assert (ends.in_a_row, ends.hopeless) == (1, False)


@pytest.mark.anyio
async def test_what_cannot_be_started_now_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crashes, "CAP_S", 0.01)
    monkeypatch.setattr(crashes, "SHORTEST_S", 0.0)
    ended = asyncio.Event()
    process = Offspring(1, ["/of/no/program"], port=None, patience_s=1, changed=ended.set, rng=random.Random(1))
    keeping = asyncio.create_task(process.run())
    async with asyncio.timeout(10):
        while not process.crashes.hopeless:
            await ended.wait()
            ended.clear()

    assert not keeping.done()
    process.stop()
    await keeping


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["serve", "--processes", "2"], ["serve"]),
        (
            ["serve", "--port", "9", "--processes", "2", "--reload", "--host", "::1"],
            ["serve", "--host", "::1", "--port", "9"],
        ),
        (["worker", "--processes=3"], ["worker"]),
    ],
)
def test_each_process_gets_the_command_line_without_the_parents_options(typed: list[str], expected: list[str]) -> None:
    context = click.Context(root)
    command = root.get_command(context, typed[0])
    assert command is not None

    assert of_each(command.make_context(typed[0], typed[1:])) == expected


def test_flags_and_repeated_options_are_passed_on() -> None:
    @click.command()
    @click.option("--app", "apps", multiple=True)
    @click.option("--quiet/--loud", default=None)
    @click.option("--processes", type=int)
    def command(apps: tuple[str, ...], quiet: bool | None, processes: int | None) -> None: ...

    context = command.make_context("command", ["--app", "a:b", "--loud", "--app", "c:d", "--processes", "2"])

    assert of_each(context) == ["command", "--app", "a:b", "--app", "c:d", "--loud"]


def test_a_process_learns_which_one_it_is() -> None:
    post = Post(number=2, lifeline_fd=7, port=8080)
    command = root.get_command(click.Context(root), "serve")
    assert command is not None

    assert command.make_context("serve", with_post([], post)).params["post"] == post
    with pytest.raises(click.BadParameter, match="own use"):
        command.make_context("serve", ["--post", "x"])


@pytest.mark.anyio
async def test_a_changed_file_is_named_and_others_are_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".venv").mkdir()
    monkeypatch.chdir(tmp_path)
    seen = changes()
    changed = asyncio.ensure_future(anext(seen))
    for _ in range(100):
        # The watch begins a moment after it was asked for.
        (tmp_path / ".venv" / "package.py").write_text(str(_), encoding="utf-8")
        (tmp_path / "notes.txt").write_text(str(_), encoding="utf-8")
        (tmp_path / "oplata.toml").write_text(f"# {_}", encoding="utf-8")
        await asyncio.wait({changed}, timeout=0.2)
        if changed.done():
            break

    assert await changed == "oplata.toml"
    await seen.aclose()


@pytest.mark.anyio
async def test_reload_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)

    with pytest.raises(SettingsError, match=r"pip install 'oplata\[reload\]'"):
        await anext(changes())
