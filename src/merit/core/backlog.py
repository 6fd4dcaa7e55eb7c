"""What is pending, in the order in which it goes: an index that follows from the tasks, so that a replay does without.

Per capability a queue, in it a flow per tenant, in that a lane of tasks by rank (one lane per key where keys are
limited). The flow goes first whose tenant has had least for its weight (start-time fair queueing: Goyal, Vin, Cheng,
1996), and in it the lane whose first task has the lowest rank.

**Fairness.** A tenant's account is charged the expected cost of each attempt, divided by the tenant's weight, when the
attempt is given out. Among tenants that have something pending all the time, what they were charged per weight never
differs by more than one task's cost per weight of each. Who comes back after a pause starts where the others are:
nobody saves up, and nobody has to make good what others had while it was away.

Each operation costs the same however many tasks wait. A task that ends while it is pending stays behind as a stale
entry until it is met, or until stale entries are half of the lane.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import NamedTuple

from msgspec import Struct

from merit.core.gates import Gate, Gates
from merit.core.ranking import Rank, rank
from merit.model.rules import RuleKind
from merit.model.tasks import Task, TaskState

_PENDING = TaskState.PENDING
_STALE_AT_LEAST = 64


class Account(Struct):
    """What a tenant has had: ``charged`` is virtual time, nanoseconds of work divided by the weight."""

    weight: int = 1
    charged: int = 0
    pending: int = 0


class Lane:
    """Pending tasks by rank. Those that come in order of rank, nearly all, stand in a row per priority; the rest in a
    heap."""

    __slots__ = ("_ageing_ns", "_odd", "_rows", "_stale", "listed", "parked", "size")

    def __init__(self, ageing_ns: int) -> None:
        self._ageing_ns = ageing_ns
        self._rows: dict[int, deque[Task]] = {}
        """By priority."""
        self._odd: list[tuple[Rank, Task]] = []
        self._stale = 0
        self.size = 0
        self.listed: Rank | None = None
        """Where its flow has it among its lanes; see there."""
        self.parked = False

    def push(self, task: Task) -> None:
        self.size += 1
        row = self._rows.get(task.priority)
        if row is None:
            row = self._rows[task.priority] = deque()
        if row:
            last = row[-1]
            if task.terms is None is last.terms and not task.attempts:
                # The rank in short, for nearly all: both plain, in the order of their submits.
                in_order = 0 < last.deadline_ns <= task.deadline_ns and last.order < task.order
            else:
                in_order = rank(last, self._ageing_ns) < rank(task, self._ageing_ns)
            if not in_order:
                heappush(self._odd, (rank(task, self._ageing_ns), task))
                return
        row.append(task)

    def head(self) -> Task | None:
        """The task that goes next, left where it is."""
        odd, found, ageing_ns = self._odd, None, self._ageing_ns
        for row in self._rows.values():
            while row and row[0].state is not _PENDING:
                row.popleft()
                self._stale -= 1
            if row and (found is None or rank(row[0], ageing_ns) < rank(found, ageing_ns)):
                found = row[0]
        while odd and odd[0][1].state is not _PENDING:
            heappop(odd)
            self._stale -= 1
        if odd and (found is None or odd[0][0] < rank(found, ageing_ns)):
            return odd[0][1]
        return found

    def take(self, task: Task) -> None:
        """Remove the head."""
        if self._odd and self._odd[0][1] is task:
            heappop(self._odd)
        else:
            self._rows[task.priority].popleft()
        self.size -= 1

    def drop(self) -> None:
        """Some task in here is pending no longer."""
        self.size -= 1
        self._stale += 1
        if self._stale > _STALE_AT_LEAST and self._stale > self.size:
            for row in self._rows.values():
                kept = [task for task in row if task.state is _PENDING]
                row.clear()
                row.extend(kept)
            self._odd = [entry for entry in self._odd if entry[1].state is _PENDING]
            heapify(self._odd)
            self._stale = 0

    def tasks(self) -> Iterator[Task]:
        """All of them, in no order."""
        for row in self._rows.values():
            yield from (task for task in row if task.state is _PENDING)
        yield from (task for _, task in self._odd if task.state is _PENDING)

    @property
    def entries(self) -> int:
        """Tasks and stale entries."""
        return len(self._odd) + sum(map(len, self._rows.values()))


class Flow:
    """A tenant's pending tasks of one capability."""

    __slots__ = ("_queue", "_ready", "account", "lanes", "listed", "parked", "size", "tenant")

    account: Account

    def __init__(self, queue: CapabilityQueue, tenant: str) -> None:
        self._queue = queue
        self.tenant = tenant
        self.lanes: dict[str, Lane] = {}
        """By key; all under the empty one where keys are not limited."""
        self._ready: list[tuple[Rank, str]] = []
        """Where there are several: a heap of lanes by the ranks of their heads. An entry counts if its lane says that
        it is listed there."""
        self.size = 0
        self.listed = False
        self.parked = False

    @property
    def capability(self) -> str:
        """Whose tasks it holds."""
        return self._queue.capability

    def unpark(self) -> None:
        """Its tenant's gate has opened."""
        self.parked = False
        self._queue.list_flow(self)

    def push(self, task: Task, key: str) -> None:
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane(self._queue.ageing_ns)
        lane.push(task)
        self.size += 1
        if self._queue.keyed and not lane.parked:
            self._list_lane(lane, key)

    def _list_lane(self, lane: Lane, key: str) -> None:
        head = lane.head()
        place = rank(head, self._queue.ageing_ns) if head is not None else None
        if place is not None and place != lane.listed:
            lane.listed = place
            heappush(self._ready, (place, key))

    def unpark_lane(self, key: str) -> None:
        """A key's gate has opened."""
        lane = self.lanes.get(key)
        if lane is not None:
            lane.parked = False
            self._list_lane(lane, key)
            if not lane.size:
                del self.lanes[key]
            elif not self.parked:
                self._queue.list_flow(self)

    def head(self, now_ns: int) -> tuple[Lane, Task] | None:
        """The task that goes next, of a key that may go."""
        if not self._queue.keyed:
            lane = self.lanes.get("")
            task = lane.head() if lane is not None else None
            return (lane, task) if lane is not None and task is not None else None
        ready = self._ready
        while ready:
            place, key = ready[0]
            lane = self.lanes.get(key)
            if lane is None or lane.listed != place:
                heappop(ready)
                continue
            task = lane.head()
            if task is None:
                heappop(ready)
                del self.lanes[key]
                continue
            now_at = rank(task, self._queue.ageing_ns)
            if now_at != place:
                lane.listed = now_at
                heapreplace(ready, (now_at, key))
                continue
            gate = self._queue.gates.of_key(self.capability, key, now_ns)
            if gate is not None and gate.closed(now_ns):
                heappop(ready)
                lane.listed, lane.parked = None, True
                gate.parked[self.capability, self.tenant, key] = _ParkedLane(self, key)
                continue
            return lane, task
        return None

    def took(self, lane: Lane, task: Task) -> None:
        """The head is taken."""
        lane.take(task)
        self.size -= 1

    def dropped(self, key: str) -> None:
        """A task of this key is pending no longer."""
        self.size -= 1
        self.lanes[key].drop()


class _ParkedLane(NamedTuple):
    """The lane of a key that waits for the key's gate."""

    flow: Flow
    key: str

    @property
    def capability(self) -> str:
        return self.flow.capability

    def unpark(self) -> None:
        self.flow.unpark_lane(self.key)


class Pick(NamedTuple):
    """What goes next in a queue."""

    flow: Flow
    lane: Lane
    task: Task


class CapabilityQueue:
    """The pending tasks of one capability."""

    __slots__ = ("_ready", "ageing_ns", "capability", "flows", "gates", "keyed", "size")

    def __init__(self, capability: str, ageing_ns: int, gates: Gates) -> None:
        self.capability = capability
        self.ageing_ns = ageing_ns
        self.gates = gates
        self.keyed = capability in gates.key_rules
        self.flows: dict[str, Flow] = {}
        self._ready: list[tuple[int, str]] = []
        """A heap of the listed flows by what their tenants were charged when they were listed; that only grows, so
        that an entry which is out of date stands too far in front and is put right when it is met."""
        self.size = 0

    def unpark(self) -> None:
        """Its gate has opened; there is nothing to be put back."""

    def only_flow(self) -> Flow | None:
        """Where there is nothing to choose, one tenant and no limit: its flow."""
        if self.gates.any or self.keyed or len(self.flows) != 1:
            return None
        return next(iter(self.flows.values()))

    def list_flow(self, flow: Flow) -> None:
        if not flow.listed and not flow.parked:
            flow.listed = True
            heappush(self._ready, (flow.account.charged, flow.tenant))

    def pick(self, now_ns: int) -> Pick | None:
        """The task that goes next and may go now, left where it is."""
        gates = self.gates
        limited = gates.any
        if limited and self._closed(gates.of(RuleKind.CAPABILITY, self.capability), now_ns):
            return None
        ready = self._ready
        while ready:
            charged, tenant = ready[0]
            flow = self.flows[tenant]
            if flow.account.charged != charged:
                heapreplace(ready, (flow.account.charged, tenant))
                continue
            if limited:
                gate = gates.of(RuleKind.TENANT, tenant)
                if gate is not None and gate.closed(now_ns):
                    heappop(ready)
                    flow.listed, flow.parked = False, True
                    gate.parked[self.capability, tenant, ""] = flow
                    continue
            found = flow.head(now_ns)
            if found is not None:
                return Pick(flow, *found)
            heappop(ready)
            flow.listed = False
            if not flow.size:
                del self.flows[tenant]
        return None

    def _closed(self, gate: Gate | None, now_ns: int) -> bool:
        if gate is None or not gate.closed(now_ns):
            return False
        gate.parked[self.capability, "", ""] = self
        return True


class Backlog:
    """All queues of a cell, and the accounts of their tenants."""

    def __init__(self, ageing_ns: int, gates: Gates) -> None:
        self.queues: dict[str, CapabilityQueue] = {}
        self.accounts: dict[str, Account] = {}
        self.now_charged = 0
        """What the tenant served last had been charged before: where those stand who come back."""
        self.size = 0
        self.ageing_ns = ageing_ns
        self._gates = gates
        self._prune_at = 64

    def pending(self, capability: str) -> int:
        """How many tasks of a capability are pending."""
        queue = self.queues.get(capability)
        return queue.size if queue is not None else 0

    def push(self, task: Task) -> None:
        """The task has become pending."""
        capability, tenant = task.capability, task.tenant
        queue = self.queues.get(capability)
        if queue is None:
            queue = self.queues[capability] = CapabilityQueue(capability, self.ageing_ns, self._gates)
        account = self.accounts.get(tenant)
        if account is None:
            account = self._account(tenant)
        if not account.pending and account.charged < self.now_charged:
            account.charged = self.now_charged
        account.pending += 1
        flow = queue.flows.get(tenant)
        if flow is None:
            flow = queue.flows[tenant] = Flow(queue, tenant)
        flow.account = account
        lane = flow.lanes.get("")
        if lane is not None and not queue.keyed:
            lane.push(task)
            flow.size += 1
        else:
            flow.push(task, _key(queue, task))
        queue.size += 1
        self.size += 1
        if not flow.listed:
            queue.list_flow(flow)

    def take(self, queue: CapabilityQueue, pick: Pick) -> None:
        """Remove what was picked."""
        flow = pick.flow
        flow.took(pick.lane, pick.task)
        flow.account.pending -= 1
        self.size -= 1
        queue.size -= 1
        if not queue.size:
            del self.queues[queue.capability]

    def take_run(self, queue: CapabilityQueue, flow: Flow, count: int, charge: int) -> None:
        """``count`` heads of the only lane of a flow have been taken from it, at the cost of ``charge`` in all."""
        account = flow.account
        account.charged += charge // account.weight
        # Whoever comes next starts where the last one of the run did, roughly, and not where the first one did.
        self.now_charged = max(self.now_charged, account.charged - charge // (account.weight * count))
        account.pending -= count
        flow.size -= count
        self.size -= count
        queue.size -= count
        if not queue.size:
            del self.queues[queue.capability]

    def drop(self, task: Task) -> None:
        """A task that was pending has ended where it stood."""
        queue = self.queues[task.capability]
        flow = queue.flows[task.tenant]
        flow.dropped(_key(queue, task))
        flow.account.pending -= 1
        self.size -= 1
        queue.size -= 1
        if not queue.size:
            del self.queues[task.capability]

    def charge(self, account: Account, cost_ns: int) -> None:
        """An attempt that is expected to cost so much is given out."""
        self.now_charged = max(self.now_charged, account.charged)
        account.charged += max(1, cost_ns // account.weight)

    def set_weight(self, tenant: str, weight: int) -> None:
        """From now on the tenant gets so much of the whole."""
        self._account(tenant).weight = weight

    def rebuild(self, capability: str) -> None:
        """Its keys are limited now, or are no longer: sort its tasks anew."""
        queue = self.queues.pop(capability, None)
        if queue is None:
            return
        tasks = [task for flow in queue.flows.values() for lane in flow.lanes.values() for task in lane.tasks()]
        self.size -= queue.size
        for task in tasks:
            self.accounts[task.tenant].pending -= 1
        for task in sorted(tasks, key=lambda task: task.order):
            self.push(task)

    def _account(self, tenant: str) -> Account:
        account = self.accounts.get(tenant)
        if account is None:
            if len(self.accounts) >= self._prune_at:
                self._prune()
            account = self.accounts[tenant] = Account()
        return account

    def _prune(self) -> None:
        """An account that says nothing (nothing pending, nothing to make good, the usual weight) need not be there."""
        for tenant in [
            tenant
            for tenant, account in self.accounts.items()
            if not account.pending and account.charged <= self.now_charged and account.weight == 1
        ]:
            del self.accounts[tenant]
        self._prune_at = max(64, 2 * len(self.accounts))


def _key(queue: CapabilityQueue, task: Task) -> str:
    return task.terms.key if queue.keyed and task.terms is not None else ""
