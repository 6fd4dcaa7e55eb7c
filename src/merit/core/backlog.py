"""What is pending, in the order in which it goes: an index that follows from the tasks, so that a replay does without.

Per line (``core.lines``: nearly always a capability) a queue, in it a flow per tenant, in that a lane of tasks by rank.
The flow goes first whose tenant has had least for its weight (``core.shares``). A task that is met while the limit of its
key is reached is put aside, into a lane of that key, until the limit opens.

Each operation costs the same however many tasks wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush, heapreplace
from typing import NamedTuple

from merit.core.gates import Gate, Gates
from merit.core.lane import Lane
from merit.core.ranking import Rank, rank
from merit.core.shares import Account, Pool, Shares
from merit.model.tasks import Task


class Flow:
    """A tenant's pending tasks of one line."""

    __slots__ = (
        "_held",
        "_held_ids",
        "_open",
        "_open_keys",
        "_queue",
        "account",
        "lane",
        "listed",
        "parked",
        "size",
        "tenant",
    )

    def __init__(self, queue: LineQueue, tenant: str, account: Account) -> None:
        self._queue = queue
        self.tenant = tenant
        self.account = account
        self.lane = Lane(queue.ageing_ns)
        self._held: dict[str, Lane] = {}
        """By key: tasks that were met while the limit of their key was reached."""
        self._held_ids: set[str] = set()
        self._open: list[tuple[Rank, str]] = []
        """A heap, by the ranks of their heads, of the keys with such tasks whose limit has opened since."""
        self._open_keys: set[str] = set()
        """Those that are in the heap."""
        self.size = 0
        self.listed = False
        self.parked = False

    @property
    def line(self) -> str:
        """Whose tasks it holds."""
        return self._queue.line

    @property
    def lanes(self) -> list[Lane]:
        """All that it consists of."""
        return [self.lane, *self._held.values()]

    def unpark(self) -> None:
        """Its tenant's gate has opened."""
        self.parked = False
        self._queue.list_flow(self)

    def unpark_key(self, key: str) -> None:
        """A key's gate has opened."""
        lane = self._held.get(key)
        head = lane.head() if lane is not None else None
        if head is None:
            self._held.pop(key, None)
        elif key not in self._open_keys:
            self._open_keys.add(key)
            heappush(self._open, (rank(head, self._queue.ageing_ns), key))
            self._queue.list_flow(self)

    def _close_first(self) -> str:
        _, key = heappop(self._open)
        self._open_keys.discard(key)
        return key

    def head(self, now_ns: int) -> Task | None:
        """The task that goes next and whose key may go, left where it is."""
        queue = self._queue
        keys = queue.gates.keys.get(queue.capability)
        if keys is None and not self._held:
            return self.lane.head()
        while True:
            task, held = self.lane.head(), self._open_head() if self._open else None
            if held is not None and (task is None or rank(held, queue.ageing_ns) < rank(task, queue.ageing_ns)):
                task = held
            if task is None or keys is None or task.terms is None or not task.terms.key:
                return task
            gate = keys.gates.get(task.terms.key) or keys.of(task.terms.key, now_ns)
            if not gate.closed(now_ns):
                return task
            self.hold(task, task.terms.key, gate)

    def _open_head(self) -> Task | None:
        """The first task of the keys that have opened."""
        opened = self._open
        while opened:
            place, key = opened[0]
            lane = self._held.get(key)
            head = lane.head() if lane is not None else None
            if head is None:
                self._held.pop(self._close_first(), None)
                continue
            now_at = rank(head, self._queue.ageing_ns)
            if now_at == place:
                return head
            heapreplace(opened, (now_at, key))
        return None

    @property
    def plain(self) -> bool:
        """Whether nothing was put aside, so that the head of the lane is the one of the flow."""
        return not self._held

    def hold(self, task: Task, key: str, gate: Gate) -> None:
        """Put it aside until its key's gate opens."""
        if task.id in self._held_ids:
            self._close_first()
        else:
            self.lane.take(task)
            self._held_ids.add(task.id)
            lane = self._held.get(key)
            if lane is None:
                lane = self._held[key] = Lane(self._queue.ageing_ns)
            lane.push(task)
        gate.parked[self.line, self.tenant, key] = _ParkedKey(self, key)

    def take(self, task: Task) -> None:
        """Remove the head."""
        self.size -= 1
        if task.id not in self._held_ids:
            self.lane.take(task)
            return
        self._held_ids.discard(task.id)
        key = self._close_first()
        self._held[key].take(task)
        self.unpark_key(key)

    def drop(self, task: Task) -> None:
        """A task is pending no longer."""
        self.size -= 1
        if task.id in self._held_ids and task.terms is not None:
            self._held_ids.discard(task.id)
            self._held[task.terms.key].drop()
        else:
            self.lane.drop()


class _ParkedKey(NamedTuple):
    """What was put aside for a key, and waits for the key's gate."""

    flow: Flow
    key: str

    @property
    def line(self) -> str:
        return self.flow.line

    def unpark(self) -> None:
        self.flow.unpark_key(self.key)


class Pick(NamedTuple):
    """What goes next in a queue."""

    flow: Flow
    task: Task


class LineQueue:
    """The pending tasks of one line, all of one capability."""

    __slots__ = ("_ready", "ageing_ns", "capability", "flows", "gates", "line", "pool", "size")

    def __init__(self, line: str, capability: str, ageing_ns: int, gates: Gates, pool: Pool) -> None:
        self.line = line
        self.capability = capability
        self.ageing_ns = ageing_ns
        self.gates = gates
        self.pool = pool
        self.flows: dict[str, Flow] = {}
        """By tenant; each has something pending, but for what is met and removed."""
        self._ready: list[tuple[int, str]] = []
        """A heap of the listed flows by what their tenants were charged when they were listed; that only grows, so
        that an entry which is out of date stands too far in front and is put right when it is met."""
        self.size = 0

    def unpark(self) -> None:
        """Its gate has opened; there is nothing to be put back."""

    def move(self, pool: Pool) -> None:
        """Its workers are those of this pool now."""
        self.pool = pool
        for flow in self.flows.values():
            flow.account = pool.account(flow.tenant)
        self._ready = sorted((self.flows[tenant].account.charged, tenant) for _, tenant in self._ready)

    def only_flow(self) -> Flow | None:
        """Where there is only one tenant to choose, and it may go as far as is known: its flow."""
        if len(self.flows) != 1 or not self._ready:
            return None
        return self.flows[self._ready[0][1]]

    def list_flow(self, flow: Flow) -> None:
        if not flow.listed and not flow.parked:
            flow.listed = True
            heappush(self._ready, (flow.account.charged, flow.tenant))

    def pick(self, now_ns: int) -> Pick | None:
        """The task that goes next and may go now, left where it is."""
        gates = self.gates
        limited = gates.any
        if limited and self._closed(gates.capabilities.get(self.capability), now_ns):
            return None
        ready = self._ready
        while ready:
            charged, tenant = ready[0]
            flow = self.flows[tenant]
            if flow.account.charged != charged:
                heapreplace(ready, (flow.account.charged, tenant))
                continue
            if limited:
                gate = gates.tenants.get(tenant)
                if gate is not None and gate.closed(now_ns):
                    heappop(ready)
                    flow.listed, flow.parked = False, True
                    gate.parked[self.line, tenant, ""] = flow
                    continue
            task = flow.head(now_ns)
            if task is not None:
                return Pick(flow, task)
            heappop(ready)
            flow.listed = False
            if not flow.size:
                del self.flows[tenant]
        return None

    def _closed(self, gate: Gate | None, now_ns: int) -> bool:
        if gate is None or not gate.closed(now_ns):
            return False
        gate.parked[self.line, "", ""] = self
        return True


class Backlog:
    """All queues of a cell."""

    def __init__(self, ageing_ns: int, gates: Gates) -> None:
        self.queues: dict[str, LineQueue] = {}
        """By line in which something is pending."""
        self.shares = Shares()
        self.size = 0
        self.ageing_ns = ageing_ns
        self._gates = gates
        self._pending: dict[str, int] = {}
        """By capability."""
        self._elsewhere: dict[str, str] = {}
        """By task that waits in another line than that of its capability: which."""

    def pending(self, capability: str) -> int:
        """How many tasks of a capability are pending."""
        return self._pending.get(capability, 0)

    def queue_of(self, task: Task) -> LineQueue | None:
        """The queue in which a pending task is."""
        return self.queues.get(self._elsewhere.get(task.id, task.capability))

    def of_capability(self, capability: str) -> list[LineQueue]:
        """All queues in which tasks of it are."""
        plain = self.queues.get(capability)
        if plain is not None and plain.size == self._pending.get(capability):
            return [plain]
        return [queue for queue in self.queues.values() if queue.capability == capability]

    def push(self, task: Task, line: str) -> None:
        """The task has become pending, and waits in this line."""
        capability, tenant = task.capability, task.tenant
        queue = self.queues.get(line)
        if queue is None:
            pool = self.shares.pool(capability)
            queue = self.queues[line] = LineQueue(line, capability, self.ageing_ns, self._gates, pool)
        if line != capability:
            self._elsewhere[task.id] = line
        flow = queue.flows.get(tenant)
        if flow is None:
            flow = queue.flows[tenant] = Flow(queue, tenant, queue.pool.account(tenant))
        account = flow.account
        if not account.pending:
            queue.pool.come_back(account)
        account.pending += 1
        flow.lane.push(task)
        flow.size += 1
        queue.size += 1
        self.size += 1
        self._pending[capability] = self._pending.get(capability, 0) + 1
        if not flow.listed:
            queue.list_flow(flow)

    def take(self, queue: LineQueue, pick: Pick) -> None:
        """Remove what was picked."""
        pick.flow.take(pick.task)
        self.left(queue, pick.flow, (pick.task.id,))

    def left(self, queue: LineQueue, flow: Flow, tasks: Sequence[str]) -> None:
        """These tasks have been taken from the flow itself."""
        count, capability = len(tasks), queue.capability
        flow.account.pending -= count
        self.size -= count
        queue.size -= count
        pending = self._pending[capability] - count
        if pending:
            self._pending[capability] = pending
        else:
            del self._pending[capability]
        if not queue.size:
            del self.queues[queue.line]
        if queue.line != capability:
            for task in tasks:
                del self._elsewhere[task]

    def drop(self, task: Task) -> None:
        """A task that was pending has ended where it stood."""
        queue = self.queue_of(task)
        assert queue is not None
        flow = queue.flows[task.tenant]
        flow.drop(task)
        self.left(queue, flow, (task.id,))

    def join(self, capabilities: Sequence[str]) -> None:
        """There is a worker that offers all of these: who has much of one gets less of the others."""
        for capability in self.shares.join(capabilities):
            for queue in self.of_capability(capability):
                queue.move(self.shares.pool(capability))
