"""Workers: how they come, say what they have to say, and go."""

from __future__ import annotations

from merit.core.allocating import rate, send
from merit.core.attempts import fail, take_report, take_returned, take_started
from merit.core.desk import Desk, Seat
from merit.model.commands import AttachWorker, DetachWorker, TakeFrame
from merit.model.effects import CloseWorker, SendCancel
from merit.model.events import (
    WorkerDraining,
    WorkerJoined,
    WorkerLeft,
)
from merit.model.frames import AttemptRef
from merit.model.limits import CAPABILITIES_MAX, SECOND_NS
from merit.model.tasks import AttemptState, Failure, Progress
from merit.model.workers import Worker, WorkerState

WORKER_KEY = "worker/"
"""Prefix of the timer keys of workers; a task's key is its id, which cannot look like this."""


def attach_worker(desk: Desk, command: AttachWorker) -> None:
    """A worker opened a stream: new, resumed, or started anew under the same name."""
    hello, state = command.hello, desk.state
    worker = state.workers.get(hello.worker)
    seat = desk.seats.get(hello.worker)
    if worker is None and len(state.workers) >= desk.limits.workers_max:
        reason = f"this cell has {desk.limits.workers_max:,} workers, its bound; stop some or raise workers_max"
        desk.effects.append(CloseWorker(hello.worker, hello.boot, hello.session, reason))
        return
    fresh = sum(1 for offer in hello.offers if offer.name not in state.offers)
    if len(state.offers) + fresh > CAPABILITIES_MAX:
        reason = f"this cell knows {len(state.offers):,} capabilities, and {CAPABILITIES_MAX:,} is its bound"
        desk.effects.append(CloseWorker(hello.worker, hello.boot, hello.session, reason))
        return
    resumed = worker is not None and worker.boot == hello.boot
    if resumed and seat is not None and hello.session <= seat.session:
        reason = f"session {hello.session} is over; session {seat.session} of this worker came after it"
        desk.effects.append(CloseWorker(hello.worker, hello.boot, hello.session, reason))
        return
    if worker is not None and not resumed:
        _lose_attempts(desk, worker, f"worker {worker.id} was started anew")
    if worker is None or not resumed or worker.offers != hello.offers:
        _join(desk, command, worker)
    names = tuple(offer.name for offer in hello.offers)
    desk.beating.update(offer.name for offer in hello.offers if offer.heartbeat_timeout_ns)
    desk.backlog.join(names)
    _unstaff(desk, hello.worker)
    desk.seats[hello.worker] = Seat(names, hello.session, True, command.credits, 0, desk.now_ns, desk.now_ns)
    if state.workers[hello.worker].state is WorkerState.ACTIVE:
        for name in names:
            desk.staff.setdefault(name, {})[hello.worker] = None
    _reconcile(desk, state.workers[hello.worker], hello.held)
    desk.timers.arm(WORKER_KEY + hello.worker, desk.now_ns + desk.limits.stale_ns)
    rate(desk, hello.worker)


def _unstaff(desk: Desk, worker_id: str) -> None:
    """The worker takes nothing more, for now at least. A task that would rather have gone to it than to one that has
    failed the task need not wait for it."""
    seat = desk.seats.get(worker_id)
    for capability in seat.capabilities if seat is not None else ():
        others = desk.staff.get(capability)
        if others is not None and others.pop(worker_id, 0) is None:
            desk.ready[capability] = None
            if not others:
                del desk.staff[capability]


def _join(desk: Desk, command: AttachWorker, worker: Worker | None) -> None:
    hello = command.hello
    if worker is not None and worker.attempts:
        # The same boot came back with other capabilities: what it holds of before is not what it can do now.
        _lose_attempts(desk, worker, f"worker {worker.id} changed its capabilities")
    desk.emit(WorkerJoined(hello.worker, hello.boot, command.tenant, hello.offers, hello.concurrency, hello.tags))


def _reconcile(desk: Desk, worker: Worker, held: tuple[AttemptRef, ...]) -> None:
    """Make what the worker has and what it should have the same: this repeats all that was lost on the way."""
    holds = {(ref.task, ref.number) for ref in held}
    for task_id, number in worker.attempts.items():
        if (task_id, number) not in holds:
            send(desk, worker.id, desk.state.tasks[task_id], number)
    for ref in held:
        if worker.attempts.get(ref.task) != ref.number:
            desk.effects.append(SendCancel(worker.id, ref))


def take_frame(desk: Desk, command: TakeFrame) -> None:
    """Take what a worker says; a frame of a session that is over changes nothing."""
    worker = desk.state.workers.get(command.worker)
    seat = desk.seats.get(command.worker)
    if worker is None or seat is None or worker.boot != command.boot or seat.session != command.session:
        return
    seat.seen_ns = desk.now_ns
    if not seat.attached:
        return
    for report in command.reports:
        desk.cursor = report
        take_report(desk, worker, report)
    for ref in command.started:
        desk.cursor = ref
        take_started(desk, worker, ref)
    # Each goes to the head of its queue: backwards, so that they stand there as they stood before.
    for ref in reversed(command.returned):
        desk.cursor = ref
        take_returned(desk, worker, ref)
    for note in command.progress:
        if worker.attempts.get(note.task) == note.number:
            take_note(desk, note)
    seat.granted = max(seat.granted, command.credits)
    if command.draining and worker.state is WorkerState.ACTIVE:
        desk.emit(WorkerDraining(worker.id))
        _unstaff(desk, worker.id)
    rate(desk, worker.id)


def take_note(desk: Desk, note: Progress) -> None:
    """A live attempt shows a sign of progress."""
    if note.task in desk.beats_ns:
        # Not back from the end of the grace, from which on it is counted.
        desk.beats_ns[note.task] = max(desk.beats_ns[note.task], desk.now_ns)
    before = desk.progress.get(note.task)
    if note.fraction < 0 and before is not None and before.number == note.number:
        note = Progress(note.task, note.number, before.fraction, note.message or before.message)
    # Without its log lines: those are for whoever follows the task now, and would stay here for as long as it runs.
    desk.progress[note.task] = Progress(note.task, note.number, note.fraction, note.message) if note.log else note


def detach_worker(desk: Desk, command: DetachWorker) -> None:
    """A stream ended: with a goodbye the worker is gone, otherwise it has a while to come back."""
    worker = desk.state.workers.get(command.worker)
    seat = desk.seats.get(command.worker)
    if worker is None or seat is None or worker.boot != command.boot or seat.session != command.session:
        return
    _unstaff(desk, worker.id)
    seat.attached = False
    desk.strategy.remove(worker.id)
    if command.bye:
        # Who says goodbye holds nothing: what it still has here was on its way and has not begun.
        for task_id, number in reversed(list(worker.attempts.items())):
            take_returned(desk, worker, AttemptRef(task_id, number))
        _leave(desk, worker, lost=False, reason="said goodbye")
    else:
        until_ns = max(desk.now_ns + desk.limits.reconnect_ns, desk.state.grace_until_ns)
        desk.timers.arm(WORKER_KEY + worker.id, until_ns)


def _leave(desk: Desk, worker: Worker, *, lost: bool, reason: str) -> None:
    _lose_attempts(desk, worker, f"worker {worker.id} {reason}")
    desk.emit(WorkerLeft(worker.id, lost, reason))
    desk.strategy.remove(worker.id)
    desk.timers.disarm(WORKER_KEY + worker.id)
    _unstaff(desk, worker.id)
    seat = desk.seats.pop(worker.id, None)
    if seat is not None and seat.attached:
        desk.effects.append(CloseWorker(worker.id, worker.boot, seat.session, reason))


def _lose_attempts(desk: Desk, worker: Worker, reason: str) -> None:
    for task_id, number in list(worker.attempts.items()):
        desk.cursor = task_id
        fail(desk, desk.state.tasks[task_id], number, AttemptState.LOST, Failure("lost", reason))


def worker_due(desk: Desk, worker_id: str) -> None:
    """A worker's timer went off: it may have been silent, or away, for too long."""
    worker, seat = desk.state.workers.get(worker_id), desk.seats.get(worker_id)
    if worker is None or seat is None:
        return
    stale_ns = max(seat.seen_ns + desk.limits.stale_ns, desk.state.grace_until_ns)
    if not seat.attached:
        _leave(desk, worker, lost=True, reason="was disconnected and did not come back in time")
    elif stale_ns <= desk.now_ns:
        _leave(desk, worker, lost=True, reason=f"was silent for {desk.limits.stale_ns // SECOND_NS} s")
    else:
        desk.timers.arm(WORKER_KEY + worker_id, stale_ns)
