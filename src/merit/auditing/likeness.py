"""How like each other two texts are: the share of their characters that they have in common in the same order.

It is 2 · LCS / (length + length), with the longest common subsequence by bits of whole numbers, a row of the table at a time
(Hyyrö: Bit-parallel LCS-length computation revisited, 2004). Symmetric, other than ``difflib``; and quick enough not to need a library:
two texts of 10,000 characters take about 20 ms.
"""

from __future__ import annotations

from unicodedata import normalize

_WORD_BITS = 2_048
"""Operations on whole numbers of so many bits take about as long as a step."""


def folded(text: str) -> str:
    """The text without what makes no difference to a reader: letter case, spacing, ways to write the same character."""
    return " ".join(normalize("NFKC", normalize("NFKC", text).casefold()).split())


def effort(one: str, other: str) -> int:
    """About how many steps it takes to compare them."""
    short, long = sorted((len(one), len(other)))
    return 1 + long + short * (1 + long // _WORD_BITS)


def alike(one: str, other: str, permille: int) -> bool:
    """Whether they are at least that alike; both ``folded``."""
    if one == other:
        return True
    total = len(one) + len(other)
    # At most the shorter one is common to both.
    if 2_000 * min(len(one), len(other)) < permille * total:
        return False
    return 2_000 * common_length(one, other) >= permille * total


def common_length(one: str, other: str) -> int:
    """The length of the longest sequence of characters that are in both in the same order, not necessarily side by side."""
    if len(one) < len(other):
        one, other = other, one
    places: dict[str, int] = dict.fromkeys(other, 0)
    bit = 1
    for character in one:
        if character in places:
            places[character] |= bit
        bit <<= 1
    full = bit - 1
    row = full
    for character in other:
        met = row & places[character]
        row = ((row + met) | (row - met)) & full
    return len(one) - row.bit_count()
