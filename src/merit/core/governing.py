"""What operators do with workers: register, pause, resume, drain, remove, tell."""

from __future__ import annotations

from merit.core.admission import cancel_probes, probe, to_be_probed
from merit.core.allocating import rate
from merit.core.desk import Desk
from merit.core.reserving import let_go
from merit.core.staffing import leave, turned_away
from merit.model.commands import (
    DrainWorker,
    HearWords,
    PauseWorker,
    RegisterWorker,
    RemoveWorker,
    ResumeWorker,
    SetAllocation,
    TellWorker,
)
from merit.model.effects import SendDrain, SendWords
from merit.model.events import (
    AllocationSet,
    WorkerDraining,
    WorkerHeard,
    WorkerPaused,
    WorkerRegistered,
    WorkerRemoved,
    WorkerResumed,
    WorkerTold,
)
from merit.model.limits import CAPABILITIES_MAX, WORDS_MAX
from merit.model.tasks import Refusal
from merit.model.workers import Profile, Worker, WorkerState


def register_worker(desk: Desk, command: RegisterWorker) -> None:
    """A worker of the unary contract says what it is. The same again changes nothing."""
    state = desk.state
    refusal = turned_away(state, command.worker, command.registration.offers)
    if refusal is not None:
        desk.refusals.append(refusal)
        return
    profile = state.profiles.get(command.worker)
    if profile is None or profile.registration != command.registration:
        desk.emit(WorkerRegistered(command.worker, command.registration))


def pause_worker(desk: Desk, command: PauseWorker) -> None:
    """It gets nothing more; what it has goes on."""
    worker, profile = find(desk, command.worker)
    if profile is None:
        return
    if profile.paused or profile.removed:
        _conflict(desk, f"{command.worker} is {'paused' if profile.paused else 'removed'} already: {profile.reason}")
    elif worker is not None and worker.state is WorkerState.DRAINING:
        _conflict(desk, f"{command.worker} is draining, and takes nothing more anyway")
    else:
        pause(desk, command.worker, command.principal, command.reason)


def pause(desk: Desk, worker_id: str, principal: str, reason: str) -> None:
    """Pause a worker, here or not, that is neither paused nor about to leave."""
    worker = desk.state.workers.get(worker_id)
    let_go(desk, worker_id)
    desk.emit(WorkerPaused(worker_id, principal, reason))
    if worker is not None:
        cancel_probes(desk, worker.id)
        desk.lines.seat_again(worker)


def resume_worker(desk: Desk, command: ResumeWorker) -> None:
    """It may take tasks again, after its probes if it has yet to pass any."""
    worker, profile = find(desk, command.worker)
    if profile is None:
        return
    if not profile.paused and not profile.removed:
        _conflict(desk, f"{command.worker} is neither paused nor removed")
        return
    if worker is not None and worker.state is not WorkerState.PAUSED:
        _conflict(desk, f"{command.worker} is {worker.state.name}; wait until it has left")
        return
    resume(desk, profile, command.principal)


def resume(desk: Desk, profile: Profile, principal: str) -> None:
    """Let a worker that was paused or removed, here or not, have tasks again, after its probes if it has yet to pass any."""
    worker = desk.state.workers.get(profile.worker)
    probed = worker is not None and to_be_probed(desk.state, worker.offers, profile)
    after = WorkerState.PROBATION if probed else WorkerState.ACTIVE
    desk.emit(WorkerResumed(profile.worker, principal, after))
    if worker is not None:
        desk.lines.seat_again(worker)
        rate(desk, worker.id)
        if probed:
            probe(desk, worker)


def drain_worker(desk: Desk, command: DrainWorker) -> None:
    """It finishes what it has, and leaves."""
    worker, profile = find(desk, command.worker)
    if profile is None:
        return
    if worker is None:
        _conflict(desk, f"{command.worker} is not here")
    elif worker.state is WorkerState.DRAINING:
        _conflict(desk, f"{command.worker} is draining already")
    else:
        let_go(desk, worker.id)
        desk.emit(WorkerDraining(worker.id))
        desk.lines.seat_again(worker)
        desk.effects.append(SendDrain(worker.id))


def remove_worker(desk: Desk, command: RemoveWorker) -> None:
    """It is out at once: what it has is tried elsewhere."""
    _, profile = find(desk, command.worker)
    if profile is None:
        return
    if profile.removed:
        _conflict(desk, f"{command.worker} is removed already: {profile.reason}")
    else:
        remove(desk, command.worker, command.principal, command.reason)


def remove(desk: Desk, worker_id: str, principal: str, reason: str) -> None:
    """Take a worker out, here or not, that is not out already."""
    worker = desk.state.workers.get(worker_id)
    if worker is not None:
        leave(desk, worker, lost=False, reason=f"was removed: {reason}", permanent=True)
    desk.emit(WorkerRemoved(worker_id, principal, reason))


def tell_worker(desk: Desk, command: TellWorker) -> None:
    """It hears the command now, or when it comes back; if its stream breaks meanwhile, it may hear it twice."""
    _, profile = find(desk, command.worker)
    if profile is None:
        return
    if len(profile.words) >= WORDS_MAX:
        reason = f"{len(profile.words)} commands wait for {command.worker} to come back, which is the bound"
        desk.refusals.append(Refusal("", "exhausted", "word", reason))
    else:
        say(desk, command.worker, command.principal, command.word)


def say(desk: Desk, worker_id: str, principal: str, word: str) -> None:
    """Have a worker told a word, now or when it comes back."""
    desk.emit(WorkerTold(worker_id, principal, word))
    if worker_id in desk.state.workers:
        desk.effects.append(SendWords(worker_id, (word,)))


def hear_words(desk: Desk, command: HearWords) -> None:
    """They need not be kept for it any more."""
    profile, count = desk.state.profiles.get(command.worker), len(command.words)
    if count and profile is not None and profile.words[:count] == command.words:
        desk.emit(WorkerHeard(command.worker, count))


def set_allocation(desk: Desk, command: SetAllocation) -> None:
    """Workers are chosen in another way from now on."""
    allocation = command.allocation
    if allocation.strategy:
        make = desk.lines.catalogue.get(allocation.strategy)
        if make is None:
            known = ", ".join(sorted(desk.lines.catalogue))
            desk.refusals.append(Refusal("", "invalid", "strategy", f"{allocation.strategy} is none of {known}"))
            return
        try:
            make({weight.name: weight.permille for weight in allocation.weights})
        except Exception as error:  # noqa: BLE001 - a plug-in's may raise anything, and must not stop the cell
            desk.refusals.append(Refusal("", "invalid", "weights", str(error)))
            return
        if allocation.capability not in desk.state.allocations and len(desk.state.allocations) >= CAPABILITIES_MAX:
            reason = f"{CAPABILITIES_MAX:,} capabilities have a strategy of their own, which is the bound"
            desk.refusals.append(Refusal("", "exhausted", "capability", reason))
            return
    elif allocation.capability not in desk.state.allocations:
        return
    desk.emit(AllocationSet(allocation, command.principal))
    desk.lines.equip(allocation.capability)


def find(desk: Desk, worker_id: str) -> tuple[Worker | None, Profile | None]:
    """The worker, if it is here, and what is kept of it; if it was never seen that is said."""
    profile = desk.state.profiles.get(worker_id)
    if profile is None:
        reason = f"no worker {worker_id} was ever here, or it was so long ago that it is forgotten"
        desk.refusals.append(Refusal("", "not_found", "worker", reason))
    return desk.state.workers.get(worker_id), profile


def _conflict(desk: Desk, reason: str) -> None:
    desk.refusals.append(Refusal("", "conflict", "worker", reason))
