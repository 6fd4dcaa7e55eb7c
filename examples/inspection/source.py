"""From a path to text, tokens and syntax tree; why not, in words, when the file does not allow it."""

from __future__ import annotations

import ast
import io
import re
import stat
import tokenize
import warnings
from functools import lru_cache
from pathlib import Path

from .tree import FILE_BYTES_MAX

REASON_CHARS_MAX = 300


class PathRefused(ValueError):
    """The path given to a capability is not one of a file inside the root."""


class SourceUnreadable(Exception):
    """The file is there, but its content is no text or no Python; the message is the reason for the report."""


def locate(path: str, root: str = "") -> Path:
    """The file that a capability was asked to look at, as an absolute path without symbolic links.

    `path` is relative to `root`, or absolute if `root` is empty. Raises `PathRefused` if it leads out of the root
    (by `..` or by a link) or is not a regular file, `OSError` if it is not there.
    """
    if "\0" in path or "\0" in root:
        raise PathRefused("path: contains a null character")
    if root:
        base = Path(root).resolve(strict=True)
        if Path(path).is_absolute():
            raise PathRefused(f"path: {path!r} must be relative, because a root is given")
        file = (base / path).resolve()  # not strict: whether something exists outside is not told either
        if not file.is_relative_to(base):
            raise PathRefused(f"path: {path!r} leads out of the root; name a file inside it")
    else:
        if not Path(path).is_absolute():
            raise PathRefused(f"path: {path!r} must be absolute, because no root is given")
        file = Path(path).resolve(strict=True)
    if not stat.S_ISREG(file.stat().st_mode):
        raise PathRefused(f"path: {path!r} is not a regular file")
    return file


def read_text(path: str, root: str = "") -> str:
    """The decoded text of a Python source file, with line feeds for newlines of any kind.

    The encoding is found as Python finds it (PEP 263). Raises `SourceUnreadable` if the content is too large, names
    an unknown encoding or is not valid in its own; `PathRefused` and `OSError` as `locate` does.
    """
    file = locate(path, root)
    with file.open("rb") as stream:
        content = stream.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise SourceUnreadable(f"larger than {FILE_BYTES_MAX} bytes")
    return decode(content)


def decode(content: bytes) -> str:
    """The text of a file's content; raises `SourceUnreadable` as `read_text` does."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise SourceUnreadable(f"not valid {error.encoding} at byte {error.start}") from error
    except (SyntaxError, LookupError, UnicodeError) as error:
        raise SourceUnreadable(_reason(f"encoding: {error}")) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


# Two trees, since the capabilities that need one follow each other on the same file and parsing is most of their cost.
# The text is the key, so that a changed file is never answered with an old tree. Nobody may alter a tree.
@lru_cache(maxsize=2)
def syntax_tree(text: str) -> ast.Module:
    """The syntax tree of a module. Raises `SourceUnreadable` if this Python's grammar refuses the text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the parser would warn of is the business of whoever owns the file
            return ast.parse(text)
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        raise SourceUnreadable(_reason(f"{where}{error.msg}")) from error
    except ValueError as error:
        raise SourceUnreadable(_reason(str(error))) from error
    except (RecursionError, MemoryError) as error:
        raise SourceUnreadable("nested too deeply for the parser") from error


def _reason(message: str) -> str:
    text = message.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= REASON_CHARS_MAX else text[: REASON_CHARS_MAX - 1] + "…"


_TOKEN = re.compile(
    r"""
      [^\W\d]\w*+(?!["'])                                                       # name or keyword
    | [(){}\[\],] | \n | \.(?![.\d]) | \#[^\n]*+ | \\\n
    | (?:[rRbBuUfFtT]|[bBfFtT][rR]|[rR][bBfFtT])?                               # string, prefixed or not
      (?: \"\"\"[^"\\]*+(?:(?:\\.|"(?!""))[^"\\]*+)*+(?:\"\"\"|\Z|\\\Z)
        | '''[^'\\]*+(?:(?:\\.|'(?!''))[^'\\]*+)*+(?:'''|\Z|\\\Z)
        | "[^"\\\n]*+(?:\\.[^"\\\n]*+)*+(?:"|(?=\n)|\Z|\\\Z)
        | '[^'\\\n]*+(?:\\.[^'\\\n]*+)*+(?:'|(?=\n)|\Z|\\\Z) )
    | [^\W\d]\w*+
    | 0[xXoObB]\w++                                                             # number
    | (?:\d[\d_]*+\.?[\d_]*+|\.\d[\d_]*+)(?:[eE][-+]?\d[\d_]*+)?\w*+
    | \.\.\. | \*\*=? | //=? | >>=? | <<=? | != | -> | := | [-+*/%@&|^=<>]=     # operators of several characters
    | [^\s\w]                                                                   # and of one
    """,
    re.VERBOSE | re.DOTALL,
)


def lexemes(text: str) -> list[str]:
    """The tokens of a text in order: names, numbers, strings, operators, comments, newlines and joined lines.

    Made for counting and comparing at a fifth of the cost of `tokenize`: it never fails, so that texts which do not
    parse have tokens as well (a string without an end goes on to that of its line, or of the text if it is one of
    several lines: a second try from the next quote would take quadratic time), and it takes an f-string as one token on
    every version of Python.
    """
    return _TOKEN.findall(text)


_NO_NODES_IN = frozenset({"ctx", "op", "ops", "id", "attr", "kind", "type_comment", "type_ignores"})

CHILD_FIELDS: dict[type, tuple[str, ...]] = {
    kind: () if kind is ast.Constant else tuple(name for name in kind._fields if name not in _NO_NODES_IN)
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
}
"""The fields of each kind of node that can hold nodes worth a visit. A walk asks with `.get(type(value), ())`, since
some fields hold a node, a name or nothing. (`ast.walk` costs five times as much.)"""
