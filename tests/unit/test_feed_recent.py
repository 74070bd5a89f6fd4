"""What the feed holds of the log is always an end of it, without a gap, and never too much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oplata.feed.recent import Recent
from oplata.storage.changes import Change
from tests.changes import change

LOGS = st.lists(st.integers(1, 3), max_size=60)


@given(steps=LOGS, limit=st.integers(1, 12), pages=st.lists(st.integers(0, 9), max_size=20), page=st.integers(1, 7))
def test_what_is_held_is_an_end_of_the_log_without_a_gap(
    steps: list[int], limit: int, pages: list[int], page: int
) -> None:
    """Ids have gaps, where a transaction was rolled back."""
    ids = [sum(steps[: place + 1]) for place in range(len(steps))]
    told: list[tuple[int, Change]] = [(change_id, change(f"order-{change_id}")) for change_id in ids]
    recent, log = Recent(0, limit=limit), list(told)
    for size in [*pages, len(told)]:
        recent.add(log[:size])
        del log[:size]
        assert len(recent) <= limit
    last_id = ids[-1] if ids else 0
    assert recent.last_id == last_id
    for after in range(last_id + 3):
        wanted = [each for each in told if each[0] > after]
        held = recent.after(after, limit=page)
        if held is None:
            # Only what is truly no longer whole may be refused.
            assert len(wanted) > len(recent)
        else:
            assert wanted[:page] == list(held)
