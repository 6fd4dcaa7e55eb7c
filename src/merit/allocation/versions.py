"""Versions of capabilities, and the ranges of them that tasks ask for: Semantic Versioning 2.0.0 (https://semver.org).

A range is one condition, or several with commas between them that all have to hold: ``>=1.2,<2``. Conditions are ``==``
(or nothing), ``!=``, ``<``, ``<=``, ``>``, ``>=`` before a version of which the end may be left out or ``*``; ``^1.2.3``
(up to the next version that may break something), ``~1.2.3`` (of the same minor version). A pre-release counts where it
stands in the order, but those of a version that is just excluded do not: ``<2`` has 1.9.0-rc.1 and not 2.0.0-rc.1.
Nothing, or ``*``, is any version.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from semantic_version import SimpleSpec, Version  # type: ignore[import-untyped]  # ships no annotations

from merit.model.limits import NAME_LENGTH_MAX

BARS: Final = "!=="
"""Before a version that is barred, and no other: ``!=`` would bar its pre-releases too. Only the cell says this, of
versions that were introduced or aborted; tasks may not."""
_CACHED: Final = 4_096
"""Ranges, and versions; of pairs four times as many."""
_ANY: Final = frozenset({"==*", ">=*"})
_EQUAL: Final = re.compile(r"^={0,2}(?=[\d*])")
_AFTER_SIGN: Final = re.compile(r"(?<=[<>=~^]) +(?=[\d*])")


def problem_of_version(text: str) -> str | None:
    """Why this is no semantic version, or None."""
    if _plain(text) and _version(text) is not None:
        return None
    return f"{text[:NAME_LENGTH_MAX]!r} is no semantic version; write three numbers, such as 1.0.0 or 2.1.0-rc.1"


def problem_of_range(text: str) -> str | None:
    """Why this is no range of versions, or None."""
    if len(text) > NAME_LENGTH_MAX:
        return f"has {len(text):,} characters; {NAME_LENGTH_MAX} at most"
    if not normal_form(text) or _spec(text) is not None:
        return None
    bad = [block for block in text.split(",") if not block.strip(" ") or (normal_form(block) and _spec(block) is None)]
    return f"{(bad or [text])[0].strip(' ')!r} is no condition on a version; write >=1.2,<2 or ^1.2 or ==1.4.1"


def matches(wanted: str, version: str) -> bool:
    """Whether a version lies in a range, which may have conditions with ``BARS`` too. One that is no semantic version lies
    in none but that of any version; in what is no range lies nothing."""
    if BARS in wanted:
        blocks = wanted.split(",")
        if BARS + version in blocks:
            return False
        wanted = ",".join(block for block in blocks if not block.startswith(BARS))
    if not normal_form(wanted):
        return True
    return _plain(wanted) and _plain(version) and _lies_in(wanted, version)


def range_text(wanted: str) -> str:
    """A range for people, also with conditions that only the cell says."""
    blocks = wanted.split(",")
    asked = ",".join(block for block in blocks if not block.startswith(BARS))
    barred = [f"another than {block.removeprefix(BARS)}" for block in blocks if block.startswith(BARS)]
    return ", ".join([asked] * bool(asked) + barred)


def normal_form(text: str) -> str:
    """The same range in one spelling, so that those which say the same are equal: conditions in order, each once, without
    spaces, with their ``==``. Empty: any version. What is no range at all comes back as it is, and so does what would be
    too long to be one."""
    return _normal_form(text) if _plain(text) else text


def _plain(text: str) -> bool:
    """Whether it is worth being looked at, and kept: the library's patterns take digits of every script for digits, and let
    a line feed end a text."""
    return len(text) <= NAME_LENGTH_MAX and text.isascii() and text.isprintable()


@lru_cache(maxsize=_CACHED)
def _normal_form(text: str) -> str:
    if not text.strip(" "):
        return ""
    blocks = {_EQUAL.sub("==", _AFTER_SIGN.sub("", block.strip(" "))) for block in text.split(",")}
    if "" in blocks:
        return text
    # Backwards, so that it reads as people write it: what is at least, what is below, what is not.
    form = ",".join(sorted(blocks - _ANY, reverse=True))
    return form if len(form) <= NAME_LENGTH_MAX else text


@lru_cache(maxsize=4 * _CACHED)
def _lies_in(wanted: str, version: str) -> bool:
    spec, found = _spec(wanted), _version(version)
    return spec is not None and found is not None and bool(spec.match(found))


@lru_cache(maxsize=_CACHED)
def _spec(text: str) -> SimpleSpec | None:
    try:
        return SimpleSpec(normal_form(text)) if _plain(text) else None
    except ValueError:
        return None


@lru_cache(maxsize=_CACHED)
def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except ValueError:
        return None
