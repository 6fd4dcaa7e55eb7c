"""Blocks of code that occur more than once in a tree.

Each file is reduced to a few fingerprints by winnowing (S. Schleimer, D. Wilkerson, A. Aiken, Winnowing: Local Algorithms
for Document Fingerprinting, SIGMOD 2003), which needs no other file and so is a task of its own. Joining them is cheap:
blocks that are repeated show as runs of fingerprints that are repeated.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import TypedDict

from .source import SourceUnreadable, lexemes, read_text

GRAM_TOKENS = 40
WINDOW = 41
"""With these, a block of GRAM_TOKENS + WINDOW - 1 = 80 tokens that is repeated is always found, one of less than
GRAM_TOKENS never."""
FINGERPRINTS_MAX = 4_000
REPEATED_MAX = 1_000_000
OCCURRENCES_MAX = 10_000_000
GROUPS_MAX = 200
PLACES_MAX = 20


class DuplicateFingerprints(TypedDict):
    """The fingerprints of one file, each as [hash, first line, last line], in order.

    `complete` is false if there were more than the bound; those after the last one given are then missing.
    """

    parsed: bool
    reason: str
    fingerprints: list[list[int]]
    tokens: int
    complete: bool


class DuplicatePlace(TypedDict):
    """Where one copy of a block stands."""

    path: str
    line: int
    line_last: int


class DuplicateGroup(TypedDict):
    """A block and its copies; `lines_saved` is what would go if one copy stayed. `places` is bounded, `copies` is not."""

    lines: int
    copies: int
    lines_saved: int
    places: list[DuplicatePlace]


class Duplicates(TypedDict):
    """The groups by lines saved, most first; `groups_total` and `lines_saved` count those beyond the bound as well.

    `complete` is false if there are more repetitions than are joined or looked at; `files_left_out` were not compared.
    """

    groups: list[DuplicateGroup]
    groups_total: int
    lines_saved: int
    complete: bool
    files_left_out: list[str]


def fingerprint(path: str, root: str = "") -> DuplicateFingerprints:
    """The fingerprints of the file at `path` (see `source.locate` for the two arguments, and for the errors)."""
    try:
        text = read_text(path, root)
    except SourceUnreadable as error:
        return DuplicateFingerprints(parsed=False, reason=str(error), fingerprints=[], tokens=0, complete=True)
    return fingerprint_text(text)


def fingerprint_text(text: str) -> DuplicateFingerprints:
    """The fingerprints of a text. Comments, layout and the values of literals make no difference, names do."""
    codes, lines = _normalised(text)
    found: list[list[int]] = []
    for start in _winnow(codes):
        gram = codes[2 * start : 2 * (start + GRAM_TOKENS)]
        # The cheap hash chose the place; this one is what files are compared by: 48 bits, which JSON holds exactly.
        strong = int.from_bytes(blake2b(gram, digest_size=6).digest(), "big")
        found.append([strong, lines[start], lines[start + GRAM_TOKENS - 1]])
    return DuplicateFingerprints(
        parsed=True,
        reason="",
        fingerprints=found[:FINGERPRINTS_MAX],
        tokens=len(lines),
        complete=len(found) <= FINGERPRINTS_MAX,
    )


_LITERAL = b"\0\0"
_LINE_ENDS = frozenset({"\n", "\\\n"})
_BETWEEN_LITERALS = frozenset({",", ":", "-", "+", "(", ")", "[", "]", "{", "}"})


def _normalised(text: str) -> tuple[bytes, list[int]]:
    """Two bytes for each token that counts, and the line of each.

    A literal of any value is the same token, and so are several with only punctuation between them, if they end on the
    line where they began. Longer texts and tables are what their content is: they look alike without being copies.
    Two names may share a code (one chance in 65,535): a gram has 40 of them.
    """
    codes: list[bytes] = []
    lines: list[int] = []
    known: dict[str, bytes | None] = {}
    line = 1
    table: list[str] = []  # the literals being read, and what stands between them
    table_line = table_line_last = 0
    after: list[tuple[str, bytes, int]] = []  # punctuation behind the last of them: whether it is between is not known
    for token in lexemes(text):
        if token in _LINE_ENDS:
            line += 1
            continue
        if token in known:
            code = known[token]
        else:
            code = known[token] = _code(token)
        if code is None:
            continue
        if code == _LITERAL:
            if table:
                table.extend(one for one, _, _ in after)
                after.clear()
            else:
                table_line = line
            table.append(token)
            line += token.count("\n")
            table_line_last = line
            continue
        if table:
            if token in _BETWEEN_LITERALS:
                after.append((token, code, line))
                continue
            _close_table(table, after, table_line, table_line_last, codes, lines)
        codes.append(code)
        lines.append(line)
    if table:
        _close_table(table, after, table_line, table_line_last, codes, lines)
    return b"".join(codes), lines


def _close_table(
    table: list[str],
    after: list[tuple[str, bytes, int]],
    line: int,
    line_last: int,
    codes: list[bytes],
    lines: list[int],
) -> None:
    """Write down the literals of `table` as one token, then what stands behind them; empties both."""
    codes.append(_LITERAL if line == line_last else _hashed(" ".join(table)))
    lines.append(line)
    for _, code, at in after:
        codes.append(code)
        lines.append(at)
    table.clear()
    after.clear()


def _code(token: str) -> bytes | None:
    """What a token is compared by: None for a comment, `_LITERAL` for a literal, a hash for all else."""
    first = token[0]
    if first == "#":
        return None
    if first.isdigit() or "'" in token[:3] or '"' in token[:3] or (first == "." and token[1:2].isdigit()):
        return _LITERAL
    return _hashed(token)


def _hashed(text: str) -> bytes:
    return (zlib.crc32(text.encode("utf-8", "surrogatepass")) % 65_535 + 1).to_bytes(2, "big")


def _winnow(codes: bytes) -> Iterator[int]:
    """The first token of each gram that is chosen: of each window of grams the one with the least hash.

    Of several that are least, the one that was chosen already is kept, and else the rightmost taken: the paper's
    'robust winnowing', without which code that repeats itself would be chosen as a whole.
    """
    span = 2 * GRAM_TOKENS
    crc32 = zlib.crc32
    hashes = [crc32(codes[at : at + span]) for at in range(0, len(codes) - span + 1, 2)]
    if not hashes:
        return
    count = len(hashes)
    least, value = -1, 0
    for end in range(min(WINDOW, count), count + 1):
        start = end - min(WINDOW, count)
        if least < start:
            window = hashes[start:end]
            value = min(window)
            least = end - 1 - window[::-1].index(value)
            yield least
        elif hashes[end - 1] < value:
            least, value = end - 1, hashes[end - 1]
            yield least


def find_duplicates(
    files: Mapping[str, Sequence[Sequence[int]]], *, lines_min: int = 8, groups_max: int = GROUPS_MAX
) -> Duplicates:
    """The blocks of at least `lines_min` lines that occur more than once, from the fingerprints of all files by path.

    Every maximal repeat of fingerprints is found with a suffix array; of those that overlap, the ones that save most
    are reported, so that no line is counted twice. The result depends on `files` alone, not on their order.
    """
    row, origin, left_out = _in_a_row(files)
    order, rank = _suffix_array(row)
    repeats = sorted(_repeats(row, order, rank), key=lambda one: (-one[0] * (one[2] - one[1] - 1), -one[0], one[1]))
    groups: list[DuplicateGroup] = []
    covered = bytearray(len(row))
    occurrences_left = OCCURRENCES_MAX
    for length, begin, end in repeats:
        occurrences_left -= end - begin
        if occurrences_left < 0:
            break
        starts = sorted(order[begin:end])
        if len({row[start - 1] if start else None for start in starts}) == 1:
            continue  # part of a longer one, which begins further to the left at all places
        places = _free_places(length, starts, origin, covered)
        lines = min((last - first + 1 for _, first, last in places.values()), default=0)
        if len(places) < 2 or lines < lines_min:
            continue
        for start in places:
            covered[start : start + length] = b"\1" * length
        groups.append(_group(sorted(places.values()), lines))
    groups.sort(key=lambda group: (-group["lines_saved"], group["places"][0]["path"], group["places"][0]["line"]))
    return Duplicates(
        groups=groups[:groups_max],
        groups_total=len(groups),
        lines_saved=sum(group["lines_saved"] for group in groups),
        complete=not left_out and occurrences_left >= 0,
        files_left_out=left_out,
    )


def _in_a_row(
    files: Mapping[str, Sequence[Sequence[int]]],
) -> tuple[list[int], list[tuple[str, int, int]], list[str]]:
    """All fingerprints that occur twice, with the path and lines of each, and the files that were too many.

    Between those that do not follow each other in a file stands a separator, each with a value that occurs once.
    """
    counts: Counter[int] = Counter()
    for marks in files.values():
        counts.update(mark[0] for mark in marks)
    row: list[int] = []
    origin: list[tuple[str, int, int]] = []
    left_out: list[str] = []
    for path in sorted(files):
        if len(row) > REPEATED_MAX:
            left_out.append(path)
            continue
        for value, first, last in files[path]:
            if counts[value] > 1:
                row.append(value)
                origin.append((path, first, last))
            elif row and row[-1] >= 0:
                row.append(-len(row) - 1)
                origin.append((path, first, last))
        row.append(-len(row) - 1)
        origin.append((path, 0, 0))
    return row, origin, left_out


def _group(places: Sequence[tuple[str, int, int]], lines: int) -> DuplicateGroup:
    sizes = [last - first + 1 for _, first, last in places]
    return DuplicateGroup(
        lines=lines,
        copies=len(places),
        lines_saved=sum(sizes) - max(sizes),
        places=[DuplicatePlace(path=path, line=first, line_last=last) for path, first, last in places[:PLACES_MAX]],
    )


def _free_places(
    length: int, starts: Sequence[int], origin: Sequence[tuple[str, int, int]], covered: bytearray
) -> dict[int, tuple[str, int, int]]:
    """The occurrences of a repeat as path, first and last line, without those reported already or overlapping."""
    places: dict[int, tuple[str, int, int]] = {}
    before = ("", 0)
    for start in starts:
        path, first, _ = origin[start]
        last = origin[start + length - 1][2]
        if (path == before[0] and first <= before[1]) or 1 in covered[start : start + length]:
            continue
        places[start] = (path, first, last)
        before = (path, last)
    return places


def _repeats(row: Sequence[int], order: Sequence[int], rank: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Runs of values that occur at least twice and cannot be made longer at their ends: length, and from where to where
    in the suffix array they occur. (M. Abouelhoda, S. Kurtz, E. Ohlebusch, 2004: its intervals of a common prefix.)
    """
    common = _common_prefixes(row, order, rank)
    open_intervals: list[tuple[int, int]] = []  # (length of the prefix, first index)
    for index in range(1, len(order) + 1):
        length = common[index] if index < len(order) else 0
        begin = index - 1
        while open_intervals and open_intervals[-1][0] > length:
            shared, begin = open_intervals.pop()
            yield shared, begin, index
        if length and (not open_intervals or open_intervals[-1][0] < length):
            open_intervals.append((length, begin))


def _suffix_array(row: Sequence[int]) -> tuple[list[int], list[int]]:
    """The starts of all suffixes in their order, and the place of each in it; by prefix doubling (Manber, Myers 1990)."""
    by_value = {value: index for index, value in enumerate(sorted(set(row)))}
    rank = [by_value[value] for value in row]
    order = sorted(range(len(row)), key=rank.__getitem__)
    size = len(row)
    width = 1
    classes = len(by_value)
    while classes < size:
        key = [rank[at] * (size + 1) + (rank[at + width] + 1 if at + width < size else 0) for at in range(size)]
        order.sort(key=key.__getitem__)
        classes = 0
        before = -1
        for at in order:
            if key[at] != before:
                before = key[at]
                classes += 1
            rank[at] = classes - 1
        width *= 2
    return order, rank


def _common_prefixes(row: Sequence[int], order: Sequence[int], rank: Sequence[int]) -> list[int]:
    """How many values each suffix shares with the one before it in the order (T. Kasai et al., 2001)."""
    common = [0] * len(row)
    length = 0
    for at in range(len(row)):
        if rank[at] == 0:
            length = 0
            continue
        other = order[rank[at] - 1]
        while at + length < len(row) and other + length < len(row) and row[at + length] == row[other + length]:
            length += 1
        common[rank[at]] = length
        length = max(0, length - 1)
    return common


def identical_files(checksums: Mapping[str, tuple[int, int]]) -> list[list[str]]:
    """The files that are the same byte for byte, in groups; from checksum and size in bytes by path. Empty ones are not."""
    by_content: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    for path, (checksum, size_bytes) in checksums.items():
        if size_bytes:
            by_content[size_bytes, checksum].append(path)
    return [sorted(paths) for _, paths in sorted(by_content.items(), reverse=True) if len(paths) > 1]
