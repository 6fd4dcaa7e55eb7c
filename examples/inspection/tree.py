"""Which files of a tree are inspected, and which are not and why: the same list on every run."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

FILES_MAX = 100_000
FILE_BYTES_MAX = 2_000_000
DEPTH_MAX = 64
PORTION_FILES_MAX = 50

SKIPPED_DIRECTORIES = {
    "__pycache__": "compiled files",
    "site-packages": "installed packages, not part of the tree",
    "dist-packages": "installed packages, not part of the tree",
    "node_modules": "installed packages, not part of the tree",
    "vendor": "vendored code",
    "_vendor": "vendored code",
}


class TreeNotListed(ValueError):
    """The tree cannot be inspected at all: it is not a readable directory, or it is larger than the bound."""


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file to inspect: its path relative to the root with forward slashes, and its size."""

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SkippedPath:
    """A file or directory that is not inspected, and the reason in words."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class SourceTree:
    """The files below `root` (absolute) that are to be inspected, and what was left out; both sorted by path."""

    root: str
    files: tuple[ListedFile, ...]
    skipped: tuple[SkippedPath, ...]


def list_tree(
    root: str | Path,
    *,
    suffixes: tuple[str, ...] = (".py",),
    files_max: int = FILES_MAX,
    file_bytes_max: int = FILE_BYTES_MAX,
) -> SourceTree:
    """The source files below `root`, whose names end in one of `suffixes`.

    Symbolic links are not followed, so that nothing outside of the tree is read and no loop is entered. Hidden and
    vendored directories, files larger than `file_bytes_max` and names that are not valid Unicode are recorded in
    `skipped`. Raises `TreeNotListed` if `root` is no readable directory or holds more than `files_max` such files:
    part of a tree would look like the whole.
    """
    base = Path(root).expanduser().resolve()
    if not base.is_dir():
        raise TreeNotListed(f"root: {base} is not a directory; give the directory whose sources are to be inspected")
    files: list[ListedFile] = []
    skipped: list[SkippedPath] = []
    pending: list[tuple[str, int]] = [("", 0)]
    while pending:
        directory, depth = pending.pop()
        try:
            with os.scandir(base / directory) as entries:
                found = list(entries)
        except OSError as error:
            if not directory:
                raise TreeNotListed(f"root: {base} cannot be read ({error.strerror}); check its permissions") from error
            skipped.append(SkippedPath(directory, f"directory cannot be read: {error.strerror}"))
            continue
        for entry in found:
            path = f"{directory}/{entry.name}" if directory else entry.name
            if entry.is_dir(follow_symlinks=False):
                reason = _directory_refused(entry, depth)
                if reason is None:
                    pending.append((path, depth + 1))
                elif entry.name != "__pycache__":  # beside every package: of no news to anybody
                    skipped.append(SkippedPath(_printable(path), reason))
            elif entry.name.endswith(suffixes):
                size_bytes, reason = _file_refused(entry, file_bytes_max)
                if reason is None:
                    files.append(ListedFile(path, size_bytes))
                else:
                    skipped.append(SkippedPath(_printable(path), reason))
                if len(files) > files_max:
                    raise TreeNotListed(
                        f"root: more than {files_max} files below {base}; inspect one of its directories instead"
                    )
    files.sort(key=lambda file: file.path)
    skipped.sort(key=lambda one: one.path)
    return SourceTree(str(base), tuple(files), tuple(skipped))


@dataclass(frozen=True, slots=True)
class FolderPortion:
    """Files of one directory, so many that one task can see to them.

    `label` names the portion among all of a tree: the directory with a slash behind it, and from the second portion on the
    place of its first file. `directory` is relative to the root ("." is the root), `names` are those of the files in it.
    """

    label: str
    directory: str
    names: tuple[str, ...]


def portions_of(tree: SourceTree, *, files_max: int = PORTION_FILES_MAX) -> list[FolderPortion]:
    """All files of a tree by directory, at most `files_max` in a portion; in the order of their first files."""
    folders: dict[str, list[str]] = {}
    for file in tree.files:
        directory, _, name = file.path.rpartition("/")
        folders.setdefault(directory or ".", []).append(name)
    first_file = {file.path: place for place, file in enumerate(tree.files)}
    portions = [
        FolderPortion(f"{directory}/{f'+{first}' if first else ''}", directory, tuple(names[first : first + files_max]))
        for directory, names in folders.items()
        for first in range(0, len(names), files_max)
    ]
    return sorted(portions, key=lambda one: first_file[paths_in(one)[0]])


def paths_in(portion: FolderPortion) -> list[str]:
    """The paths of its files as the tree has them."""
    prefix = "" if portion.directory == "." else f"{portion.directory}/"
    return [prefix + name for name in portion.names]


def is_test(path: str) -> bool:
    """Whether a path relative to the root is test code, by the customs of Python projects."""
    *directories, name = path.split("/")
    if any(part in {"test", "tests"} or part.endswith("_test") for part in directories):
        return True
    stem = name.partition(".")[0]
    return stem.startswith("test_") or stem.endswith("_test") or stem == "conftest"


def _directory_refused(entry: os.DirEntry[str], depth: int) -> str | None:
    if not _is_unicode(entry.name):
        return "name is not valid Unicode"
    if entry.name.startswith("."):
        return "hidden directory"
    if entry.name in SKIPPED_DIRECTORIES:
        return SKIPPED_DIRECTORIES[entry.name]
    if Path(entry.path, "pyvenv.cfg").exists():
        return "virtual environment"
    if depth + 1 > DEPTH_MAX:
        return f"more than {DEPTH_MAX} directories deep"
    return None


def _file_refused(entry: os.DirEntry[str], file_bytes_max: int) -> tuple[int, str | None]:
    if not _is_unicode(entry.name):
        return 0, "name is not valid Unicode"
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return 0, f"cannot be read: {error.strerror}"
    if stat.S_ISLNK(status.st_mode):
        return 0, "symbolic link"
    if not stat.S_ISREG(status.st_mode):
        return 0, "not a regular file"
    if status.st_size > file_bytes_max:
        return 0, f"{status.st_size} bytes, more than the {file_bytes_max} that are inspected"
    return status.st_size, None


def _is_unicode(name: str) -> bool:
    """False for a name that the file system holds as bytes without meaning (Python shows them as lone surrogates)."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _printable(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
