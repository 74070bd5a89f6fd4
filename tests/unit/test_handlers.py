"""What a shop registers its functions for, and what it is told when that cannot work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oplata import Change, Handlers, SettingsError, Transaction
from oplata.cli.code import load_handlers


async def first(change: Change, tx: Transaction) -> None: ...
async def second(change: Change, tx: Transaction) -> None: ...
async def third(change: Change, tx: Transaction) -> None: ...


def change(status: str, previous: str | None) -> Change:
    return Change(
        order_id="o",
        version=2,
        status=status,
        previous_status=previous,
        amount_kopecks=1,
        review=None,
        changed_at_ms=1,
    )


def test_a_function_hears_of_what_an_order_becomes_and_of_all_if_it_asks_for_nothing() -> None:
    app = Handlers()
    assert app.on("paid", "refunded")(first) is first
    app.on()(second)
    app.on("paid")(third)

    assert [first, second, third] == app.of(change("paid", "pending"))
    assert [first, second, third] == app.of(change("paid", None))
    assert [first, second] == app.of(change("refunded", "paid"))
    # Only the review is another one: the order does not become paid.
    assert [second] == app.of(change("paid", "paid"))
    assert app.wanted.holds(change("failed", "pending"))


def test_together_they_want_what_one_of_them_wants() -> None:
    app = Handlers()
    app.on("paid")(first)
    app.on("refunded")(second)

    found = [status for status in ("pending", "paid", "refunded") if app.wanted.holds(change(status, None))]

    assert ["paid", "refunded"] == found


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ("payed", "'payed' is not a status that an order can come to. Did you mean 'paid'?"),
        ("CONFIRMED", "An order can become pending, authorized, paid, partially_refunded, refunded, canceled, failed."),
        ("unregistered", "is not a status"),
        (first, "is not a status"),
    ],
)
def test_a_word_that_is_no_status_is_answered_with_what_may_have_been_meant(status: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Handlers().on(status)
    assert sentence in str(raised.value)


def not_async(change: Change, tx: Transaction) -> None: ...
async def too_few(change: Change) -> None: ...
async def too_many(change: Change, tx: Transaction, more: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (not_async, "not_async is not async, and would stop the worker while it waits: write `async def not_async`."),
        (too_few, "too_few has to take two arguments: `async def too_few(change, tx)`."),
        (too_many, "too_many has to take two arguments"),
        ("ship", "'ship' is not a function"),
    ],
)
def test_a_function_that_cannot_run_is_refused_when_it_is_registered(function: object, sentence: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Handlers().on("paid")(function)  # type: ignore[type-var]
    assert sentence in str(raised.value)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, and nothing of it left in this process afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("shop_"):
            del sys.modules[name]


HEAD = "from oplata import Handlers\napp = Handlers()\n"
SHIP = "@app.on('paid')\nasync def ship(change, tx): ...\n"


def test_an_app_is_found_from_the_working_directory(modules: Path) -> None:
    (modules / "shop_found.py").write_text(HEAD + SHIP, encoding="utf-8")

    assert 1 == len(load_handlers("shop_found:app"))


@pytest.mark.parametrize(
    ("target", "source", "sentence"),
    [
        ("shop_a", "", "--app shop_a is not of the form module:name, such as shop:app"),
        ("shop_a:", "", "is not of the form module:name"),
        ("shop_a.py:app", None, "There is no module shop_a in"),
        ("./shop:app", None, "is not of the form module:name"),
        ("shop_b:app", None, "Run oplata where shop_b.py is, or install it."),
        ("shop_c:app", "import shop_absent\n", "cannot be imported: it needs the module shop_absent."),
        ("shop_d:app", "def broken(:\n", "shop_d.py, line 1 is not Python"),
        ("shop_e:app", "x = 1\ny = {}['key']\n", "shop_e.py, line 2 raised KeyError"),
        ("shop_f:application", HEAD + SHIP, "Did you mean --app shop_f:app?"),
        ("shop_g:app", "", "Write `app = oplata.Handlers()` there."),
        ("shop_h:app", "app = 1\n", "app is of the type int. It has to be an oplata.Handlers()."),
        ("shop_i:app", HEAD, "no function is registered there. Write @app.on('paid') above an async function."),
        ("shop_j:app", HEAD + SHIP.replace("paid", "payed"), "Did you mean 'paid'?"),
        ("shop_k:app", "import sys\nsys.exit()\n", "shop_k.py, line 2 raised SystemExit"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_a_sentence(
    modules: Path, target: str, source: str | None, sentence: str
) -> None:
    if source is not None:
        (modules / f"{target.partition(':')[0]}.py").write_text(source, encoding="utf-8")

    with pytest.raises(SettingsError) as raised:
        load_handlers(target)

    assert sentence in str(raised.value)
