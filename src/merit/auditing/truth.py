"""What is probably true by many answers: Merit's own way, between a vote and Dawid and Skene.

It is their model (``merit.auditing.dawid_skene``) with priors, so that who has said little is taken to be like the others, and
who has said much is known for what it is (as in Kim, Ghahramani: Bayesian classifier combination, 2012):

* a worker's row of the confusion, how it answers tasks of a class, is drawn from a Dirichlet distribution about that of all
  workers together; how alike workers are (``strength``, in answers) is not set but found by empirical Bayes: of a few
  strengths the one with which the answers, as they are sorted just then, are likeliest. For workers that are all alike this comes
  to a vote in which some mistakes are known to be likelier than others; for workers that differ, and of whom
  enough is known, to what Dawid and Skene do;
* all workers together are drawn to one that mistakes each class for each other as often;
* classes are drawn to being as frequent as each other.

The last two matter in small sets only. No truth is needed, and nothing is set per set.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import lgamma, log
from typing import Final

from merit.auditing.answers import CLASSES_MAX, AnswerTable, Column
from merit.auditing.dawid_skene import Consensus, expect

_ITERATIONS_MAX: Final = 60
_RISE_MIN: Final = 1e-5
_STRENGTHS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
_FIRST_STRENGTH: Final = 4
_WEIGHED_AT: Final = frozenset((1, 3, 6, 10, 15, 25))
"""Iterations at which the strength is looked for anew: often while much changes, and not for ever, so that it ends."""
_EVEN_ERRORS: Final = 20.0
"""Answers that the belief in even mistakes is worth, for each class."""
_EVEN_CLASSES: Final = 10.0
"""Tasks that the belief in classes of the same frequency is worth."""


def find_truth(table: AnswerTable) -> Consensus:
    """What is probably true, and how good each worker is.

    With more than ``CLASSES_MAX`` different answers nothing can be learned of who takes which for which: then it is the
    shares of the votes.
    """
    shares = table.vote_shares()
    if not 1 < len(table.classes) <= CLASSES_MAX:
        return Consensus(table, shares)
    strength, likelihood, iterations = float(_FIRST_STRENGTH), float("-inf"), 0
    while iterations < _ITERATIONS_MAX:
        counts = table.counts(shares)
        pooled = _pooled(table, counts)
        if iterations in _WEIGHED_AT:
            sorted_out = _sorted_out(table, shares)
            strength = max(_STRENGTHS, key=lambda one: _evidence(table, sorted_out, pooled, one))
        iterations += 1
        found = expect(table, _priors(shares), _logs(table, counts, pooled, strength))
        shares = found.shares
        before, likelihood = likelihood, found.log_likelihood
        if iterations > max(_WEIGHED_AT) and abs(likelihood - before) < _RISE_MIN * table.size:
            break
    return Consensus(table, shares, iterations)


def _priors(shares: Sequence[Column]) -> list[float]:
    """The logarithms of how frequent classes are."""
    each = _EVEN_CLASSES / len(shares)
    total = len(shares[0]) + _EVEN_CLASSES
    return [log((sum(share) + each) / total) for share in shares]


def _pooled(table: AnswerTable, counts: Sequence[Column]) -> list[list[float]]:
    """How all workers together confuse: for each class, how likely which answer is."""
    size = len(table.classes)
    said = [[0.0] * size for _ in table.classes]
    for row, column in zip(said, counts, strict=True):
        for (_, answer), count in zip(table.pairs, column, strict=True):
            row[answer] += count
    right = (sum(row[truth] for truth, row in enumerate(said)) + 1) / (table.size + 2)
    wrong = (1 - right) / (size - 1)
    return [
        [
            (count + _EVEN_ERRORS * (right if answer == truth else wrong)) / (sum(row) + _EVEN_ERRORS)
            for answer, count in enumerate(row)
        ]
        for truth, row in enumerate(said)
    ]


def _logs(
    table: AnswerTable, counts: Sequence[Column], pooled: Sequence[Sequence[float]], strength: float
) -> list[Column]:
    """For each class and pair, the logarithm of how likely the worker gives the answer where the class is the truth."""
    logs = []
    for column, likely in zip(counts, pooled, strict=True):
        totals = [log(sum(column[pair] for pair in pairs) + strength) for pairs in table.pairs_of_worker]
        logs.append(
            [
                log(count + strength * likely[answer]) - totals[worker]
                for (worker, answer), count in zip(table.pairs, column, strict=True)
            ]
        )
    return logs


def _sorted_out(table: AnswerTable, shares: Sequence[Column]) -> dict[tuple[int, int], dict[int, int]]:
    """How often each worker gave which answer to tasks of which class, each task being of its likeliest. (With shares in place of
    that, all workers look alike.)"""
    likeliest = [likely.index(max(likely)) for likely in zip(*shares, strict=True)]
    counts: dict[tuple[int, int], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for (worker, answer), tasks in zip(table.pairs, table.tasks_of_pair, strict=True):
        for task in tasks:
            counts[worker, likeliest[task]][answer] += 1
    return counts


def _evidence(
    table: AnswerTable,
    counts: dict[tuple[int, int], dict[int, int]],
    pooled: Sequence[Sequence[float]],
    strength: int,
) -> float:
    """The logarithm of how likely these counts are with that strength (they are Dirichlet-multinomial)."""
    of_none = [[lgamma(strength * likely) for likely in row] for row in pooled]
    evidence = lgamma(strength) * len(counts)
    for (_, truth), row in counts.items():
        evidence -= lgamma(strength + sum(row.values()))
        for answer, count in row.items():
            evidence += lgamma(strength * pooled[truth][answer] + count) - of_none[truth][answer]
    return evidence
