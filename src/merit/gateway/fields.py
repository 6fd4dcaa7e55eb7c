"""Checks of single fields: each names the field and says why it cannot be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from merit.model.ids import is_task_id
from merit.model.limits import AMOUNT_THOUSANDTHS_MAX, NAME_LENGTH_MAX, RESOURCES_MAX
from merit.model.workers import Amount

_HEX_DIGEST_LENGTH: Final = 64


class BadField(Exception):
    """A field that cannot be."""

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}")


def check_text(field: str, text: str, length_min: int, length_max: int) -> None:
    """A text of a length within the bounds, without control characters."""
    if not length_min <= len(text) <= length_max:
        raise BadField(field, f"has {len(text):,} characters; {length_min} to {length_max:,} are allowed")
    if not text.isprintable() and any(ord(char) < 32 and char not in "\n\t" for char in text):
        raise BadField(field, "has control characters")


def check_name(field: str, name: str) -> None:
    """The name of something; not empty."""
    check_text(field, name, 1, NAME_LENGTH_MAX)


def check_range(field: str, number: int, least: int, most: int) -> None:
    """A number within the bounds, both of which are allowed."""
    if not least <= number <= most:
        raise BadField(field, f"{number:,} is not between {least:,} and {most:,}")


def check_distinct(field: str, names: Iterable[str]) -> None:
    """Names of which each stands once."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadField(field, f"{name!r} stands twice")
        seen.add(name)


def check_words(field: str, words: tuple[str, ...], count_max: int) -> None:
    """Tags and the like: a bounded number of them, none empty."""
    if len(words) > count_max:
        raise BadField(field, f"more than {count_max}")
    for word in words:
        check_name(field, word)


def check_amounts(field: str, amounts: tuple[Amount, ...]) -> None:
    """Resources: a bounded number of them, each once, in amounts that can be reckoned with."""
    if len(amounts) > RESOURCES_MAX:
        raise BadField(field, f"more than {RESOURCES_MAX}")
    for amount in amounts:
        check_name(field, amount.name)
        if not 0 <= amount.thousandths <= AMOUNT_THOUSANDTHS_MAX:
            reason = f"{amount.thousandths:,} thousandths of {amount.name} are not 0 to {AMOUNT_THOUSANDTHS_MAX:,}"
            raise BadField(field, reason)
    check_distinct(field, (amount.name for amount in amounts))


def check_digest(field: str, digest: str) -> None:
    """A SHA-256 digest."""
    if len(digest) != _HEX_DIGEST_LENGTH or not set(digest) <= set("0123456789abcdef"):
        raise BadField(field, "must be a SHA-256 digest in lower-case hexadecimal")


def check_id(field: str, text: str) -> None:
    """The id of a task."""
    if not is_task_id(text):
        raise BadField(field, "must be a UUID version 7 in lower case")
