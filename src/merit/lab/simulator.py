"""The simulator: whole worlds in virtual time, each made from one number, and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from hashlib import sha256

from msgspec import Struct, field

from merit.core import lines, schedules
from merit.lab.cell import SimulatedCell
from merit.lab.clients import SimulatedClient
from merit.lab.habits import Habits
from merit.lab.instead import instead
from merit.lab.kept import small_portions
from merit.lab.network import Network
from merit.lab.operators import SimulatedOperator
from merit.lab.stewards import SimulatedSteward
from merit.lab.violation import Violation
from merit.lab.workers import SimulatedWorker
from merit.lab.world import World
from merit.model.limits import MILLISECOND_NS, SECOND_NS
from merit.model.workers import WorkerState
from merit.session import client_end, link

EVENTS_MAX = 20_000
FAILURES_MAX = 10
TROUBLE_NS = 3 * SECOND_NS
"""How long the weather lasts."""
QUIET_NS_MAX = 60 * SECOND_NS
"""How long after it everything has to be done; far below the run time-outs of the tasks that must not run into them."""

Plant = Callable[[], AbstractContextManager[None]]


class SeedFailure(Struct):
    """What was found in one world. ``story`` is the journal about the object, ``events`` what happened last."""

    seed: int
    check: str
    about: str
    message: str
    story: list[str]
    events: list[str]


class WorldResult(Struct):
    """How one world ended. ``digest`` is equal for equal runs."""

    seed: int
    digest: str
    happened: int
    tasks: int
    failure: SeedFailure | None
    coverage: Counter[str]


class Campaign(Struct):
    """How many worlds ended."""

    seeds: int = 0
    tasks: int = 0
    happened: int = 0
    failures: list[SeedFailure] = field(default_factory=list)
    coverage: Counter[str] = field(default_factory=Counter)

    def add(self, result: WorldResult) -> None:
        """Count a world in."""
        self.seeds += 1
        self.tasks += result.tasks
        self.happened += result.happened
        self.coverage.update(result.coverage)
        if result.failure is not None:
            self.failures.append(result.failure)


class Simulation:
    """One world with one cell, some workers and some clients."""

    def __init__(self, seed: int, steps_max: int) -> None:
        self.world = world = World(seed, steps_max)
        self.network = Network(world)
        self.cell = SimulatedCell(world, self.network)
        self.network.cell = self.cell
        self.cell.start()
        rng = world.rng
        habits = Habits(rng)
        if self.cell.memory is not None and rng.random() < 0.6:
            # What keys stand for is the hardest to remember.
            habits.idempotency_keys = max(habits.idempotency_keys, 0.4)
        self.workers = [
            SimulatedWorker(world, self.network, self.cell, habits, number)
            for number in range(rng.choice((3, 4, 5) if habits.audits else (1, 2, 3, 4)))
        ]
        # Somebody started one more process under a name that is taken; he sees it in the end.
        self.twins = []
        if rng.random() < 0.1:
            self.twins.append(SimulatedWorker(world, self.network, self.cell, habits, 9, self.workers[-1]))
        clients = rng.choice((1, 1, 2))
        self.clients = [
            SimulatedClient(world, self.network, self.cell, habits, number, rng.randint(5, 30) // clients, TROUBLE_NS)
            for number in range(clients)
        ]
        self.operator = SimulatedOperator(world, self.cell, habits)
        self.steward = SimulatedSteward(world, self.cell, habits, self._all_here)
        self._quiet = False
        world.after(TROUBLE_NS, "the weather clears up", self._clear_up)

    def run(self) -> None:
        """Let it all happen.

        Raises:
            Violation: of a promise.
        """
        self.world.run(lambda: self._quiet)
        self.cell.final_checks()

    def _clear_up(self) -> None:
        self.world.weather.clear_up()
        for twin in self.twins:
            twin.retire()
        self.operator.clear_up()
        self.steward.clear_up()
        self._watch(self.world.now_ns + QUIET_NS_MAX)

    def _all_here(self) -> bool:
        here = self.cell.ledger.boots
        return all(worker.stream is not None and here.get(worker.name) == worker.boot for worker in self.workers)

    def _watch(self, until_ns: int) -> None:
        restless = self._restless()
        if not restless:
            self._quiet = True
        elif self.world.now_ns > until_ns:
            raise Violation(*restless[0])
        else:
            self.world.after(100 * MILLISECOND_NS, "look around", self._watch, until_ns)

    def _restless(self) -> list[tuple[str, str, str]]:
        """What is still to be done: which promise that breaks, about whom, and what."""
        if not self.cell.at_rest:
            return [("liveness", "", "the cell does not come to rest")]
        lost = "is acknowledged and not final, and nothing moves it"
        found = [("liveness", task, lost) for task in self.cell.ledger.unsettled()]
        book = self.cell.ledger.fleet_book
        found = [("liveness", task, "somebody could do it, and nothing moves it") for task in book.doable()] + found
        found += [("words", worker, f"was never told {word}") for worker, word in book.unheard()]
        if not self.operator.quiet or not self.steward.quiet:
            found.append(("liveness", "", "the operators' last commands come to nothing"))
        if self.cell.memory is not None:
            found += self.cell.memory.restless()
        for name, present in book.workers.items():
            if present.state is not WorkerState.ACTIVE:
                found.append(("liveness", name, f"stays {present.state.name}"))
        for worker in self.workers:
            if not worker.quiet:
                what = f"holds {worker.end.held} attempts and {worker.end.unacknowledged} reports"
                found.append(("liveness", worker.name, what))
        for client in self.clients:
            found += [("liveness", task, f"{client.name} was never told of its end") for task in client.waits_for()]
            found += [("followers", task, f"{client.name} did not hear its last step") for task in client.misses()]
            if not client.quiet and not client.waits_for() and not client.misses():
                what = f"has {client.end.unacknowledged} submits that were never acknowledged"
                found.append(("liveness", client.name, what))
        return found


@contextmanager
def frames_of(seed: int) -> Iterator[None]:
    """In every third world a frame takes a few items only, so that what is said falls into several."""
    with ExitStack() as stack:
        # A schedule's time counts as missed a minute late; here nobody has so much time.
        stack.enter_context(instead(schedules, "_LATE_NS", 200 * MILLISECOND_NS))
        stack.enter_context(small_portions(seed))
        if seed % 3 == 2:
            stack.enter_context(instead(lines, "_SWEEP_AT_LEAST", 2))
            for place in (link, client_end):
                stack.enter_context(instead(place, "FRAME_ITEMS_MAX", 1 + seed % 2))
        yield


def simulate(seed: int, plant: Plant | None = None, steps_max: int = EVENTS_MAX) -> WorldResult:
    """Run the world of ``seed`` and judge it.

    Args:
        seed: everything follows from it.
        plant: a bug to plant for the while, from :mod:`merit.lab.planted`.
        steps_max: bound of what may happen in the world.
    """
    failure = None
    with frames_of(seed), plant() if plant is not None else nullcontext():
        simulation = Simulation(seed, steps_max)
        try:
            simulation.run()
        except Violation as violation:
            failure = _failure(simulation, violation.check, violation.about, str(violation))
        except Exception as error:  # noqa: BLE001  # any exception of the product is a finding, with its seed
            failure = _failure(simulation, "exception", "", f"{type(error).__name__}: {error}")
    world, ledger = simulation.world, simulation.cell.ledger
    world.coverage.update(+ledger.met())
    trace = sha256(f"{world.digest} {world.happened} {ledger.tail.last_hash.hex()}".encode()).hexdigest()
    return WorldResult(seed, trace, world.happened, len(ledger.submitted), failure, world.coverage)


def campaign(
    seeds: Iterable[int],
    total: Campaign,
    plant: Plant | None = None,
    steps_max: int = EVENTS_MAX,
    failures_max: int = FAILURES_MAX,
) -> Iterator[WorldResult]:
    """Run one world after the other, until ``failures_max`` have failed; each result is added to ``total``."""
    for seed in seeds:
        result = simulate(seed, plant, steps_max)
        total.add(result)
        yield result
        if len(total.failures) >= failures_max:
            return


def _failure(simulation: Simulation, check: str, about: str, message: str) -> SeedFailure:
    story = simulation.cell.ledger.story_of(about) if about else []
    return SeedFailure(simulation.world.seed, check, about, message, story, simulation.world.trace())
