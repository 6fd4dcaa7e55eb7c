"""What a peer can make the cell hold is bounded, and a peer that comes to a bound is told so."""

import asyncio
from typing import Any

import grpc
import pytest

from merit.gateway import blobs_service
from merit.gateway.blobs_service import BlobsService
from merit.gateway.door import Door
from merit.gateway.schemas import COMPILED_BYTES_MAX, BadSchema, Schemas
from merit.gateway.streams import _converse, _Sender
from merit.model.frames import CellFrame, ClientFrame, ClientHello, Hello, ServerFrame, Settled, Welcome, WorkerFrame
from merit.model.ids import make_id
from merit.model.limits import FRAME_BYTES_MAX, HELLO_BYTES_MAX, MESSAGE_BYTES_MAX, SCHEMA_BYTES_MAX, SUBMIT_TASKS_MAX
from merit.model.tasks import TaskSpec, TaskState
from merit.model.workers import Offer
from merit.session.link import ProtocolViolation
from merit.session.server_end import OUTCOMES_BYTES_MAX, ServerEnd
from merit.storage.memory_blobs import MemoryBlobs
from merit.wire.frames import encode_server_frame
from merit.wire.v1 import tasks_pb2


def test_outcomes_that_a_client_does_not_take_end_its_stream():
    end = ServerEnd()
    end.take(ClientFrame(1, 0, ClientHello("c")))
    outcome = Settled("task", TaskState.COMPLETED, bytes(60_000))
    taken = 0
    for _ in range(OUTCOMES_BYTES_MAX // 60_000 + 10):
        end.outcome(outcome)
        if end.closing:
            break
        taken += 1
    assert taken * 60_000 >= OUTCOMES_BYTES_MAX * 0.9
    frame = end.frame()
    assert frame is not None
    assert "wait to be read" in frame.refused
    assert not frame.permanent
    assert end.frame() is None
    assert end._outcomes.size_bytes == 0


def sent(*frames):
    """What a sender to which nobody listens has kept of these."""
    sender = _Sender(lambda frame: frame)
    for frame in frames:
        sender.deliver(frame)
    return sender._frames


def test_acknowledgements_that_nobody_reads_do_not_pile_up():
    assert sent(*(ServerFrame(ack=ack) for ack in range(1, 10_000))) == [ServerFrame(ack=9_999)]
    frames = [ServerFrame(sequence=1), ServerFrame(ack=1), ServerFrame(ack=2), ServerFrame(sequence=2, ack=2)]
    assert sent(*frames) == [frames[0], frames[2], frames[3]]
    ends = [CellFrame(ack=1), CellFrame(refused="no"), CellFrame(ack=2)]
    assert sent(*ends) == ends


def hello(*offers):
    return WorkerFrame(1, 0, Hello("w", "b", 1, tuple(offers), 1))


def test_the_schemas_of_one_worker_are_bounded_together():
    door = Door({}, lambda digest: b"")
    schema = b'{"description":"' + b"x" * (SCHEMA_BYTES_MAX - 100) + b'"}'
    many = [Offer(f"c{number}", input_schema=schema) for number in range(HELLO_BYTES_MAX // len(schema) + 1)]
    door.worker_frame(hello(*many[:-1]))
    with pytest.raises(ProtocolViolation, match=r"hello\.capabilities: schemas and descriptions of .* at most"):
        door.worker_frame(hello(*many))


def test_compiled_schemas_are_forgotten_by_their_size():
    schemas = Schemas()
    for number in range(200):
        schemas.validator(b'{"description":"%d' % number + b"x" * 250_000 + b'"}')
    kept = sum(map(len, schemas._compiled))
    assert COMPILED_BYTES_MAX * 0.9 < kept == schemas._bytes <= COMPILED_BYTES_MAX
    with pytest.raises(BadSchema):
        schemas.validator(b"{")
    assert schemas._bytes == kept


class _Aborted(Exception):
    pass


class _Call:
    """As much of a call's context as an upload needs."""

    code: grpc.StatusCode | None = None

    async def abort(self, code, details):
        self.code = code
        raise _Aborted(details)


def call() -> Any:
    return _Call()


async def test_uploads_are_bounded_together(monkeypatch):
    monkeypatch.setattr(blobs_service, "UPLOADS_BYTES_MAX", 1_000)
    service = BlobsService(MemoryBlobs())
    hold = asyncio.Event()

    async def slowly():
        yield tasks_pb2.BlobChunk(data=bytes(800))
        await hold.wait()

    async def chunk(size):
        yield tasks_pb2.BlobChunk(data=bytes(size))

    slow = asyncio.create_task(service.Put(slowly(), call()))
    await asyncio.sleep(0)
    await service.Put(chunk(200), call())
    context = call()
    with pytest.raises(_Aborted, match="other uploads"):
        await service.Put(chunk(201), context)
    assert context.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    hold.set()
    await slow
    await service.Put(chunk(1_000), call())
    assert service._uploads_bytes == 0


def test_a_welcome_is_content():
    """So that no acknowledgement may take its place."""
    frames = [CellFrame(1, 0, Welcome("c", 1, 1)), CellFrame(ack=1)]
    assert sent(*frames) == frames


async def test_a_stream_ends_whatever_is_raised_at_its_frames():
    """A defect behind one frame must not leave a stream that is open and that nobody reads."""

    class Context:
        async def read(self):
            return "frame"

    def take(message):
        raise ZeroDivisionError(message)

    context: Any = Context()
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(_converse(context, _Sender(str), take, lambda reason, final: None), 5)


def test_refusals_of_whole_groups_fit_into_one_answer():
    """As many groups as two frames hold, each with one bad task whose reason is long."""
    schema = b'{"properties": {"n": {"type": "integer"}}}'
    door = Door({"c": Offer("c", input_schema=schema)}, lambda digest: b"")
    size = 0
    for _ in range(2):
        tasks_in_frame = FRAME_BYTES_MAX // 128
        specs = [TaskSpec(make_id(1, number.to_bytes(10, "big")), "c") for number in range(tasks_in_frame)]
        groups = [specs[start : start + SUBMIT_TASKS_MAX] for start in range(0, tasks_in_frame, SUBMIT_TASKS_MAX)]
        for group in groups:
            bad = b'{"n": "' + b"x" * 5_000 + b'"}'
            group[0] = TaskSpec(group[0].id, "c", bad)
        refusals = door.client_frame(ClientFrame(1, 0, ClientHello("c"), [], groups))
        assert len(refusals) == tasks_in_frame
        size += encode_server_frame(ServerFrame(1, 0, refusals=refusals)).ByteSize()
    assert size < MESSAGE_BYTES_MAX
