"""Simulated workers: the real worker end, and lives that are shorter, slower and less orderly than one would like."""

from __future__ import annotations

from collections import deque

from msgspec import structs

from merit.kernel.waiting import End
from merit.lab.answers import PROBE, PROBE_RESULT, answer, made_by
from merit.lab.cell import SimulatedCell, new_end
from merit.lab.habits import Habits
from merit.lab.network import Network, Stream
from merit.lab.violation import Violation
from merit.lab.world import World
from merit.model.frames import Assignment, AttemptRef, CellFrame, Report, ReportStatus
from merit.model.limits import MILLISECOND_NS
from merit.model.tasks import AttemptState, Failure, Progress
from merit.session.link import ProtocolViolation
from merit.session.worker_end import WorkerEnd

HANGS_BELOW_NS = 2_000 * MILLISECOND_NS
"""Only attempts with a shorter run time-out than this ever hang, so that a time-out never hides something forgotten."""
BEAT_NS = 500 * MILLISECOND_NS

Key = tuple[str, int]


class SimulatedWorker:
    """One name; processes under it come and go (``boot`` tells them apart)."""

    def __init__(
        self,
        world: World,
        network: Network,
        cell: SimulatedCell,
        habits: Habits,
        number: int,
        twin_of: SimulatedWorker | None = None,
    ) -> None:
        rng = world.rng
        self.name: str = f"w{number}" if twin_of is None else twin_of.name
        self._world = world
        self._network = network
        self._cell = cell
        self._habits = habits
        self._number = number
        self._twin = twin_of is not None
        self._names = 0
        self.retired = False
        self.partitioned_until_ns = 0
        # The first worker can do everything, so that no task which asks for nothing waits for ever.
        self._kit = habits.kit(rng, whole=number == 0)
        self._concurrency = rng.choice((1, 1, 2, 4))
        self._slowness = rng.choice((1.0, 1.0, 5.0))
        self._knows = rng.choice((1.0, 1.0, 0.5))
        """How often it does a probe right."""
        self._fails = rng.choice((0.0, 0.05, 0.4)) if number else 0.05
        self._errs = rng.choice((0.0, 0.0, 0.2, 1.0))
        """How often it says what is wrong …"""
        self._wrong = rng.choice(("wrong", f"wrong by {self.name}"))
        """… and what that is: the same as others, or something of its own."""
        self._boots = 0
        self._start()

    def make_end(self) -> End:
        return new_end()

    @property
    def quiet(self) -> bool:
        """Whether it is connected, holds nothing and has nothing left to say."""
        if self.retired:
            return True
        return self.stream is not None and not self.end.held and not self.end.unacknowledged and not self.end.draining

    # The process

    def _start(self) -> None:
        if self.retired:
            return
        self._boots += 1
        self.boot = f"{self.name}.{self._boots}" + (" twin" if self._twin else "")
        if (
            self._number
            and self._boots > 1
            and self._world.chance(self._world.weather.new_kit, "worker comes as another")
        ):
            self._kit = self._habits.kit(self._world.rng, whole=False)
        kit = self._kit
        self.end = WorkerEnd(self.name, self.boot, kit.offers, self._concurrency, kit.tags, kit.capacity, kit.tenants)
        self.stream: Stream | None = None
        self._queue: deque[Assignment] = deque()
        self._running: dict[Key, Assignment] = {}
        self._begun: set[Key] = set()
        self._over: set[Key] = set()
        self._over_on: Stream | None = None
        self._ended: set[Key] = set()
        self._later(self._world.between(0, 100), "connects", self._connect)

    def _later(self, wait_ns: int, what: str, action: object, *arguments: object) -> None:
        """Something that this process does later, if it still exists then."""
        self._world.after(wait_ns, f"{self.boot} {what}", self._if_alive, self.boot, action, *arguments)

    def _if_alive(self, boot: str, action: object, *arguments: object) -> None:
        if boot == self.boot and callable(action):
            action(*arguments)

    def _dies(self) -> bool:
        world = self._world
        if not world.chance(world.weather.worker_crash, "worker crash"):
            return False
        self._end_process()
        if world.rng.random() < 0.3:
            # Its name stays behind, with all that it held.
            world.coverage["worker starts under another name"] += 1
            self._names += 1
            self.name = f"w{self._number}.{self._names}"
        return True

    def retire(self) -> None:
        """The process ends and no other one takes its place."""
        self._world.coverage["worker with the name of another"] += 1
        self._end_process()
        self.retired = True

    def _end_process(self) -> None:
        if self.stream is not None:
            self.stream.at_peer = False
            self._network.snap(self.stream)
            self.stream = None
        self.boot = f"{self.name}.none"
        self._world.after(self._world.between(1, 1_000), f"{self.name} starts", self._start)

    # The stream

    def _connect(self) -> None:
        stream = self._network.connect(self)
        if stream is None:
            self._later(self._world.between(20, 200), "connects", self._connect)
            return
        self.stream = stream
        if self._number and self._world.chance(self._world.weather.new_offers, "worker offers something else"):
            kit = self._habits.kit(self._world.rng, whole=False)
            self.end.offers = tuple(structs.replace(offer, version="2.0.0") for offer in kit.offers[:1])
            self.end.tags, self.end.capacity, self.end.tenants = kit.tags, kit.capacity, kit.tenants
        self.end.connect()
        if self.end.session > 1:
            self._world.coverage["worker resumes"] += 1
            if self.end.held:
                self._world.coverage["worker resumes with attempts"] += 1
        self._pump()
        self._later(BEAT_NS, "beats", self._beat, stream)

    def _beat(self, stream: Stream) -> None:
        if self.stream is not stream or self._dies():
            return
        if self._world.chance(self._world.weather.worker_drain, "worker drains"):
            self.end.drain()
            while self._queue:
                assignment = self._queue.popleft()
                self._world.coverage["attempt handed back"] += 1
                self.end.handed_back(assignment.task, assignment.number)
        if self.end._link.idle:
            self._check_started()
        self._check_called_off(stream)
        frame = self.end.frame(beat=True)
        if frame is not None:
            self._network.send(stream, frame, up=True)
        self._later(BEAT_NS, "beats", self._beat, stream)

    def disconnected(self, stream: Stream) -> None:
        if self.stream is stream:
            self.stream = None
            self.end.disconnected()
            self._later(self._world.between(1, 150), "connects", self._connect)

    def receive(self, stream: Stream, frame: CellFrame) -> None:
        if self.stream is not stream or self._dies():
            return
        if frame.refused:
            self._world.note(f"{self.boot} is refused: {frame.refused}")
            if frame.permanent:
                # The process gives up; whoever started it starts another one.
                self._world.coverage["worker refused for good"] += 1
                self._end_process()
            return
        end = self.end
        try:
            new, cancels = end.take(frame)
        except ProtocolViolation as violation:
            self._network.blame(stream, violation, up=False)
            return
        self._check_credits(stream, frame)
        for word in end.words():
            self._cell.ledger.fleet_book.hears(self.name, word)
        for assignment in new:
            if (assignment.task, assignment.number) in self._ended:
                raise Violation("run twice", assignment.task, f"attempt {assignment.number} came to {self.boot} again")
            if end.draining:
                self._world.coverage["attempt handed back"] += 1
                end.handed_back(assignment.task, assignment.number)
            else:
                self._queue.append(assignment)
        # One frame may hold an attempt and the word that it is over.
        for ref in cancels:
            self._cancel((ref.task, ref.number))
        self._work()
        self._pump()
        if end.left:
            if self._cell.ledger.boots.get(self.name) == self.boot:
                raise Violation("goodbye", self.name, "was acknowledged, and the worker is still there")
            self._world.coverage["worker leaves"] += 1
            self._end_process()

    def _check_started(self) -> None:
        """All that was said is durable: so the cell knows what has begun."""
        unsaid = {(ref.task, ref.number) for ref in self.end._started}
        for task, number in self._begun - unsaid:
            known = self._cell.ledger.state.tasks.get(task)
            attempt = known.attempt(number) if known is not None else None
            if attempt is not None and attempt.state is AttemptState.ASSIGNED:
                raise Violation("started", task, f"attempt {number} has begun on {self.boot}, and the cell forgot it")

    def _check_called_off(self, stream: Stream) -> None:
        """From one beat to the next the cell has had time to call off what is over."""
        live, me = self._cell.ledger.live, (self.name, self.boot)
        over = set()
        if self.end.welcome is not None and not stream.broken and not any(stream.holed):
            over = {key for key in self._running if live.get(key[0]) != (key[1], *me)}
        forgotten = over & self._over
        if forgotten and self._over_on is stream:
            task, number = min(forgotten)
            raise Violation("called off", task, f"attempt {number} is over, and {self.boot} was never told")
        self._over, self._over_on = over, stream

    def _check_credits(self, stream: Stream, frame: CellFrame) -> None:
        """Attempts that were assigned on this very stream came on a credit (others are sent again whatever is free)."""
        assigned_on = self._cell.assigned_on
        fresh = [a.task for a in frame.assignments if assigned_on.get((a.task, a.number)) is stream]
        if fresh and self.end._taken > self.end._granted_told:
            message = (
                f"{self.name} was given {self.end._taken} attempts and had offered to take {self.end._granted_told}"
            )
            raise Violation("credits", fresh[-1], message)

    def _lie(self) -> None:
        """Say things of an attempt that this process never had."""
        world = self._world
        tasks = list(self._cell.ledger.submitted)
        if not tasks or not world.chance(world.weather.lie, "worker lies"):
            return
        task = world.rng.choice(tasks)
        # Never one to come, or on its way: that would be its own by the time the lie is heard.
        number = world.rng.choice((99, world.rng.randint(0, self._cell.ledger.attempts.get(task, 0))))
        if (task, number) in self.end._held or self._cell.ledger.live.get(task) == (number, self.name, self.boot):
            return
        kind = world.rng.randrange(4)
        if kind == 0:
            self.end._started.append(AttemptRef(task, number))
        elif kind == 1:
            self.end._returned.append(AttemptRef(task, number))
        elif kind == 2:
            self.end._queue(Report(task, number, ReportStatus.FAILED, failure=Failure("lie", "", permanent=True)))
        else:
            self.end._queue(Report(task, number, ReportStatus.COMPLETED, self._answer(b"", task, number)))

    def _pump(self) -> None:
        self._lie()
        stream = self.stream
        while stream is not None and stream.at_peer and (frame := self.end.frame()) is not None:
            self._network.send(stream, frame, up=True)

    # The work

    def _work(self) -> None:
        while self._queue and len(self._running) < self._concurrency:
            assignment = self._queue.popleft()
            key = (assignment.task, assignment.number)
            self._running[key] = assignment
            world = self._world
            if assignment.run_timeout_ns < HANGS_BELOW_NS and world.rng.random() < 0.3:
                world.coverage["attempt hangs"] += 1
                self._begin(key)
                continue
            beat_ns = assignment.heartbeat_timeout_ns
            if beat_ns:
                self._begin(key)
                if world.rng.random() < 0.25:
                    world.coverage["attempt shows nothing"] += 1
                    continue
                self._show(key, beat_ns // 3)
            wait_ns = int(world.between(0.5, 80) * self._slowness)
            if assignment.run_timeout_ns >= HANGS_BELOW_NS and world.rng.random() < 0.08:
                wait_ns = world.between(500, 2_000)
            if wait_ns > 20 * MILLISECOND_NS and not beat_ns:
                self._begin(key)
                self.end.progressed(Progress(assignment.task, assignment.number, 0.5, log=("half of it",)))
            self._later(wait_ns, f"ends {assignment.task}#{assignment.number}", self._end, key, wait_ns)

    def _show(self, key: Key, every_ns: int) -> None:
        """A sign of life, again and again while it runs."""
        if key in self._running:
            self.end.progressed(Progress(*key, -1.0, log=("still here",)))
            self._pump()
            self._later(every_ns, f"shows {key[0]}#{key[1]}", self._show, key, every_ns)

    def _begin(self, key: Key) -> None:
        self._begun.add(key)
        self.end.started(*key)

    def _end(self, key: Key, wall_ns: int) -> None:
        if key not in self._running or self._dies():
            return
        assignment = self._running.pop(key)
        self._begun.discard(key)
        task, number = key
        if self._world.rng.random() < self._fails:
            if self._world.rng.random() < 0.3:
                refusal = Failure("refused", "not today")
                report = Report(task, number, ReportStatus.REFUSED, failure=refusal)
            else:
                failure = Failure("error", "it broke", permanent=self._world.rng.random() < 0.1)
                report = Report(task, number, ReportStatus.FAILED, failure=failure, wall_ns=wall_ns)
        else:
            result = self._answer(assignment.parameters, task, number)
            if assignment.parameters == PROBE and self._world.rng.random() < self._knows:
                result = PROBE_RESULT
            report = Report(task, number, ReportStatus.COMPLETED, result, wall_ns=wall_ns)
        self._ended.add(key)
        self.end.ended(report)
        self._work()
        self._pump()

    def _answer(self, parameters: bytes, task: str, number: int) -> bytes:
        wrong = self._wrong if self._world.rng.random() < self._errs else ""
        return answer(parameters, made_by(task, number, self.name, self.boot), wrong)

    def _cancel(self, key: Key) -> None:
        for assignment in self._queue:
            if (assignment.task, assignment.number) == key:
                self._queue.remove(assignment)
                break
        else:
            if self._running.pop(key, None) is None:
                return
            self._begun.discard(key)
        self._world.coverage["attempt called off"] += 1
        self._ended.add(key)
        self.end.ended(Report(*key, ReportStatus.CANCELED, failure=Failure("canceled", "called off")))
