"""The exceptions are the tree that the module's docstring draws, and each of them speaks in a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from oplata import errors
from oplata.errors import OplataError, Permanent, Retryable


def _descendants(root: type[OplataError]) -> Iterator[type[OplataError]]:
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from _descendants(child)


ALL: list[type[OplataError]] = [OplataError, *_descendants(OplataError)]


def _drawn() -> dict[str, str]:
    """Each class that the docstring draws, with the class that it hangs from."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:│   |    )*(?:[├└]── )?)(\w+)", line)
        if match is None:
            continue
        depth = len(match[1]) // 4
        path = [*path[:depth], match[2]]
        parents[match[2]] = path[-2] if depth else ""
    return parents


def test_the_tree_that_is_drawn_is_the_tree_that_exists() -> None:
    real = {cls.__name__: cls.__base__.__name__ if cls.__base__ else "" for cls in ALL}

    assert _drawn() == real | {"OplataError": ""}


def test_every_exception_of_the_module_is_in_the_tree() -> None:
    public = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}

    assert public == set(ALL)


@pytest.mark.parametrize("cls", ALL)
def test_a_bare_exception_speaks_in_one_sentence(cls: type[OplataError]) -> None:
    sentence = str(cls())

    assert re.fullmatch(r"[A-Z][^\n]+ [^\n]+\.", sentence), sentence
    assert sentence == (cls.__doc__ or "").strip().splitlines()[0]


@pytest.mark.parametrize("cls", ALL)
def test_a_message_of_ones_own_replaces_the_default(cls: type[OplataError]) -> None:
    assert str(cls("the cable is out")) == "the cable is out"


@pytest.mark.parametrize("cls", [cls for cls in ALL if cls not in (OplataError, Retryable, Permanent)])
def test_every_exception_is_either_worth_retrying_or_not(cls: type[OplataError]) -> None:
    assert issubclass(cls, Retryable) != issubclass(cls, Permanent)


def test_a_class_without_a_docstring_still_has_something_to_say() -> None:
    class Unwritten(OplataError):
        pass

    assert str(Unwritten()) == "Unwritten"
