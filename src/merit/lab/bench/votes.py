"""How often what many workers say together is the truth: by a majority, by Dawid and Skene, and Merit's own way.

Without a directory of sets, crowds of several kinds are made from seeds. The bar is the distance to the better of the other two,
since nobody knows beforehand which that is.
"""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from time import process_time
from typing import Final

from msgspec import Struct

from merit.auditing.answers import AnswerTable
from merit.auditing.dawid_skene import Consensus, dawid_skene
from merit.auditing.truth import find_truth
from merit.auditing.votes import vote_on_all
from merit.lab.bench.figures import Figure
from merit.lab.bench.plan import Plan
from merit.lab.bench.traces import BadTrace

BEHIND_POINTS_MAX: Final = 0.5
SYNTHETIC_BEHIND_POINTS_MAX: Final = 1.0
"""Of made-up crowds in the mean; where all workers are alike, what is learned of them can only be in the way."""
LABELS_PER_S_MIN: Final = 25_000.0

_SEED: Final = 600


class LabelSet(Struct, frozen=True):
    """What workers said of tasks, and what is true."""

    answers: list[tuple[str, str, str]]
    """Task, worker, label."""
    truth: dict[str, str]
    """By task; of some, maybe, nobody knows."""

    def scores(self) -> tuple[float, float, float]:
        """In per cent of the tasks of which the truth is known: majority, Dawid and Skene, Merit's own. Ties go to the label
        that was seen first."""
        table = AnswerTable(self.answers)
        return (
            self._right({task: votes.leaders[0] for task, votes in vote_on_all(table).items()}),
            self._right({task: found.answer for task, found in dawid_skene(table).truths().items()}),
            self._right({task: found.answer for task, found in find_truth(table).truths().items()}),
        )

    def _right(self, said: Mapping[str, str]) -> float:
        return 100 * sum(said.get(task) == label for task, label in self.truth.items()) / len(self.truth)


class CrowdShape(Struct, frozen=True, kw_only=True):
    """What a crowd is like."""

    tasks: int
    workers: int
    each: int
    """Workers that answer a task."""
    skill: Callable[[Random], float]
    """How often a worker is right; wrong answers are equally likely."""
    labels: int = 2
    stubborn: int = 0
    """So many workers always give the same answer, each its own."""

    def made(self, seed: int) -> LabelSet:
        """One such crowd."""
        rng = Random(seed)
        labels = [f"c{number}" for number in range(self.labels)]
        skills = [self.skill(rng) for _ in range(self.workers)]
        truth = {f"t{number}": rng.choice(labels) for number in range(self.tasks)}
        answers = []
        for task, right in truth.items():
            for number in rng.sample(range(self.workers), self.each):
                wrong = rng.choice([label for label in labels if label != right])
                said = right if rng.random() < skills[number] else wrong
                answers.append((task, f"w{number}", labels[number % self.labels] if number < self.stubborn else said))
        return LabelSet(answers, truth)


SHAPES: Final[Mapping[str, CrowdShape]] = {
    "stubborn": CrowdShape(tasks=300, workers=30, each=6, skill=lambda _: 0.75, labels=3, stubborn=9),
    "liars": CrowdShape(tasks=300, workers=30, each=5, skill=lambda rng: 0.1 if rng.random() < 0.2 else 0.85),
    "guessers": CrowdShape(tasks=400, workers=30, each=5, skill=lambda rng: rng.choice((0.95, 0.55, 0.5))),
    "sparse": CrowdShape(tasks=250, workers=350, each=5, skill=lambda rng: rng.uniform(0.5, 0.95), labels=5),
    "alike": CrowdShape(tasks=300, workers=40, each=5, skill=lambda _: 0.7, labels=3),
    "dense": CrowdShape(tasks=300, workers=12, each=10, skill=lambda rng: rng.uniform(0.4, 0.9), labels=4),
}
"""Kinds of crowds, by what is difficult about them."""
LARGE: Final = CrowdShape(tasks=8_000, workers=170, each=3, skill=lambda rng: rng.uniform(0.6, 0.95))


async def run(plan: Plan) -> list[Figure]:
    """Raises ``BadTrace`` when the directory has no sets, or one cannot be read."""
    if plan.data is None:
        ceiling, large = SYNTHETIC_BEHIND_POINTS_MAX, LARGE.made(_SEED)
        sets = {name: [shape.made(_SEED + number) for number in range(plan.seeds)] for name, shape in SHAPES.items()}
    else:
        read = await asyncio.to_thread(read_sets, plan.data)
        ceiling, large = BEHIND_POINTS_MAX, max(read.values(), key=lambda one: len(one.answers))
        sets = {name: [one] for name, one in read.items()}
    figures = []
    for name, same in sets.items():
        majority, reference, own = await asyncio.to_thread(mean_scores, same)
        figures += [
            Figure(f"majority_{name}_pct", majority, "%"),
            Figure(f"dawid_skene_{name}_pct", reference, "%"),
            Figure(f"truth_{name}_pct", own, "%"),
            Figure(f"truth_{name}_behind_points", max(majority, reference) - own, "points", ceiling=ceiling),
        ]
    return [*figures, *_speeds(large)]


def mean_scores(sets: Sequence[LabelSet]) -> list[float]:
    """The means of ``LabelSet.scores``."""
    rows = [one.scores() for one in sets]
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def _speeds(labels: LabelSet) -> Iterator[Figure]:
    ways: dict[str, Callable[[AnswerTable], Consensus]] = {"dawid_skene": dawid_skene, "truth": find_truth}
    for name, way in ways.items():
        began_s = process_time()
        way(AnswerTable(labels.answers)).accuracies()
        took_s = process_time() - began_s
        yield Figure(f"{name}_labels_per_s", len(labels.answers) / took_s, "labels/s", floor=LABELS_PER_S_MIN)


def read_sets(directory: Path) -> dict[str, LabelSet]:
    """All sets of a directory, by name: each a folder with ``label.csv`` (item, worker, label) and ``truth.csv`` (item,
    truth), with a line of titles each.

    Raises:
        BadTrace: There is none, or one cannot be read.
    """
    sets = {}
    for file in sorted(directory.glob("*/label.csv")):
        answers = [(row[0], row[1], row[2]) for row in _rows(file, 3)]
        truth = {row[0]: row[1] for row in _rows(file.with_name("truth.csv"), 2)}
        sets[file.parent.name] = LabelSet(answers, truth)
    if not sets:
        raise BadTrace(f"{directory} has no set of labels: a folder with label.csv and truth.csv")
    return sets


def _rows(file: Path, columns: int) -> list[list[str]]:
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            _, *rows = csv.reader(lines)
    except (OSError, ValueError, csv.Error) as error:
        raise BadTrace(f"{file} cannot be read: {error}") from None
    if not rows or any(len(row) != columns for row in rows):
        raise BadTrace(f"{file} must have {columns} columns, a line of titles, and something below it")
    return rows
