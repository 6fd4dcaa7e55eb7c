"""What follows for a worker: the same rules whatever engine has the opinions.

========== =================================================================================================== ============
stage      what happens                                                                                        goes on as
========== =================================================================================================== ============
ACTIVE     rewards and punishments as the engine thinks
           ``pause_after`` punishments in a row, and the factor is below ``pause_below``                       PAUSED
           … for the ``pauses_max``-th time within a day, or it was caught cheating                            OUT
PAUSED     its score has recovered, work waits, and ``pause_ns`` have passed                                   ACTIVE
           its wait is over: ``pause_ns``, doubled for each pause of the last day and each failed probation    PROBATION
PROBATION  ``canaries`` tasks came out well                                                                    ACTIVE
           one did not                                                                                         PAUSED
OUT        nothing, until a person lets it back                                                                ACTIVE
========== =================================================================================================== ============

Only punishments lead out: a failed probation makes the next wait longer, but is no pause that counts, so an honest worker
always comes back, and a hopeless one is tried ever more seldom. Who begins anew (``FRESH``) is judged by the attempts
since then alone: for the others it was punished.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from merit.model.supervision import DAY_NS, FACTOR_MAX, FACTOR_MIN, FACTOR_ONE, Policy, Stage, Verdict
from merit.model.track_record import UNKNOWN, Rating
from merit.supervision.engine import Opinion
from merit.supervision.metrics import PERMILLE
from merit.supervision.thresholds import points

FRESH: Final = frozenset({Verdict.RESTORE, Verdict.RESET, Verdict.RETRAIN, Verdict.PARDON})
"""Attempts that ended before one of these are left out of the metrics by which a worker is judged."""
WAIT_NS_MAX: Final = DAY_NS
"""Nobody waits longer than this for his next probation."""
DISTRUST_PERMILLE: Final = 50
"""So far below ``trusted_at`` the bound of its reputation has to fall until a worker loses its authorisation."""

Figures = tuple[tuple[str, int], ...]


class Dossier(Struct, frozen=True, kw_only=True):
    """What is known of a worker when it is decided about."""

    factor: int = FACTOR_ONE
    score: int = 0
    """Thousandths of a point, of the attempts since it last began anew (``FRESH``)."""
    rating: Rating = UNKNOWN
    """Over all its capabilities."""
    checked: int = 0
    """Its results that were looked at closely."""
    authorised: bool = False
    pinned: bool = False
    """A person has fixed its factor."""
    cheating: str = ""
    """What shows that it cheats, for people; empty: nothing does."""
    stage: Stage = Stage.ACTIVE
    since_ns: int = 0
    """When it came to be there, Unix time."""
    decided_ns: int = 0
    """When something was decided about it last, Unix time; 0: never."""
    punishments: int = 0
    """In a row: since the last reward or pause, and since it was pardoned."""
    pauses: tuple[int, ...] = ()
    """When it was paused for its punishments, Unix time; those of more than a day ago do not matter."""
    relapses: int = 0
    """Probations in a row that it has failed; a failed one does not stand in ``pauses``."""
    right: int = 0
    """Canary tasks that it has done right since the last decision about it …"""
    wrong: int = 0
    """… and those that failed, were lost or came out wrong."""
    only_for: str = ""
    """A capability of which there would be nobody left without it; empty: there is none."""
    backlog: int = 0
    """Pending tasks that it could do."""


class Sanction(Struct, frozen=True):
    """A decision, with what it went by."""

    verdict: Verdict
    factor: int
    """From now on."""
    reason: str
    figures: Figures = ()


def sanctions(case: Dossier, opinion: Opinion | None, policy: Policy, now_ns: int) -> list[Sanction]:
    """What is decided about a worker now, in this order; usually nothing.

    Args:
        case: the worker.
        opinion: what the decision engine thinks of it; only asked for where it is ACTIVE.
        policy: the numbers that the operator has set.
        now_ns: Unix time.
    """
    if case.pinned or case.stage is Stage.OUT:
        return []
    if case.cheating:
        return _put_out(case, f"it was caught cheating: {case.cheating}")
    if case.stage is Stage.PAUSED:
        return _paused(case, policy, now_ns)
    if case.stage is Stage.PROBATION:
        return _on_probation(case, policy, now_ns)
    if opinion is not None and case.decided_ns and now_ns - case.decided_ns < policy.cool_down_ns:
        opinion = None
    made = _active(case, opinion, policy, now_ns)
    left = any(one.verdict in {Verdict.PAUSE, Verdict.DEACTIVATE} for one in made)
    return made if left else [*made, *_authorisation(case, policy)]


def wait_ns(case: Dossier, policy: Policy, now_ns: int) -> int:
    """How long a pause lasts until the worker may prove itself."""
    doublings = max(0, len(_recent(case, now_ns)) - 1) + case.relapses
    return min(policy.pause_ns << min(doublings, 40), max(WAIT_NS_MAX, policy.pause_ns))


def _active(case: Dossier, opinion: Opinion | None, policy: Policy, now_ns: int) -> list[Sanction]:
    if opinion is None:
        return []
    if opinion.verdict is Verdict.REWARD:
        factor = min(_scaled_up(case.factor, policy.reward_permille), FACTOR_MAX)
        return [Sanction(Verdict.REWARD, factor, opinion.reason, opinion.figures)] if factor > case.factor else []
    if opinion.verdict is not Verdict.PUNISH:
        return [Sanction(opinion.verdict, case.factor, opinion.reason, opinion.figures)]

    factor = max(case.factor * (PERMILLE - policy.punish_permille) // PERMILLE, FACTOR_MIN)
    in_a_row, pauses = case.punishments + 1, len(_recent(case, now_ns)) + 1
    figures = (*opinion.figures, ("punishments", in_a_row))
    punished = Sanction(Verdict.PUNISH, factor, opinion.reason, figures)
    if in_a_row < policy.pause_after or factor >= policy.pause_below:
        return [punished]
    if case.only_for:
        return _kept(case, opinion.reason, factor, figures, policy, now_ns)
    after = f"{in_a_row} punishments in a row, and its factor is {_times(factor)}"
    if pauses >= policy.pauses_max:
        out = _put_out(case, f"{after}: it would be paused for the {_ordinal(pauses)} time within a day", factor)
        return [punished, *out]
    return [punished, Sanction(Verdict.PAUSE, factor, after, (("punishments", in_a_row), ("pauses", pauses)))]


def _kept(case: Dossier, reason: str, factor: int, figures: Figures, policy: Policy, now_ns: int) -> list[Sanction]:
    """Instead of a pause, for the last worker of a capability. Where nothing is left to take, it is said now and then."""
    if factor == case.factor and now_ns - case.decided_ns < policy.pause_ns:
        return []
    kept = f"{reason}; it would be paused, but nobody else is left for {case.only_for}"
    return [Sanction(Verdict.PUNISH, factor, kept, figures)]


def _paused(case: Dossier, policy: Policy, now_ns: int) -> list[Sanction]:
    waited_ns, recovered_at = now_ns - case.since_ns, policy.punish_at + policy.recover_points
    if case.only_for:
        reason = f"it was paused, but nobody else is left for {case.only_for}"
        return [Sanction(Verdict.PROBATION, case.factor, reason)]
    if waited_ns >= policy.pause_ns and case.score >= recovered_at and case.backlog:
        reason = f"its score has recovered to {points(case.score)}, and work waits"
        recovered = (("score", case.score), ("recovered_at", recovered_at), ("backlog", case.backlog))
        return [Sanction(Verdict.RESTORE, case.factor, reason, recovered)]
    if waited_ns >= wait_ns(case, policy, now_ns):
        waited = (("waited_ns", waited_ns), ("relapses", case.relapses))
        return [Sanction(Verdict.PROBATION, case.factor, "its pause is over: it may prove itself", waited)]
    return []


def _on_probation(case: Dossier, policy: Policy, now_ns: int) -> list[Sanction]:
    figures = (("right", case.right), ("wrong", case.wrong))
    if case.wrong:
        reason = f"on probation {case.wrong} of {case.right + case.wrong} tasks went wrong"
        if case.only_for:
            return _kept(case, reason, case.factor, figures, policy, now_ns)
        return [Sanction(Verdict.PAUSE, case.factor, reason, figures)]
    if case.right >= policy.canaries:
        return [Sanction(Verdict.RESTORE, case.factor, f"it did {case.right} tasks right on probation", figures)]
    return []


def _put_out(case: Dossier, reason: str, factor: int | None = None) -> list[Sanction]:
    factor = case.factor if factor is None else factor
    if case.only_for:
        reason = f"{reason}; nobody is left for {case.only_for}"
    out = [Sanction(Verdict.DEACTIVATE, factor, reason)]
    if case.authorised:
        out.append(Sanction(Verdict.REVOKE, factor, "it was deactivated"))
    return out


def _authorisation(case: Dossier, policy: Policy) -> list[Sanction]:
    low = case.rating.low
    figures = (("reputation_low", low), ("trusted_at", policy.trusted_at), ("checked", case.checked))
    if not case.authorised and low >= policy.trusted_at and case.checked >= policy.trusted_attempts:
        reason = f"{case.checked} results were looked at, and its reputation is at least {_share(low)}"
        return [Sanction(Verdict.AUTHORISE, case.factor, reason, figures)]
    if case.authorised and low < policy.trusted_at - DISTRUST_PERMILLE:
        return [Sanction(Verdict.REVOKE, case.factor, f"its reputation may be as low as {_share(low)}", figures)]
    return []


def _recent(case: Dossier, now_ns: int) -> list[int]:
    return [at_ns for at_ns in case.pauses if now_ns - at_ns < DAY_NS]


def _scaled_up(factor: int, permille: int) -> int:
    """Rounded up: whoever is rewarded gets more, however little he has."""
    return -(-factor * (PERMILLE + permille) // PERMILLE)


def _times(factor: int) -> str:
    return f"{factor // 1_000}.{factor % 1_000:03}"


def _share(permille: int) -> str:
    return f"{permille // 10}.{permille % 10} %"


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")
