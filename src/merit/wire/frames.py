"""Frames to and from Protocol Buffers, for both ends of both kinds of stream.

Decoding checks what the types of the wire leave open and raises ``ValueError`` naming the field. This is the hottest
translation there is: a field that is seldom set is looked at only where it can be set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from merit.model.frames import (
    Assignment,
    AttemptRef,
    CellFrame,
    ClientFrame,
    ClientHello,
    ClientWelcome,
    Hello,
    Report,
    ReportStatus,
    ServerFrame,
    Settled,
    Update,
    Welcome,
    WorkerFrame,
)
from merit.model.limits import FRAME_ITEMS_RECEIVED_MAX, LOG_LINES_MAX, TAGS_MAX, WORKER_TENANTS_MAX
from merit.model.tasks import Failure, Input, Progress, Refusal, TaskState
from merit.model.workers import PREFERENCE_PERMILLE_DEFAULT, Offer
from merit.wire.specs import add_specs, decode_amounts, decode_spec, encode_amounts
from merit.wire.v1 import tasks_pb2 as tasks
from merit.wire.v1 import worker_pb2 as worker

_COMPLETED = ReportStatus.COMPLETED
_STATUS: Mapping[int, ReportStatus] = {int(status): status for status in ReportStatus}
_STATE: Mapping[int, TaskState] = {int(state): state for state in TaskState}


def _check_items(*counts: int) -> None:
    """Before anything is made of them: a message of 16 MiB holds millions of empty ones."""
    if sum(counts) > FRAME_ITEMS_RECEIVED_MAX:
        raise ValueError(
            f"items: {sum(counts):,} in one frame; {FRAME_ITEMS_RECEIVED_MAX:,} at most: send several frames"
        )


# The worker's stream


def encode_worker_frame(frame: WorkerFrame) -> worker.WorkerFrame:
    """What a worker sends."""
    message = worker.WorkerFrame(
        sequence=frame.sequence,
        ack=frame.ack,
        credits=frame.credits,
        draining=frame.draining,
        bye=frame.bye,
    )
    if frame.hello is not None:
        message.hello.CopyFrom(_encode_hello(frame.hello))
    add = message.reports.add
    for report in frame.reports:
        entry = add(
            task_id=report.task,
            number=report.number,
            status=int(report.status),
            result=report.result,
            result_blob=report.result_blob,
            wall_ns=report.wall_ns,
            cpu_ns=report.cpu_ns,
            memory_bytes=report.memory_bytes,
            trail=report.trail,
        )
        if report.failure is not None:
            entry.failure.CopyFrom(encode_failure(report.failure))
    _add_refs(message.started, frame.started)
    _add_refs(message.returned, frame.returned)
    for note in frame.progress:
        message.progress.add(
            task_id=note.task, number=note.number, fraction=note.fraction, message=note.message, log=note.log
        )
    return message


def decode_worker_frame(message: worker.WorkerFrame) -> WorkerFrame:
    """What the control plane gets from a worker.

    Raises:
        ValueError: a field has a value that it cannot have, or the frame has too many items.
    """
    _check_items(
        len(message.reports),
        len(message.started),
        len(message.returned),
        len(message.progress),
        len(message.hello.held) + len(message.hello.capabilities) + len(message.hello.tags),
    )
    return WorkerFrame(
        message.sequence,
        message.ack,
        _decode_hello(message.hello) if message.HasField("hello") else None,
        [_decode_report(report) for report in message.reports],
        _decode_refs(message.started),
        _decode_refs(message.returned),
        [_decode_progress(note) for note in message.progress],
        message.credits,
        message.draining,
        message.bye,
    )


def _decode_report(report: worker.Report) -> Report:
    status = _STATUS.get(report.status)
    if status is None:
        raise ValueError(f"reports.status: {report.status} is none of 1 to {len(_STATUS)}")
    return Report(
        report.task_id,
        report.number,
        status,
        report.result,
        report.result_blob,
        decode_failure(report.failure) if status is not _COMPLETED else None,
        report.wall_ns,
        report.cpu_ns,
        report.memory_bytes,
        report.trail,
    )


def _decode_progress(note: worker.Progress) -> Progress:
    # One line more than is allowed is enough for the door to refuse the note.
    log = tuple(islice(note.log, LOG_LINES_MAX + 1)) if note.log else ()
    return Progress(note.task_id, note.number, note.fraction, note.message, log)


def encode_cell_frame(frame: CellFrame) -> worker.CellFrame:
    """What the control plane sends to a worker."""
    message = worker.CellFrame(
        sequence=frame.sequence,
        ack=frame.ack,
        drain=frame.drain,
        words=frame.words,
        refused=frame.refused,
        permanent=frame.permanent,
    )
    if frame.welcome is not None:
        welcome = frame.welcome
        message.welcome.CopyFrom(worker.Welcome(cell=welcome.cell, epoch=welcome.epoch, beat_ns=welcome.beat_ns))
    add = message.assignments.add
    for item in frame.assignments:
        entry = add(
            task_id=item.task,
            number=item.number,
            capability=item.capability,
            parameters=item.parameters,
            parameters_blob=item.parameters_blob,
            run_timeout_ns=item.run_timeout_ns,
        )
        if item.heartbeat_timeout_ns:
            entry.heartbeat_timeout_ns = item.heartbeat_timeout_ns
        for more in item.inputs:
            entry.inputs.add(name=more.name, result=more.result, result_blob=more.blob)
    _add_refs(message.cancels, frame.cancels)
    return message


def decode_cell_frame(message: worker.CellFrame) -> CellFrame:
    """What a worker gets."""
    welcome = None
    if message.HasField("welcome"):
        welcome = Welcome(message.welcome.cell, message.welcome.epoch, message.welcome.beat_ns)
    return CellFrame(
        message.sequence,
        message.ack,
        welcome,
        [
            Assignment(
                item.task_id,
                item.number,
                item.capability,
                item.parameters,
                item.parameters_blob,
                item.run_timeout_ns,
                tuple(Input(more.name, more.result, more.result_blob) for more in item.inputs) if item.inputs else (),
                item.heartbeat_timeout_ns,
            )
            for item in message.assignments
        ],
        _decode_refs(message.cancels),
        message.drain,
        list(message.words),
        message.refused,
        message.permanent,
    )


def _encode_hello(hello: Hello) -> worker.Hello:
    message = worker.Hello(
        worker_id=hello.worker,
        boot_id=hello.boot,
        session=hello.session,
        concurrency=hello.concurrency,
        tags=hello.tags,
        capabilities=[_encode_offer(offer) for offer in hello.offers],
        capacity=encode_amounts(hello.capacity),
        tenants=hello.tenants,
    )
    _add_refs(message.held, hello.held)
    return message


def _decode_hello(message: worker.Hello) -> Hello:
    return Hello(
        message.worker_id,
        message.boot_id,
        message.session,
        tuple(_decode_offer(offer) for offer in message.capabilities),
        message.concurrency,
        tuple(_decode_refs(message.held)),
        tuple(message.tags),
        decode_amounts(message.capacity),
        tuple(islice(message.tenants, WORKER_TENANTS_MAX + 1)),
    )


def _encode_offer(offer: Offer) -> worker.Capability:
    return worker.Capability(
        name=offer.name,
        version=offer.version,
        description=offer.description,
        input_schema=offer.input_schema,
        output_schema=offer.output_schema,
        tags=offer.tags,
        not_safe_to_repeat=not offer.safe_to_repeat,
        heartbeat_timeout_ns=offer.heartbeat_timeout_ns,
        resources=encode_amounts(offer.resources),
        concurrency_max=offer.concurrency_max,
        cost_micros=offer.cost_micros,
        preference_permille=offer.preference_permille,
        stateful=offer.stateful,
        requires=offer.requires,
    )


def _decode_offer(message: worker.Capability) -> Offer:
    has_preference = message.HasField("preference_permille")
    return Offer(
        message.name,
        message.version,
        message.description,
        message.input_schema,
        message.output_schema,
        tuple(islice(message.tags, TAGS_MAX + 1)),
        not message.not_safe_to_repeat,
        message.heartbeat_timeout_ns,
        decode_amounts(message.resources),
        message.concurrency_max,
        message.cost_micros,
        message.preference_permille if has_preference else PREFERENCE_PERMILLE_DEFAULT,
        message.stateful,
        tuple(islice(message.requires, TAGS_MAX + 1)),
    )


def _add_refs(field: object, refs: Iterable[AttemptRef]) -> None:
    for ref in refs:
        field.add(task_id=ref.task, number=ref.number)  # type: ignore[attr-defined]  # a repeated AttemptRef


def _decode_refs(field: Iterable[worker.AttemptRef]) -> list[AttemptRef]:
    return [AttemptRef(ref.task_id, ref.number) for ref in field]


def encode_failure(failure: Failure) -> worker.Failure:
    """A failure, in either kind of stream."""
    return worker.Failure(
        kind=failure.kind, message=failure.message, detail=failure.detail, permanent=failure.permanent
    )


def decode_failure(message: worker.Failure) -> Failure:
    """A failure, in either kind of stream; one that says nothing says so."""
    return Failure(
        message.kind or "unexplained",
        message.message or "no reason was given",
        message.detail,
        message.permanent,
    )


# The client's stream


def encode_client_frame(frame: ClientFrame) -> tasks.ClientFrame:
    """What a client sends."""
    message = tasks.ClientFrame(
        sequence=frame.sequence,
        ack=frame.ack,
        watch=frame.watch,
        cancels=frame.cancels,
        again=frame.again,
        follow=frame.follow,
    )
    if frame.hello is not None:
        message.hello.CopyFrom(tasks.ClientHello(client_id=frame.hello.client))
    add_specs(message.tasks, frame.tasks)
    for group in frame.groups:
        add_specs(message.groups.add().tasks, group)
    return message


def decode_client_frame(message: tasks.ClientFrame) -> ClientFrame:
    """What the control plane gets from a client.

    Raises:
        ValueError: a field has a value that it cannot have, or the frame has too many items.
    """
    groups = message.groups
    watched = len(message.watch) + len(message.follow)
    counts = (len(message.tasks), len(groups), watched, len(message.cancels), len(message.again))
    _check_items(*counts)
    if groups:
        _check_items(*counts, *(len(group.tasks) for group in groups))
    return ClientFrame(
        message.sequence,
        message.ack,
        ClientHello(message.hello.client_id) if message.HasField("hello") else None,
        [decode_spec(spec) for spec in message.tasks],
        [[decode_spec(spec) for spec in group.tasks] for group in message.groups],
        list(message.watch),
        list(message.cancels),
        list(message.again),
        list(message.follow),
    )


def encode_server_frame(frame: ServerFrame) -> tasks.ServerFrame:
    """What the control plane sends to a client."""
    message = tasks.ServerFrame(
        sequence=frame.sequence, ack=frame.ack, refused=frame.refused, permanent=frame.permanent
    )
    if frame.welcome is not None:
        message.welcome.CopyFrom(tasks.ClientWelcome(cell=frame.welcome.cell, epoch=frame.welcome.epoch))
    for refusal in frame.refusals:
        message.refusals.append(encode_refusal(refusal))
    add = message.outcomes.add
    for outcome in frame.outcomes:
        entry = add(
            task_id=outcome.task,
            state=int(outcome.state),
            result=outcome.result,
            result_blob=outcome.result_blob,
            attempts=outcome.attempts,
            worker_id=outcome.worker,
        )
        if outcome.failure is not None:
            entry.failure.CopyFrom(encode_failure(outcome.failure))
    for update in frame.updates:
        message.updates.add(
            task_id=update.task,
            state=int(update.state),
            attempts=update.attempts,
            worker_id=update.worker,
            fraction=update.fraction,
            message=update.message,
            log=update.log,
        )
    for submitted, known in frame.known:
        message.known.add(submitted_id=submitted, task_id=known)
    return message


def decode_server_frame(message: tasks.ServerFrame) -> ServerFrame:
    """What a client gets.

    Raises:
        ValueError: a field has a value that it cannot have.
    """
    welcome = None
    if message.HasField("welcome"):
        welcome = ClientWelcome(message.welcome.cell, message.welcome.epoch)
    return ServerFrame(
        message.sequence,
        message.ack,
        welcome,
        [decode_refusal(refusal) for refusal in message.refusals],
        [_decode_outcome(outcome) for outcome in message.outcomes],
        message.refused,
        message.permanent,
        [_decode_update(update) for update in message.updates],
        [(known.submitted_id, known.task_id) for known in message.known],
    )


def _decode_state(field: str, number: int) -> TaskState:
    state = _STATE.get(number)
    if state is None:
        raise ValueError(f"{field}: {number} is unknown; is the server newer than this client?")
    return state


def _decode_update(update: tasks.Update) -> Update:
    return Update(
        update.task_id,
        _decode_state("updates.state", update.state),
        update.attempts,
        update.worker_id,
        update.fraction,
        update.message,
        tuple(update.log),
    )


def _decode_outcome(outcome: tasks.Outcome) -> Settled:
    state = _decode_state("outcomes.state", outcome.state)
    return Settled(
        outcome.task_id,
        state,
        outcome.result,
        outcome.result_blob,
        decode_failure(outcome.failure) if state is TaskState.DEAD else None,
        outcome.attempts,
        outcome.worker_id,
    )


def encode_refusal(refusal: Refusal) -> tasks.Refusal:
    """A refusal, in a stream or in an answer."""
    return tasks.Refusal(
        task_id=refusal.task,
        code=refusal.code,
        field=refusal.field,
        reason=refusal.reason,
        retry_after_ns=refusal.retry_after_ns,
    )


def decode_refusal(message: tasks.Refusal) -> Refusal:
    """A refusal, in a stream or in an answer."""
    return Refusal(message.task_id, message.code, message.field, message.reason, message.retry_after_ns)
