"""What a program says of a task, as the spec that goes to the control plane."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from merit.model.ids import make_id
from merit.model.limits import SUBMIT_BYTES_MAX, SUBMIT_TASKS_MAX
from merit.model.tasks import TaskSpec
from merit.sdk.options import USUAL, Prepared, check_text

_IDS_AT_ONCE = 1_024


class SpecMaker:
    """Makes specs, each with a new id."""

    def __init__(self) -> None:
        self._random = b""
        self._used = 0

    def make(self, capability: str, data: bytes, prepared: Prepared = USUAL, blob: str = "") -> TaskSpec:
        """A spec with parameters ``data`` (encoded), or with those that the blob store has under ``blob``.

        Raises:
            ValueError: the capability's name cannot be sent.
        """
        check_text("capability", capability)
        return prepared.spec(self._make_id(), capability, data, blob)

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
