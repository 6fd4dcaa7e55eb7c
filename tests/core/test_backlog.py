"""The backlog against a plain list: tenants, keys, limits that close and open, all in any order."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from merit.core.backlog import Backlog
from merit.core.gates import Gates
from merit.core.ranking import rank
from merit.core.timers import Timers
from merit.model.limits import SECOND_NS
from merit.model.rules import Rule, RuleKind
from merit.model.tasks import Attempt, AttemptState, Priority, Task, TaskState, Terms
from merit.testing.builders import an_id

AGEING_NS = 10 * SECOND_NS
COST_NS = SECOND_NS
TENANTS = ["a", "b", "c"]
KEYS = ["", "k1", "k2"]
CAPABILITIES = ["add", "mul"]


def whose(task):
    return task.capability, task.tenant


class PlainList:
    """What the backlog has to do, said as simply as possible: every question looks at everything."""

    def __init__(self):
        self.pending = []
        self.live = []
        self.charged: Counter[tuple[str, str]] = Counter()
        self.now: Counter[str] = Counter()
        self.step: Counter[str] = Counter()
        self.limits = {}

    def push(self, task):
        alike = [other for other in self.pending if other.capability == task.capability]
        if not any(other.tenant == task.tenant for other in alike):
            next_charged = min((self.charged[whose(other)] for other in alike), default=self.now[task.capability])
            back = next_charged - self.step[task.capability] * 5 // 4
            self.charged[whose(task)] = max(self.charged[whose(task)], back)
        self.pending.append(task)

    def names(self, task):
        key = task.terms.key if task.terms is not None else ""
        yield RuleKind.CAPABILITY, task.capability, ""
        yield RuleKind.TENANT, task.tenant, ""
        if key:
            yield RuleKind.KEY, task.capability, key

    def may_go(self, task):
        counts = Counter(name for other in self.live for name in self.names(other))
        return all(counts[name] < self.limits.get(name[:2], 10**9) for name in self.names(task))

    def pick(self, capability):
        free = [task for task in self.pending if task.capability == capability and self.may_go(task)]
        return min(free, key=lambda t: (self.charged[whose(t)], t.tenant, rank(t, AGEING_NS)), default=None)

    def take(self, task):
        self.pending.remove(task)
        self.live.append(task)
        self.now[task.capability] = max(self.now[task.capability], self.charged[whose(task)])
        self.step[task.capability] = COST_NS
        self.charged[whose(task)] += COST_NS


@given(st.data())
@settings(max_examples=150)
def test_it_gives_out_what_a_plain_list_would(data):
    timers = Timers()
    gates = Gates(timers)
    backlog, model = Backlog(AGEING_NS, gates), PlainList()
    now_ns = 0
    steps = ["push"] * 6 + ["take"] * 5 + ["end"] * 3 + ["again", "drop", "limit", "unlimit", "time"]
    for number, step in enumerate(data.draw(st.lists(st.sampled_from(steps), max_size=120))):
        if step == "push":
            key = data.draw(st.sampled_from(KEYS))
            task = Task(
                an_id(number), data.draw(st.sampled_from(TENANTS)), "p", data.draw(st.sampled_from(CAPABILITIES)),
                b"", "", data.draw(st.sampled_from(list(Priority))), 1, 1, (), "", now_ns, number,
                terms=Terms(key=key) if key else None,
            )  # fmt: skip
            backlog.push(task, task.capability)
            model.push(task)
        elif step == "take":
            capability = data.draw(st.sampled_from(CAPABILITIES))
            queue = backlog.queues.get(capability)
            pick = queue.pick(now_ns) if queue is not None else None
            expected = model.pick(capability)
            assert (pick and pick.task) is expected
            if pick is not None and queue is not None:
                backlog.take(queue, pick)
                queue.pool.charge(pick.flow.account, COST_NS)
                for gate in gates.over(pick.task, now_ns):
                    gate.take((pick.task.id,), now_ns)
                pick.task.state = TaskState.ASSIGNED
                model.take(pick.task)
        elif step in ("end", "again") and model.live:
            task = data.draw(st.sampled_from(model.live))
            model.live.remove(task)
            gates.release(task)
            if step == "again":
                task.attempts = (Attempt(1, "w", 0, 0, AttemptState.FAILED),)
                task.state = TaskState.PENDING
                backlog.push(task, task.capability)
                model.push(task)
            else:
                task.state = TaskState.COMPLETED
        elif step == "drop" and model.pending:
            task = data.draw(st.sampled_from(model.pending))
            model.pending.remove(task)
            task.state = TaskState.CANCELED
            backlog.drop(task)
        elif step in ("limit", "unlimit"):
            kind = data.draw(st.sampled_from(list(RuleKind)))
            name = data.draw(st.sampled_from(TENANTS if kind is RuleKind.TENANT else CAPABILITIES))
            before = model.limits.pop((kind, name), 0)
            concurrency = data.draw(st.integers(1, 3)) if step == "limit" else 0
            if not concurrency and not before:
                continue
            if concurrency:
                model.limits[kind, name] = concurrency
            gates.set(Rule(kind, name, concurrency), now_ns)
            gates.hold(model.live, now_ns)
        elif step == "time":
            now_ns += data.draw(st.sampled_from([SECOND_NS, 3 * AGEING_NS]))
        assert backlog.size == len(model.pending)
        for capability in CAPABILITIES:
            assert backlog.pending(capability) == sum(task.capability == capability for task in model.pending)
        for capability in CAPABILITIES:
            for account in backlog.shares.pool(capability).accounts():
                assert account.pending == sum(whose(task) == (capability, account.tenant) for task in model.pending)
    while model.pending:
        for capability in CAPABILITIES:
            queue = backlog.queues.get(capability)
            pick = queue.pick(now_ns) if queue is not None else None
            assert (pick and pick.task) is model.pick(capability)
            if pick is not None and queue is not None:
                backlog.take(queue, pick)
                queue.pool.charge(pick.flow.account, COST_NS)
                pick.task.state = TaskState.COMPLETED
                model.take(pick.task)
                model.live.pop()
        for task in model.live:
            gates.release(task)
        model.live.clear()
    assert not backlog.queues
    assert backlog.size == 0


def a_task(number, tenant="a", key=""):
    return Task(
        an_id(number), tenant, "p", "add", b"", "", Priority.MEDIUM, 1, 1, (), "", 0, number,
        terms=Terms(key=key) if key else None,
    )  # fmt: skip


def test_accounts_of_tenants_that_come_and_go_leave_nothing_behind():
    backlog = Backlog(AGEING_NS, Gates(Timers()))
    backlog.shares.set_weight("dear", 5)
    for number in range(5_000):
        task = a_task(number, f"tenant {number}")
        backlog.push(task, task.capability)
        task.state = TaskState.CANCELED
        backlog.drop(task)
    assert len(backlog.shares.pool("add").accounts()) <= 130
    assert backlog.shares.pool("add").account("dear").weight == 5


def test_keys_that_come_and_go_leave_no_gates_behind():
    gates = Gates(Timers())
    backlog = Backlog(AGEING_NS, gates)
    gates.set(Rule(RuleKind.KEY, "add", 1), 0)
    for number in range(10_000):
        backlog.push(a_task(number, key=f"key {number}"), "add")
        queue = backlog.queues["add"]
        pick = queue.pick(0)
        assert pick is not None
        backlog.take(queue, pick)
        (gate,) = gates.over(pick.task, 0)
        gate.take((pick.task.id,), 0)
        assert gate.holders
        gates.release(pick.task)
    assert sum(1 for _ in gates) <= 2_100


def test_a_closed_limit_costs_the_same_however_often_tasks_come_and_go_before_it():
    gates = Gates(Timers())
    backlog = Backlog(AGEING_NS, gates)
    for kind, name in ((RuleKind.TENANT, "a"), (RuleKind.KEY, "add")):
        gates.set(Rule(kind, name, 1), 0)
        for gate in gates.over(a_task(0, key="k"), 0):
            gate.take(("one that runs for long",), 0)
        for number in range(1_000):
            task = a_task(number, key="k")
            backlog.push(task, task.capability)
            assert backlog.queues["add"].pick(0) is None
            task.state = TaskState.CANCELED
            backlog.drop(task)
        assert max(len(gate.parked) for gate in gates) <= 2
        gates.set(Rule(kind, name), 0)
