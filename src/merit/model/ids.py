"""Ids of tasks: UUID version 7 (RFC 9562) in the usual text form, made by the client."""

from __future__ import annotations

import re

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

is_task_id = _UUID7.fullmatch
"""Truthy when the text is a UUID version 7 in lower case."""


def make_id(time_ns: int, random: bytes) -> str:
    """A UUID version 7.

    Args:
        time_ns: Unix time; kept to the millisecond, so that ids sort by the time at which they were made.
        random: 10 random bytes.
    """
    text = f"{time_ns // 1_000_000:012x}{random.hex()}"
    return f"{text[:8]}-{text[8:12]}-7{text[13:16]}-{'89ab'[random[2] & 3]}{text[17:20]}-{text[20:]}"


def id_time_ns(task_id: str) -> int:
    """When the id was made, to the millisecond, by the clock of whoever made it."""
    return int(task_id[:8] + task_id[9:13], 16) * 1_000_000
