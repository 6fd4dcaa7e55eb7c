"""Answers of several workers to the same tasks, laid out so that what is reckoned over all of them again and again is quick."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Final

CLASSES_MAX: Final = 32
"""Of so many different answers at most it can be estimated who takes which for which."""

Column = list[float]
"""A number for each task, in the order of ``AnswerTable.tasks``; or for each pair, in that of ``AnswerTable.pairs``."""
Take = Callable[[Column], Sequence[float]]
"""The numbers of those tasks, or pairs, for which it was made."""


class AnswerTable:
    """Who said what about which task. Tasks, workers and answers (*classes*) are numbered in the order in which they were
    seen first; so what is made of a table depends on the order of the answers only where two are equally likely.

    A worker has one voice on a task: what it said last. One that abstains says None, and is not counted; a task about which
    nobody said anything is not in the table.

    A *pair* is a worker and an answer that it has given at least once: all that a worker said with the same word is counted
    together.
    """

    def __init__(self, answers: Iterable[tuple[str, str, str | None]]) -> None:
        """From task, worker, and what the one said of the other."""
        voices = {(task, worker): answer for task, worker, answer in answers}
        tasks: dict[str, int] = {}
        workers: dict[str, int] = {}
        classes: dict[str, int] = {}
        pairs: dict[tuple[int, int], int] = {}
        pairs_of_task: list[list[int]] = []
        tasks_of_pair: list[list[int]] = []
        for (task, worker), answer in voices.items():
            if answer is None:
                continue
            number = tasks.setdefault(task, len(tasks))
            key = workers.setdefault(worker, len(workers)), classes.setdefault(answer, len(classes))
            pair = pairs.setdefault(key, len(pairs))
            if number == len(pairs_of_task):
                pairs_of_task.append([])
            if pair == len(tasks_of_pair):
                tasks_of_pair.append([])
            pairs_of_task[number].append(pair)
            tasks_of_pair[pair].append(number)
        self.tasks = list(tasks)
        self.workers = list(workers)
        self.classes = list(classes)
        self.pairs = list(pairs)
        """Number of the worker, number of the class."""
        self.pairs_of_task = pairs_of_task
        self.tasks_of_pair = tasks_of_pair
        self.size = sum(map(len, pairs_of_task))
        """Answers."""
        self.pairs_of_worker: list[list[int]] = [[] for _ in workers]
        for pair, (worker_number, _) in enumerate(self.pairs):
            self.pairs_of_worker[worker_number].append(pair)
        self.by_task: list[Take] = [_take(numbers) for numbers in pairs_of_task]
        self.by_pair: list[Take] = [_take(numbers) for numbers in tasks_of_pair]

    def vote_shares(self) -> list[Column]:
        """For each class, the share of the voices on each task that are for it."""
        shares = [[0.0] * len(self.tasks) for _ in self.classes]
        for task, pairs in enumerate(self.pairs_of_task):
            for pair in pairs:
                shares[self.pairs[pair][1]][task] += 1 / len(pairs)
        return shares

    def counts(self, shares: Sequence[Column]) -> list[Column]:
        """How often the worker of a pair is expected to have given the answer of that pair where the truth is this class, for
        each class and pair.

        Args:
            shares: for each class and task, how likely it is the truth.
        """
        return [[sum(take(share)) for take in self.by_pair] for share in shares]


def _take(numbers: Sequence[int]) -> Take:
    if len(numbers) == 1:
        (only,) = numbers
        return lambda column: (column[only],)
    return itemgetter(*numbers)
