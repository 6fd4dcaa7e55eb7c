"""Probation: a worker that comes does small known tasks first, if its capability asks for that.

The probes are tasks like others, of a tenant of their own, that only this worker may do. Who does all of them right is
admitted, and need not do them again while it offers the same version; who does not is paused, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import msgspec

from merit.auditing.compare import same
from merit.core.allocating import rate
from merit.core.desk import Desk
from merit.core.state import State
from merit.core.submitting import admit, cancel, refusal_of
from merit.core.timing import arm
from merit.model.commands import SetAdmission
from merit.model.events import AdmissionSet, WorkerAdmitted, WorkerPaused
from merit.model.fleet import Probe
from merit.model.ids import make_id
from merit.model.limits import CAPABILITIES_MAX
from merit.model.tasks import Demand, Priority, Refusal, Task, TaskSpec, TaskState, Terms
from merit.model.tenancy import PROBE_TENANT
from merit.model.workers import Offer, Profile, Worker, WorkerState

_ADMISSION = "admission"
_NUMBER = "probe"
"""Label of a probe's task: which of those of its capability it is."""


def set_admission(desk: Desk, command: SetAdmission) -> None:
    """Workers that come from now on have to do this right first."""
    admission = command.admission
    known = admission.capability in desk.state.admissions
    if not admission.probes and not known:
        return
    if not known and len(desk.state.admissions) >= CAPABILITIES_MAX:
        reason = f"{CAPABILITIES_MAX:,} capabilities have probes, which is the bound"
        desk.refusals.append(Refusal("", "exhausted", "capability", reason))
        return
    desk.emit(AdmissionSet(admission, command.principal))


def to_be_probed(state: State, offers: tuple[Offer, ...], profile: Profile | None) -> bool:
    """Whether a worker that offers this has something to prove."""
    return bool(state.admissions) and any(_missing(state, offer, profile) for offer in offers)


def _missing(state: State, offer: Offer, profile: Profile | None) -> bool:
    return offer.name in state.admissions and (profile is None or _name(offer) not in profile.admitted)


def _name(offer: Offer) -> str:
    return f"{offer.name}@{offer.version}"


def probe(desk: Desk, worker: Worker) -> None:
    """Give a worker on probation what it has to do."""
    cancel_probes(desk, worker.id)
    state = desk.state
    for offer in worker.offers:
        if _missing(state, offer, state.profiles.get(worker.id)):
            for number, wanted in enumerate(state.admissions[offer.name].probes):
                spec = _spec(desk, worker, offer, number, wanted)
                refusal = refusal_of(desk, spec, PROBE_TENANT)
                # A cell that is full needs new workers more than ever; and there are only so many of these.
                if refusal is not None and refusal.code != "exhausted":
                    _fail(desk, worker, f"its probes could not be made: {refusal.reason}")
                    return
                arm(desk, admit(desk, spec, PROBE_TENANT, _ADMISSION))
                desk.probing.setdefault(worker.id, {})[spec.id] = None


def _spec(desk: Desk, worker: Worker, offer: Offer, number: int, wanted: Probe) -> TaskSpec:
    seed = f"{worker.id}\0{offer.name}\0{number}\0{desk.state.sequence}"
    return TaskSpec(
        make_id(desk.now_ns, sha256(seed.encode()).digest()[:10]),
        offer.name,
        wanted.parameters,
        priority=Priority.HIGH,
        run_timeout_ns=wanted.run_timeout_ns,
        attempts_max=1,
        description=f"probe {number + 1} of {worker.id}",
        terms=Terms(demand=Demand(worker=worker.id), labels=((_NUMBER, str(number)),)),
    )


def cancel_probes(desk: Desk, worker_id: str) -> None:
    """What the worker was to do does not matter any more."""
    for task_id in desk.probing.pop(worker_id, {}):
        task = desk.state.tasks.get(task_id)
        if task is not None and not task.state.final:
            cancel(desk, task, _ADMISSION, "its worker is not on probation any more")


def recall_probes(desk: Desk) -> None:
    """A new leader: who is on probation, and how far."""
    for task in desk.state.tasks.values():
        if task.tenant != PROBE_TENANT or task.terms is None or task.terms.demand is None:
            continue
        worker = desk.state.workers.get(task.terms.demand.worker)
        if worker is not None and worker.state is WorkerState.PROBATION and task.submitted_ns >= worker.joined_ns:
            if not task.state.final:
                desk.probing.setdefault(worker.id, {})[task.id] = None
            elif not _wrong(desk.state, task):
                # One that went wrong has had its consequence: the worker has been paused, and resumed since.
                desk.probing.setdefault(worker.id, {})[task.id] = True


def conclude(desk: Desk, task: Task) -> None:
    """A probe has ended: with the last of them it is decided what becomes of its worker."""
    worker = desk.state.workers.get(task.terms.demand.worker) if task.terms and task.terms.demand else None
    probes = desk.probing.get(worker.id) if worker is not None else None
    if worker is None or probes is None or task.id not in probes or worker.state is not WorkerState.PROBATION:
        return
    wrong = _wrong(desk.state, task)
    if wrong and not task.attempts:
        probe(desk, worker)  # nobody let it try, which says nothing of it
        return
    if wrong:
        _fail(desk, worker, wrong)
        return
    probes[task.id] = True
    if all(probes.values()):
        del desk.probing[worker.id]
        desk.emit(WorkerAdmitted(worker.id, _passed(desk.state, worker, probes)))
        desk.lines.seat_again(worker)
        rate(desk, worker.id)


def _passed(state: State, worker: Worker, probes: Iterable[str]) -> tuple[str, ...]:
    """What it need not prove again: what it just has, and of what it offers, what it had before."""
    profile = state.profiles.get(worker.id)
    before = profile.admitted if profile is not None else ()
    proven = {task.capability for name in probes if (task := state.tasks.get(name)) is not None}
    return tuple(_name(offer) for offer in worker.offers if offer.name in proven or _name(offer) in before)


def _fail(desk: Desk, worker: Worker, reason: str) -> None:
    cancel_probes(desk, worker.id)
    desk.emit(WorkerPaused(worker.id, _ADMISSION, reason))
    desk.lines.seat_again(worker)


def _wrong(state: State, task: Task) -> str:
    """What is wrong with what came of a probe, or nothing."""
    which = f"probe {task.id} of {task.capability}"
    if task.state is not TaskState.COMPLETED:
        return f"{which}: {task.failure.message if task.failure else f'it is {task.state.name}'}"
    admission = state.admissions.get(task.capability)
    number = int(dict(task.terms.labels).get(_NUMBER, "0")) if task.terms is not None else 0
    asked = admission.probes[number] if admission and number < len(admission.probes) else None
    # Other probes may have been set since, so that there is nothing to compare this one with any more.
    if asked is None or asked.parameters != task.parameters or not asked.expected:
        return ""
    try:
        right = not task.result_blob and same(msgspec.json.decode(asked.expected), msgspec.json.decode(task.result))
    except msgspec.DecodeError:
        right = False  # it has been erased since
    return "" if right else f"{which}: another result than expected"
