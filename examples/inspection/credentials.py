"""Secrets that were left in a source file: recognised by their form and by their entropy, and never repeated."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TypedDict

from .source import SourceUnreadable, read_text

MATCHES_MAX = 100


class SecretMatch(TypedDict):
    """Where a secret stands, what it looks like, and so much of it as helps to find it again but not to use it."""

    line: int
    kind: str
    redacted: str


class SecretMatches(TypedDict):
    """The secrets in a file, by line; `reason` in words if it is no text. `total` counts those beyond the bound too."""

    parsed: bool
    reason: str
    secrets: list[SecretMatch]
    total: int


@dataclass(frozen=True, slots=True)
class SecretPattern:
    """A kind of secret.

    `needles` are lower-case strings one of which must be in the text for the pattern to be tried: that is most of the
    speed. The group `secret` (or else the whole match) must have `entropy_bits_min` per character; its first `shown`
    characters, which are the same for all of its kind, may be repeated.
    What stands before the match must end in `named`, if that is given: the search then starts at the rarer character.
    """

    kind: str
    needles: tuple[str, ...]
    pattern: re.Pattern[str]
    entropy_bits_min: float = 3.0
    shown: int = 4
    named: re.Pattern[str] | None = None


_NAMED_SO = re.compile(
    r"(?i)(?:password|passwd|secret|secret_?key|api_?key|access_?(?:key|token)|auth_?(?:key|token))"
    r"""["']?\]?\s{0,5}(?::\s{0,5}str\s{0,5})?$"""
)
_NAME_CHARS_MAX = 60

PATTERNS = (
    SecretPattern(
        "private key",
        ("private key-----", "private key block-----"),
        re.compile(
            r"-----BEGIN (?:[A-Z]{2,9} ){0,2}PRIVATE KEY(?: BLOCK)?-----(?:\s|\\n|[\"'+,\\])*(?P<secret>[A-Za-z0-9+/=]{40,})"
        ),
        entropy_bits_min=3.5,
        shown=0,
    ),
    SecretPattern("AWS access key", ("akia", "asia"), re.compile(r"\b(?P<secret>(?:AKIA|ASIA)[A-Z2-7]{16})\b")),
    SecretPattern(
        "AWS secret key",
        ("aws",),
        re.compile(r"(?i)aws[a-z_ .\"'\]-]{0,30}[:=]\s{0,5}[\"'](?P<secret>[a-z0-9/+]{40})[\"']"),
        entropy_bits_min=4.0,
        shown=0,
    ),
    SecretPattern(
        "GitHub token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        re.compile(r"\b(?P<secret>gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{40,255})\b"),
    ),
    SecretPattern("GitLab token", ("glpat-",), re.compile(r"\b(?P<secret>glpat-[A-Za-z0-9_-]{20,64})"), shown=6),
    SecretPattern("Slack token", ("xox",), re.compile(r"\b(?P<secret>xox[abeoprs]-[A-Za-z0-9-]{20,200})")),
    SecretPattern(
        "Slack webhook",
        ("hooks.slack.com",),
        re.compile(r"hooks\.slack\.com/services/(?P<secret>T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{20,})"),
        shown=0,
    ),
    SecretPattern("Google API key", ("aiza",), re.compile(r"\b(?P<secret>AIza[A-Za-z0-9_-]{35})(?![A-Za-z0-9_-])")),
    SecretPattern("Stripe key", ("k_live_",), re.compile(r"\b(?P<secret>[rs]k_live_[A-Za-z0-9]{20,200})\b"), shown=8),
    SecretPattern("PyPI token", ("pypi-ageic",), re.compile(r"\b(?P<secret>pypi-AgEIc[A-Za-z0-9_-]{50,500})"), shown=5),
    SecretPattern("npm token", ("npm_",), re.compile(r"\b(?P<secret>npm_[A-Za-z0-9]{36})\b")),
    SecretPattern(
        "model provider key",
        ("sk-",),
        re.compile(r"\b(?P<secret>sk-(?:proj-|ant-|svcacct-)?[A-Za-z0-9_-]{32,200})"),
        entropy_bits_min=3.8,
        shown=3,
    ),
    SecretPattern(
        "JSON web token",
        ("eyj",),
        re.compile(r"\b(?P<secret>eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{20,1000})"),
        shown=3,
    ),
    SecretPattern(
        "password in a URL",
        ("://",),
        re.compile(r"://[^\s:/@\"'<>{}%$]{1,64}:(?P<secret>[^\s/@\"'<>{}%$]{6,128})@[\w.-]+"),
        entropy_bits_min=2.5,
        shown=0,
    ),
    SecretPattern(
        "credential in an assignment",
        ("password", "passwd", "secret", "key", "token"),
        re.compile(r"""[=:]\s{0,5}[bru]?(?P<quote>["'])(?P<secret>[A-Za-z0-9+/=_.~!@#$%^&*-]{8,200})(?P=quote)"""),
        entropy_bits_min=3.3,
        shown=0,
        named=_NAMED_SO,
    ),
)

_PLACEHOLDER = re.compile(
    r"(?i)pass|secret|token|example|sample|change_?me|dummy|placeholder|your|default|xxxx|1234567|abcdef|foobar|test"
)


def look_for_secrets(path: str, root: str = "") -> SecretMatches:
    """The secrets in the file at `path` (see `source.locate` for the two arguments, and for the errors)."""
    try:
        text = read_text(path, root)
    except SourceUnreadable as error:
        return SecretMatches(parsed=False, reason=str(error), secrets=[], total=0)
    return look_for_secrets_in_text(text)


def look_for_secrets_in_text(text: str) -> SecretMatches:
    """The secrets in a text. One that two patterns recognise is reported by the first, which is the more exact."""
    lowered = text.lower()
    found: dict[tuple[int, int], SecretMatch] = {}
    for pattern in PATTERNS:
        if not any(needle in lowered for needle in pattern.needles):
            continue
        for match in pattern.pattern.finditer(text):
            secret = match["secret"]
            start, end = match.span("secret")
            if pattern.named and not pattern.named.search(
                text[max(0, match.start() - _NAME_CHARS_MAX) : match.start()]
            ):
                continue
            if _is_placeholder(secret, pattern) or any(start < last and first < end for first, last in found):
                continue
            found[start, end] = SecretMatch(
                line=text.count("\n", 0, match.start()) + 1,
                kind=pattern.kind,
                redacted=redact(secret, pattern.shown),
            )
            if len(found) >= 10 * MATCHES_MAX:  # a file of keys: its number matters no more
                break
    return SecretMatches(
        parsed=True,
        reason="",
        secrets=[match for _, match in sorted(found.items(), key=lambda item: item[0])[:MATCHES_MAX]],
        total=len(found),
    )


def redact(secret: str, shown: int) -> str:
    """A secret as it may be shown: its first `shown` characters and its length in characters, nothing else of it."""
    return f"{secret[:shown]}… ({len(secret)} characters)"


def entropy_bits(text: str) -> float:
    """Bits per character of a text, by the frequencies of its own characters (C. E. Shannon, 1948)."""
    length = len(text)
    return sum(count / length * math.log2(length / count) for count in Counter(text).values())


def _is_placeholder(secret: str, pattern: SecretPattern) -> bool:
    """Whether a match is too regular to be random, or says itself that it is none.

    Words are looked for only in what has no form of its own: in a long random key they can stand by chance.
    """
    if entropy_bits(secret) < pattern.entropy_bits_min:
        return True
    if pattern.kind == "private key":
        return False
    if len(secret) >= 60:
        return "example" in secret.lower()
    if _PLACEHOLDER.search(secret):
        return True
    # A credential without a form of its own is told from a name or a path by its mixture of characters.
    return pattern.kind == "credential in an assignment" and not (
        any(one.isdigit() for one in secret) and any(one.isalpha() for one in secret)
    )
