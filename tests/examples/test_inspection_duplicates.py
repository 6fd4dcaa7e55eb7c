import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.inspection import duplicates
from examples.inspection.duplicates import (
    FINGERPRINTS_MAX,
    GRAM_TOKENS,
    WINDOW,
    find_duplicates,
    fingerprint_text,
    identical_files,
)

GUARANTEED_TOKENS = GRAM_TOKENS + WINDOW - 1


def code(seed, lines):
    """Lines of four tokens each, whose names are not repeated elsewhere."""
    rng = random.Random(seed)
    return "".join(f"n{rng.getrandbits(60)} = n{rng.getrandbits(60)}.x{rng.getrandbits(60)}\n" for _ in range(lines))


def marks(text):
    return fingerprint_text(text)["fingerprints"]


def hashes(text):
    return {mark[0] for mark in marks(text)}


@given(st.integers(0, 40), st.integers(0, 40), st.integers(GUARANTEED_TOKENS, 200))
def test_a_shared_block_of_the_guaranteed_size_is_always_found(before, after, size):
    block = " ".join(f"shared{number}" for number in range(size))
    one = " ".join(f"a{number}" for number in range(before)) + " " + block
    other = block + " " + " ".join(f"b{number}" for number in range(after))
    assert hashes(one) & hashes(other)


@given(st.lists(st.sampled_from("ab"), min_size=GUARANTEED_TOKENS, max_size=200), st.text("ab ", max_size=60))
def test_so_is_one_of_few_and_repeated_tokens(block, around):
    shared = " ".join(block)
    assert hashes(" ".join(around) + " " + shared) & hashes(shared + " " + " ".join(around))


@given(st.integers(0, GRAM_TOKENS - 1))
def test_a_block_of_less_than_a_gram_has_no_fingerprints(size):
    assert marks(" ".join(f"n{number}" for number in range(size))) == []


def test_comments_layout_and_short_literals_make_no_difference():
    block = code(1, 30)
    disguised = "".join(f"    {line}   # line {n}\n\n" for n, line in enumerate(block.splitlines()))
    assert hashes(block) == hashes(disguised)
    calls = "".join(f"call{n}(a{n}, {n}, 'text')\n" for n in range(40))
    others = "".join(f"call{n}(a{n}, {n + 7}, 'other')\n" for n in range(40))
    assert hashes(calls) == hashes(others)
    assert not hashes(calls) & hashes(calls.replace("call", "invoke"))


def test_tables_are_the_same_only_if_their_content_is():
    def table(first):
        return "T = {\n" + "".join(f"    {n}: 'x{n * first}',\n" for n in range(200)) + "}\n"

    assert len(marks(table(1))) == 0  # one literal, however long
    shared = code(2, 4)
    one, other = shared + table(1) + code(3, 30), shared + table(2) + code(3, 30)
    found = find_duplicates({"one": marks(one), "other": marks(other)})
    assert all(place["line"] > 200 for group in found["groups"] for place in group["places"])


def test_fingerprints_give_lines_and_are_bounded():
    text = code(4, 50_000)
    result = fingerprint_text(text)
    assert len(result["fingerprints"]) == FINGERPRINTS_MAX
    assert not result["complete"]
    assert all(first <= last <= 50_000 for _, first, last in result["fingerprints"])
    assert fingerprint_text("x = 1\n" * 3)["complete"]


def test_blocks_are_joined_over_files():
    block = code(5, 60)
    files = {
        "a.py": code(6, 10) + block + code(7, 10),
        "b.py": block,
        "c.py": code(8, 25) + block,
        "d.py": code(9, 100),
    }
    found = find_duplicates({path: marks(text) for path, text in files.items()})
    assert found["groups_total"] == 1
    (group,) = found["groups"]
    assert group["copies"] == 3
    starts = {"a.py": 10, "b.py": 0, "c.py": 25}
    for place in group["places"]:
        start = starts[place["path"]]
        assert start < place["line"] <= start + 12
        assert start + 48 <= place["line_last"] <= start + 60
    assert group["lines_saved"] >= 2 * 36
    assert found["complete"]


def test_a_longer_block_wins_over_the_shorter_ones_in_it():
    long, short = code(10, 100), code(11, 30)
    files = {"a": long + short, "b": long + short, "c": short}
    found = find_duplicates({path: marks(text) for path, text in files.items()})
    assert found["groups"][0]["copies"] == 2
    assert found["groups"][0]["lines"] > 110
    assert found["lines_saved"] <= 130


def test_blocks_within_one_file_do_not_overlap():
    found = find_duplicates({"a": marks("value = other + more\n" * 2000)})
    for group in found["groups"]:
        places = group["places"]
        assert all(one["line_last"] < two["line"] for one, two in pairwise(places))
    assert found["lines_saved"] < 2000


@given(st.permutations(range(6)))
def test_the_order_of_the_files_makes_no_difference(order):
    texts = {f"{n}.py": code(n % 3, 40) + code(100 + n, 20) for n in range(6)}
    fingerprints = {path: marks(text) for path, text in texts.items()}
    shuffled = {f"{n}.py": fingerprints[f"{n}.py"] for n in order}
    assert find_duplicates(shuffled) == find_duplicates(fingerprints)


@given(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.lists(st.tuples(st.integers(0, 3), st.integers(1, 50)), max_size=30).map(
            lambda pairs: [[value, line, line + 9] for value, line in sorted(pairs, key=lambda pair: pair[1])]
        ),
    )
)
def test_what_is_reported_was_there(files):
    found = find_duplicates(files, lines_min=1)
    for group in found["groups"]:
        assert group["copies"] == len(group["places"]) >= 2
        for place in group["places"]:
            assert any(place["line"] == first for _, first, _ in files[place["path"]])
            assert any(place["line_last"] == last for _, _, last in files[place["path"]])


def test_too_many_repetitions_are_said_to_be(monkeypatch):
    fingerprints = {f"{n}.py": marks(code(1, 60)) for n in range(10)}
    monkeypatch.setattr(duplicates, "REPEATED_MAX", 12)
    found = find_duplicates(fingerprints)
    assert not found["complete"]
    assert found["files_left_out"]
    monkeypatch.setattr(duplicates, "REPEATED_MAX", 10**6)
    monkeypatch.setattr(duplicates, "OCCURRENCES_MAX", 1)
    assert not find_duplicates(fingerprints)["complete"]


@pytest.mark.parametrize("files", [{}, {"a": []}, {"a": [[1, 1, 9]]}])
def test_nothing_to_join(files):
    assert find_duplicates(files)["groups"] == []


def test_identical_files_are_those_of_equal_size_and_checksum():
    checksums = {"b": (7, 10), "a": (7, 10), "c": (7, 11), "d": (8, 10), "e": (0, 0), "f": (0, 0)}
    assert identical_files(checksums) == [["a", "b"]]
