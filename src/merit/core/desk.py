"""What the rules of the machine work on: the state, what follows from it, soft state, and what has been decided.

The rules are functions over a desk, a file for each subject: ``submitting``, ``attempts``, ``retrying``, ``depending``,
``queueing``, ``staffing``, ``governing``, ``admission``, ``rollouts``, ``allocating``, ``dead_letters``, ``settings``,
``schedules``. ``machine`` says which command goes where.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from hashlib import sha256

from msgspec import Struct

from merit.allocation.strategy import MakeStrategy
from merit.core.apply import apply
from merit.core.backlog import Backlog
from merit.core.gates import Gates
from merit.core.lines import Lines
from merit.core.panel import BUILT_IN_PANEL, Panel
from merit.core.state import State
from merit.core.timers import Timers
from merit.model.effects import Effect
from merit.model.events import Event
from merit.model.limits import Limits
from merit.model.tasks import Progress, Refusal, Task
from merit.supervision.engine import FleetFigures


class Seat(Struct):
    """Soft state: a worker as this process sees it. ``granted`` and ``used`` count credits since it attached."""

    session: int = 0
    attached: bool = False
    granted: int = 0
    used: int = 0
    seen_ns: int = 0
    since_ns: int = 0
    """When it attached."""


class Desk:
    """See the module. ``timers``, ``backlog``, ``gates`` and ``lines`` follow from the state (but for what tenants and
    rates have used up); ``seats``, ``progress``, ``beats_ns`` and ``usual_ns`` are soft: true only of this process, never
    journalled.

    Args:
        state: where the journal ends.
        catalogue: by name, the strategies that there are.
        limits: bounds and times.
        panel: who reckons scores and reputations, and decides about workers.
    """

    def __init__(
        self,
        state: State,
        catalogue: Mapping[str, MakeStrategy],
        limits: Limits,
        panel: Panel = BUILT_IN_PANEL,
    ) -> None:
        self.state = state
        self.limits = limits
        self.panel = panel
        self.now_ns = 0
        self.quiet_until_ns = 0
        """Soft: until then nothing times out, since this process was asleep."""
        self.timers = Timers()
        self.gates = Gates(self.timers)
        self.backlog = Backlog(limits.ageing_ns, self.gates)
        self.ready: dict[str, None] = {}
        """Lines for which a task came or a worker may have got room since the last ``Allocate``."""
        self.lines = Lines(state, self.backlog, self.ready, catalogue)
        self.touched: dict[str, None] = {}
        """Workers whose room, or what they are at, may have changed since the last decision."""
        self.probing: dict[str, dict[str, bool | None]] = {}
        """By worker on probation: its probes by their tasks; whether each was right, None: not known yet."""
        self.probed: deque[Task] = deque()
        """Probes that have ended, for ``conclude``."""
        self.news: dict[str, None] = {}
        """Workers of which attempts have ended since they were rated, those first that wait for longest."""
        self.suspects: dict[str, list[bool]] = {}
        """Workers that have to be looked at when the command has been handled: of each attempt that has ended, whether it came
        out well."""
        self.tried: set[str] = set()
        """Workers whose next attempts decide about more than their score: on probation, or with a breaker that is not closed
        or was not long ago."""
        self.others: tuple[int, FleetFigures] | None = None
        """What is known of all workers together, and when that was looked at."""
        self.reported: deque[tuple[str, Task]] = deque()
        """Results that have just come of workers and capabilities that are audited."""
        self.reviewed: deque[Task] = deque()
        """Tasks by which results are looked at, that have ended."""
        self.orphans: deque[str] = deque()
        """Tasks by which results were looked at that do not matter any more."""
        self.reached: dict[str, deque[list[int]]] = {}
        """By capability with an objective, for each minute: its number, tasks that were done well and in time, tasks that
        ended. Soft: a new leader begins to count."""
        self.tested: dict[tuple[str, str], str] = {}
        """By worker and capability: the gold task that it has."""
        self.beating: set[str] = set()
        """Capabilities that some worker has offered with a heartbeat time-out."""
        self.beats_ns: dict[str, int] = {}
        """By task with a heartbeat time-out: when its attempt last showed a sign of progress."""
        self.usual_ns: dict[str, int] = {}
        """By capability: what its attempts took lately, as a moving average."""
        self.seats: dict[str, Seat] = {}
        self.progress: dict[str, Progress] = {}
        self.affected: deque[tuple[Task, str]] = deque()
        """Tasks that one which has ended concerns, and why they have to die, or nothing; for ``FollowUp``."""
        self.payloads: dict[bytes, bytes] = {}
        """Contents of the events emitted since the kernel last took them, by digest."""
        self.payload_bytes = 0
        self.cursor: object = None
        """The item being handled, for whoever has to name what made the machine stop."""
        self.events: list[Event] = []
        self.effects: list[Effect] = []
        self.refusals: list[Refusal] = []

    def orphan(self, task: Task) -> None:
        """The task is about to end; if its result is being looked at, those who do that need not any more."""
        if (case := self.state.cases.get(task.id)) is not None:
            self.orphans.extend(case.reviews)

    def emit(self, event: Event) -> None:
        """The one way in which anything changes."""
        apply(self.state, event, self.payloads, self.now_ns)
        self.events.append(event)

    def keep(self, content: bytes) -> bytes:
        """Keep a payload for the record that is being made; its digest (empty for nothing)."""
        if not content:
            return b""
        digest = sha256(content).digest()
        if digest not in self.payloads:
            self.payloads[digest] = content
            self.payload_bytes += len(content)
        return digest

    def take_payloads(self) -> dict[bytes, bytes]:
        """What was kept since the last call, for the record that is being closed."""
        payloads, self.payloads, self.payload_bytes = self.payloads, {}, 0
        return payloads
