"""What everything that compares results must do."""

from __future__ import annotations

from copy import deepcopy
from itertools import product
from typing import Any

import pytest

from merit.auditing.compare import Comparer, MakeComparer
from merit.model.auditing import Comparison, Lists

_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    1.0,
    1.05,
    -1e300,
    10**30,
    "",
    "a text",
    "A  Text",
    "\ud800",
    [],
    [1, 2, 2],
    [2, 1],
    [[], {}],
    {},
    {"": None},
    {"a": [1, {"b": "c"}]},
    {"a": [1, {"b": "d"}], "~/": 0},
    ["x" * 20_000],
]


class ComparerContract:
    """Subclass it and override `make`; and `comparisons`, if it reads more of them than that they exist."""

    @pytest.fixture
    def make(self) -> MakeComparer:
        """Makes the comparer; what is registered as entry point."""
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    def comparisons(self) -> list[Comparison]:
        """What operators may ask of it."""
        return [
            Comparison(),
            Comparison(lists=Lists.MULTISETS, absolute_millionths=100_000),
            Comparison(lists=Lists.SETS, relative_millionths=100_000, text_permille=800),
            Comparison(ignore=("/a/*/b", "/~0~1")),
        ]

    def test_anything_is_the_same_as_itself(self, make: MakeComparer, comparisons: list[Comparison]) -> None:
        comparer = make()
        for value, comparison in product(_VALUES, comparisons):
            assert comparer.difference(value, deepcopy(value), comparison) is None

    def test_which_is_which_does_not_matter(self, make: MakeComparer, comparisons: list[Comparison]) -> None:
        comparer = make()
        for one, other, comparison in product(_VALUES, _VALUES, comparisons):
            assert _same(comparer, one, other, comparison) == _same(comparer, other, one, comparison)

    def test_it_keeps_nothing_and_changes_nothing(self, make: MakeComparer, comparisons: list[Comparison]) -> None:
        comparer, values = make(), deepcopy(_VALUES)
        cases = list(product(values, values, comparisons))
        found = [comparer.difference(*case) for case in cases]
        assert [comparer.difference(*case) for case in reversed(cases)] == found[::-1]
        assert [make().difference(*case) for case in cases] == found
        assert values == _VALUES

    def test_it_says_where_and_why(self, make: MakeComparer, comparisons: list[Comparison]) -> None:
        comparer = make()
        for one, other, comparison in product(_VALUES, _VALUES, comparisons):
            difference = comparer.difference(one, other, comparison)
            if difference is not None:
                assert difference.reason
                assert not difference.pointer or difference.pointer.startswith("/")


def _same(comparer: Comparer, one: Any, other: Any, comparison: Comparison) -> bool:
    return comparer.difference(one, other, comparison) is None
