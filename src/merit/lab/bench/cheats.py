"""How soon cheats are noticed, and how often honest workers are taken for such: a fleet of 30 by the detectors alone, in virtual
time, 200 tasks a worker.

What makes it hard to be just is in it: honest workers are of different speed, quality and luck; some questions are harder than others
and have one wrong answer that most of those who err give; some workers get more tasks of one kind than others; large tasks
fail more often; trouble (a slow network, a dependency that is down) strikes for several tasks on end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from random import Random
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from merit.auditing.catalogue import DETECTORS
from merit.auditing.detecting import (
    AttemptOver,
    Fact,
    SignatureWrong,
    VerdictGiven,
    VoteHeld,
    WorkerCame,
    WorkerCaught,
)
from merit.lab.bench.figures import Figure, median
from merit.lab.bench.plan import Plan
from merit.model.limits import SECOND_NS
from merit.model.track_record import Ending

WORKERS: Final = 30
TASKS: Final = 200
"""For each of them, on average."""
HONEST_WRONG: Final = (0.01, 0.05)
SAME_ANSWER_WITHIN: Final = 60
SAME_ANSWER_PCT_MIN: Final = 95.0
"""Of those that always give the same answer, within so many tasks …"""
CAUGHT_PCT_MIN: Final = 85.0
"""… and of all others until the end; of eight, one may be missed."""
FALSE_ALARM_PCT_MAX: Final = 0.2
"""Honest workers of which something is said at all, …"""
GRAVE_PCT_MAX: Final = 0.1
"""… and something grave."""

_TASKS_SIGNED: Final = 5
"""No evidence has to be gathered there."""
_SEEDS_LESS: Final = 4
"""In each simulation there are many workers, and it takes a while."""
_CHEATERS: Final = 4
_COLLUDERS: Final = 6
_CLASSES: Final = 4
_STEP_NS: Final = SECOND_NS // 4
_START_NS: Final = 1_000 * SECOND_NS
_VOTED: Final = 0.2
_VOTERS: Final = 3
_LOOKED_AT: Final = 0.05
_LOOKED_AT_CLOSELY: Final = 0.2
_NEW_FOR: Final = 10
_BELIEVED_AFTER: Final = 5
"""Until then all of its results are looked at."""
_ASKED_AGAIN: Final = 0.3
"""Of the questions, those that come again and again."""
_POOL: Final = 25
_GOOD_FOR: Final = 50
_BAD_FOR: Final = 25
_LIES: Final = 0.8
_FAILS: Final = 0.6
_OUT_AFTER: Final = 60
_NEWCOMERS: Final = 10


class Cheat(StrEnum):
    """How workers cheat."""

    FALSE_CLAIMS = "false_claims"
    """Half of them claim three tenths of the time, half of them twice as much; of tasks of ten seconds and more, since nobody
    gains anything by what is within the tolerance."""
    COPYING = "copying"
    """Where one is to write something of one's own."""
    SAME_ANSWER = "same_answer"
    """To questions with four possible answers, all as frequent."""
    SELECTIVE = "selective"
    """Of the most urgent tasks, six in ten fail."""
    ON_OFF = "onoff"
    """Fifty honest tasks, then 25 with cheating, and so on."""
    WHITEWASHING = "whitewashing"
    """Who was put out comes back under another name, as do honest newcomers at the same time."""
    COLLUSION = "collusion"
    """A fifth of the fleet gives the same wrong answers to four questions in five."""
    WRONG_KEY = "wrong_key"


class CheatsFound(Struct, frozen=True):
    """What came of one simulation."""

    delays: tuple[int | None, ...]
    """Of each cheater: how many tasks it did from its first cheat until something was said of it; None: nothing was."""
    honest: int
    alarms: tuple[str, ...]
    """What was said of honest ones: the detector, and whose word it is."""
    grave: int
    """Honest ones of which something grave was said."""


class _Question(Struct, frozen=True):
    key: bytes
    right: int
    trap: int
    """The wrong answer that is most tempting."""
    hardness: float
    """1 on average."""
    priority: int
    tenant: str
    size: int


class _Labourer:
    """One name."""

    def __init__(self, name: str, rng: Random, wrong: float, cheats: bool) -> None:
        self.name = name
        self.cheats = cheats
        self.wrong = wrong * rng.uniform(0.5, 1.5)
        self.fails = 0.02 * rng.choice((0.3, 1.0, 2.0))
        self.pace = rng.lognormvariate(0, 0.4)
        self.tags = (f"zone-{rng.randrange(6)}",)
        self.kind = rng.randrange(_CLASSES) if rng.random() < 0.2 else None
        """Most of its tasks are such."""
        self.tasks = 0
        self.trouble = 0
        """So many tasks more it has trouble."""
        self.began: int | None = None
        """After how many tasks it cheated first."""
        self.named: int | None = None
        self.doubted = 0
        """So many right results in a row are missing until it is believed again."""
        self.new = False
        """It is one that was put out, under another name."""


class CheatTrial:
    """A fleet, one of the cheats or none, and all detectors."""

    def __init__(self, seed: str, cheat: Cheat | None, wrong: float) -> None:
        self._rng = Random(seed)
        self._cheat = cheat
        self._wrong = wrong
        self._now_ns = _START_NS
        self._detectors = [make() for make in DETECTORS.values()]
        self._pool = [self._question(f"again {number}") for number in range(_POOL)]
        cheaters = {None: 0, Cheat.COLLUSION: _COLLUDERS}.get(cheat, _CHEATERS)
        self._fleet: list[_Labourer] = []
        self._by_name: dict[str, _Labourer] = {}
        self._alarms: list[str] = []
        self._grave: set[str] = set()
        self._original = b""
        """What somebody else has just written."""
        for number in range(WORKERS):
            worker = _Labourer(f"w{number}", self._rng, wrong, number < cheaters)
            if worker.cheats and cheat is Cheat.FALSE_CLAIMS:
                worker.pace = max(1.0, worker.pace)
            self._join(worker)
        self._now_ns += 3_600 * SECOND_NS

    def go(self, tasks: int) -> CheatsFound:
        """So many tasks for each."""
        for number in range(tasks * WORKERS):
            self._now_ns += _STEP_NS
            if number == tasks * WORKERS // 2:
                for newcomer in range(_NEWCOMERS):
                    self._join(_Labourer(f"n{newcomer}", self._rng, self._wrong, False))
            self._task(number)
            self._listen()
        everybody = self._by_name.values()
        cheaters = [one for one in everybody if one.cheats and (one.new or self._cheat is not Cheat.WHITEWASHING)]
        honest = {one.name for one in everybody if not one.cheats}
        return CheatsFound(
            tuple(None if one.named is None else one.named - (one.began or 0) for one in cheaters),
            len(honest),
            tuple(self._alarms),
            len(self._grave & honest),
        )

    def _join(self, worker: _Labourer) -> None:
        self._fleet.append(worker)
        self._by_name[worker.name] = worker
        boot = f"boot of {worker.name}"
        self._tell(WorkerCame(at_ns=self._now_ns, worker=worker.name, boot=boot, tags=worker.tags))

    def _tell(self, fact: Fact) -> None:
        for detector in self._detectors:
            detector.observe(fact)

    def _listen(self) -> None:
        for detector in self._detectors:
            for suspicion in detector.findings():
                worker = self._by_name[suspicion.worker]
                if not worker.cheats:
                    self._alarms.append(f"{suspicion.detector}: {worker.name} {suspicion.reason}")
                if suspicion.grave:
                    self._grave.add(worker.name)
                if worker.named is None and worker.began is not None:
                    worker.named = worker.tasks

    def _question(self, key: str, kind: int | None = None) -> _Question:
        rng = self._rng
        right = kind if kind is not None and rng.random() < 0.5 else rng.randrange(_CLASSES)
        return _Question(
            key.encode(),
            right,
            (right + rng.randrange(1, _CLASSES)) % _CLASSES,
            rng.choice((0.5, 0.5, 2.0)),
            rng.randrange(4),
            f"t{rng.randrange(3)}",
            int(rng.lognormvariate(7, 2)),
        )

    def _task(self, number: int) -> None:
        rng = self._rng
        voted = rng.random() < _VOTED
        written = self._cheat is Cheat.COPYING or (self._cheat is None and rng.random() < 0.3)
        chosen = rng.sample(self._fleet, _VOTERS if voted or written else 1)
        again = not written and rng.random() < _ASKED_AGAIN
        question = rng.choice(self._pool) if again else self._question(f"once {number}", chosen[0].kind)
        # Who copies waits until others are done.
        chosen.sort(key=lambda worker: worker.cheats)
        answers = []
        self._original = b""
        for worker in chosen:
            attempt = self._attempt(worker, question, f"task {number}", written)
            self._tell(attempt)
            if attempt.result:
                answers.append((worker.name, attempt.result.decode()))
                self._look(worker, question, attempt, written)
        if voted and not written and len(answers) > 1:
            self._tell(VoteHeld(at_ns=self._now_ns, task=f"task {number}", capability="label", answers=tuple(answers)))

    def _look(self, worker: _Labourer, question: _Question, attempt: AttemptOver, written: bool) -> None:
        closely = self._cheat in {None, Cheat.ON_OFF}
        new = worker.tasks <= _NEW_FOR
        if new or worker.doubted or self._rng.random() < (_LOOKED_AT_CLOSELY if closely else _LOOKED_AT):
            right = written or attempt.result == _label(question.right)
            worker.doubted = max(0, worker.doubted - 1) if right else _BELIEVED_AFTER
            self._tell(VerdictGiven(at_ns=self._now_ns, of=attempt, right=right))
        if self._cheat is Cheat.WHITEWASHING and worker.cheats and not worker.new and worker.tasks == _OUT_AFTER:
            self._put_out(worker)

    def _put_out(self, worker: _Labourer) -> None:
        """And it comes back; so does somebody honest who has nothing to do with it."""
        self._fleet.remove(worker)
        self._tell(WorkerCaught(at_ns=self._now_ns, worker=worker.name))
        self._now_ns += 5 * SECOND_NS
        again = _Labourer(f"{worker.name} again", self._rng, self._wrong, True)
        again.pace, again.tags, again.fails, again.new, again.began = worker.pace, worker.tags, worker.fails, True, 0
        self._join(again)
        self._join(_Labourer(f"after {worker.name}", self._rng, self._wrong, False))

    def _attempt(self, worker: _Labourer, question: _Question, task: str, written: bool) -> AttemptOver:
        rng = self._rng
        if not worker.trouble and rng.random() < 0.002:
            worker.trouble = 8
        worker.trouble = max(0, worker.trouble - 1)
        took_s = 10 * worker.pace * rng.lognormvariate(0, 0.3)
        late_s = 0.05 * rng.lognormvariate(0, 1) + (5 if worker.trouble else 0)
        failing = worker.fails * (3 if question.size > 1 << 14 else 1) + (0.5 if worker.trouble else 0)
        failed = rng.random() < failing
        attempt = AttemptOver(
            at_ns=self._now_ns,
            task=task,
            worker=worker.name,
            capability="write" if written else "label",
            tenant=question.tenant,
            priority=question.priority,
            parameters=question.key,
            parameters_bytes=question.size,
            result=b"" if failed else self._answer(worker, question, written),
            ending=rng.choice((Ending.FAILED, Ending.TIMED_OUT)) if failed else Ending.COMPLETED,
            claimed_wall_ns=int(took_s * SECOND_NS),
            claimed_cpu_ns=int(took_s * SECOND_NS * rng.uniform(0.2, 0.9)),
            wall_ns=int((took_s + late_s) * SECOND_NS),
            cores=2,
        )
        worker.tasks += 1
        return self._cheated(worker, question, attempt) if worker.cheats else attempt

    def _answer(self, worker: _Labourer, question: _Question, written: bool) -> bytes:
        rng = self._rng
        if written:
            if worker.cheats and self._original and self._cheat is Cheat.COPYING:
                return self._original
            answer = b"nothing to say" if rng.random() < 0.2 else f"by {worker.name} on {question.key!r}".encode()
            self._original = answer
            return answer
        if rng.random() >= min(0.5, worker.wrong * question.hardness):
            return _label(question.right)
        return _label(question.trap if rng.random() < 0.6 else (question.trap + 1) % _CLASSES)

    def _cheated(self, worker: _Labourer, question: _Question, attempt: AttemptOver) -> AttemptOver:
        """What comes of it when it cheats, if it does just now."""
        now, rng = attempt, self._rng
        lie = _label((question.right + 1) % _CLASSES)
        match self._cheat:
            case Cheat.FALSE_CLAIMS:
                tenths = 3 if worker.name in {"w0", "w1"} else 20
                now = replace(attempt, claimed_wall_ns=attempt.claimed_wall_ns * tenths // 10)
            case Cheat.SAME_ANSWER if attempt.result:
                now = replace(attempt, result=_label(0))
            case Cheat.SELECTIVE if question.priority == 0 and rng.random() < _FAILS:
                now = replace(attempt, result=b"", ending=Ending.FAILED)
            case Cheat.ON_OFF if attempt.result and (worker.tasks - 1) % (_GOOD_FOR + _BAD_FOR) >= _GOOD_FOR:
                now = replace(attempt, result=lie) if rng.random() < _LIES else attempt
            case Cheat.COLLUSION | Cheat.WHITEWASHING if attempt.result and _is_lied_to(question):
                now = replace(attempt, result=lie)
            case Cheat.WRONG_KEY:
                self._tell(SignatureWrong(at_ns=attempt.at_ns, worker=worker.name, task=attempt.task))
            case _:
                pass
        if worker.began is None and (now != attempt or self._cheat in {Cheat.COPYING, Cheat.WRONG_KEY}):
            worker.began = worker.tasks - 1
        return now


def _label(number: int) -> bytes:
    return b"label %d" % number


def _is_lied_to(question: _Question) -> bool:
    """The same for all who conspire."""
    return Random(question.key).random() < _LIES


async def run(plan: Plan) -> list[Figure]:
    """Each cheat, and fleets in which nobody does."""
    figures: list[Figure] = []
    honest = alarmed = grave = 0
    for cheat in (None, *Cheat):
        found = await _tried(plan, cheat)
        honest += sum(one.honest for one in found)
        alarmed += sum(len({alarm.split()[1] for alarm in one.alarms}) for one in found)
        grave += sum(one.grave for one in found)
        if cheat is not None:
            figures += _noticed(cheat, found)
    return [
        *figures,
        Figure("false_alarm_pct", 100 * alarmed / honest, "%", ceiling=FALSE_ALARM_PCT_MAX),
        Figure("false_alarm_grave_pct", 100 * grave / honest, "%", ceiling=GRAVE_PCT_MAX),
    ]


async def _tried(plan: Plan, cheat: Cheat | None) -> list[CheatsFound]:
    found = []
    for seed in range(plan.seeds if plan.full else max(1, plan.seeds // _SEEDS_LESS)):
        wrong = HONEST_WRONG[seed % len(HONEST_WRONG)]
        tasks = TASKS if cheat is not Cheat.WRONG_KEY else _TASKS_SIGNED
        found.append(CheatTrial(f"bench {cheat} {seed}", cheat, wrong).go(tasks))
        await asyncio.sleep(0)
    return found


def _noticed(cheat: Cheat, found: Sequence[CheatsFound]) -> list[Figure]:
    delays = [delay for one in found for delay in one.delays]
    constant = cheat is Cheat.SAME_ANSWER
    within, floor = (SAME_ANSWER_WITHIN, SAME_ANSWER_PCT_MIN) if constant else (TASKS, CAUGHT_PCT_MIN)
    noticed = [delay for delay in delays if delay is not None and delay <= within]
    return [
        Figure(f"caught_{cheat}_pct", 100 * len(noticed) / len(delays), "%", floor=floor),
        Figure(f"delay_{cheat}_tasks", median(noticed), "tasks"),
    ]
