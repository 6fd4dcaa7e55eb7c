"""Workers: how they come, say what they have to say, and go."""

from __future__ import annotations

from merit.core.admission import cancel_probes, probe, to_be_probed
from merit.core.allocating import rate, send
from merit.core.attempts import fail, take_report, take_returned, take_started
from merit.core.desk import Desk, Seat
from merit.core.reserving import let_go
from merit.core.state import State
from merit.model.commands import AttachWorker, DetachWorker, TakeFrame
from merit.model.effects import CloseWorker, SendCancel, SendDrain, SendWords
from merit.model.events import (
    WorkerDraining,
    WorkerHeard,
    WorkerJoined,
    WorkerLeft,
)
from merit.model.frames import AttemptRef, Hello
from merit.model.limits import CAPABILITIES_MAX, SECOND_NS
from merit.model.tasks import AttemptState, Failure, Progress, Refusal
from merit.model.workers import Offer, Worker, WorkerState

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
    refusal = turned_away(state, hello.worker, hello.offers)
    if refusal is not None:
        permanent = refusal.code == "conflict"
        desk.effects.append(CloseWorker(hello.worker, hello.boot, hello.session, refusal.reason, permanent))
        return
    resumed = worker is not None and worker.boot == hello.boot
    if resumed and seat is not None and hello.session <= seat.session:
        reason = f"session {hello.session} is over; session {seat.session} of this worker came after it"
        desk.effects.append(CloseWorker(hello.worker, hello.boot, hello.session, reason))
        return
    if worker is not None and not resumed:
        _lose_attempts(desk, worker, f"worker {worker.id} was started anew")
    drains = worker is not None and resumed and worker.state is WorkerState.DRAINING
    if worker is None or not resumed or not _same(worker, hello):
        _join(desk, command, worker)
        if drains:
            desk.emit(WorkerDraining(hello.worker))
    desk.seats[hello.worker] = Seat(hello.session, True, command.credits, 0, desk.now_ns, desk.now_ns)
    worker = state.workers[hello.worker]
    desk.lines.seat(worker)
    _reconcile(desk, worker, hello.held)
    desk.timers.arm(WORKER_KEY + hello.worker, desk.now_ns + desk.limits.stale_ns)
    rate(desk, hello.worker)
    profile = state.profiles.get(hello.worker)
    if profile is not None and profile.words:
        desk.effects.append(SendWords(hello.worker, profile.words))
    if drains:
        # It may not have heard so on the stream before.
        desk.effects.append(SendDrain(hello.worker))


def turned_away(state: State, worker_id: str, offers: tuple[Offer, ...]) -> Refusal | None:
    """Why a worker may not come with these offers, or None; ``conflict``: however often it tries."""
    profile = state.profiles.get(worker_id)
    if profile is not None and profile.removed:
        reason = f"worker {worker_id} was removed: {profile.reason}; let it join again with: merit worker resume"
        return Refusal("", "conflict", "worker_id", reason)
    fresh = sum(1 for offer in offers if offer.name not in state.offers)
    if len(state.offers) + fresh > CAPABILITIES_MAX:
        reason = f"this cell knows {len(state.offers):,} capabilities, and {CAPABILITIES_MAX:,} is its bound"
        return Refusal("", "exhausted", "capabilities", reason)
    return None


def _same(worker: Worker, hello: Hello) -> bool:
    """Whether what it says of itself is what it said before."""
    said = (hello.offers, hello.concurrency, hello.tags, hello.capacity, hello.tenants)
    return said == (worker.offers, worker.concurrency, worker.tags, worker.capacity, worker.tenants)


def _join(desk: Desk, command: AttachWorker, worker: Worker | None) -> None:
    hello, state = command.hello, desk.state
    if worker is not None:
        if worker.attempts:
            # The same boot came back with other capabilities: what it holds of before is not what it can do now.
            _lose_attempts(desk, worker, f"worker {worker.id} changed what it offers")
        let_go(desk, worker.id)
        desk.lines.unseat(worker.id)
        desk.lines.part(worker)
    profile = state.profiles.get(hello.worker)
    joins_as = WorkerState.ACTIVE
    if profile is not None and profile.paused:
        joins_as = WorkerState.PAUSED
    elif to_be_probed(state, hello.offers, profile):
        joins_as = WorkerState.PROBATION
    desk.emit(
        WorkerJoined(
            hello.worker,
            hello.boot,
            command.tenant,
            hello.offers,
            hello.concurrency,
            hello.tags,
            hello.capacity,
            hello.tenants,
            joins_as,
        )
    )
    welcome(desk, state.workers[hello.worker])
    if joins_as is WorkerState.PROBATION:
        probe(desk, state.workers[hello.worker])
    else:
        cancel_probes(desk, hello.worker)


def welcome(desk: Desk, worker: Worker) -> None:
    """Let the indexes know of a worker that is here."""
    names = tuple(offer.name for offer in worker.offers)
    desk.beating.update(offer.name for offer in worker.offers if offer.heartbeat_timeout_ns)
    desk.backlog.join(names)
    desk.lines.join(worker)


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
    news = bool(command.reports or command.returned or command.draining) or command.credits > seat.granted
    seat.granted = max(seat.granted, command.credits)
    if command.heard:
        desk.emit(WorkerHeard(worker.id, command.heard))
    if command.draining and worker.state is not WorkerState.DRAINING:
        let_go(desk, worker.id)
        desk.emit(WorkerDraining(worker.id))
        desk.lines.seat_again(worker)
    if news:  # a beat alone changes nothing, and thousands of idle workers send one now and then
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
    let_go(desk, worker.id)
    desk.lines.unseat(worker.id)
    seat.attached = False
    desk.touched[worker.id] = None
    if command.bye:
        # Who says goodbye holds nothing: what it still has here was on its way and has not begun.
        for task_id, number in reversed(list(worker.attempts.items())):
            take_returned(desk, worker, AttemptRef(task_id, number))
        leave(desk, worker, lost=False, reason="said goodbye")
    else:
        until_ns = max(desk.now_ns + desk.limits.reconnect_ns, desk.state.grace_until_ns)
        desk.timers.arm(WORKER_KEY + worker.id, until_ns)


def leave(desk: Desk, worker: Worker, *, lost: bool, reason: str, permanent: bool = False) -> None:
    """The worker is here no more; what it had is tried elsewhere. ``permanent``: it need not try to come back."""
    let_go(desk, worker.id)
    _lose_attempts(desk, worker, f"worker {worker.id} {reason}")
    desk.lines.unseat(worker.id)
    desk.emit(WorkerLeft(worker.id, lost, reason))
    desk.lines.part(worker)
    desk.timers.disarm(WORKER_KEY + worker.id)
    desk.touched.pop(worker.id, None)
    cancel_probes(desk, worker.id)
    seat = desk.seats.pop(worker.id, None)
    if seat is not None and seat.attached:
        desk.effects.append(CloseWorker(worker.id, worker.boot, seat.session, reason, permanent))


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
        leave(desk, worker, lost=True, reason="was disconnected and did not come back in time")
    elif stale_ns <= desk.now_ns:
        leave(desk, worker, lost=True, reason=f"was silent for {desk.limits.stale_ns // SECOND_NS} s")
    else:
        desk.timers.arm(WORKER_KEY + worker_id, stale_ns)
