"""False claims about how long something took and what it used."""

from __future__ import annotations

from typing import Final

from merit.auditing.detecting import Accusations, AttemptOver, Cusum, Fact, Suspicion, weigh
from merit.auditing.detectors.lately import WORKERS_MAX, Lately, RecentCases
from merit.model.limits import MILLISECOND_NS, SECOND_NS

_USUAL: Final = 0.02
"""Of honest claims so many are further off than what is tolerated: a pause of the machine, a broken connection."""
_USUAL_MAX: Final = 0.3
"""Where so many others are off too, it is not theirs."""
_SUSPECTED: Final = 0.6
_JITTER_NS: Final = 500 * MILLISECOND_NS
"""Claims may be off by so much, and by a quarter: what is less gains nobody anything, since what is measured counts."""
_LATE_NS: Final = 3 * SECOND_NS
"""A report may come so much later than it was made."""
_TOGETHER_NS: Final = 10 * SECOND_NS
"""What happens within this time has one cause."""


class _Claims:
    __slots__ = ("cusum", "false_ns")

    def __init__(self) -> None:
        self.cusum = Cusum()
        self.false_ns = 0


class FalseClaims(Accusations):
    """A worker claims more time than it had the task for, or far less; more processor time than its machine has, or far more or
    less than the pool measured.

    One such claim proves nothing, so it counts by how rare it is among the others just now (one in fifty at least), and false ones within
    ten seconds count as one: reports that were held up by the same trouble come together.
    """

    name = "false_claims"

    def __init__(self) -> None:
        super().__init__()
        self._lately = RecentCases()
        self._workers: Lately[str, _Claims] = Lately(WORKERS_MAX, _Claims)

    def observe(self, fact: Fact) -> None:
        if not isinstance(fact, AttemptOver) or not (fact.claimed_wall_ns or fact.claimed_cpu_ns):
            return
        what = _false(fact)
        claims = self._workers.of(fact.worker)
        usual = max(_USUAL, self._lately.rate_without(fact.worker))
        self._lately.note(fact.worker, bool(what))
        if usual > _USUAL_MAX or (what and 0 <= fact.at_ns - claims.false_ns < _TOGETHER_NS):
            return
        if what:
            claims.false_ns = fact.at_ns
        if claims.cusum.add(weigh(bool(what), usual, _SUSPECTED), fact.task):
            self.accuse(
                Suspicion(
                    detector=self.name,
                    worker=fact.worker,
                    at_ns=fact.at_ns,
                    reason=f"what it says about its work is false again and again; at the last of these tasks {what}",
                    tasks=claims.cusum.tasks,
                    figures=(
                        ("claimed_wall_ns", fact.claimed_wall_ns),
                        ("wall_ns", fact.wall_ns),
                        ("claimed_cpu_ns", fact.claimed_cpu_ns),
                        ("cpu_ns", fact.cpu_ns),
                    ),
                    grave=True,
                )
            )


def _false(fact: AttemptOver) -> str:
    """What is false, for people; empty: nothing is for sure."""
    wall_ns, claimed_ns, cpu_ns = fact.wall_ns, fact.claimed_wall_ns, fact.claimed_cpu_ns
    if wall_ns and claimed_ns > wall_ns + wall_ns // 4 + _JITTER_NS:
        return f"it had {_s(wall_ns)} and claimed {_s(claimed_ns)}"
    if claimed_ns and wall_ns > claimed_ns + wall_ns // 4 + _LATE_NS:
        return f"it took {_s(wall_ns)} and claimed {_s(claimed_ns)}"
    longest_ns = wall_ns or claimed_ns
    if fact.cores and longest_ns and cpu_ns > fact.cores * (longest_ns + longest_ns // 4 + _JITTER_NS):
        return f"it claimed {_s(cpu_ns)} of processor time within {_s(longest_ns)} on {fact.cores} cores"
    if cpu_ns and fact.cpu_ns and abs(cpu_ns - fact.cpu_ns) > fact.cpu_ns // 4 + _JITTER_NS:
        return f"it used {_s(fact.cpu_ns)} of processor time and claimed {_s(cpu_ns)}"
    return ""


def _s(ns: int) -> str:
    return f"{ns / SECOND_NS:.1f} s"
