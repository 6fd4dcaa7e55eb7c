"""One form for all JSON that says the same, so that it can be compared, counted and named by its digest.

As in RFC 8785 there is no space, and fields are in the order of the UTF-16 code units of their names. Unlike there, numbers keep
all of their digits: whole ones are written as such however they came (``1.0`` as ``1``), others as the shortest decimal
that is read back as the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from json import dumps
from typing import Any, Final

from merit.model.auditing import Lists
from merit.model.limits import COMPARISON_STEPS_MAX, JSON_DEPTH_MAX

_ANY: Final = "*"
_Ignored = dict[str, Any]
"""Names of fields and elements, with what is ignored in them; with nothing in it, they are themselves."""


class TooMuch(Exception):
    """There is more to be looked at than anybody has time for. The message says what."""


class Steps:
    """Counts what is looked at."""

    def __init__(self, most: int = COMPARISON_STEPS_MAX) -> None:
        self._left = most

    def take(self, count: int = 1, depth: int = 0) -> None:
        """Raises ``TooMuch`` if these are more than there may be, or they are nested too deeply."""
        self._left -= count
        if self._left < 0:
            raise TooMuch("too large")
        if depth > JSON_DEPTH_MAX:
            raise TooMuch(f"nested deeper than {JSON_DEPTH_MAX} levels")


def ignored(pointers: Sequence[str]) -> _Ignored:
    """What is to be left out.

    Args:
        pointers: JSON Pointers (RFC 6901), in which ``*`` stands for any field or element, besides one of that name.

    Raises:
        ValueError: One that is none, or names everything.
    """
    tree: _Ignored = {}
    for pointer in pointers:
        if not pointer.startswith("/"):
            raise ValueError(
                f"{pointer!r} is no JSON Pointer to something within a result; write /field, /list/0 or /list/*/field"
            )
        names = [name.replace("~1", "/").replace("~0", "~") for name in pointer[1:].split("/")]
        below = tree
        for number, name in enumerate(names):
            known = name in below
            if known and not below[name]:
                break  # it goes as a whole
            if number == len(names) - 1:
                below[name] = {}
            else:
                below = below.setdefault(name, {})
    return tree


def without(value: Any, tree: _Ignored, steps: Steps, depth: int = 0) -> Any:
    """The value without what is ignored in it; unchanged itself. Raises ``TooMuch``."""
    steps.take(1, depth)
    if not tree:
        return value
    if isinstance(value, dict):
        return {name: _below(one, tree, name, steps, depth) for name, one in value.items() if not _goes(tree, name)}
    if isinstance(value, list):
        return [
            _below(one, tree, str(number), steps, depth)
            for number, one in enumerate(value)
            if not _goes(tree, str(number))
        ]
    return value


def _goes(tree: _Ignored, name: str) -> bool:
    return any(one in tree and not tree[one] for one in (name, _ANY))


def _below(value: Any, tree: _Ignored, name: str, steps: Steps, depth: int) -> Any:
    for one in (name, _ANY) if name != _ANY else (name,):
        if one in tree:
            value = without(value, tree[one], steps, depth + 1)
    return value


def canonical(value: Any, lists: Lists = Lists.ORDERED, steps: Steps | None = None) -> str:
    """The canonical form of decoded JSON, in ASCII. In lists that are sets the order is that of the forms of the elements.

    Raises:
        TooMuch: It is too large, or nested too deeply.
    """
    return _form(value, lists, steps or Steps(), 0)


def digest(form: str) -> str:
    """A name for what has this canonical form: 32 hexadecimal digits."""
    return sha256(form.encode()).hexdigest()[:32]


def _form(value: Any, lists: Lists, steps: Steps, depth: int) -> str:
    steps.take(1, depth)
    if isinstance(value, dict):
        fields = sorted(value.items(), key=_by_name)
        return "{" + ",".join(f"{dumps(name)}:{_form(one, lists, steps, depth + 1)}" for name, one in fields) + "}"
    if isinstance(value, list):
        forms = [_form(one, lists, steps, depth + 1) for one in value]
        if lists is not Lists.ORDERED:
            forms = sorted(set(forms) if lists is Lists.SETS else forms)
        return "[" + ",".join(forms) + "]"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return dumps(value)


def _by_name(field: tuple[str, Any]) -> bytes:
    return field[0].encode("utf-16-be", "surrogatepass")
