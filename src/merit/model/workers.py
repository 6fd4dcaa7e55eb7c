"""Workers and what they can do."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct


class WorkerState(IntEnum):
    """Life of a worker as the journal knows it. Being connected is not part of it: that is soft state."""

    ACTIVE = 1
    DRAINING = 2
    GONE = 3
    """Left or lost, and forgotten."""


class Offer(Struct, frozen=True, array_like=True, gc=False):
    """A capability as one worker offers it. Schemas are JSON Schema 2020-12 in UTF-8; empty: anything."""

    name: str
    version: str = "1.0.0"
    description: str = ""
    input_schema: bytes = b""
    output_schema: bytes = b""
    tags: tuple[str, ...] = ()
    safe_to_repeat: bool = True
    """False: an attempt that may have started is never followed by another one."""
    heartbeat_timeout_ns: int = 0
    """How long an attempt may run without a sign of progress; 0: as long as its run time-out."""


class Worker(Struct, array_like=True, gc=False):
    """A worker that has joined. ``attempts`` maps the task of each live attempt to the attempt's number."""

    id: str
    boot: str
    tenant: str
    offers: tuple[Offer, ...]
    concurrency: int
    tags: tuple[str, ...]
    joined_ns: int
    state: WorkerState
    attempts: dict[str, int]
