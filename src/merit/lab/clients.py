"""Simulated clients: the real client end, and programs that submit, cancel, watch, vanish and come back."""

from __future__ import annotations

from collections import Counter

from msgspec import structs

from merit.kernel.waiting import End
from merit.lab.cell import SimulatedCell, new_end
from merit.lab.habits import CAPABILITIES, KEYS, Habits
from merit.lab.network import Network, Stream
from merit.lab.violation import Violation
from merit.lab.world import World
from merit.model.frames import ServerFrame
from merit.model.limits import MILLISECOND_NS, SECOND_NS
from merit.model.tasks import Priority, Refusal, RetryPolicy, TaskSpec, TaskState, Terms
from merit.session.client_end import ClientEnd, News
from merit.session.link import ProtocolViolation

LONG_NS = 3_600 * SECOND_NS


class SimulatedClient:
    """A program that submits ``tasks`` tasks over the time given, and wants to know what became of them."""

    def __init__(
        self,
        world: World,
        network: Network,
        cell: SimulatedCell,
        habits: Habits,
        number: int,
        tasks: int,
        over_ns: int,
    ) -> None:
        self._world = world
        self._habits = habits
        self.tenant = world.rng.choice(habits.tenants)
        self._network = network
        self._cell = cell
        self.name = f"c{number}"
        self.partitioned_until_ns = 0
        self.specs: dict[str, TaskSpec] = {}
        self.gone = False
        self._asked: set[str] = set()
        """Tasks of others that it wants to know the end of."""
        self._follows: dict[str, None] = {}
        """Tasks of which it wants to know every step."""
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
        return new_end(self.tenant)

    @property
    def quiet(self) -> bool:
        """Whether it has done all it wanted to do, and knows all it wants to know."""
        if self.gone:
            return True
        return not (self._left or self.end.unacknowledged or self.waits_for() or self.misses())

    def waits_for(self) -> list[str]:
        """What it has submitted or asked after and not heard of."""
        if self.gone:
            return []
        wanted = self.specs.keys() | self._asked
        return sorted(task for task in wanted if self._aliases.get(task, task) not in self._known)

    def misses(self) -> list[str]:
        """Tasks that it follows, on a stream that is still there, and that have ended without its having heard so."""
        stream, ledger = self.stream, self._cell.ledger
        if self.gone or stream is None or stream.broken or not stream.at_cell:
            return []
        ended = [task for task in self._followed if task in ledger.settled and task in ledger.state.tasks]
        return [task for task in ended if self._heard.get(task) is not ledger.settled[task].state]

    # The process

    def _start(self) -> None:
        self._lives += 1
        self.end = ClientEnd(f"{self.name}.{self._lives}")
        self.stream: Stream | None = None
        self._known: set[str] = set()
        """Tasks that this life of the program was told the end of, or a refusal."""
        self._told: Counter[str] = Counter()
        self._aliases: dict[str, str] = {}
        """Submits that this life was told are other tasks, by their idempotency keys."""
        self._followed: dict[str, None] = {}
        """On the present stream."""
        self._heard: dict[str, TaskState] = {}
        """By followed task: the last state that was told on the present stream."""
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
        for task in self._follows:
            self.end.follow(task)
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
        self._followed = dict(self.end._following)
        self._heard = {}
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
        self._hear(news)
        self._take_refusals(news.refusals)
        refused = {refusal.task for refusal in news.refusals}
        for task in news.accepted:
            if task in refused:
                raise Violation("acknowledged", task, "was called accepted and refused in the same breath")
            if task not in self._aliases:
                self._cell.acknowledged.add(task)
        for outcome in news.outcomes:
            if not self._mine(outcome.task):
                raise Violation("tenants", outcome.task, f"{self.name} of {self.tenant} was told its end")
            self._known.add(outcome.task)
            self._told[outcome.task] += 1
            # Each submit that is this task by its key asks for its outcome anew.
            if self._told[outcome.task] > 1 + list(self._aliases.values()).count(outcome.task):
                raise Violation("told once", outcome.task, f"{self.name} heard the end of it twice")
        self._pump()

    def _hear(self, news: News) -> None:
        """What is known by its key, and the steps of what it follows."""
        coverage = self._world.coverage
        for task, existing in news.known:
            coverage["known by its idempotency key"] += 1
            self._aliases[task] = existing
            if task in self._followed:
                del self._followed[task]
                self._followed[existing] = None
        for update in news.updates:
            if not self._mine(update.task):
                raise Violation("tenants", update.task, f"{self.name} of {self.tenant} was told how far it is")
            self._heard[update.task] = update.state
            coverage["step heard"] += 1
            if update.log:
                coverage["log line heard"] += 1

    def _take_refusals(self, refusals: list[Refusal]) -> None:
        for refusal in refusals:
            self._world.coverage[f"refused: {refusal.code}"] += 1
            self._refused.add(refusal.task)
            self._known.add(refusal.task)
            self._followed.pop(refusal.task, None)
            if refusal.field == "after":
                self._check_order(refusal)
            elif refusal.field == "terms.idempotency_key" and "of the same submit" not in refusal.reason:
                same = self._cell.ledger.terms_book.stands_for(self.tenant, self.specs[refusal.task])
                if same:
                    raise Violation("one task per key", refusal.task, f"is {same}, and was refused: {refusal.reason}")
            elif refusal.field == "watch" and refusal.task in self._cell.acknowledged and self._mine(refusal.task):
                raise Violation("lookup", refusal.task, f"was acknowledged, and {self.name} was told: {refusal.reason}")
            elif refusal.retry_after_ns and self._world.rng.random() < 0.7:
                self._later(refusal.retry_after_ns, f"submits {refusal.task} again", self._again, refusal.task)

    def _mine(self, task: str) -> bool:
        return self._cell.ledger.submitted[task].tenant == self.tenant

    def _again(self, task: str) -> None:
        self._world.coverage["submitted again after a refusal"] += 1
        self._known.discard(task)
        self.end.submit([self.specs[task]])
        self._pump()

    def _check_order(self, refusal: Refusal) -> None:
        """What was submitted before is known to what is submitted after it."""
        ledger, spec = self._cell.ledger, self.specs[refusal.task]
        despite = spec.terms is not None and spec.terms.despite_dead
        for needed in spec.after:
            outcome = ledger.settled.get(needed)
            if needed in self._refused or needed in self._aliases:
                return
            if outcome is not None and outcome.state is not TaskState.COMPLETED and not despite:
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
            group[1:] = [self._needing(spec, group[0].id) for spec in group[1:]]
            self.specs.update((spec.id, spec) for spec in group)
        self._left -= size
        if size > 1 and world.rng.random() < 0.3:
            for spec in group:
                self.end.submit([spec])
        else:
            world.coverage["group" if size > 1 else "single"] += 1
            self.end.submit(group)
        for spec in group:
            if world.rng.random() < self._habits.follows:
                self._follow(spec.id)
        if self.specs and world.rng.random() < self._fickle:
            world.coverage["cancel"] += 1
            known = list(self.specs)
            self.end.cancel(world.rng.choice(known if world.rng.random() < 0.5 else known[-3:]))
        if world.rng.random() < 0.15:
            self._pry()
        self._pump()
        self._next()

    def _pry(self) -> None:
        """Ask after a task that somebody else has submitted."""
        world, ledger = self._world, self._cell.ledger
        others = sorted(self._cell.acknowledged - self.specs.keys() - self._asked)
        if not others:
            return
        task = world.rng.choice(others)
        own = ledger.submitted[task].tenant == self.tenant
        world.coverage["task of somebody else watched" if own else "task of another tenant watched"] += 1
        self._asked.add(task)
        self.end.watch(task)
        if world.rng.random() < self._habits.follows:
            self._follow(task)

    def _follow(self, task: str) -> None:
        self._world.coverage["task followed"] += 1
        self._follows[task] = None
        self.end.follow(task)
        if self.stream is not None:
            self._followed[task] = None

    def _needing(self, spec: TaskSpec, needed: str) -> TaskSpec:
        """The task, needing this one and nothing else; what a key stands for remains as it is."""
        terms = spec.terms
        if terms is not None and terms.idempotency_key:
            return spec
        if terms is not None:
            terms = structs.replace(terms, inputs=self._inputs((needed,)))
        return structs.replace(spec, after=(needed,), terms=terms)

    def _spec(self) -> TaskSpec:
        world, rng, habits = self._world, self._world.rng, self._habits
        task = world.new_id()
        after: tuple[str, ...] = ()
        capability, parameters = rng.choice(self._kinds), f'{{"n":{len(self.specs)}}}'.encode()
        key = ""
        if rng.random() < habits.idempotency_keys:
            # The same few keys again and again, and now and then for something else.
            number = rng.randrange(KEYS)
            key, capability, parameters = f"once-{number}", CAPABILITIES[number % 3], b'{"n":0}'
            if rng.random() < 0.1:
                parameters = b'{"n":1}'
        elif self.specs and rng.random() < self._entangled:
            world.coverage["dependency"] += 1
            # Often the same few, so that the end of one concerns many.
            known = list(self.specs)
            few = known[len(known) // 8 * 8 :][:2] or known[-2:] if rng.random() < 0.6 else known[-6:]
            after = tuple(rng.sample(few, min(rng.randint(1, 2), len(few))))
        brief = rng.random() < 0.2
        spec = TaskSpec(
            task,
            capability,
            parameters,
            priority=rng.choice(self._urgencies),
            run_timeout_ns=int(rng.choice((150, 600)) * MILLISECOND_NS) if brief else LONG_NS,
            attempts_max=rng.choice((1, 4, 4, 4, 10)),
            after=after,
            timeout_ns=world.between(50, 1_500) if rng.random() < habits.deadlines else LONG_NS,
            terms=self._terms(key, after),
        )
        self.specs[task] = spec
        return spec

    def _terms(self, idempotency_key: str, after: tuple[str, ...]) -> Terms | None:
        world, rng, habits = self._world, self._world.rng, self._habits

        def asks(share: float, what: str) -> bool:
            return bool(share) and world.chance(share, what)

        terms = Terms(
            not_before_ns=world.now_ns + world.between(1, 1_500) if asks(habits.delays, "delay") else 0,
            deadline_ns=world.now_ns + world.between(20, 1_500) if asks(habits.deadlines, "deadline") else 0,
            queue_timeout_ns=world.between(5, 500) if asks(habits.queue_timeouts, "queue time-out") else 0,
            heartbeat_timeout_ns=300 * MILLISECOND_NS if asks(habits.heartbeats, "heartbeat") else 0,
            estimate_ns=world.between(1, 100) if asks(habits.estimates, "estimate") else 0,
            retry=self._policy() if asks(habits.retry_policies, "retry policy") else None,
            safe_to_repeat=not asks(habits.unrepeatable, "not safe to repeat"),
            key=rng.choice(("red", "blue")) if asks(habits.keys, "key") else "",
            idempotency_key=idempotency_key,
            inputs=self._inputs(after),
            despite_dead=bool(after) and asks(habits.despite_dead, "despite dead"),
            demand=habits.demand(rng) if asks(habits.demands, "demand") else None,
        )
        return None if terms == Terms() else terms

    def _inputs(self, after: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        if not after or not self._habits.inputs or not self._world.chance(self._habits.inputs, "input"):
            return ()
        return tuple((f"from_{number}", needed) for number, needed in enumerate(after))

    def _policy(self) -> RetryPolicy:
        world, rng = self._world, self._world.rng
        refused, failed, timed_out, silent, lost = (rng.choice((-1, 0, 1)) for _ in range(5))
        first_ns, longest_ns = world.between(1, 50), world.between(50, 200)
        return RetryPolicy(refused, failed, timed_out, silent, lost, first_ns, longest_ns)
