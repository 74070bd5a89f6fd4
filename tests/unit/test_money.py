"""Money is whole kopecks: read without a float, written so that it reads back the same."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oplata.domain import money
from oplata.domain.money import MAX_KOPECKS, format_rubles, kopecks, parse_rubles
from oplata.errors import MoneyError

AMOUNTS = st.integers(0, MAX_KOPECKS)


@given(AMOUNTS)
@example(MAX_KOPECKS)
def test_what_is_formatted_parses_back_to_the_same_amount(amount_kopecks: int) -> None:
    assert parse_rubles(format_rubles(amount_kopecks)) == amount_kopecks


@given(AMOUNTS)
@example(MAX_KOPECKS)
def test_an_amount_its_digits_and_its_integral_decimal_are_one_amount(amount_kopecks: int) -> None:
    values = [kopecks(amount_kopecks), kopecks(str(amount_kopecks)), kopecks(f"{amount_kopecks}.00")]

    assert values == [amount_kopecks] * 3


@given(st.one_of(st.text(), st.integers(), st.floats().map(str), st.sampled_from(["١٢٣", "1_000", "+5", " 5", "5\n"])))
def test_anything_else_is_refused_with_a_money_error_or_is_an_amount(value: str | int) -> None:
    try:
        amount = kopecks(value)
    except MoneyError:
        return
    assert 0 <= amount <= MAX_KOPECKS
    assert re.fullmatch(rf"0*{amount}(\.0+)?", str(value), re.ASCII)


@pytest.mark.parametrize(
    "value", ["", "-1", "1e3", "1.5", "0.01", "100.", ".0", "1_0", "٥", "5\n", "NaN", "0x10", "1.0e0"]
)
def test_a_text_that_is_not_a_whole_number_is_refused(value: str) -> None:
    with pytest.raises(MoneyError, match="whole number of kopecks"):
        kopecks(value)


@pytest.mark.parametrize("value", [-1, -(10**30)])
def test_a_negative_integer_is_refused(value: int) -> None:
    with pytest.raises(MoneyError, match="whole number of kopecks"):
        kopecks(value)


@pytest.mark.parametrize("value", [MAX_KOPECKS + 1, pytest.param(10**5000, id="5001 digits"), str(MAX_KOPECKS + 1)])
def test_an_absurd_amount_is_refused_however_long_it_is(value: int | str) -> None:
    with pytest.raises(MoneyError, match="at most"):
        kopecks(value)


@pytest.mark.parametrize("value", [True, False, 100.0, 1e3, None, b"5"])
def test_what_is_neither_an_integer_nor_digits_is_refused(value: Any) -> None:
    with pytest.raises(MoneyError, match="a float is not"):
        kopecks(value)


@pytest.mark.parametrize(
    ("typed", "amount_kopecks"),
    [
        ("199", 19_900),
        ("199.5", 19_950),
        ("199,50", 19_950),
        (" 12 345.67 ", 1_234_567),
        ("12\N{NO-BREAK SPACE}345", 1_234_500),
        ("0.07", 7),
        ("1.1", 110),  # As a float, 1.1 * 100 is 110.00000000000001.
        ("4.35", 435),  # As a float, 4.35 * 100 is 434.99999999999994.
    ],
)
def test_rubles_are_read_as_people_type_them(typed: str, amount_kopecks: int) -> None:
    assert parse_rubles(typed) == amount_kopecks


@pytest.mark.parametrize("typed", ["", "-5", "1.234", "1,2,3", "five", "1e3", ".5", "5.", "1" * 16, "٥"])
def test_rubles_that_are_no_amount_are_refused(typed: str) -> None:
    with pytest.raises(MoneyError, match="looks like 199"):
        parse_rubles(typed)


@pytest.mark.parametrize(
    ("amount_kopecks", "printed"),
    [(0, "0.00"), (7, "0.07"), (1_234_567, "12\N{NO-BREAK SPACE}345.67"), (-150, "-1.50"), (-7, "-0.07")],
)
def test_kopecks_are_printed_as_rubles(amount_kopecks: int, printed: str) -> None:
    assert format_rubles(amount_kopecks) == printed


def test_no_float_is_written_or_made_anywhere_in_the_module() -> None:
    tree = ast.parse(inspect.getsource(money))
    floats = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, float)]
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    divisions = [node for node in ast.walk(tree) if isinstance(node, ast.Div)]

    assert (floats, names & {"float", "round", "Decimal"}, divisions) == ([], set(), [])
