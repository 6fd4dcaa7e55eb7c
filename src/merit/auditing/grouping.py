"""Which of several answers to a task are the same, so that they can be voted on.

With a tolerance, being the same is not transitive: 1.0 is the same as 1.1 and that as 1.2, but 1.0 may not be the same as 1.2.
Chains would let somebody bridge two answers by one between them. So a class has a middle: the answer that the most others
are the same as takes all those to it, and what is left goes on likewise; of equal ones it is the one that was given more
often, then the one whose canonical form comes first. Each answer is therefore the same as the middle of its class, two of a
class are at most twice the tolerance apart, and the order of the answers does not matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from merit.auditing.canonical import Steps, TooMuch, canonical, digest, ignored, without
from merit.auditing.compare import Comparer, exact
from merit.model.auditing import Comparison


class Grouping(Struct, frozen=True):
    """Classes of answers that are the same."""

    names: tuple[str | None, ...]
    """Of the class of each answer, in the order of the answers: the digest of its middle. None: the answer is too large to be
    compared; it abstains."""
    middles: dict[str, int]
    """Of each class by name, the number of the answer that stands for it."""
    undecided: bool = False
    """Some answers could not be compared; they count as different."""


def group_answers(answers: Sequence[Any], comparison: Comparison, comparer: Comparer) -> Grouping:
    """Put answers, decoded JSON, into classes.

    The same answer has the same name in any task, if ``exact(comparison)``; otherwise a name means something within its task only.
    All pairs of different answers are compared, so there must not be many.

    Args:
        answers: what several workers said.
        comparison: which of them are the same.
        comparer: the one that ``comparison.method`` names.

    Raises:
        ValueError: ``comparison.ignore`` has what is no JSON Pointer.
    """
    tree = ignored(comparison.ignore)
    forms: list[str | None] = []
    for answer in answers:
        steps = Steps()
        try:
            forms.append(canonical(without(answer, tree, steps), comparison.lists, steps))
        except TooMuch:
            forms.append(None)
    alike: dict[str, list[int]] = defaultdict(list)
    for number, form in enumerate(forms):
        if form is not None:
            alike[form].append(number)
    undecided = None in forms
    middle_of = {form: form for form in alike}
    if len(alike) > 1 and not exact(comparison):
        kinds = sorted(alike)
        same: dict[str, set[str]] = {form: {form} for form in kinds}
        for number, one in enumerate(kinds):
            for other in kinds[:number]:
                found = comparer.difference(answers[alike[one][0]], answers[alike[other][0]], comparison)
                if found is None:
                    same[one].add(other)
                    same[other].add(one)
                else:
                    undecided |= found.undecided
        middle_of = _by_middles(same, {form: len(numbers) for form, numbers in alike.items()})
    names = {form: digest(form) for form in set(middle_of.values())}
    return Grouping(
        tuple(None if form is None else names[middle_of[form]] for form in forms),
        {name: alike[form][0] for form, name in sorted(names.items())},
        undecided,
    )


def _by_middles(same: dict[str, set[str]], count: dict[str, int]) -> dict[str, str]:
    """For each form, the middle of its class."""
    left, middle_of = set(same), {}
    while left:
        middle = min(left, key=lambda form: (-sum(count[other] for other in same[form] & left), -count[form], form))
        for form in same[middle] & left:
            middle_of[form] = middle
        left -= same[middle]
    return middle_of
