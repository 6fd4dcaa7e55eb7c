"""Short words for the things that tests of rules and policies need: specs, machines, workers that are attached.

Everything is deterministic: ids are numbered, and time is what the machine was told last, unless a test says when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from merit.allocation.catalogue import BUILT_IN
from merit.allocation.strategy import MakeStrategy
from merit.core.machine import Decision, Machine
from merit.core.state import State
from merit.model.commands import (
    Allocate,
    AttachWorker,
    CancelTasks,
    Command,
    DetachWorker,
    FollowUp,
    SetRule,
    SetTenant,
    StartLeadership,
    SubmitTasks,
    TakeFrame,
    Tick,
)
from merit.model.effects import SendAssignment
from merit.model.frames import AttemptRef, Hello, Report, ReportStatus
from merit.model.limits import SECOND_NS, Limits
from merit.model.rules import Rule, RuleKind, TenantTerms
from merit.model.tasks import Demand, Failure, Progress, TaskSpec, Terms
from merit.model.tenancy import DEFAULT_TENANT
from merit.model.workers import Amount, Offer

TENANT = DEFAULT_TENANT
PRINCIPAL = "tester"
START_NS = 1_700_000_000 * SECOND_NS
"""When a machine of `a_machine` begins to lead, in Unix nanoseconds."""


def an_id(number: int) -> str:
    """The id of task `number`: a UUID version 7 in its usual text form."""
    return f"01900000-0000-7000-8000-{number:012x}"


def number_of(task_id: str) -> int:
    """The number of the task with this id."""
    return int(task_id[-12:], 16)


def a_spec(number: int = 1, capability: str = "echo", *, after: Iterable[int] = (), **fields: Any) -> TaskSpec:
    """Task `number`, which needs the tasks numbered `after`; `fields` as `TaskSpec` has them."""
    return TaskSpec(an_id(number), capability, after=tuple(an_id(other) for other in after), **fields)


def with_terms(number: int = 1, capability: str = "echo", *, after: Iterable[int] = (), **fields: Any) -> TaskSpec:
    """Task `number`, like `a_spec`, with terms of its own; `fields` as `Terms` or `TaskSpec` has them."""
    own = {name: fields.pop(name) for name in TaskSpec.__struct_fields__ if name in fields}
    return a_spec(number, capability, after=after, terms=Terms(**fields), **own)


def asking(number: int = 1, capability: str = "echo", *, key: str = "", **fields: Any) -> TaskSpec:
    """Task `number`, which asks something of its worker; `fields` as `Demand` or `TaskSpec` has them."""
    own = {name: fields.pop(name) for name in TaskSpec.__struct_fields__ if name in fields}
    return a_spec(number, capability, terms=Terms(key=key, demand=Demand(**fields)), **own)


def amounts(**wholes: int) -> tuple[Amount, ...]:
    """So many whole units of each resource."""
    return tuple(Amount(name, count * 1_000) for name, count in wholes.items())


def an_offer(name: str = "echo", **fields: Any) -> Offer:
    """A capability as a worker offers it; `fields` as `Offer` has them."""
    return Offer(name, **fields)


def a_machine(
    state: State | None = None,
    limits: Limits | None = None,
    *,
    strategies: Mapping[str, MakeStrategy] = BUILT_IN,
    now_ns: int = START_NS,
    epoch: int = 1,
) -> Machine:
    """A machine that leads, from `state` on (by default from nothing)."""
    machine = Machine(state or State(), strategies, limits or Limits())
    machine.handle(StartLeadership(TENANT, PRINCIPAL, epoch, f"leader-{epoch}"), now_ns)
    return machine


def attach(
    machine: Machine,
    worker: str = "w1",
    capabilities: Sequence[str] = ("echo",),
    *,
    concurrency: int = 4,
    granted: int = 8,
    boot: str = "boot-1",
    session: int = 1,
    held: Iterable[AttemptRef] = (),
    offers: Iterable[Offer] = (),
    tags: Iterable[str] = (),
    capacity: tuple[Amount, ...] = (),
    tenants: Iterable[str] = (),
    now_ns: int | None = None,
) -> Decision:
    """A worker opens a stream and takes `granted` attempts at first; `offers` say more than `capabilities`."""
    offered = tuple(offers) or tuple(an_offer(name) for name in capabilities)
    about = (tuple(held), tuple(tags), capacity, tuple(tenants))
    hello = Hello(worker, boot, session, offered, concurrency, *about)
    return machine.handle(AttachWorker(TENANT, worker, hello, granted), _when(machine, now_ns))


def detach(machine: Machine, worker: str = "w1", *, bye: bool = False, now_ns: int | None = None) -> Decision:
    """The worker's present stream ends; `bye`: it leaves for good."""
    boot, session = _session(machine, worker)
    return machine.handle(DetachWorker(TENANT, worker, worker, boot, session, bye), _when(machine, now_ns))


def say(
    machine: Machine,
    worker: str = "w1",
    *,
    reports: Iterable[Report] = (),
    started: Iterable[AttemptRef] = (),
    returned: Iterable[AttemptRef] = (),
    progress: Iterable[Progress] = (),
    granted: int = 0,
    draining: bool = False,
    heard: int = 0,
    now_ns: int | None = None,
) -> Decision:
    """The worker says this on its present stream."""
    boot, session = _session(machine, worker)
    frame = TakeFrame(
        TENANT,
        worker,
        worker,
        boot,
        session,
        list(reports),
        list(started),
        list(returned),
        list(progress),
        granted,
        draining,
        heard,
    )
    return machine.handle(frame, _when(machine, now_ns))


def submit(
    machine: Machine, *specs: TaskSpec, atomic: bool = False, tenant: str = TENANT, now_ns: int | None = None
) -> Decision:
    """Hand in the tasks in one submit."""
    return machine.handle(SubmitTasks(tenant, PRINCIPAL, list(specs), atomic), _when(machine, now_ns))


def tell(machine: Machine, kind: type[Command], *fields: Any, tenant: str = TENANT, **named: Any) -> Decision:
    """Any command, at the present time; `fields` are those that come after tenant and principal."""
    return machine.handle(kind(tenant, PRINCIPAL, *fields, **named), machine.now_ns)


def limit(machine: Machine, kind: RuleKind, name: str, **fields: Any) -> Decision:
    """Set a limit, or end it when there are no `fields`; as `Rule` has them."""
    return tell(machine, SetRule, Rule(kind, name, **fields))


def a_tenant(machine: Machine, name: str, **fields: Any) -> Decision:
    """From now on a tenant gets this; `fields` as `TenantTerms` has them."""
    return tell(machine, SetTenant, TenantTerms(name, **fields))


def cancel(machine: Machine, *numbers: int, tenant: str = TENANT, now_ns: int | None = None) -> Decision:
    """Call off the tasks with these numbers."""
    command = CancelTasks(tenant, PRINCIPAL, [an_id(number) for number in numbers])
    return machine.handle(command, _when(machine, now_ns))


def allocate(machine: Machine, *, count_max: int = 10_000, now_ns: int | None = None) -> list[SendAssignment]:
    """Let the machine finish its batch: settle what ended tasks mean for others, then bind; the assignments."""
    when = _when(machine, now_ns)
    machine.handle(FollowUp(TENANT, PRINCIPAL, count_max), when)
    decision = machine.handle(Allocate(TENANT, PRINCIPAL, count_max), when)
    return [effect for effect in decision.effects if isinstance(effect, SendAssignment)]


def bind(machine: Machine, *, count_max: int = 10_000, now_ns: int | None = None) -> dict[int, str]:
    """Like `allocate`: by the number of each task that was given out, the worker that got it."""
    sent = allocate(machine, count_max=count_max, now_ns=now_ns)
    return {number_of(effect.assignment.task): effect.worker for effect in sent}


def tick(machine: Machine, now_ns: int) -> Decision:
    """Time has passed: do what is due at `now_ns`."""
    return machine.handle(Tick(TENANT, PRINCIPAL), now_ns)


def ref(number: int, attempt: int = 1) -> AttemptRef:
    """An attempt of task `number`."""
    return AttemptRef(an_id(number), attempt)


def completed(number: int, attempt: int = 1, result: bytes = b'"done"', **fields: Any) -> Report:
    """A report of success; `fields` as `Report` has them."""
    return Report(an_id(number), attempt, ReportStatus.COMPLETED, result, **fields)


def failed(number: int, attempt: int = 1, *, permanent: bool = False, **fields: Any) -> Report:
    """A report of failure; `fields` as `Report` has them."""
    failure = Failure("error", f"attempt {attempt} went wrong", permanent=permanent)
    return Report(an_id(number), attempt, fields.pop("status", ReportStatus.FAILED), failure=failure, **fields)


def _when(machine: Machine, now_ns: int | None) -> int:
    return machine.now_ns if now_ns is None else now_ns


def _session(machine: Machine, worker: str) -> tuple[str, int]:
    return machine.state.workers[worker].boot, machine.seats[worker].session
