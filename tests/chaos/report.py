"""What came of a run, as a table and one last line."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from tests.chaos.bank import Ledger, Sample
from tests.chaos.examine import Findings
from tests.chaos.faults import Struck
from tests.chaos.watch import Glance

T = TypeVar("T")

WINDOW_S = 1.0
HEALTHY_SHARE = 0.5


class Outcome(msgspec.Struct, kw_only=True):
    """All that a run left behind. ``exits`` are ends of our processes that nobody asked for."""

    seed: int
    rate: float
    facts: int
    ledger: Ledger
    findings: Findings
    struck: list[Struck]
    drains: list[tuple[int, float, float]]
    glances: list[Glance]
    exits: list[str]
    destroyed: int
    told: int
    told_again: int
    drained_s: float
    undrained: str

    @property
    def resets_in_drain(self) -> int:
        """Requests over a new connection that a process, asked to end in good order, left without an answer."""
        return self._in_drain("reset")

    @property
    def crossed_in_drain(self) -> int:
        """The same over a connection that was kept alive, for no longer than the endpoint had announced."""
        return self._in_drain("stale")

    def _in_drain(self, wanted: str) -> int:
        return sum(
            fault == wanted and any(port == its and begin <= at_s <= end + 0.1 for its, begin, end in self.drains)
            for at_s, port, fault in self.ledger.resets
        )

    @property
    def good(self) -> bool:
        """Everything held."""
        whole = self.facts == len(self.ledger.oks) == self.findings.applied
        drained = not self.undrained and not self.resets_in_drain and not self.crossed_in_drain
        return whole and drained and self.findings.clean and not self.exits

    @property
    def last_line(self) -> str:
        """The whole run in a line."""
        findings = self.findings
        return (
            f"sent {self.facts}, accepted {len(self.ledger.oks)}, applied {findings.applied}, "
            f"lost {len(findings.lost)}, twice {len(findings.twice)}"
        )


def lines(outcome: Outcome) -> Iterable[str]:
    """The report, line by line; the last one is the verdict in short."""
    ledger, findings = outcome.ledger, outcome.findings
    yield ""
    yield from _table(
        [
            ("facts sent by the bank", outcome.facts),
            ("  sendings of them, its own repeats included", ledger.sendings),
            ("  sendings accepted with OK", ledger.accepted),
            ("forged callbacks sent", ledger.forged_sent),
            ("  accepted", ledger.forged_accepted),
            ("attempts by answer", ", ".join(f"{name}: {count}" for name, count in ledger.outcomes.items())),
            ("requests reset by an endpoint that was asked to end", outcome.resets_in_drain),
            ("  over a connection that was kept alive", outcome.crossed_in_drain),
            ("facts applied", findings.applied),
            ("duplicates absorbed", findings.absorbed),
            ("dead letters", findings.dead_letters),
            ("changes told to the shop's own system", outcome.told),
            ("  told once more", outcome.told_again),
            ("messages destroyed with a deleted queue", outcome.destroyed),
            ("lost", len(findings.lost)),
            ("twice", len(findings.twice)),
            ("unverified effects", len(findings.unverified)),
            ("otherwise wrong", len(findings.wrong)),
            ("answer OK, milliseconds", _quantiles(ledger.ack_ms)),
            ("times the load was held back", ledger.held_back),
            ("drained after the last fault", f"{outcome.drained_s:.1f} s"),
            ("ends that nobody asked for", ", ".join(outcome.exits) or "none"),
        ]
    )
    yield ""
    yield f"{'fault':<24}{'times':>6}   {'answers again: median, worst':<32}{'applies again: median, worst'}"
    for kind in sorted({each.fault.kind for each in outcome.struck}):
        yield _recovery_line(kind, outcome)
    for each in outcome.struck:
        if "left alone" in each.note or "down already" in each.note:
            yield f"  {each.fault.kind} at {each.fault.at_s} s: {each.note}"
    for sentence in [*findings.sentences(), *([outcome.undrained] if outcome.undrained else [])]:
        yield f"  {sentence}"
    if ledger.pending:
        yield f"  {len(ledger.pending)} callbacks were never accepted"
    yield outcome.last_line


def _recovery_line(kind: str, outcome: Outcome) -> str:
    struck = [each for each in outcome.struck if each.fault.kind == kind]
    answers = [answers_again_s(outcome.ledger.samples, each.began_s, outcome.rate) for each in struck]
    applies = [applies_again_s(outcome.glances, each.began_s, outcome.rate) for each in struck]
    return f"{kind:<24}{len(struck):>6}   {_spread(answers):<32}{_spread(applies)}"


def answers_again_s(samples: Sequence[Sample], began_s: float, rate: float) -> float | None:
    """How long after ``began_s`` the first whole second begins in which callbacks were taken and none failed."""

    def healthy(first: Sample, last: Sample) -> bool:
        taken = last.accepted - first.accepted
        return last.failed == first.failed and taken >= HEALTHY_SHARE * rate * (last.at_s - first.at_s)

    return _recovered(samples, began_s, healthy, lambda sample: sample.at_s)


def applies_again_s(glances: Sequence[Glance], began_s: float, rate: float) -> float | None:
    """How long after ``began_s`` changes are told again and less than a second of callbacks waits in the queue."""

    def healthy(first: Glance, last: Glance) -> bool:
        if first.changes is None or last.changes is None or last.ready is None:
            return False
        return last.changes > first.changes and last.ready <= rate

    return _recovered(glances, began_s, healthy, lambda glance: glance.at_s)


def _recovered(
    seen: Sequence[T], began_s: float, healthy: Callable[[T, T], bool], at_s: Callable[[T], float]
) -> float | None:
    after = [each for each in seen if at_s(each) >= began_s]
    last = 0
    for index, first in enumerate(after):
        while last < len(after) and at_s(after[last]) - at_s(first) < WINDOW_S:
            last += 1
        if last == len(after):
            return None
        if healthy(first, after[last]):
            return at_s(after[index]) - began_s
    return None


def _spread(times: Sequence[float | None]) -> str:
    known = [each for each in times if each is not None]
    if not known:
        return "not while it was watched"
    missing = f" ({len(times) - len(known)} not seen)" if len(known) < len(times) else ""
    return f"{statistics.median(known):5.1f} s, {max(known):5.1f} s{missing}"


def _quantiles(values: Sequence[float]) -> str:
    if not values:
        return "none"
    ordered = sorted(values)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99))
    return f"p50 {p50:.0f}, p99 {p99:.0f}, max {ordered[-1]:.0f}"


def _table(rows: Sequence[tuple[str, object]]) -> Iterable[str]:
    width = max(len(name) for name, _ in rows)
    return (f"{name:<{width}}  {value}" for name, value in rows)
