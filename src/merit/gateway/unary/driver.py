"""The driver of one worker of the unary contract: it plays that worker's end of the session contract towards the cell.

So the cell knows no other kind of worker: its attempts are journalled, timed out, tried again and scored like all others.
What a worker does wrong stays here: each attempt is a task of its own, each call has a deadline, each message a bound, and
a worker that cannot be reached gets nothing more until it has answered again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final
from uuid import uuid4

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp

from merit.gateway.door import Door
from merit.gateway.report_check import ReportCheck
from merit.gateway.unary.attempt import CANCEL_S, CANCELED, Statuses, UnaryAttempt, brief, wire_id
from merit.gateway.unary.contents import Contents
from merit.gateway.unary.ends import DialledEnd, UnaryEnd
from merit.gateway.unary.registration import read_tags
from merit.model.frames import Assignment, AttemptRef, CellFrame, Report, ReportStatus, WorkerFrame
from merit.model.limits import MESSAGE_BYTES_MAX, SECOND_NS
from merit.model.tasks import AttemptState, Failure, Progress
from merit.model.workers import Registration
from merit.ports.blobs import BlobError
from merit.ports.cell import Cell, CellStopped
from merit.session.cell_end import CellEnd
from merit.session.link import ProtocolViolation
from merit.session.worker_end import Key
from merit.wire.calls import calling
from merit.wire.unary import ATTEMPT_KEY, TASK_KEY, TENANT_KEY
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary
from merit.wire.worker_abstraction import worker_abstraction_pb2_grpc

log = logging.getLogger("merit")

CONNECT_S: Final = 2.0
"""How long an attempt waits for the connection before it is handed back: it is known then not to have begun."""
ASK_S: Final = 5.0
"""A worker that was not to be reached has to answer GetWorkerInfo within this time to be given tasks again."""
ASK_AGAIN_S: Final = (0.2, 5.0)
SILENT_S: Final = (1.0, 60.0)
"""One that answers that, but again leaves its tasks without an answer, is left alone for so long first: each of them has
cost an attempt. Twice as long each time, the first time and at most; not when it registers again."""
RECONNECT_S: Final = 1.0
"""Before the cell, which has ended the session, is asked for another one."""

_AHEAD_S: Final = 0.05
"""CancelTask goes out so long before the streams are closed: an agent that hears it knows why they are."""

_STREAM_TASK_STATUS: Final = "/worker_abstraction.WorkerService/StreamTaskStatus"
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # A connection of its own, so that none is shared by chance with another worker's past at this address; and no pings,
    # neither to see whether it is there nor to measure how fast it is: servers with the usual settings end connections on
    # which there are many, and they would be a tenth of the cost of a task.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_retries", 0),  # a call that is repeated unseen would be an attempt that nobody counts
)


class UnaryDriver:
    """See the module. Nothing of it raises but what its makers have to hear of.

    Args:
        cell: for which the worker works.
        door: checks what is said of the worker.
        check: looks at its results.
        contents: of tasks.
        worker: its id.
        registration: what it has said of itself.
        gather: called when there is something to tell that can wait a moment; it calls ``tell`` then.
        boot: of the worker as the cell knows it; attempts are taken up again if it is the one that the state has.

    Raises:
        BadField: the registration is from a time when more was allowed.
    """

    def __init__(
        self,
        cell: Cell,
        door: Door,
        check: ReportCheck,
        contents: Contents,
        worker: str,
        registration: Registration,
        gather: Callable[[UnaryDriver], None],
        boot: str = "",
    ) -> None:
        said = read_tags(registration.tags)
        self.worker = worker
        self.registration = registration
        self.left = False
        """Drained, and gone as the cell sees it."""
        self._cell = cell
        self._door = door
        self._check = check
        self._contents = contents
        self._gather = gather
        self._end = UnaryEnd(
            worker,
            boot or uuid4().hex,
            registration.offers,
            registration.concurrency,
            registration.tags,
            said.capacity,
            said.tenants,
        )
        self._channel = grpc.aio.insecure_channel(registration.address, options=_OPTIONS)
        self._stub = worker_abstraction_pb2_grpc.WorkerServiceStub(self._channel)
        self._statuses: Statuses = self._channel.unary_stream(
            _STREAM_TASK_STATUS, unary.GetTaskStatusRequest.SerializeToString, response_deserializer=None
        )
        self._cell_end: CellEnd | None = None
        self._frames: list[CellFrame] = []
        self._wake_due = False
        self._checking: asyncio.Task[None] | None = None
        """A frame of which results are being looked at; those behind it wait."""
        self._attempts: dict[Key, asyncio.Task[None]] = {}
        self._begun: list[AttemptRef] = []
        self._living: list[AttemptRef] = []
        """What has begun, and what has shown that it lives, since the last ``tell``."""
        self._calls: set[asyncio.Task[None]] = set()
        """What else is on its way to the worker: cancels, and the question whether it is there."""
        self._asking = False
        self._silences = 0
        """How often it was not to be reached, with no word of any of its attempts since."""
        self._anew = asyncio.Event()
        self._cancels = True
        """As far as is known, the worker has CancelTask."""
        self._may_begin = asyncio.Event()
        self._may_begin.set()
        self._last_sent_s = 0.0
        self._connect_at_s = 0.0
        self._loop = asyncio.get_running_loop()
        if boot:
            self._take_up_again()
        self._ask()

    @property
    def connected(self) -> bool:
        """Whether there is a session with the cell."""
        return self._cell_end is not None

    # What the roster says

    def connect(self) -> None:
        """Open a session with the cell, unless there is one, it has to wait, or somebody else has this id."""
        if self._cell_end is not None or self.left or time.monotonic() < self._connect_at_s or self._taken():
            return
        self._cell_end = DialledEnd()
        self._cell.open_worker(self._cell_end, self)
        self._end.connect()
        self._pump()

    def _taken(self) -> bool:
        """Whether another process has a stream under this id: it is there, and must not be driven out."""
        worker = self._cell.state.workers.get(self.worker)
        seat = self._cell.desk.seats.get(self.worker)
        return worker is not None and seat is not None and seat.attached and worker.boot != self._end.boot

    def disconnect(self) -> None:
        """End the session; what the worker has goes on, and is said to be held on the next one."""
        end, self._cell_end = self._cell_end, None
        if end is not None:
            self._end.disconnected()
            self._frames = []
            self._cell.close_worker(end)

    def tick(self) -> None:
        """Time has passed: say something if nothing was said for long."""
        welcome = self._end.welcome
        due = welcome is not None and time.monotonic() - self._last_sent_s > welcome.beat_ns / SECOND_NS
        if due and self._checking is None and (frame := self._end.frame(beat=True)) is not None:
            self._send(frame)

    def tell(self) -> None:
        """Say what could wait a moment: what has begun, unless it has ended since, and what lives."""
        begun, self._begun = self._begun, []
        for ref in begun:
            self._end.started(ref.task, ref.number)
        living, self._living = self._living, []
        for ref in living:
            self._end.progressed(Progress(ref.task, ref.number, -1.0))
        self._pump()

    def changed(self, registration: Registration) -> bool:
        """The worker has registered again. False if it is not the same worker any more: another driver is needed."""
        if registration.address != self.registration.address or self.left:
            return False
        self._cancels = True
        self._silences = 0
        self._anew.set()
        if registration != self.registration:
            said = read_tags(registration.tags)
            self.registration = registration
            end = self._end
            end.offers, end.concurrency, end.tags = registration.offers, registration.concurrency, registration.tags
            end.capacity, end.tenants = said.capacity, said.tenants
            self._connect_at_s = 0.0
            self.disconnect()
        return True

    def hold(self) -> None:
        """The worker is being told to pause: what comes now is kept for it."""
        self._may_begin.clear()

    def release(self) -> None:
        """It is being told to go on."""
        self._may_begin.set()

    def drain(self) -> None:
        """It is about to end: it finishes what it has, and gets nothing more."""
        self._end.drain()
        self._pump()

    async def close(self, *, abandons: bool) -> None:
        """Let go of it. ``abandons``: what it has is lost, and it is told so if it has CancelTask; otherwise that goes on
        there."""
        self.disconnect()
        telling: list[asyncio.Task[None]] = []
        if abandons and self._cancels and self._attempts:
            telling = [self._loop.create_task(self._cancel_there(AttemptRef(*key))) for key in self._attempts]
            await asyncio.sleep(_AHEAD_S)
        checking = [self._checking] if self._checking is not None else []
        tasks = [*self._attempts.values(), *self._calls, *checking]
        for task in tasks:
            task.cancel()
        if tasks or telling:
            await asyncio.wait([*tasks, *telling])
        await self._channel.close()

    # The session: a stream as the cell sees it

    def deliver(self, frame: CellFrame) -> None:
        """What the cell says. Taken in later: here the cell is in the middle of its turn."""
        self._frames.append(frame)
        self._wake()

    def end(self) -> None:
        """The cell has stopped: there is no session to be had any more. The worker has not left."""
        self._connect_at_s = math.inf
        self._loop.call_soon(self.disconnect)

    def _wake(self) -> None:
        if not self._wake_due:
            self._wake_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Take in what the cell has said, and say what there is to say."""
        self._wake_due = False
        frames, self._frames = self._frames, []
        try:
            for frame in frames:
                if frame.refused:
                    log.warning("unary worker %s: the cell ended its session: %s", self.worker, frame.refused)
                    self._later()
                    return
                assignments, cancels = self._end.take(frame)
                for assignment in assignments:
                    self._begin(assignment)
                for ref in cancels:
                    self._cancel(ref)
        except ProtocolViolation as violation:
            log.error("unary worker %s: %s", self.worker, violation)
            self._later()
            return
        if self._end.left:
            self.left = True
            self.disconnect()
            return
        self._pump()

    def _later(self, wait_s: float = RECONNECT_S) -> None:
        self._connect_at_s = time.monotonic() + wait_s
        self.disconnect()

    def _pump(self) -> None:
        while self._checking is None and self._cell_end is not None and (frame := self._end.frame()) is not None:
            if self._check.is_due(self.worker, frame):
                self._checking = self._loop.create_task(self._send_checked(frame, self._cell_end))
            else:
                self._send(frame)

    async def _send_checked(self, frame: WorkerFrame, end: CellEnd) -> None:
        try:
            await self._check.check(self.worker, frame)
        except BlobError as error:
            log.error("unary worker %s: large contents cannot be had just now: %s", self.worker, error)
            if self._cell_end is end:
                self._later()
        finally:
            self._checking = None
        if self._cell_end is end:
            self._send(frame)
        self._pump()

    def _send(self, frame: WorkerFrame) -> None:
        end = self._cell_end
        if end is None:
            return
        try:
            if frame.hello is not None:
                self._door.worker_frame(frame)
            self._cell.worker_frame(end, frame)
        except (ProtocolViolation, CellStopped) as error:
            log.error("unary worker %s: %s", self.worker, error)
            self._later(math.inf if isinstance(error, ProtocolViolation) and error.permanent else RECONNECT_S)
        else:
            self._last_sent_s = time.monotonic()

    # Attempts

    def _take_up_again(self) -> None:
        """What the state says that the worker has, since before this process: its streams are opened again."""
        worker = self._cell.state.workers.get(self.worker)
        for task_id, number in worker.attempts.items() if worker is not None else ():
            ref = AttemptRef(task_id, number)
            attempt = self._cell.state.tasks[task_id].attempt(number)
            self._end.take_up(ref, begun=attempt is not None and attempt.state is AttemptState.RUNNING)
            self._run(ref, lambda made: made.watch())

    def _begin(self, item: Assignment) -> None:
        async def attempt(made: UnaryAttempt) -> Report | None:
            await self._may_begin.wait()
            if not await self._connects():
                return None
            try:
                task = await self._task(item)
            except (ValueError, BlobError) as error:
                failure = Failure("blob", f"its parameters could not be put together: {error}")
                return Report(item.task, item.number, ReportStatus.FAILED, failure=failure)
            report = await made.execute(task)
            if report is not None and report.status is ReportStatus.FAILED and self._cancels:
                self._call(self._cancel_there(made.ref))  # it may have begun all the same
            return report or await made.watch()

        if self._end.open:
            self._run(AttemptRef(item.task, item.number), attempt)
        else:
            self._end.handed_back(item.task, item.number)

    def _run(self, ref: AttemptRef, run: Callable[[UnaryAttempt], Awaitable[Report | None]]) -> None:
        async def attempt() -> None:
            made = UnaryAttempt(
                self._stub, self._statuses, ref, self._contents, lambda: self._began(ref), lambda: self._lives(ref)
            )
            try:
                report = await run(made)
            except Exception as error:  # noqa: BLE001  (whatever a worker says: it costs that worker this attempt)
                log.error("unary worker %s: attempt %s: %s", self.worker, wire_id(ref), brief(error))
                failure = Failure("contract", f"what the worker said cannot be understood: {brief(error)}")
                report = Report(ref.task, ref.number, ReportStatus.FAILED, failure=failure)
            self._ended(ref, report, away=made.away)

        task = self._attempts[ref.task, ref.number] = self._loop.create_task(attempt())
        task.add_done_callback(lambda _: self._attempts.pop((ref.task, ref.number), None))

    def _began(self, ref: AttemptRef) -> None:
        self._begun.append(ref)
        self._gather(self)

    def _lives(self, ref: AttemptRef) -> None:
        task = self._cell.state.tasks.get(ref.task)
        if task is not None and task.terms is not None and task.terms.heartbeat_timeout_ns:
            self._living.append(ref)
            self._gather(self)

    def _ended(self, ref: AttemptRef, report: Report | None, *, away: bool) -> None:
        """``report``: None when the attempt is known not to have begun. ``away``: the worker was not to be reached."""
        if report is None:
            self._end.handed_back(ref.task, ref.number)
        else:
            self._end.ended(report)
        if report is None or away:
            self._end.open = False
            if not self._asking:
                self._silences += 1
            self._ask()
        else:
            self._silences = 0
        self._wake()

    def _cancel(self, ref: AttemptRef) -> None:
        """The attempt is over: its streams are closed, and what comes late is not heard."""
        task = self._attempts.get((ref.task, ref.number))
        if task is None:
            return
        if self._cancels:
            self._call(self._cancel_there(ref))
            self._loop.call_later(_AHEAD_S, task.cancel)
        else:
            task.cancel()
        self._end.ended(
            Report(ref.task, ref.number, ReportStatus.CANCELED, failure=Failure("canceled", "canceled", permanent=True))
        )

    async def _cancel_there(self, ref: AttemptRef) -> None:
        try:
            with calling(CANCELED):
                await self._stub.CancelTask(unary.GetTaskStatusRequest(task_id=wire_id(ref)), timeout=CANCEL_S)
        except grpc.aio.AioRpcError as error:
            self._cancels = error.code() is not grpc.StatusCode.UNIMPLEMENTED
        except ConnectionError:
            pass  # it is abandoned all the same

    # Reaching the worker

    async def _connects(self) -> bool:
        if self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
            return True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._channel.channel_ready(), CONNECT_S)
            return True
        return False

    def _ask(self) -> None:
        """Find out whether the worker is to be reached; from then on it has room."""
        if not self._asking:
            self._asking = True
            self._call(self._until_it_answers())

    async def _until_it_answers(self) -> None:
        wait_s, last_s = ASK_AGAIN_S
        first_s, most_s = SILENT_S
        try:
            if self._silences > 1:
                self._anew.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._anew.wait(), min(most_s, first_s * 2.0 ** min(self._silences - 2, 10)))
            while not (await self._connects() and await self._answers()):
                await asyncio.sleep(wait_s)
                wait_s = min(last_s, wait_s * 2)
        finally:
            self._asking = False
        self._end.open = True
        self._wake()

    async def _answers(self) -> bool:
        try:
            with calling(CANCELED):
                await self._stub.GetWorkerInfo(Empty(), timeout=ASK_S)
        except grpc.aio.AioRpcError as error:
            return error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        except ConnectionError:
            return False
        except Exception as error:  # noqa: BLE001  (nonsense is an answer too; its attempts will say what is wrong)
            log.warning("unary worker %s: GetWorkerInfo: %s", self.worker, brief(error))
        return True

    def _call(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _task(self, item: Assignment) -> unary.Task:
        """The attempt in the words of the contract. Raises ``ValueError`` and ``BlobError``."""
        known = self._cell.state.tasks.get(item.task)
        parameters = await self._contents.parameters(item)
        labels: Iterable[tuple[str, str]] = known.terms.labels if known is not None and known.terms is not None else ()
        metadata = dict(labels) | {TASK_KEY: item.task, ATTEMPT_KEY: str(item.number)}
        created_at = Timestamp()
        if known is not None:
            metadata[TENANT_KEY] = known.tenant
            created_at.seconds, created_at.nanos = divmod(known.submitted_ns, SECOND_NS)
        return unary.Task(
            task_id=wire_id(AttemptRef(item.task, item.number)),
            worker_id=self.worker,
            capability_name=item.capability,
            parameters=parameters,
            timeout_seconds=math.ceil(item.run_timeout_ns / SECOND_NS),
            created_at=created_at,
            metadata=metadata,
        )
