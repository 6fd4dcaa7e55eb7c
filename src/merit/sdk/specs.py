"""What a program says of a task, as the spec that goes to the control plane."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from merit.model.ids import make_id
from merit.model.limits import ATTEMPTS_MAX, SECOND_NS, SUBMIT_BYTES_MAX, SUBMIT_TASKS_MAX
from merit.model.tasks import Priority, TaskSpec
from merit.sdk.handles import TaskHandle

_IDS_AT_ONCE = 1_024
_RUN_TIMEOUT_S_MAX = 2**63 / SECOND_NS - 1


class SpecMaker:
    """Makes specs, each with a new id."""

    def __init__(self) -> None:
        self._random = b""
        self._used = 0

    def make(
        self,
        capability: str,
        data: bytes,
        priority: Priority | str,
        run_timeout_s: float,
        attempts_max: int,
        after: Iterable[str | TaskHandle],
        description: str,
        blob: str = "",
    ) -> TaskSpec:
        """A spec with parameters ``data`` (encoded), or with those that the blob store has under ``blob``.

        Raises:
            ValueError: a field has a value that no frame can carry. It is found here, since a frame that cannot be
                made would be the end of the stream, for all other tasks too; the rest is for the door to judge.
        """
        if not isinstance(priority, Priority):
            priority = _priority(priority)
        if not abs(run_timeout_s) <= _RUN_TIMEOUT_S_MAX:
            raise ValueError(f"run_timeout_s: {run_timeout_s:g} is not above 0 and at most a year")
        if not isinstance(attempts_max, int) or not 0 <= attempts_max < 2**31:
            raise ValueError(f"attempts_max: {attempts_max!r} is no whole number between 1 and {ATTEMPTS_MAX}")
        needed = tuple(item.id if isinstance(item, TaskHandle) else item for item in after) if after else ()
        for field, text in (("capability", capability), ("description", description), *(("after", i) for i in needed)):
            check_text(field, text)
        return TaskSpec(
            self._make_id(),
            capability,
            data,
            blob,
            priority,
            round(run_timeout_s * SECOND_NS),
            attempts_max,
            needed,
            description,
        )

    def _make_id(self) -> str:
        if self._used == len(self._random):
            self._random, self._used = os.urandom(10 * _IDS_AT_ONCE), 0
        self._used += 10
        return make_id(time.time_ns(), self._random[self._used - 10 : self._used])


def encode_parameters(parameters: Mapping[str, Any]) -> bytes:
    """A JSON object.

    Raises:
        ValueError: something in it is not JSON.
    """
    try:
        # NaN and infinities come out as such, and the door refuses them by name, instead of turning into null here.
        return to_json(parameters, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError) as error:
        raise ValueError(f"parameters: not JSON: {error}") from None


def atomic_parts(specs: list[TaskSpec]) -> Iterable[list[TaskSpec]]:
    """Specs in parts that the control plane takes as a whole or not at all."""
    part: list[TaskSpec] = []
    size = 0
    for spec in specs:
        weight = spec.frame_bytes
        if part and (len(part) == SUBMIT_TASKS_MAX or size + weight > SUBMIT_BYTES_MAX):
            yield part
            part, size = [], 0
        part.append(spec)
        size += weight
    if part:
        yield part


def check_text(field: str, text: str) -> None:
    """Raise ``ValueError`` for what cannot be sent as text."""
    if not isinstance(text, str):
        raise ValueError(f"{field}: must be text, not {type(text).__name__}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{field}: is not valid Unicode: {error.reason}") from None


def _priority(name: str | int) -> Priority:
    try:
        return Priority[name.upper()] if isinstance(name, str) else Priority(name)
    except (KeyError, ValueError):
        raise ValueError(f"priority: {name!r} is none of {', '.join(item.name for item in Priority)}") from None
