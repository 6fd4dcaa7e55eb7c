"""Whether two results are the same, by the rules of a ``Comparison``; and if not, where they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from json import dumps
from math import isfinite
from typing import Any, Final, Protocol

from msgspec import Struct

from merit.auditing.canonical import Steps, TooMuch, canonical, ignored, without
from merit.auditing.likeness import alike, effort, folded
from merit.model.auditing import Comparison, Lists
from merit.model.limits import COMPARISON_IGNORED_MAX, NAME_LENGTH_MAX

EXACTLY: Final = Comparison()
"""The same JSON."""
_MILLION: Final = 1_000_000
_PERMILLE: Final = 1_000
_SHOWN: Final = 60


class Difference(Struct, frozen=True, gc=False):
    """Where two results differ first, for people."""

    pointer: str
    """JSON Pointer to it; empty: the results themselves."""
    reason: str
    undecided: bool = False
    """They could not be compared, which says nothing about either."""


class Comparer(Protocol):
    """Compares results. Others than Merit's own are registered by the entry point group ``merit.comparers``, and tested with
    ``merit.testing.comparer_contract``."""

    def difference(self, one: Any, other: Any, comparison: Comparison) -> Difference | None:
        """Where they differ; None: they are the same. Which of the two is which does not matter for that, anything is the
        same as itself, and nothing is raised.

        Args:
            one: decoded JSON, not to be changed.
            other: as well.
            comparison: how the operator wants them to be compared.
        """
        ...


MakeComparer = Callable[[], Comparer]
"""What is registered as entry point."""


class JsonComparer:
    """Compares JSON as ``Comparison`` says."""

    def difference(self, one: Any, other: Any, comparison: Comparison) -> Difference | None:
        """What is too large or nested too deeply is undecided."""
        steps = Steps()
        try:
            tree = ignored(comparison.ignore)
            walk = _Walk(comparison, steps)
            return walk.difference(without(one, tree, steps), without(other, tree, steps), "", 0)
        except (TooMuch, ValueError) as error:
            return Difference("", f"they cannot be compared: {error}", undecided=True)


def same(one: Any, other: Any, comparison: Comparison = EXACTLY) -> bool:
    """Whether they are the same decoded JSON. What cannot be compared is not."""
    return JsonComparer().difference(one, other, comparison) is None


def check_comparison(comparison: Comparison, comparers: Mapping[str, MakeComparer]) -> None:
    """Refuse what makes no sense.

    Raises:
        ValueError: The message says which field, what is wrong, and what to do.
    """
    if comparison.method not in comparers:
        raise ValueError(f"method is {comparison.method!r}; there are {', '.join(sorted(comparers))}")
    if comparison.absolute_millionths < 0:
        raise ValueError(f"absolute_millionths is {comparison.absolute_millionths}; give 0 or more")
    if not 0 <= comparison.relative_millionths < _MILLION:
        raise ValueError(f"relative_millionths is {comparison.relative_millionths}; give 0 to {_MILLION - 1}")
    if not 0 < comparison.text_permille <= _PERMILLE:
        raise ValueError(f"text_permille is {comparison.text_permille}; give 1 to {_PERMILLE}")
    if len(comparison.ignore) > COMPARISON_IGNORED_MAX:
        raise ValueError(f"ignore has {len(comparison.ignore)} pointers; give at most {COMPARISON_IGNORED_MAX}")
    for pointer in comparison.ignore:
        if len(pointer) > NAME_LENGTH_MAX:
            raise ValueError(f"ignore: {pointer[:_SHOWN]}… is too long; give at most {NAME_LENGTH_MAX} characters")
    try:
        ignored(comparison.ignore)
    except ValueError as error:
        raise ValueError(f"ignore: {error}") from None


def exact(comparison: Comparison) -> bool:
    """Whether what is the same has the same canonical form, so that whoever is the same as a third is the same as each
    other."""
    return (
        not comparison.absolute_millionths
        and not comparison.relative_millionths
        and comparison.text_permille >= _PERMILLE
        and comparison.method == EXACTLY.method
    )


class _Walk:
    """One comparison under way."""

    def __init__(self, comparison: Comparison, steps: Steps) -> None:
        self._comparison = comparison
        self._steps = steps
        self._exact = exact(comparison)

    def difference(self, one: Any, other: Any, pointer: str, depth: int) -> Difference | None:
        """Raises ``TooMuch``."""
        self._steps.take(1, depth)
        kind = _kind(one)
        if kind != _kind(other):
            return Difference(pointer, f"{kind} here, {_kind(other)} there")
        if kind == "object":
            return self._of_objects(one, other, pointer, depth)
        if kind == "list":
            return self._of_lists(one, other, pointer, depth)
        if kind == "number":
            same = self._numbers_same(one, other)
        elif kind == "text":
            same = self._texts_same(one, other)
        else:
            same = one is other
        return None if same else Difference(pointer, f"{_shown(one)} here, {_shown(other)} there")

    def _of_objects(self, one: dict[str, Any], other: dict[str, Any], pointer: str, depth: int) -> Difference | None:
        if one.keys() != other.keys():
            name = min(one.keys() ^ other.keys())
            return Difference(_at(pointer, name), "only one of them has it")
        for name, value in one.items():
            found = self.difference(value, other[name], _at(pointer, name), depth + 1)
            if found is not None:
                return found
        return None

    def _of_lists(self, one: list[Any], other: list[Any], pointer: str, depth: int) -> Difference | None:
        lists = self._comparison.lists
        if lists is not Lists.SETS and len(one) != len(other):
            return Difference(pointer, f"{len(one)} elements here, {len(other)} there")
        if lists is Lists.ORDERED:
            for number, (mine, yours) in enumerate(zip(one, other, strict=True)):
                found = self.difference(mine, yours, _at(pointer, str(number)), depth + 1)
                if found is not None:
                    return found
            return None
        form = partial(canonical, lists=lists, steps=self._steps)
        mine, yours = sorted(map(form, one)), sorted(map(form, other))
        if mine == yours or (lists is Lists.SETS and set(mine) == set(yours)):
            same = True
        elif self._exact:
            same = False
        elif lists is Lists.SETS:
            same = self._covers(one, other, depth) and self._covers(other, one, depth)
        else:
            same = self._matches(one, other, depth)
        return None if same else Difference(pointer, "the elements are not the same")

    def _same(self, one: Any, other: Any, depth: int) -> bool:
        return self.difference(one, other, "", depth + 1) is None

    def _covers(self, one: list[Any], other: list[Any], depth: int) -> bool:
        """Whether each element of the other one is the same as some of the one."""
        return all(any(self._same(mine, yours, depth) for mine in one) for yours in other)

    def _matches(self, one: list[Any], other: list[Any], depth: int) -> bool:
        """Whether the elements can be put into pairs that are the same; each may be the same as several, so that one may have
        to make way for another (augmenting paths: Kuhn, 1955)."""
        if all(_kind(value) == "number" and isfinite(value) for value in (*one, *other)):
            # On a line, whatever pairs can be made can be made in order.
            return all(map(self._numbers_same, sorted(one), sorted(other)))
        partners = [[number for number, yours in enumerate(other) if self._same(mine, yours, depth)] for mine in one]
        taken_by: dict[int, int] = {}
        partner_of: dict[int, int] = {}
        return all(self._placed(number, partners, taken_by, partner_of) for number in range(len(one)))

    def _placed(
        self, start: int, partners: list[list[int]], taken_by: dict[int, int], partner_of: dict[int, int]
    ) -> bool:
        """Find a partner for one element; those that are in the way take others."""
        reached_from: dict[int, int] = {}
        waiting = [start]
        for mine in waiting:
            self._steps.take(1 + len(partners[mine]))
            for yours in partners[mine]:
                if yours in reached_from:
                    continue
                reached_from[yours] = mine
                if yours in taken_by:
                    waiting.append(taken_by[yours])
                    continue
                free: int | None = yours
                while free is not None:
                    taken, owner = free, reached_from[free]
                    free = partner_of.get(owner)
                    taken_by[taken], partner_of[owner] = owner, taken
                return True
        return False

    def _numbers_same(self, one: float, other: float) -> bool:
        if one == other:
            return True
        if not (isfinite(one) and isfinite(other)):
            return repr(one) == repr(other)  # no JSON, but no reason to fail
        absolute, relative = self._comparison.absolute_millionths, self._comparison.relative_millionths
        if not absolute and not relative:
            return False
        self._steps.take(8)
        # As they are written: by its bits, 1.1 is a little more than 1 and a tenth.
        mine, yours = Fraction(repr(one)), Fraction(repr(other))
        return abs(mine - yours) * _MILLION <= max(Fraction(absolute), relative * max(abs(mine), abs(yours)))

    def _texts_same(self, one: str, other: str) -> bool:
        if one == other:
            return True
        permille = self._comparison.text_permille
        if permille >= _PERMILLE:
            return False
        self._steps.take(len(one) + len(other))
        one, other = folded(one), folded(other)
        self._steps.take(effort(one, other))
        return alike(one, other, permille)


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "constant"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else "object"


def _at(pointer: str, name: str) -> str:
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


def _shown(value: Any) -> str:
    text = dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
