"""Truth and skill from many answers (Dawid, Skene: Maximum likelihood estimation of observer error-rates using the EM
algorithm, 1979).

The truth of each task is one of a few *classes*; a worker answers a task of class k with l with a probability of its own,
``confusion[k][l]``, whatever others say. Neither is known: by turns the confusion of workers is reckoned from what the truth
probably is (M), and the truth from how workers confuse (E), from the shares of the votes onwards. What comes of it is a local
maximum of the likelihood, near the majority's opinion; should most workers take one class for another, so will it.

Who has given few answers to tasks of a class is believed to be just as good at it as it happened to be: with many workers
and few answers each this is worse than a vote. ``merit.auditing.truth`` mends that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, log, log1p
from typing import Final

from msgspec import Struct

from merit.auditing.answers import CLASSES_MAX, AnswerTable, Column

ITERATIONS_MAX: Final = 100
_RISE_MIN: Final = 1e-5
"""Of the bound, per answer: less than that is no progress."""
_COUNT_MIN: Final = 1e-10
"""What never happened is very unlikely, not impossible."""
_PERMILLE: Final = 1_000


class Truth(Struct, frozen=True, gc=False):
    """What the answer to a task probably is."""

    answer: str
    permille: int
    """How likely that is."""
    given: bool = True
    """Somebody has given it. If not, all that was said of the task is probably wrong: those who said it are known to take this
    answer for theirs, or it is so much more frequent."""


class Accuracy(Struct, frozen=True, gc=False):
    """How often a worker was probably right."""

    permille: int
    answers: int
    """Of so many. Those that nobody else has answered say nothing, and are not counted."""


class Consensus(Struct, frozen=True):
    """What is probably true, and how good each worker is, by all answers together."""

    table: AnswerTable
    shares: list[Column]
    """For each class and task, how likely it is the truth."""
    iterations: int = 0

    def truths(self) -> dict[str, Truth]:
        """By task. Of answers that are equally likely, one that was given to it, and of these the one that was seen first."""
        table, found = self.table, {}
        rows = zip(table.tasks, table.pairs_of_task, zip(*self.shares, strict=True), strict=True)
        for task, pairs, likely in rows:
            said = {table.pairs[pair][1] for pair in pairs}
            best = max(range(len(likely)), key=lambda answer: (likely[answer], answer in said))
            found[task] = Truth(table.classes[best], round(_PERMILLE * likely[best]), best in said)
        return found

    def accuracies(self) -> dict[str, Accuracy]:
        """By worker: what reputations may be made of. Each worker's own voice counts in what is held to be true, as little or as
        much as that of others; of few answers this makes it look a little better than it is."""
        table = self.table
        found = {}
        for worker, pairs in zip(table.workers, table.pairs_of_worker, strict=True):
            right, answers = 0.0, 0
            for pair in pairs:
                share = self.shares[table.pairs[pair][1]]
                for task in table.tasks_of_pair[pair]:
                    if len(table.pairs_of_task[task]) > 1:
                        right += share[task]
                        answers += 1
            found[worker] = Accuracy(round(_PERMILLE * right / answers) if answers else 0, answers)
        return found

    def confusion(self, worker: str) -> dict[str, dict[str, int]]:
        """For each class, how often the worker gave which answer where it is the truth, in thousandths of an answer."""
        table = self.table
        number = table.workers.index(worker)
        counts: dict[str, dict[str, int]] = {}
        for truth, share in zip(table.classes, self.shares, strict=True):
            counts[truth] = {
                table.classes[table.pairs[pair][1]]: round(_PERMILLE * sum(table.by_pair[pair](share)))
                for pair in table.pairs_of_worker[number]
            }
        return counts


class Expected(Struct):
    """What one step has come to."""

    shares: list[Column]
    log_likelihood: float


def dawid_skene(table: AnswerTable, iterations_max: int = ITERATIONS_MAX) -> Consensus:
    """The estimate as it was published; as others reckon it too, to the last answer.

    It ends when the bound of the likelihood rises by less than a hundred thousandth per answer, where, as in crowd-kit, how
    frequent a class is counts once for each answer instead of once for each task. That is no bound of the likelihood any
    more, and ends sooner; on sparse answers, where the maximum is far from the truth, that does no harm.

    Raises:
        ValueError: There are more than ``CLASSES_MAX`` different answers.
    """
    check_classes(table)
    shares, bound, iterations = table.vote_shares(), float("-inf"), 0
    counts = table.counts(shares)
    priors, logs = _estimate(table, shares, counts)
    while iterations < iterations_max and len(table.classes) > 1:
        iterations += 1
        found = expect(table, priors, logs)
        shares = found.shares
        counts = table.counts(shares)
        # The entropy of the shares follows from what they were reckoned from.
        entropy = found.log_likelihood - _energy(counts, logs) - _dot(map(sum, shares), priors)
        priors, logs = _estimate(table, shares, counts)
        energy = _energy(counts, logs) + _dot(map(sum, counts), priors)
        before, bound = bound, (energy + entropy) / table.size
        if bound - before < _RISE_MIN:
            break
    return Consensus(table, shares, iterations)


def check_classes(table: AnswerTable) -> None:
    """Refuse what would take too long, and could not be learned.

    Raises:
        ValueError: There are more than ``CLASSES_MAX`` different answers.
    """
    if len(table.classes) > CLASSES_MAX:
        raise ValueError(
            f"there are {len(table.classes)} different answers; who takes which for which is estimated for up to {CLASSES_MAX}"
        )


def expect(table: AnswerTable, priors: Sequence[float], logs: Sequence[Column]) -> Expected:
    """How likely each class is the truth of each task (the E step).

    Args:
        table: the answers.
        priors: of each class, the logarithm of how frequent it is.
        logs: for each class and pair, that of how likely the worker of the pair gives its answer where this is the truth.
    """
    first, prior = logs[0], priors[0]
    certain = prior * len(table.tasks) + sum(
        weight * len(tasks) for weight, tasks in zip(first, table.tasks_of_pair, strict=True)
    )
    # Only what the classes differ by from the first one matters; so there is one sum a task less.
    odds = []
    for column, other in zip(logs[1:], priors[1:], strict=True):
        ratio, offset = [a - b for a, b in zip(column, first, strict=True)], other - prior
        odds.append([sum(take(ratio), offset) for take in table.by_task])
    shares, log_sum = _binary(odds[0]) if len(odds) == 1 else _softmax(odds)
    return Expected(shares, certain + log_sum)


def _binary(odds: Column) -> tuple[list[Column], float]:
    no, yes, log_sum = [], [], 0.0
    for value in odds:
        if value > 0:
            small = exp(-value)
            share = 1 / (1 + small)
            no.append(small * share)
            yes.append(share)
            log_sum += value + log1p(small)
        else:
            small = exp(value)
            share = 1 / (1 + small)
            no.append(share)
            yes.append(small * share)
            log_sum += log1p(small)
    return [no, yes], log_sum


def _softmax(odds: Sequence[Column]) -> tuple[list[Column], float]:
    rows, log_sum = [], 0.0
    for row in zip(*odds, strict=True):
        top = max(0.0, *row)
        scaled = [exp(-top), *[exp(value - top) for value in row]]
        total = sum(scaled)
        log_sum += top + log(total)
        rows.append([value / total for value in scaled])
    return [list(column) for column in zip(*rows, strict=True)], log_sum


def _estimate(
    table: AnswerTable, shares: Sequence[Column], counts: Sequence[Column]
) -> tuple[list[float], list[Column]]:
    """The logarithms of how frequent classes are, and of how workers confuse them (the M step)."""
    priors = [log(max(sum(share) / len(table.tasks), _COUNT_MIN)) for share in shares]
    return priors, [list(_logs(table, column)) for column in counts]


def _logs(table: AnswerTable, counts: Column) -> Iterator[float]:
    bounded = [max(count, _COUNT_MIN) for count in counts]
    totals = [log(sum(bounded[pair] for pair in pairs)) for pairs in table.pairs_of_worker]
    for (worker, _), count in zip(table.pairs, bounded, strict=True):
        yield log(count) - totals[worker]


def _energy(counts: Sequence[Column], logs: Sequence[Column]) -> float:
    return sum(map(_dot, counts, logs))


def _dot(one: Iterator[float] | Column, other: Column) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
