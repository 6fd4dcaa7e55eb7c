"""Votes: what most say, each voice counting as much as its weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from merit.auditing.answers import AnswerTable

ONE_VOICE: Final = 1_000
"""What a voice weighs of which nothing else is said; weights are thousandths of this."""


class VoteCount(Struct, frozen=True, gc=False):
    """What came of a vote. That nobody said anything (``silent``), that several answers lead (``tied``) and that one does
    (``winner``) are three different things."""

    votes: tuple[tuple[str, int], ...] = ()
    """Each answer with its weight above 0, the heaviest first, equal ones in the order in which they came."""
    abstained: int = 0
    """Voices for no answer, or without weight."""

    @property
    def leaders(self) -> tuple[str, ...]:
        """The answers for which most weight is."""
        return tuple(answer for answer, weight in self.votes if weight == self.votes[0][1])

    @property
    def winner(self) -> str | None:
        """The answer for which most weight is, if it is one alone."""
        leaders = self.leaders
        return leaders[0] if len(leaders) == 1 else None

    @property
    def tied(self) -> bool:
        return len(self.leaders) > 1

    @property
    def silent(self) -> bool:
        return not self.votes

    @property
    def permille(self) -> int:
        """The share of the weight that is for a leader, rounded down; 500 or less is no absolute majority."""
        total = sum(weight for _, weight in self.votes)
        return 1_000 * self.votes[0][1] // total if total else 0


def count_votes(voices: Iterable[tuple[str, str | None]], weights: Mapping[str, int] | None = None) -> VoteCount:
    """Count the voices of a task.

    Args:
        voices: worker and answer; None: it abstains. Of several voices of a worker the last one counts.
        weights: of workers, in thousandths; of those who are not in it, one voice.
    """
    votes: dict[str, int] = {}
    abstained = 0
    for worker, answer in dict(voices).items():
        weight = weights.get(worker, ONE_VOICE) if weights else ONE_VOICE
        if answer is None or weight <= 0:
            abstained += 1
        else:
            votes[answer] = votes.get(answer, 0) + weight
    return VoteCount(tuple(sorted(votes.items(), key=lambda vote: -vote[1])), abstained)


def vote_on_all(table: AnswerTable, weights: Mapping[str, int] | None = None) -> dict[str, VoteCount]:
    """Count the voices on each task of a table. Equal ones are in the order of its classes, so that a tie, if it has to be
    decided, is decided alike in all tasks."""
    counts: dict[str, VoteCount] = {}
    for task, pairs in zip(table.tasks, table.pairs_of_task, strict=True):
        said = sorted((table.pairs[pair] for pair in pairs), key=lambda pair: pair[1])
        counts[task] = count_votes(((table.workers[worker], table.classes[answer]) for worker, answer in said), weights)
    return counts
