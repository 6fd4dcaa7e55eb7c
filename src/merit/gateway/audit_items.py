"""What the gateway and the process that makes checks say to each other: each message with its length before it."""

from __future__ import annotations

import struct
from typing import Final

from msgspec import Struct

from merit.model.auditing import AuditPolicy
from merit.model.limits import AUDIT_REASON_LENGTH_MAX

LENGTH: Final = struct.Struct("<I")


class AuditItem(Struct, frozen=True, array_like=True):
    """One result, and what there is to know of it."""

    task: str
    capability: str
    priority: int
    worker: str
    took_ns: int
    parameters: bytes
    inputs: tuple[tuple[str, bytes], ...]
    """More parameters."""
    result: bytes
    trail: bytes = b""

    @property
    def weight_bytes(self) -> int:
        """Roughly what it takes."""
        contents = (self.parameters, self.result, self.trail, *(result for _, result in self.inputs))
        return 200 + sum(map(len, contents))


class AuditBatch(Struct, frozen=True, array_like=True):
    """What the process is asked. It answers with a ``PolicyProblem``, and with a tuple of findings for each item."""

    policy: AuditPolicy
    items: tuple[AuditItem, ...] = ()


class PolicyProblem(Struct, frozen=True, array_like=True):
    """Why a policy cannot be carried out; without a reason it can be."""

    field: str = ""
    reason: str = ""


def brief(text: str) -> str:
    """A reason, whatever it quotes."""
    return text if len(text) <= AUDIT_REASON_LENGTH_MAX else text[: AUDIT_REASON_LENGTH_MAX - 1] + "…"
