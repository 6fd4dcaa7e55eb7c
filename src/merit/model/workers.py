"""Workers, what they can do, and what is known of them beyond their being here."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from msgspec import Struct, field

from merit.model.supervision import Conduct
from merit.model.track_record import TrackRecord

UNCOUNTED: Final = frozenset({"cpu", "memory", "network"})
"""Resources of which a worker that says nothing is taken to have enough; of all others it then has none."""
PERMILLE: Final = 1_000
PREFERENCE_PERMILLE_DEFAULT: Final = 500


class WorkerState(IntEnum):
    """Life of a worker as the journal knows it. Being connected is not part of it: that is soft state."""

    ACTIVE = 1
    """Idle or busy, as its attempts say."""
    DRAINING = 2
    GONE = 3
    """Left or lost, and not here any more; its profile is kept."""
    PROBATION = 4
    """Tried with small known tasks; gets nothing else until it has passed."""
    PAUSED = 5
    """Finishes what it holds and gets nothing until it is resumed."""


class Amount(Struct, frozen=True, array_like=True, gc=False, order=True):
    """So much of a resource: ``cpu`` in cores, ``memory`` in bytes, ``network`` in bytes a second, ``gpu`` in devices, and
    whatever else somebody gives a name to. In thousandths, since the machine does not reckon in fractions."""

    name: str
    thousandths: int


class Offer(Struct, frozen=True, array_like=True, gc=False):
    """A capability as one worker offers it. Schemas are JSON Schema 2020-12 in UTF-8; empty: anything."""

    name: str
    version: str = "1.0.0"
    """Semantic version 2.0.0."""
    description: str = ""
    input_schema: bytes = b""
    output_schema: bytes = b""
    tags: tuple[str, ...] = ()
    safe_to_repeat: bool = True
    """False: an attempt that may have started is never followed by another one."""
    heartbeat_timeout_ns: int = 0
    """How long an attempt may run without a sign of progress; 0: as long as its run time-out."""
    resources: tuple[Amount, ...] = ()
    """What one attempt needs while it lives."""
    concurrency_max: int = 0
    """Attempts at this capability that the worker makes at a time; 0: as many as its room allows."""
    cost_micros: int = 0
    """Of one task, in millionths of whatever the operator reckons in."""
    preference_permille: int = PREFERENCE_PERMILLE_DEFAULT
    """How much the worker likes this kind of work, 0 to 1,000."""
    stateful: bool = False
    """Tasks of one key stay on one worker."""
    requires: tuple[str, ...] = ()
    """What it depends on outside, for people to read."""


class Registration(Struct, frozen=True, array_like=True, gc=False):
    """What a worker of the unary contract has said of itself: Merit dials it, not the other way round."""

    name: str
    address: str
    """host:port of its WorkerService."""
    version: str
    offers: tuple[Offer, ...]
    concurrency: int
    tags: tuple[str, ...] = ()
    reopens: bool = False
    """Its tasks' streams may be opened again by another process of the control plane: attempts outlive a restart."""


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
    capacity: tuple[Amount, ...] = ()
    """What it has of each resource; see ``UNCOUNTED`` for what it does not name."""
    tenants: tuple[str, ...] = ()
    """Whose tasks it takes; empty: anybody's."""
    room: int = 0
    """How many more attempts it takes, as of the last decision for which that mattered (``RoomSeen``); 0: none, it is
    full, away, or has not been needed since."""
    given: int = 0
    """Sequence of the event that bound it to a task last: who was given nothing for longest has the lowest."""
    turn: int = 0
    """Sequence of the event that bound it, or ended an attempt of it, last: who has been as it is for longest, idle say, has
    the lowest."""
    reserved: str = ""
    """The task for which it keeps free what it frees; it is given nothing else meanwhile."""
    privileges: tuple[str, ...] = ()
    """Tags that it has not given to itself: what its record allows it."""

    def offer(self, capability: str) -> Offer | None:
        """What it offers under this name, or None."""
        for offer in self.offers:
            if offer.name == capability:
                return offer
        return None


class Profile(Struct, array_like=True, gc=False):
    """What is kept of a worker's identity while it comes and goes."""

    worker: str
    first_ns: int
    """When it joined, or registered, for the first time."""
    completed: int = 0
    failed: int = 0
    """Attempts that failed, were refused, timed out or were lost."""
    records: dict[str, TrackRecord] = field(default_factory=dict)
    """By capability: how it has done so far."""
    registration: Registration | None = None
    paused: bool = False
    removed: bool = False
    """Deactivated: it may not join until it is resumed."""
    reason: str = ""
    """Why it is paused or removed."""
    admitted: tuple[str, ...] = ()
    """Capabilities, with their versions (``name@version``), whose probes it has passed."""
    words: tuple[str, ...] = ()
    """Commands that it has yet to be told, oldest first."""
    conduct: Conduct = field(default_factory=Conduct)
