"""Always the same answer."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from merit.auditing.detecting import Accusations, AttemptOver, Cusum, Fact, Suspicion, at_most, weigh
from merit.auditing.detectors.lately import WORKERS_MAX, Lately

_KINDS_MAX: Final = 256
_ANSWERS_KEPT: Final = 2_000
"""Of a kind of work: what the others are known by."""
_QUESTIONS_KEPT: Final = 64
_SUSPECTED: Final = 0.97
_TOLERANCE: Final = 3.0
"""One worker may get tasks to which an answer is right with odds so many times as large as for the others."""
_USUAL_MIN: Final = 0.2
_USUAL_MAX: Final = 0.9
"""Where nearly all give that answer, it says nothing."""
_UNKNOWN: Final = 8
"""As many others are imagined that give the same answer: where nobody else is known, nothing is unusual."""


class _Answers:
    """The last answers to one kind of work."""

    __slots__ = ("_last", "_of_answer", "_of_worker", "_own")

    def __init__(self) -> None:
        self._last: deque[tuple[str, bytes]] = deque()
        self._of_answer: Counter[bytes] = Counter()
        self._of_worker: Counter[str] = Counter()
        self._own: Counter[tuple[str, bytes]] = Counter()

    def note(self, worker: str, answer: bytes) -> None:
        self._last.append((worker, answer))
        self._count(worker, answer, 1)
        if len(self._last) > _ANSWERS_KEPT:
            self._count(*self._last.popleft(), -1)

    def _count(self, worker: str, answer: bytes, change: int) -> None:
        self._of_answer[answer] += change
        self._of_worker[worker] += change
        self._own[worker, answer] += change
        if not self._own[worker, answer]:
            del self._own[worker, answer]
            if not self._of_answer[answer]:
                del self._of_answer[answer]
            if not self._of_worker[worker]:
                del self._of_worker[worker]

    def share_among_others(self, worker: str, answer: bytes) -> float:
        hits = self._of_answer[answer] - self._own[worker, answer]
        return (hits + _UNKNOWN) / (len(self._last) - self._of_worker[worker] + _UNKNOWN)


class _Habit:
    __slots__ = ("answer", "asked", "cusum", "times")

    def __init__(self) -> None:
        self.answer = b""
        self.times = 0
        self.cusum = Cusum()
        self.asked: Lately[bytes, bool] = Lately(_QUESTIONS_KEPT, bool)


class SameAnswer(Accusations):
    """A worker gives the same answer to nearly all tasks, whatever they ask, and the others do not.

    Where a fourth of the answers is right by luck, gold tasks alone tell too late: one task in twenty, and every fourth of them
    passes. How the answers of the others are distributed, of the same capability and tenant, is known from all tasks. A question
    that the worker was asked before says nothing: to that it has to give the same answer.
    """

    name = "same_answer"

    def __init__(self) -> None:
        super().__init__()
        self._kinds: Lately[tuple[str, str], _Answers] = Lately(_KINDS_MAX, _Answers)
        self._habits: Lately[tuple[str, str], _Habit] = Lately(WORKERS_MAX, _Habit)

    def observe(self, fact: Fact) -> None:
        if not isinstance(fact, AttemptOver) or not fact.result:
            return
        habit = self._habits.of((fact.worker, fact.capability))
        if fact.parameters in habit.asked:
            return
        habit.asked.of(fact.parameters)
        answers = self._kinds.of((fact.capability, fact.tenant))
        answers.note(fact.worker, fact.result)
        if not habit.cusum.sum:
            habit.answer, habit.times = fact.result, 0
        same = fact.result == habit.answer
        habit.times += same
        share = answers.share_among_others(fact.worker, habit.answer)
        usual = max(_USUAL_MIN, at_most(share, _TOLERANCE))
        if usual < _USUAL_MAX and habit.cusum.add(weigh(same, usual, _SUSPECTED), fact.task):
            self.accuse(
                Suspicion(
                    detector=self.name,
                    worker=fact.worker,
                    at_ns=fact.at_ns,
                    reason=f"it gave the same answer {habit.times} times, whatever was asked; "
                    f"of the others' answers {100 * share:.0f} % are that",
                    tasks=habit.cusum.tasks,
                    figures=(("times", habit.times), ("others_permille", int(1_000 * share))),
                    grave=True,
                )
            )
