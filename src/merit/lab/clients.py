"""Simulated clients: the real client end, and programs that submit, cancel, watch, vanish and come back."""

from __future__ import annotations

from collections import Counter

from msgspec import structs

from merit.kernel.waiting import End
from merit.lab.cell import SimulatedCell, new_end
from merit.lab.ledger import Violation
from merit.lab.network import Network, Stream
from merit.lab.workers import CAPABILITIES
from merit.lab.world import World
from merit.model.frames import ServerFrame
from merit.model.limits import MILLISECOND_NS, SECOND_NS
from merit.model.tasks import Priority, Refusal, TaskSpec, TaskState
from merit.session.client_end import ClientEnd
from merit.session.link import ProtocolViolation

LONG_NS = 3_600 * SECOND_NS


class SimulatedClient:
    """A program that submits ``tasks`` tasks over the time given, and wants to know what became of them."""

    def __init__(
        self, world: World, network: Network, cell: SimulatedCell, number: int, tasks: int, over_ns: int
    ) -> None:
        self._world = world
        self._network = network
        self._cell = cell
        self.name = f"c{number}"
        self.partitioned_until_ns = 0
        self.specs: dict[str, TaskSpec] = {}
        self.gone = False
        self._asked: set[str] = set()
        """Tasks of others that it wants to know the end of."""
        self._lives = 0
        self._left = tasks
        self._fickle = world.rng.choice((0.0, 0.1, 0.5))
        self._kinds = world.rng.sample(CAPABILITIES, world.rng.choice((1, 3)))
        self._urgencies = list(Priority) if world.rng.random() < 0.5 else [Priority.MEDIUM]
        self._entangled = world.rng.choice((0.1, 0.3, 0.8))
        # All over the time given, or nearly all at once.
        self._pace_ns = over_ns * 2 // max(tasks, 1) // world.rng.choice((1, 1, 50))
        self._start()
        self._next()

    def make_end(self) -> End:
        return new_end(worker=False)

    @property
    def quiet(self) -> bool:
        """Whether it has done all it wanted to do, and knows all it wants to know."""
        if self.gone:
            return True
        return not self._left and not self.end.unacknowledged and not self.waits_for()

    def waits_for(self) -> list[str]:
        """What it has submitted or asked after and not heard of."""
        return [] if self.gone else sorted((self.specs.keys() | self._asked) - self._known)

    # The process

    def _start(self) -> None:
        self._lives += 1
        self.end = ClientEnd(f"{self.name}.{self._lives}")
        self.stream: Stream | None = None
        self._known: set[str] = set()
        """Tasks that this life of the program was told the end of, or a refusal."""
        self._told: Counter[str] = Counter()
        self._refused: set[str] = set()
        """Tasks that were refused once, whatever became of them later."""
        world = self._world
        for spec in self.specs.values():
            # A program that comes back cannot know what arrived: it says everything again, or asks after it.
            if spec.id in self._cell.acknowledged and world.rng.random() < 0.5:
                self.end.watch(spec.id)
            else:
                self.end.submit([spec], again=True)
        for task in sorted(self._asked):
            self.end.watch(task)
        self._later(world.between(0, 50), "connects", self._connect)

    def _later(self, wait_ns: int, what: str, action: object, *arguments: object) -> None:
        self._world.after(wait_ns, f"{self.name} {what}", self._if_alive, self._lives, action, *arguments)

    def _if_alive(self, life: int, action: object, *arguments: object) -> None:
        if life == self._lives and not self.gone and callable(action):
            action(*arguments)

    def _dies(self) -> bool:
        world = self._world
        if not world.chance(world.weather.client_crash, "client crash"):
            return False
        if self.stream is not None:
            self.stream.at_peer = False
            self._network.snap(self.stream)
            self.stream = None
        self._lives += 1
        if world.rng.random() < 0.3:
            world.coverage["client gone for good"] += 1
            self.gone = True
        else:
            world.after(world.between(1, 1_000), f"{self.name} starts", self._start)
            self.end = ClientEnd("nobody")
        return True

    # The stream

    def _connect(self) -> None:
        stream = self._network.connect(self)
        if stream is None:
            self._later(self._world.between(20, 200), "connects", self._connect)
            return
        self.stream = stream
        self.end.connect()
        self._pump()

    def disconnected(self, stream: Stream) -> None:
        if self.stream is stream:
            self.stream = None
            self.end.disconnected()
            self._later(self._world.between(1, 150), "connects", self._connect)

    def receive(self, stream: Stream, frame: ServerFrame) -> None:
        if self.stream is not stream or self._dies():
            return
        try:
            news = self.end.take(frame)
        except ProtocolViolation as violation:
            self._network.blame(stream, violation, up=False)
            return
        refused = {refusal.task for refusal in news.refusals}
        for refusal in news.refusals:
            self._world.coverage[f"refused: {refusal.code}"] += 1
            self._refused.add(refusal.task)
            self._known.add(refusal.task)
            if refusal.field == "after":
                self._check_order(refusal)
            elif refusal.field == "watch" and refusal.task in self._cell.acknowledged:
                raise Violation("lookup", refusal.task, f"was acknowledged, and {self.name} was told: {refusal.reason}")
            elif refusal.retry_after_ns and self._world.rng.random() < 0.7:
                self._later(refusal.retry_after_ns, f"submits {refusal.task} again", self._again, refusal.task)
        for task in news.accepted:
            if task in refused:
                raise Violation("acknowledged", task, "was called accepted and refused in the same breath")
            self._cell.acknowledged.add(task)
        for outcome in news.outcomes:
            self._known.add(outcome.task)
            self._told[outcome.task] += 1
            if self._told[outcome.task] > 1:
                raise Violation("told once", outcome.task, f"{self.name} heard the end of it twice")
        self._pump()

    def _again(self, task: str) -> None:
        self._world.coverage["submitted again after a refusal"] += 1
        self._known.discard(task)
        self.end.submit([self.specs[task]])
        self._pump()

    def _check_order(self, refusal: Refusal) -> None:
        """What was submitted before is known to what is submitted after it."""
        ledger = self._cell.ledger
        for needed in self.specs[refusal.task].after:
            outcome = ledger.settled.get(needed)
            if needed in self._refused or (outcome is not None and outcome.state is not TaskState.COMPLETED):
                return
            if needed not in ledger.state.tasks and outcome is not None:
                return  # it was final too long ago
        raise Violation("order", refusal.task, f"refused, though all it needs was submitted before: {refusal.reason}")

    def _pump(self) -> None:
        stream = self.stream
        while stream is not None and stream.at_peer and (frame := self.end.frame()) is not None:
            self._network.send(stream, frame, up=True)

    # The program

    def _next(self) -> None:
        self._world.after(int(self._pace_ns * self._world.rng.random()), f"{self.name} acts", self._act)

    def _act(self) -> None:
        if self.gone or not self._left:
            return
        world = self._world
        size = 1 if world.rng.random() < 0.7 else world.rng.choice((2, 3, 5, 10))
        size = min(size, self._left)
        group = [self._spec() for _ in range(size)]
        if size > 2 and world.rng.random() < self._entangled:
            world.coverage["one task needed by many"] += 1
            group[1:] = [structs.replace(spec, after=(group[0].id,)) for spec in group[1:]]
            self.specs.update((spec.id, spec) for spec in group)
        self._left -= size
        if size > 1 and world.rng.random() < 0.3:
            for spec in group:
                self.end.submit([spec])
        else:
            world.coverage["group" if size > 1 else "single"] += 1
            self.end.submit(group)
        if self.specs and world.rng.random() < self._fickle:
            world.coverage["cancel"] += 1
            known = list(self.specs)
            self.end.cancel(world.rng.choice(known if world.rng.random() < 0.5 else known[-3:]))
        if world.rng.random() < 0.15:
            others = sorted(self._cell.acknowledged - self.specs.keys() - self._asked)
            if others:
                world.coverage["task of somebody else watched"] += 1
                task = world.rng.choice(others)
                self._asked.add(task)
                self.end.watch(task)
        self._pump()
        self._next()

    def _spec(self) -> TaskSpec:
        world, rng = self._world, self._world.rng
        task = f"{self.name}-{len(self.specs):02d}"
        after: tuple[str, ...] = ()
        if self.specs and rng.random() < self._entangled:
            world.coverage["dependency"] += 1
            # Often the same few, so that the end of one concerns many.
            known = list(self.specs)
            few = known[len(known) // 8 * 8 :][:2] or known[-2:] if rng.random() < 0.6 else known[-6:]
            after = tuple(rng.sample(few, min(rng.randint(1, 2), len(few))))
        brief = rng.random() < 0.2
        spec = TaskSpec(
            task,
            rng.choice(self._kinds),
            f'{{"n":{len(self.specs)}}}'.encode(),
            priority=rng.choice(self._urgencies),
            run_timeout_ns=int(rng.choice((150, 600)) * MILLISECOND_NS) if brief else LONG_NS,
            attempts_max=rng.choice((1, 4, 4, 4, 10)),
            after=after,
        )
        self.specs[task] = spec
        return spec
