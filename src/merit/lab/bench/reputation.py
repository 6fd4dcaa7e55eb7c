"""What reputation is worth against workers that cheat: a fleet in which 15 of 50 do, by the rules alone and in virtual time.

An honest result is wrong in one case of twenty, that of a cheater in four of five: were workers chosen by chance, 27.5 % of
all results would be wrong. Counted are all results, from the first one on, so that what it costs to get to know the
workers is in the figures: 800 tasks a worker, rated after every other one.

* **How work is dealt**: in shares by the lower bounds, squared, as far as they are below the middle one of all; of workers of
  which even the upper bound is below that, next to nothing; of all newcomers together three tasks in a thousand, once others
  can do the work. Nobody is given more than three times the mean.
* **Who is out**: the upper bound is below 0.45 after at least six results that were looked at.

The attackers are those of the literature (Hoffman, Zage, Nita-Rotaru: A survey of attack and defense techniques for
reputation systems, 2009; camouflage as in Kamvar, Schlosser, Garcia-Molina: The EigenTrust algorithm, 2003). Results are
compared with the truth, but where cheaters have a say in that: there it is one time in four, and else by other workers, who are
dealt this work as any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import accumulate
from random import Random
from typing import Final

from msgspec import Struct

from merit.auditing.evidence import Outcomes, ReputationModel
from merit.auditing.reputation import BetaReputation
from merit.auditing.sampling import ALL, audit_permille
from merit.lab.bench.figures import Figure, percentile
from merit.lab.bench.plan import Plan
from merit.model.auditing import AuditPolicy
from merit.model.track_record import UNKNOWN

WORKERS: Final = 50
CHEATERS: Final = 15
HONEST_WRONG: Final = 0.05
CHEAT_WRONG: Final = 0.8
ROUNDS: Final = 400
TASKS: Final = 100
"""Of a round."""

EXCESS_PCT_MAX: Final = 0.5
"""Results that are wrong beyond those that honest workers alone would get wrong, when all are looked at …"""
SAMPLED_EXCESS_PCT_MAX: Final = 1.0
"""… and when about one in ten is."""
BUSIEST_MAX: Final = 1.5
HONEST_OUT_PCT_MAX: Final = 1.0
OUT_WITHIN: Final = 15
"""Results that have to be looked at until one that always cheats is out."""
CAUGHT_PCT_MIN: Final = 99.0
ON_OFF_ACCEPTED_MAX: Final = 19.0

_POLICY: Final = AuditPolicy("work")
_OUT_BELOW: Final = 450
_OUT_AFTER: Final = 6
_TRIED: Final = 4
"""Results looked at after which one is no newcomer any more."""
_NEWCOMERS_SHARE: Final = 0.003
_DOUBTFUL_SHARE: Final = 0.01
_MOST: Final = 3
_KNOWN: Final = 0.25
"""Of the results that others look at, those of which the truth is known beforehand."""
_JURORS: Final = 2
_CAMOUFLAGED_WRONG: Final = 0.3
_SLIGHTLY_WRONG: Final = 0.12
_BETA: Final = BetaReputation()
_GOOD_FOR: Final = 50
_BAD_FOR: Final = 25


class Attack(StrEnum):
    """How workers cheat."""

    CONSTANT = "constant"
    ON_OFF = "onoff"
    """Fifty honest tasks, then 25 with cheating, and so on."""
    CAMOUFLAGE = "camouflage"
    """Three results in ten are wrong."""
    WHITEWASHING = "whitewashing"
    """Who has a bad name comes back under a new one."""
    COLLUSION = "collusion"
    """Copies of tasks are compared, and all cheaters give the same wrong answer."""
    BALLOT_STUFFING = "ballot_stuffing"
    """Results are judged by other workers, and cheaters praise one another."""


class Contest(Struct, frozen=True):
    """What came of one simulation; shares in hundredths."""

    excess_pct: float
    looked_at_pct: float
    busiest: float
    """Tasks of the honest worker that had most, by the mean of all honest ones."""
    honest_out_pct: float
    out_after: tuple[int, ...]
    """Of each cheater that is out: how many of its results had been looked at."""
    accepted: float
    """Wrong results of a cheater that nobody found, on average."""


class _Worker:
    """One of the fleet, under one name."""

    __slots__ = (
        "accepted",
        "bad",
        "cheats",
        "in_row",
        "memory",
        "out",
        "passed",
        "permille",
        "rating",
        "seen",
        "share",
        "tasks",
        "unrated",
        "wrong",
    )

    def __init__(self, cheats: bool) -> None:
        self.cheats = cheats
        self.memory: tuple[int, ...] = ()
        self.rating = UNKNOWN
        self.permille = ALL
        self.out = False
        self.share = 0.0
        """Tasks that it is due."""
        self.tasks = self.bad = self.accepted = self.seen = self.in_row = 0
        self.unrated = self.passed = self.wrong = 0


class Arena:
    """A fleet, one of the attacks, and the rules."""

    def __init__(
        self,
        seed: str,
        attack: Attack,
        floor_permille: int,
        *,
        slight: float = _CAMOUFLAGED_WRONG,
        model: ReputationModel = _BETA,
    ) -> None:
        """``slight``: of camouflaged results, the share that is wrong."""
        self._rng = Random(seed)
        self._attack = attack
        self._floor = floor_permille
        self._slight = slight
        self._model = model
        self._fleet = [_Worker(number < CHEATERS) for number in range(WORKERS)]
        self._gone: list[_Worker] = []
        self._looked_at = 0
        self._jury: tuple[list[_Worker], list[float]] = ([], [])

    def go(self, rounds: int) -> Contest:
        """So many rounds."""
        for _ in range(rounds):
            here = [worker for worker in self._fleet if not worker.out]
            self._deal(here)
            for worker in here:
                tasks = int(worker.share)
                worker.share -= tasks
                for _ in range(tasks):
                    self._work(worker)
            for place, worker in enumerate(self._fleet):
                if worker.passed or worker.wrong:
                    self._rate(worker)
                if worker.cheats and self._attack is Attack.WHITEWASHING and worker.seen and worker.rating.value < 500:
                    self._gone.append(worker)
                    self._fleet[place] = _Worker(True)
        return self._outcome()

    def _deal(self, here: Sequence[_Worker]) -> None:
        tried = [worker for worker in here if worker.seen >= _TRIED]
        new = [worker for worker in here if worker.seen < _TRIED]
        lows = sorted(worker.rating.low for worker in tried if worker.rating.low)
        middle = lows[len(lows) // 2] if lows else 1
        weights = [
            min(1.0, worker.rating.low / middle) ** 2 if worker.rating.high >= middle else 0.0 for worker in tried
        ]
        weights = [max(weight, _DOUBTFUL_SHARE) for weight in weights]
        total = sum(weights)
        to_new = max(_NEWCOMERS_SHARE, 1 - total * _MOST / WORKERS) if new else 0.0
        for worker, weight in zip(tried, weights, strict=True):
            worker.share += TASKS * (1 - to_new) * weight / total
        for worker in new:
            worker.share += TASKS * to_new / len(new)
        self._jury = (tried, list(accumulate(weights))) if tried else (new, list(accumulate([1.0] * len(new))))

    def _work(self, worker: _Worker) -> None:
        wrong = self._rng.random() < self._wrongness(worker)
        worker.tasks += 1
        worker.unrated += 1
        worker.bad += wrong
        right = None
        if self._rng.random() * ALL < worker.permille:
            self._looked_at += 1
            right = self._verdict(worker, wrong)
        if right is not None:
            worker.seen += 1
            worker.in_row = worker.in_row + 1 if right else 0
            worker.passed += right
            worker.wrong += not right
        worker.accepted += wrong and right is not False

    def _wrongness(self, worker: _Worker) -> float:
        if not worker.cheats:
            return HONEST_WRONG
        if self._attack is Attack.CAMOUFLAGE:
            return self._slight
        if self._attack is Attack.ON_OFF and worker.tasks % (_GOOD_FOR + _BAD_FOR) < _GOOD_FOR:
            return HONEST_WRONG
        return CHEAT_WRONG

    def _verdict(self, worker: _Worker, wrong: bool) -> bool | None:
        """Whether a result that is looked at seems right; None: that cannot be said."""
        voted = self._attack in {Attack.COLLUSION, Attack.BALLOT_STUFFING}
        if not voted or self._rng.random() < _KNOWN:
            return not wrong
        if self._attack is Attack.COLLUSION:
            return self._vote(worker, wrong)
        judge = self._peer()
        if judge.cheats and worker.cheats:
            return True
        return wrong if self._rng.random() < HONEST_WRONG else not wrong

    def _vote(self, worker: _Worker, wrong: bool) -> bool | None:
        """By the lower bounds, with two others; with two more if these three do not agree."""
        mine = "right" if not wrong else "lie" if worker.cheats else "slip"
        votes = {mine: worker.rating.low + 1}
        for number in range(2 * _JURORS):
            if number == _JURORS and len(votes) == 1:
                break
            peer = self._peer()
            errs = self._rng.random() < (CHEAT_WRONG if peer.cheats else HONEST_WRONG)
            if peer.cheats and worker.cheats:
                errs = wrong
            answer = "right" if not errs else "lie" if peer.cheats else f"slip {number}"
            votes[answer] = votes.get(answer, 0) + peer.rating.low + 1
        best = max(votes, key=votes.__getitem__)
        return mine == best if 2 * votes[best] > sum(votes.values()) else None

    def _peer(self) -> _Worker:
        workers, weights = self._jury
        return self._rng.choices(workers, cum_weights=weights)[0]

    def _rate(self, worker: _Worker) -> None:
        evidence = Outcomes(completed=worker.unrated, passed=worker.passed, wrong=worker.wrong)
        worker.unrated = worker.passed = worker.wrong = 0
        worker.memory = self._model.learn(worker.memory, evidence)
        worker.rating = self._model.rating(worker.memory)
        worker.permille = audit_permille(
            worker.rating,
            worker.seen,
            worker.in_row,
            newcomer_tasks=_POLICY.newcomer_tasks,
            floor_permille=self._floor,
        )
        worker.out = worker.out or (worker.rating.high < _OUT_BELOW and worker.seen >= _OUT_AFTER)

    def _outcome(self) -> Contest:
        names = [*self._fleet, *self._gone]
        tasks = sum(worker.tasks for worker in names)
        honest = [worker for worker in names if not worker.cheats]
        cheats = [worker for worker in names if worker.cheats]
        # What cheaters do beyond honest errors: what honest ones get wrong by chance would only blur it.
        excess = sum(worker.bad - HONEST_WRONG * worker.tasks for worker in cheats)
        return Contest(
            100 * excess / tasks,
            100 * self._looked_at / tasks,
            max(worker.tasks for worker in honest) * len(honest) / max(1, sum(worker.tasks for worker in honest)),
            100 * sum(worker.out for worker in honest) / len(honest),
            tuple(worker.seen for worker in cheats if worker.out),
            sum(worker.accepted for worker in cheats) / CHEATERS,
        )


async def run(plan: Plan) -> list[Figure]:
    """Each attack, with all results looked at, and with a sample."""
    figures: list[Figure] = []
    looked_at_pct: list[float] = []
    busiest: list[float] = []
    honest_out_pct: list[float] = []
    for attack in Attack:
        full = await _simulated(plan, attack, ALL)
        sampled = await _simulated(plan, attack, _POLICY.floor_permille)
        busiest += [_mean(one.busiest for one in found) for found in (full, sampled)]
        honest_out_pct.append(_mean(one.honest_out_pct for one in [*full, *sampled]))
        looked_at_pct.append(_mean(one.looked_at_pct for one in sampled))
        excess, sampled_excess = (_mean(one.excess_pct for one in found) for found in (full, sampled))
        figures += [
            Figure(f"excess_{attack}_pct", excess, "%", ceiling=EXCESS_PCT_MAX),
            Figure(f"excess_{attack}_sampled_pct", sampled_excess, "%", ceiling=SAMPLED_EXCESS_PCT_MAX),
        ]
        if attack is Attack.CONSTANT:
            figures += _caught([*full, *sampled])
        if attack is Attack.ON_OFF:
            accepted = _mean(one.accepted for one in sampled)
            figures.append(Figure("onoff_bad_accepted", accepted, "tasks", ceiling=ON_OFF_ACCEPTED_MAX))
    slight = await _simulated(plan, Attack.CAMOUFLAGE, _POLICY.floor_permille, slight=_SLIGHTLY_WRONG)
    return [
        *figures,
        # One that is wrong hardly more often than honest ones passes for one of them, and does little harm.
        Figure("excess_slight_camouflage_sampled_pct", _mean(one.excess_pct for one in slight), "%"),
        Figure("sampled_pct", _mean(looked_at_pct), "%"),
        Figure("sampled_most_pct", max(looked_at_pct), "%"),
        # Under the attack that is worst for them.
        Figure("busiest_honest", max(busiest), "times mean", ceiling=BUSIEST_MAX),
        Figure("honest_out_pct", max(honest_out_pct), "%", ceiling=HONEST_OUT_PCT_MAX),
    ]


async def _simulated(
    plan: Plan, attack: Attack, floor_permille: int, *, slight: float = _CAMOUFLAGED_WRONG
) -> list[Contest]:
    outcomes = []
    for seed in range(plan.seeds):
        outcomes.append(
            Arena(f"bench {attack} {floor_permille} {seed}", attack, floor_permille, slight=slight).go(ROUNDS)
        )
        await asyncio.sleep(0)
    return outcomes


def _caught(outcomes: Sequence[Contest]) -> list[Figure]:
    delays = [delay for outcome in outcomes for delay in outcome.out_after]
    within = sum(delay <= OUT_WITHIN for delay in delays)
    return [
        Figure("caught_constant_pct", 100 * within / (CHEATERS * len(outcomes)), "%", floor=CAUGHT_PCT_MIN),
        Figure("delay_constant_tasks", percentile(delays, 0.99), "tasks", ceiling=OUT_WITHIN),
    ]


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
