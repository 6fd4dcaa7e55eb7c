"""Semantic versions, and ranges of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.allocation.versions import matches, normal_form, problem_of_range, problem_of_version
from merit.model.limits import NAME_LENGTH_MAX

numbers = st.integers(0, 3)
versions = st.builds(
    lambda major, minor, patch, rest: f"{major}.{minor}.{patch}{rest}",
    numbers,
    numbers,
    numbers,
    st.sampled_from(["", "-rc.1", "-alpha", "+build.5"]),
)
signs = st.sampled_from(["", "=", "==", "!=", "<", "<=", ">", ">=", "^", "~", "~="])
ends = st.sampled_from(["1", "1.2", "1.2.0", "2.0.1-rc.1", "1.*", "0.3", "*"])
conditions = st.builds(lambda sign, space, end: f"{sign}{space}{end}", signs, st.sampled_from(["", " "]), ends)
ranges = st.lists(conditions, min_size=1, max_size=4)


@pytest.mark.parametrize("text", ["1.0.0", "0.0.1", "10.20.30", "1.2.3-rc.1", "1.2.3-0a", "1.2.3+01", "1.2.3-x.7.z+b"])
def test_a_semantic_version(text):
    assert problem_of_version(text) is None


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.0", "v1.0.0", "1.0.0 ", "1.0.0\n", "01.0.0", "1.0.0-01", "1.0.0-a..b", "1.0.0-", "latest", "1.0.٣"],
)
def test_what_is_no_semantic_version_is_told_and_what_to_write(text):
    problem = problem_of_version(text)
    assert problem is not None
    assert "such as 1.0.0" in problem


@pytest.mark.parametrize(
    ("wanted", "inside", "outside"),
    [
        (">=1.2,<2", ["1.2.0", "1.9.9", "1.3.0-rc.1"], ["1.1.9", "2.0.0", "2.0.0-rc.1", "1.2.0-rc.1"]),
        ("^1.2", ["1.2.0", "1.99.0"], ["1.1.0", "2.0.0"]),
        ("^0.3", ["0.3.0", "0.3.9"], ["0.4.0", "1.0.0"]),
        ("~1.4.2", ["1.4.2", "1.4.9"], ["1.5.0", "1.4.1"]),
        ("1.4", ["1.4.0", "1.4.7"], ["1.5.0"]),
        ("==1.4.1", ["1.4.1", "1.4.1+build"], ["1.4.0", "1.4.1-rc.1"]),
        ("!=1.4.1", ["1.4.0", "2.0.0"], ["1.4.1"]),
        (" >= 1.2 , < 2 ", ["1.2.0"], ["2.0.0"]),
        ("=1.4.1", ["1.4.1"], ["1.4.2"]),
        ("== 1.4.1", ["1.4.1"], ["1.4.2"]),
        (">=2,<1", [], ["1.0.0", "1.5.0", "2.0.0"]),
    ],
)
def test_what_lies_in_a_range(wanted, inside, outside):
    assert problem_of_range(wanted) is None
    assert [version for version in inside if not matches(wanted, version)] == []
    assert [version for version in outside if matches(wanted, version)] == []


@pytest.mark.parametrize(
    "wanted", ["1.2.x", ">>1", "latest", ",", ">=1,", ">=1,,<2", "1 2", ">=1 <2", ">=1\n", "^", "~*", "≥1", "1.٣"]
)
def test_what_is_no_range_is_told_with_the_part_that_is_none_and_nothing_lies_in_it(wanted):
    problem = problem_of_range(wanted)
    assert problem is not None
    assert "write >=1.2,<2" in problem
    assert not matches(wanted, "1.0.0")


def test_only_the_bad_part_of_a_range_is_named():
    assert str(problem_of_range(">=1.2, <two")).startswith("'<two' is no condition")


def test_a_range_is_bounded():
    wanted = ",".join([">=1.2.3"] * NAME_LENGTH_MAX)
    assert "at most" in str(problem_of_range(wanted))
    assert not matches(wanted, "1.2.3")
    assert not matches(">=" + "9" * 10_000, "1.2.3")
    assert problem_of_version("9" * 10_000 + ".0.0")


@pytest.mark.parametrize("wanted", ["", " ", "*", "==*", ">= *", "*,*"])
def test_an_old_worker_of_no_version_is_in_the_range_of_any_and_in_no_other(wanted):
    assert problem_of_range(wanted) is None
    assert normal_form(wanted) == ""
    assert matches(wanted, "whatever")
    assert matches(wanted, "0.0.0-alpha")
    assert not matches(">=0.0.0", "whatever")


def test_ranges_that_say_the_same_have_one_form():
    same = [">=1.2,<2", "<2,>=1.2", " >= 1.2 , <2", ">=1.2,<2,>=1.2", ">=1.2,*,<2"]
    assert {normal_form(wanted) for wanted in same} == {">=1.2,<2"}
    assert {normal_form(wanted) for wanted in ["1.2", "=1.2", "==1.2", "== 1.2"]} == {"==1.2"}


def test_what_would_be_too_long_with_its_signs_stays_as_it_was_given():
    given = ["1", *(f"!=2.0.{number}" for number in range(100, 119))]
    wanted = ",".join([*given, "!=2.0.10"])
    assert len(wanted) == NAME_LENGTH_MAX
    assert problem_of_range(wanted) is None
    assert normal_form(wanted) == wanted
    assert matches(wanted, "1.2.0")
    assert len(normal_form(",".join(given))) < NAME_LENGTH_MAX


@given(ranges, versions)
def test_a_range_is_all_of_its_conditions_in_any_order_and_any_spelling(parts, version):
    wanted = ",".join(parts)
    if problem_of_range(wanted) is None:
        assert matches(wanted, version) == all(matches(part, version) for part in parts)
        assert matches(normal_form(wanted), version) == matches(wanted, version)
        assert normal_form(",".join(reversed(parts))) == normal_form(wanted) == normal_form(normal_form(wanted))
    else:
        assert any(problem_of_range(part) is not None for part in parts)


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_texts_are_dealt_with(wanted, version):
    if problem_of_version(version) is not None:
        assert matches(wanted, version) == (normal_form(wanted) == "")
    if problem_of_range(wanted) is not None:
        assert not matches(wanted, "1.0.0")
