"""The cell's process: a loop around the kernel.

Whatever comes in wakes the loop; at its next turn everything that has come by then is one batch: handled, appended to
the journal, and only then let out. What comes after a while in which nothing came is a batch by itself, at once. On SQLite the append is inline; a journal across a network is awaited, with two records
on their way at most. Either way more comes in meanwhile, and so the batches grow with the load by themselves.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

from merit.core.desk import Desk
from merit.core.machine import Machine
from merit.core.state import KeyEntry, State
from merit.kernel.kernel import Kernel
from merit.kernel.quarantine import Quarantine
from merit.kernel.waiting import End, Lookup
from merit.model.commands import Command, PlanSchedule
from merit.model.effects import WorkOutTimes
from merit.model.frames import ClientFrame, Settled, WorkerFrame
from merit.model.record import Record, Tail
from merit.model.schedules import Schedule
from merit.model.tasks import Progress, Refusal
from merit.ports.cell import CellStopped, CellStream, ServerStream
from merit.ports.journal import Journal, OutcomeUnknown
from merit.runtime.elapsed import elapsed_s
from merit.session.cell_end import CellEnd
from merit.session.server_end import ServerEnd

log = logging.getLogger("merit")

_LOOK_S = 0.25
_SLEEP_S = 1.0
"""The loop never takes this long for one turn: if it seems to, the process was stopped."""

_IDLE_S = 0.0005
"""Without a batch for so long the cell has nothing to do: a loaded one makes one after the other."""

_ACK_WAIT_S = 0.02
"""How long an acknowledgement may wait for a frame that has more to say."""

_ON_THE_WAY_MAX = 2
"""Records that are on their way to the journal: one more only makes those behind it smaller."""

_LOOKED_UP_MAX = 1_000
"""Tasks that one search is about."""

Plan = Callable[[Schedule, int, int], tuple[int, ...]]
"""The next times of a schedule after a time, and now; called in a thread."""


class Finder(Protocol):
    """Looks for what the cell has forgotten in the journal, off the loop."""

    async def outcomes(self, ids: list[str], tenant: str) -> list[Settled]:
        """Of those of the tasks that are final and the tenant's own."""
        ...

    async def keys(self, wanted: list[tuple[str, str]]) -> dict[tuple[str, str], KeyEntry]:
        """What idempotency keys stand for."""
        ...


class CellLoop:
    """Runs one cell on the running event loop; implements ``merit.ports.cell.Cell``.

    Args:
        machine: at the end of the journal.
        journal: led already; ``tail`` is what leading it returned.
        holder: this leader's name.
        quarantine: what stopped the cell before.
        finder: reads what the cell has forgotten.
        plan: works out when schedules are due.
        clock: Unix time in nanoseconds.
    """

    def __init__(
        self,
        machine: Machine,
        journal: Journal,
        tail: Tail,
        holder: str,
        quarantine: Quarantine,
        finder: Finder,
        plan: Plan,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._kernel = Kernel(journal.cell, machine, tail, holder, quarantine, secrets.token_bytes(16))
        self._machine = machine
        self._journal = journal
        self._finder = finder
        self._plan = plan
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._wanted: dict[str, deque[tuple[ServerEnd, str]]] = {}
        """By tenant: tasks that the cell has forgotten and somebody waits for, while others are looked for."""
        self._streams: dict[End, CellStream | ServerStream] = {}
        self._answers: dict[int, asyncio.Future[list[Refusal]]] = {}
        self._scheduled = False
        self._turned_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._ack_timer: asyncio.TimerHandle | None = None
        self._onlookers: dict[object, Callable[[AbstractSet[str]], None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_the_way: deque[tuple[asyncio.Future[None], int]] = deque()
        """Appends that are not durable yet, in their order, with the last sequence of each."""
        self._settling: list[tuple[int, asyncio.Future[None]]] = []
        """Who waits for a sequence to be durable."""
        self._leads_until_s = math.inf
        self._looked_s = elapsed_s()
        self.failed: asyncio.Future[BaseException] = self._loop.create_future()
        """Done with the reason when the cell has stopped by itself."""
        self.started_ns = clock()
        self._wake()
        self._spawn(self._look())

    # What the gateway reads

    @property
    def name(self) -> str:
        """Of the cell."""
        return self._kernel.cell

    @property
    def state(self) -> State:
        """To be read only."""
        return self._machine.state

    @property
    def progress(self) -> dict[str, Progress]:
        """By task: the last word on how far its attempt is."""
        return self._machine.progress

    @property
    def desk(self) -> Desk:
        """State, backlog and what else the rules go by; to be read only."""
        return self._machine

    @property
    def attached(self) -> set[str]:
        """Workers that have a stream now."""
        return {name for name, seat in self._machine.seats.items() if seat.attached}

    # Leading on a lease

    def leads_until(self, until_s: float) -> None:
        """The lease holds until then, by ``elapsed_s``; said again each time that it is renewed. After it, nothing
        is let out and nothing is told: somebody else may lead. One who is never told so leads until he is stopped."""
        self._leads_until_s = until_s
        self._wake()

    def check_lease(self) -> None:
        """Raises ``CellStopped`` when somebody else may lead by now: what the state says may be over."""
        if self._may_be_over():
            raise CellStopped("the lease is over: another node may lead by now")

    async def settled(self) -> None:
        """Returns when all that is in the state now is durable: whoever has read it waits before he tells it.

        Raises:
            CellStopped: that did not come about, or somebody else may lead by now.
        """
        sequence = self._machine.state.sequence
        if sequence > self._kernel.durable:
            self._check()
            future: asyncio.Future[None] = self._loop.create_future()
            self._settling.append((sequence, future))
            self._wake()
            await future
        self.check_lease()

    @property
    def now_ns(self) -> int:
        """The present, Unix time."""
        return self._clock()

    # What comes in

    def open_worker(self, end: CellEnd, stream: CellStream) -> None:
        """A worker's stream has been opened."""
        self._streams[end] = stream

    def worker_frame(self, end: CellEnd, frame: WorkerFrame) -> None:
        """Take a frame; raises ``ProtocolViolation`` and ``CellStopped``."""
        self._check()
        self._kernel.worker_frame(end, frame)
        self._hear()

    def close_worker(self, end: CellEnd) -> None:
        """A worker's stream has ended."""
        self._streams.pop(end, None)
        if not self.failed.done():
            self._kernel.worker_gone(end)
            self._wake()

    def open_client(self, end: ServerEnd, stream: ServerStream) -> None:
        """A client's stream has been opened."""
        self._streams[end] = stream

    def client_frame(self, end: ServerEnd, frame: ClientFrame, refusals: list[Refusal]) -> None:
        """Take a frame and what the door refused of it; raises ``ProtocolViolation`` and ``CellStopped``."""
        self._check()
        self._kernel.client_frame(end, frame, refusals)
        self._hear()

    def close_client(self, end: ServerEnd) -> None:
        """A client's stream has ended."""
        self._streams.pop(end, None)
        self._kernel.client_gone(end)

    async def command(self, command: Command) -> list[Refusal]:
        """Have a command carried out; what was refused, once the rest is durable. Raises ``CellStopped``."""
        self._check()
        future: asyncio.Future[list[Refusal]] = self._loop.create_future()
        self._answers[self._kernel.offer(command)] = future
        self._wake()
        return await future

    def watch_workers(self, told: Callable[[AbstractSet[str]], None]) -> Callable[[], None]:
        """Have somebody told of the workers to which something has happened; call what is returned to end it."""
        key = object()
        self._onlookers[key] = told
        self._kernel.watched = True

        def end() -> None:
            self._onlookers.pop(key, None)
            self._kernel.watched = bool(self._onlookers)

        return end

    # The loop

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _hear(self) -> None:
        """A frame has come in. Where nothing has for a while, nothing else is about to, and it need not wait for company."""
        if self._scheduled or time.monotonic() - self._turned_s < _IDLE_S:
            self._wake()
        else:
            self._run()

    def _run(self) -> None:
        self._scheduled = False
        self._turned_s = time.monotonic()
        # Whoever has to wait is woken by what it waits for: a commit, or the lease.
        if self.failed.done() or len(self._on_the_way) == _ON_THE_WAY_MAX or self._may_be_over():
            return
        try:
            self._turn()
        except Exception as error:  # noqa: BLE001  (whatever it is: nothing that is not durable may get out after it)
            self._stop(error)
            return
        if self._kernel.busy:
            self._wake()
        self._set_timer()

    def _turn(self) -> None:
        """One batch."""
        # Before the batch: its turn may come before that of the task that looks now and then.
        self._notice_sleep()
        record = self._kernel.step(self._clock())
        if record is not None:
            self._append(record)
        self._let_out()

    def _append(self, record: Record) -> None:
        durable = self._journal.append(record)
        if durable is None:
            self._kernel.committed(record.last)
            return
        self._on_the_way.append((asyncio.ensure_future(durable), record.last))
        if len(self._on_the_way) == 1:
            self._spawn(self._commit())

    async def _commit(self) -> None:
        """Commit what is on its way, in order. The first that fails ends the cell; what is behind it never gets out."""
        while self._on_the_way:
            durable, last = self._on_the_way[0]
            try:
                await durable
                if self.failed.done():
                    return
                self._on_the_way.popleft()
                self._kernel.committed(last)
                self._let_out()
            except Exception as error:  # noqa: BLE001  (as in _run)
                self._stop(error)
                return
            except asyncio.CancelledError:
                self._stop(OutcomeUnknown(f"the append of the record up to {last} was cut off"))
                raise
            self._wake()

    def _acknowledge(self) -> None:
        """Say what could wait."""
        self._ack_timer = None
        if not self.failed.done():
            self._let_out(acks=True)

    def _let_out(self, *, acks: bool = False) -> None:
        if self._may_be_over():
            return
        streams = self._streams
        for end, frame in self._kernel.outgoing(acks=acks):
            stream = streams.get(end)
            if stream is not None:
                stream.deliver(frame)  # type: ignore[arg-type]  # each end gives the frames of its own kind of stream
        if self._kernel.owes and self._ack_timer is None:
            self._ack_timer = self._loop.call_later(_ACK_WAIT_S, self._acknowledge)
        for answer in self._kernel.answers():
            future = self._answers.pop(answer.ticket, None)
            if future is not None and not future.done():
                future.set_result(answer.refusals)
        for lookup in self._kernel.lookups():
            if lookup.again:
                self._spawn(self._look_up(lookup))
            else:
                self._gather(lookup)
        for wanted in self._kernel.times():
            self._spawn(self._work_out(wanted))
        if self._onlookers and (moved := self._kernel.moved()):
            for told in self._onlookers.values():
                told(moved)
        if self._settling:
            self._settle()

    def _settle(self) -> None:
        """Let those go on who wait for what is durable by now."""
        waiting, self._settling = self._settling, []
        for sequence, future in waiting:
            if sequence > self._kernel.durable:
                self._settling.append((sequence, future))
            elif not future.done():
                future.set_result(None)

    def _gather(self, lookup: Lookup) -> None:
        """Look for tasks together with those of the same tenant that come up while others are looked for: one search for a
        thousand takes hardly longer than one for one."""
        wanted = self._wanted.get(lookup.end.tenant)
        if wanted is None:
            wanted = self._wanted[lookup.end.tenant] = deque()
            self._spawn(self._look_up_gathered(lookup.end.tenant))
        wanted.extend((lookup.end, task_id) for task_id in lookup.tasks)

    async def _look_up_gathered(self, tenant: str) -> None:
        wanted = self._wanted[tenant]
        while wanted:
            by_end: dict[ServerEnd, list[str]] = {}
            for _ in range(min(len(wanted), _LOOKED_UP_MAX)):
                end, task_id = wanted.popleft()
                by_end.setdefault(end, []).append(task_id)
            try:
                outcomes = await self._finder.outcomes([name for names in by_end.values() for name in names], tenant)
            except Exception as error:  # noqa: BLE001  (whatever it is, the clients have to hear of it)
                for end, names in by_end.items():
                    self._kernel.not_found_out(Lookup(end, names), f"the journal could not be searched: {error}")
            else:
                for end, names in by_end.items():
                    self._kernel.found(Lookup(end, names), outcomes)
            self._wake()
        del self._wanted[tenant]

    async def _look_up(self, lookup: Lookup) -> None:
        try:
            outcomes = await self._finder.outcomes(lookup.tasks, lookup.end.tenant) if lookup.tasks else []
            keys = await self._finder.keys(lookup.keys)
        except Exception as error:  # noqa: BLE001  (whatever it is, the client has to hear of it)
            self._kernel.not_found_out(lookup, f"the journal could not be searched: {error}")
        else:
            self._kernel.found(lookup, outcomes, keys)
        self._wake()

    async def _work_out(self, wanted: WorkOutTimes) -> None:
        schedule = wanted.schedule
        try:
            times_ns = await asyncio.to_thread(self._plan, schedule, wanted.after_ns, self._clock())
        except Exception as error:  # noqa: BLE001  (it was in order when it was set: others must not suffer from it)
            log.error("schedule %s makes no tasks: %s; set it anew: merit schedule add", schedule.name, error)
            return
        if times_ns and not self.failed.done():
            command = PlanSchedule(
                schedule.tenant, "scheduler", schedule.name, schedule.cron, schedule.zone, wanted.after_ns, times_ns
            )
            self._kernel.offer(command)
            self._wake()

    def _set_timer(self) -> None:
        due_ns = self._machine.next_due_ns()
        if due_ns is None or (self._timer is not None and self._timer_ns == due_ns and not self._timer.cancelled()):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ns = due_ns
        self._timer = self._loop.call_later(max(0.0, (due_ns - self._clock()) / 1e9), self._due)

    def _due(self) -> None:
        self._timer = None
        self._wake()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if not self.failed.done():
                try:
                    self._notice_sleep()
                except Exception as error:  # noqa: BLE001  (as in _run)
                    self._stop(error)

    def _notice_sleep(self) -> None:
        """When this process was stopped, what has arrived meanwhile is older than every time-out that seems to strike."""
        before_s, self._looked_s = self._looked_s, elapsed_s()
        if self._looked_s - before_s > _LOOK_S + _SLEEP_S:
            self._kernel.awake(self._clock())

    def _may_be_over(self) -> bool:
        return self._leads_until_s != math.inf and elapsed_s() >= self._leads_until_s

    # The end

    def _check(self) -> None:
        if self.failed.done():
            raise CellStopped(str(self.failed.result()))
        self.check_lease()

    def _stop(self, error: BaseException) -> None:
        """Fail-stop: nothing that is not durable may get out, so nothing gets out any more."""
        if not self.failed.done():
            self.failed.set_result(error)
        waiting: list[asyncio.Future[Any]] = [*self._answers.values(), *(future for _, future in self._settling)]
        for future in waiting:
            if not future.done():
                future.set_exception(CellStopped(str(error)))
        self._answers.clear()
        self._settling.clear()

    async def close(self) -> None:
        """Stop taking anything in, and end all streams."""
        for timer in (self._timer, self._ack_timer):
            if timer is not None:
                timer.cancel()
        if not self.failed.done():
            self._stop(CellStopped("the control plane is shutting down"))
        for stream in self._streams.values():
            stream.end()
        own = [*self._tasks, *(durable for durable, _ in self._on_the_way)]
        for work in own:
            work.cancel()
        # Also what has failed behind the append that stopped the cell is heard here.
        await asyncio.gather(*own, return_exceptions=True)
