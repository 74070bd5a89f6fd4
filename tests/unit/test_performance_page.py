"""The page on performance says what the measurements in ``bench/results`` say."""

from __future__ import annotations

import re

from bench.page import PAGE, PARTS, written


def test_the_page_says_what_was_measured() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"<!-- measured: (\w+) -->", page) == list(PARTS)
    assert page == written(page)
