"""When two results are the same."""

import json
import time
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merit.auditing.canonical import Steps, TooMuch, canonical, digest
from merit.auditing.catalogue import COMPARERS
from merit.auditing.compare import JsonComparer, check_comparison, exact, same
from merit.auditing.grouping import group_answers
from merit.auditing.likeness import alike, common_length, folded
from merit.model.auditing import Comparison, Lists
from merit.testing.comparer_contract import ComparerContract

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, -0.0, 1.0, 0.1, 1.1, 1e300])
    | st.text(max_size=8)
)
JSON = st.recursive(
    SCALARS,
    lambda below: (
        st.lists(below, max_size=4)
        | st.dictionaries(st.sampled_from("abc~/*") | st.text(max_size=3), below, max_size=4)
    ),
    max_leaves=12,
)
COMPARISONS = st.builds(
    Comparison,
    absolute_millionths=st.sampled_from([0, 1, 500_000, 2_000_000]),
    relative_millionths=st.sampled_from([0, 100_000, 999_999]),
    lists=st.sampled_from(Lists),
    text_permille=st.sampled_from([1_000, 999, 500, 1]),
    ignore=st.sampled_from([(), ("/a",), ("/*/b", "/0"), ("/~0", "/~1/a", "/a", "/a/b"), ("/*",)]),
)
LIMIT = settings(max_examples=150, deadline=None)


def difference(one, other, **how):
    return JsonComparer().difference(one, other, Comparison(**how))


class TestJsonComparer(ComparerContract):
    @pytest.fixture
    def make(self):
        return COMPARERS["json"]


@LIMIT
@given(JSON, COMPARISONS)
def test_anything_is_the_same_as_itself_however_it_is_written(value, comparison):
    again = json.loads(json.dumps(value, indent=1, sort_keys=True))
    assert same(value, again, comparison)


@LIMIT
@given(JSON, JSON, COMPARISONS)
def test_which_is_which_does_not_matter_and_nothing_is_raised(one, other, comparison):
    assert same(one, other, comparison) == same(other, one, comparison)


@LIMIT
@given(JSON, JSON)
def test_exactly_the_same_is_to_have_the_same_canonical_form(one, other):
    for lists in Lists:
        assert same(one, other, Comparison(lists=lists)) == (canonical(one, lists) == canonical(other, lists))


@LIMIT
@given(JSON)
def test_a_canonical_form_is_json_that_says_the_same(value):
    form = canonical(value)
    assert same(json.loads(form), value)
    assert canonical(json.loads(form)) == form


@LIMIT
@given(JSON, JSON, COMPARISONS)
def test_more_tolerance_never_parts_what_was_the_same(one, other, comparison):
    wide = Comparison(
        comparison.absolute_millionths + 1_000_000,
        comparison.relative_millionths,
        comparison.lists,
        1,
        comparison.ignore,
    )
    assert same(one, other, wide) or not same(one, other, comparison)


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 1.0), (0.0, -0.0), (10**20, 1e20), ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}), ("é", "\u00e9")],
)
def test_the_same(one, other):
    assert difference(one, other) is None
    assert digest(canonical(one)) == digest(canonical(other))


@pytest.mark.parametrize(
    ("one", "other", "pointer"),
    [
        (1, True, ""),
        (0, False, ""),
        (0, None, ""),
        ("1", 1, ""),
        (2**53, 2**53 + 1, ""),
        ({"a": None}, {}, "/a"),
        ({"a/b": {"~": [1, 2]}}, {"a/b": {"~": [1, 3]}}, "/a~1b/~0/1"),
        ([1, 2], [2, 1], ""),
        ([1], [1, 1], ""),
        ("é", "e\u0301", ""),
    ],
)
def test_not_the_same(one, other, pointer):
    found = difference(one, other)
    assert found is not None
    assert found.pointer.startswith(pointer)
    assert not found.undecided


def test_a_difference_is_told_to_people():
    found = difference({"price": {"eur": 3}}, {"price": {"eur": 4.5}})
    assert (found.pointer, found.reason) == ("/price/eur", "3 here, 4.5 there")


@pytest.mark.parametrize("scale", [1, -1])
def test_tolerances_hold_to_the_edge_as_numbers_are_written(scale):
    tenth = {"absolute_millionths": 100_000}
    assert difference(1.0 * scale, 1.1 * scale, **tenth) is None
    assert difference(0.2, 0.3, **tenth) is None
    assert difference(1.0 * scale, 1.100001 * scale, **tenth)
    ten_percent = {"relative_millionths": 100_000}
    assert difference(90 * scale, 100 * scale, **ten_percent) is None
    assert difference(89.999999 * scale, 100 * scale, **ten_percent)
    assert difference(0, 1e-9, **ten_percent)
    assert difference(0, 1e-9, absolute_millionths=1) is None
    assert difference(-1, 1, relative_millionths=999_999)
    assert difference(10**30, 10**30 + 1, relative_millionths=1) is None


def test_true_is_no_number_within_any_tolerance():
    assert difference(1, True, absolute_millionths=10**9)


def test_lists_as_sets_and_multisets():
    assert difference([1, 2, 2], [2, 1, 2.0], lists=Lists.MULTISETS) is None
    assert difference([1, 2, 2], [1, 1, 2], lists=Lists.MULTISETS)
    assert difference([1, 2, 2], [1, 1, 2], lists=Lists.SETS) is None
    assert difference([[2, 1], [3]], [[3, 3], [1, 2]], lists=Lists.SETS) is None
    assert difference([[2, 1], [3]], [[3, 3], [1, 2]], lists=Lists.MULTISETS)
    assert difference([1], [], lists=Lists.SETS)


def test_multisets_with_a_tolerance_are_matched_one_to_one():
    how = {"lists": Lists.MULTISETS, "absolute_millionths": 500_000}
    assert difference([1, 1.5], [2, 1.5], **how) is None
    assert difference([1, 1], [1.5, 2], **how)
    objects = [{"x": 1}, {"x": 1.5}, {"x": 2}]
    shifted = [{"x": 2.5}, {"x": 1.5}, {"x": 2}]
    for order in permutations(shifted):
        assert difference(objects, list(order), **how) is None
    assert difference(objects, [{"x": 1.5}, {"x": 1.5}, {"x": 3}], **how)
    assert difference([{"x": 1}, {"x": 1.4}], [{"x": 1.2}], lists=Lists.SETS, absolute_millionths=500_000) is None


@LIMIT
@given(st.lists(st.integers(-8, 8), max_size=6), st.lists(st.integers(-8, 8), max_size=6), st.integers(0, 5))
def test_numbers_are_matched_as_well_in_order_as_in_any_way(one, other, tolerance):
    how = {"lists": Lists.MULTISETS, "absolute_millionths": tolerance * 1_000_000}
    wrapped = difference([[value] for value in one], [[value] for value in other], **how)
    assert (difference(one, other, **how) is None) == (wrapped is None)
    best = len(one) == len(other) and any(
        all(abs(a - b) <= tolerance for a, b in zip(one, order, strict=True)) for order in permutations(other)
    )
    assert (wrapped is None) == best


def test_what_is_ignored():
    one = {"at": 1, "items": [{"id": 1, "x": 2}, {"id": 3, "x": 4}], "*": 5}
    other = {"items": [{"id": 7, "x": 2}, {"x": 4}], "*": 5}
    assert difference(one, other, ignore=("/at", "/items/*/id")) is None
    assert difference(one, other, ignore=("/at", "/items/0/id")).pointer == "/items/1/id"
    assert difference([1, 2, 3], [1, 9, 3], ignore=("/1",)) is None
    assert difference({"a": {"b": 1, "c": 2}}, {"a": {}}, ignore=("/a/b", "/a/c")) is None
    assert difference({"a": {"b": 1}}, {}, ignore=("/a/b", "/a")) is None
    assert difference({"": 1}, {"": 2}, ignore=("/",)) is None
    assert one["at"] == 1


def test_texts_that_are_alike():
    how = {"text_permille": 900}
    assert difference("The  quick brown FOX", "the quick\nbrown fox", **how) is None
    assert difference("the quick brown fox", "the quick brown fix", **how) is None
    assert difference("the quick brown fox", "a lazy dog", **how)
    assert difference("\ufb01ne Stra\u00dfe", "FINE STRASSE", text_permille=999) is None
    assert difference("fine", "FINE")


def slow_common_length(one, other):
    row = [0] * (len(other) + 1)
    for a in one:
        before = row
        row = [0]
        for number, b in enumerate(other):
            row.append(before[number] + 1 if a == b else max(before[number + 1], row[number]))
    return row[-1]


@LIMIT
@given(st.text("abc", max_size=40), st.text("abcd", max_size=40))
def test_the_longest_common_subsequence(one, other):
    common = slow_common_length(one, other)
    assert common_length(one, other) == common_length(other, one) == common
    total = len(one) + len(other)
    if total:
        assert alike(one, other, 2_000 * common // total)
    if one != other:
        assert not alike(one, other, 2_000 * common // total + 1)


@LIMIT
@given(st.text(max_size=20))
def test_folding_twice_is_folding_once(text):
    assert folded(folded(text)) == folded(text)


def test_what_is_too_large_or_too_deep_is_undecided_and_soon():
    deep: Any = 0
    other: Any = 0
    for _ in range(100):
        deep, other = [deep], {"a": other}
    assert difference(deep, deep).undecided
    assert difference(other, other).undecided
    began = time.process_time()
    how = {"lists": Lists.MULTISETS, "text_permille": 500, "absolute_millionths": 1}
    many = [[f"{number} {number * number}", number / 7] for number in range(3_000)]
    more = [[f"{number} {number * number + 1}", number / 7] for number in range(3_000)]
    assert difference(many, more, **how).undecided
    assert difference("ab" * 300_000, "ba" * 300_000, text_permille=990).undecided
    assert difference(list(range(500_000)), list(range(500_000))).undecided
    assert time.process_time() - began < 10
    with pytest.raises(TooMuch, match="too large"):
        canonical([1, 2, 3], steps=Steps(2))


@pytest.mark.parametrize(
    ("comparison", "why"),
    [
        (Comparison(absolute_millionths=-1), "absolute_millionths is -1; give 0 or more"),
        (Comparison(relative_millionths=1_000_000), "relative_millionths is 1000000"),
        (Comparison(text_permille=0), "text_permille is 0; give 1 to 1000"),
        (Comparison(ignore=("a",)), "'a' is no JSON Pointer"),
        (Comparison(ignore=("",)), "is no JSON Pointer"),
        (Comparison(ignore=("/" + "a" * 300,)), "too long"),
        (Comparison(ignore=("/a",) * 65), "at most 64"),
        (Comparison(method="mine"), "method is 'mine'; there are json"),
    ],
)
def test_what_makes_no_sense_is_refused(comparison, why):
    with pytest.raises(ValueError, match=why):
        check_comparison(comparison, COMPARERS)


@given(COMPARISONS)
def test_what_makes_sense_is_not(comparison):
    check_comparison(comparison, COMPARERS)


def classes(answers, **how):
    grouping = group_answers(answers, Comparison(**how), JsonComparer())
    found: dict[str | None, list[int]] = {}
    for number, name in enumerate(grouping.names):
        found.setdefault(name, []).append(number)
    return grouping, list(found.values())


def test_answers_that_are_the_same_are_a_class():
    grouping, found = classes([{"a": 1}, {"a": 2}, {"a": 1.0}])
    assert found == [[0, 2], [1]]
    assert grouping.middles == {grouping.names[0]: 0, grouping.names[1]: 1}
    assert grouping.names[0] == digest('{"a":1}')
    assert classes([[1, 2], [2, 1]], lists=Lists.SETS)[1] == [[0, 1]]
    assert classes([{"a": 1}, {"a": 1, "t": 5}], ignore=("/t",))[1] == [[0, 1]]
    assert classes([])[1] == []


def test_a_chain_does_not_bridge_answers():
    how = {"absolute_millionths": 1_000_000}
    assert classes([1, 2, 3], **how)[1] == [[0, 1, 2]]  # 2 is in the middle
    grouping, found = classes([1, 2, 3, 4, 5], **how)
    assert found == [[0, 1, 2], [3, 4]]
    assert grouping.middles[grouping.names[0]] == 1
    assert classes([1, 1, 1, 2, 3, 3, 3, 4, 4, 4, 4], **how)[1] == [[0, 1, 2], [3, 4, 5, 6, 7, 8, 9, 10]]
    grouping, _ = classes([5, 4, 5], **how)
    assert grouping.middles[grouping.names[0]] == 0  # what more have said stands for what is near it


@LIMIT
@given(st.lists(st.integers(0, 12), max_size=8), st.integers(0, 3), st.randoms(use_true_random=False))
def test_classes_do_not_depend_on_the_order_of_answers(answers, tolerance, rng):
    how = {"absolute_millionths": tolerance * 1_000_000}
    grouping = classes(answers, **how)[0]
    for answer, name in zip(answers, grouping.names, strict=True):
        assert abs(answer - answers[grouping.middles[name]]) <= tolerance
    order = list(range(len(answers)))
    rng.shuffle(order)
    again = classes([answers[number] for number in order], **how)[0]
    assert again.names == tuple(grouping.names[number] for number in order)


def test_answers_that_cannot_be_compared_abstain():
    deep: Any = 0
    for _ in range(100):
        deep = [deep]
    grouping, _ = classes([1, deep, 1])
    assert grouping.names == (digest("1"), None, digest("1"))
    assert grouping.undecided


def test_only_comparisons_without_tolerance_are_exact():
    assert exact(Comparison(lists=Lists.SETS, ignore=("/a",)))
    assert not exact(Comparison(absolute_millionths=1))
    assert not exact(Comparison(relative_millionths=1))
    assert not exact(Comparison(text_permille=999))
    assert not exact(Comparison(method="mine"))
