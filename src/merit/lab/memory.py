"""The memory of a simulated cell: followers at work beside it, a journal that is compacted, and people who ask what was."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from merit.app.follower import FollowerOrders, FollowerReport
from merit.app.past import NotThere, fold_until, instant_after
from merit.app.restore import NoBeginning
from merit.app.trail_export import TrailMissing, export_trail
from merit.core.codec import encode_state
from merit.core.trails import TrailInvalid, check_trail
from merit.kernel.kernel import Kernel
from merit.lab.disk import SimulatedDisk
from merit.lab.followers import SimulatedFollower
from merit.lab.habits import KEYS
from merit.lab.kept import Kept
from merit.lab.ledger import Ledger
from merit.lab.memory_judge import MemoryJudge
from merit.lab.turns import at_once, drive
from merit.lab.violation import Violation
from merit.lab.walk import Walk, walk
from merit.lab.world import World
from merit.model.events import TaskCompleted
from merit.model.frames import Settled
from merit.model.limits import MILLISECOND_NS, Limits
from merit.model.tasks import TaskState
from merit.model.trail import decode_anchor, encode_trail
from merit.ports.journal import Fenced, JournalUnavailable
from merit.ports.snapshots import SnapshotStore
from merit.runtime.task_finder import CannotTell, TaskFinder
from merit.storage.memory_journal import MemoryJournal
from merit.storage.memory_snapshots import MemorySnapshots
from merit.storage.verify import verify_journal

REMEMBERS = 0.25
"""Share of the worlds in which there are followers: these take three times as long as others."""
FEW_FINALS = 3
_HARMLESS = ("journal", "snapshots")
"""Alarms about what this world may make happen: too small a journal, and snapshots that are damaged."""


class SimulatedMemory:
    """See the module.

    Args:
        world: where it is.
        disk: of the cell.
        ledger: what is durable.
        clock: of the cell's machine.
        kernel: the present one, None while the cell is down.
    """

    def __init__(
        self,
        world: World,
        disk: SimulatedDisk,
        ledger: Ledger,
        clock: Callable[[], int],
        kernel: Callable[[], Kernel | None],
    ) -> None:
        self._world = world
        self._disk = disk
        self._ledger = ledger
        self._clock = clock
        self._kernel = kernel
        self._kept = kept = Kept(world.rng, disk.cell)
        self._orders = FollowerOrders(retention=kept.retention, snapshot_events=kept.snapshot_events)
        self._judge = judge = MemoryJudge(disk, kept, clock)
        self._written: dict[str, Callable[..., None]] = {
            "write": judge.written,
            "save": judge.snapshot_saved,
            "add_anchor": judge.anchored,
            "add_segment": lambda _: None,
            "drop": judge.snapshots_dropped,
            "forget": lambda *_: None,
        }
        self._journal: MemoryJournal | None = None
        self._follower: SimulatedFollower | None = None
        """That of the present cell."""
        self._others: list[SimulatedFollower] = []
        self._said: FollowerReport | None = None
        self._compacted = 1
        self._promised = 1
        """The highest sequence up to which a follower has said that the journal may go: that much is older than any power cut."""
        self._house = False
        self._harmed = False
        """One disk gave something up: a snapshot, or the end of the read model. Two such at a time are more than is promised for."""
        world.after(world.between(50, 450), "somebody looks back", self._look_back)

    # The cell's life

    def snapshots(self) -> SnapshotStore:
        """From what a start goes on; one of them may have been damaged since it was verified."""
        world, kept = self._world, self._kept.snapshots
        compacted = self._disk.base.next > 1
        if compacted:
            world.coverage["start from a compacted journal"] += 1
        latest = max(kept.sequences(), default=0)
        if latest and not self._harmed and world.chance(world.weather.damage, "snapshot damaged"):
            self._harmed = True
            kept.damage(latest)
        return kept if compacted or world.rng.random() < 0.7 else MemorySnapshots()

    def cell_starts(self, journal: MemoryJournal) -> None:
        """A cell leads; it has a follower of its own."""
        self._journal, self._said, self._compacted = journal, None, 1
        self._begin_follower()

    def cell_ends(self, *, stopped: bool) -> None:
        """The cell is gone, and its follower with it; or its process was stopped, and the follower does not know."""
        follower, self._journal, self._follower = self._follower, None, None
        if follower is None:
            return
        if not stopped and self._world.rng.random() < 0.4:
            follower.kill()
            return
        self._others.append(follower)
        self._world.after(self._world.between(10, 2_000), "old follower ends", follower.kill)

    def _begin_follower(self) -> None:
        journal = self._journal
        if journal is None:
            return

        def ended(one: SimulatedFollower) -> None:
            self._world.coverage["follower ended"] += 1
            alone = not self._others and not self._harmed
            if alone and self._world.chance(self._world.weather.power_cut, "end of the read model lost"):
                self._harmed = True
                self._kept.cut_power(self._world.rng, self._promised - 1)
                self._judge.power_cut()
            if one is self._follower:
                self._follower = None
                self._world.after(self._world.between(1, 200), "follower starts", again)

        def again() -> None:
            if journal is self._journal and self._follower is None:
                self._begin_follower()

        def said(report: FollowerReport) -> None:
            self._promised = max(self._promised, report.compact)
            if journal is self._journal:
                self._world.after(self._world.between(0, 20), "follower says", self._hear, journal, report)

        self._follower = one = SimulatedFollower(
            self._world, self._disk, self._kept, self._orders, self._clock, self._written, said, ended
        )
        self._others = [other for other in self._others if other.alive]
        if self._others:
            self._world.coverage["followers that are rivals"] += 1
            for rival in (one, *self._others):
                rival.rivaled = True

    def _hear(self, journal: MemoryJournal, report: FollowerReport) -> None:
        if journal is not self._journal:
            return
        self._said = report
        if report.compact > self._compacted and not self._house:
            self._house = True
            self._world.after(self._world.between(1, 50), "cell compacts", self._compact, journal)

    def _compact(self, journal: MemoryJournal) -> None:
        """A portion, as the control plane does it."""
        self._house = False
        if journal is not self._journal or self._said is None:
            return
        until = self._said.compact
        try:
            first = journal.compact(until)
        except (Fenced, JournalUnavailable):
            first = 0
        self._world.coverage["journal compacted"] += 1
        if self._disk.base.next == until:
            self._judge.compacted()
        self._compacted = first if first > self._compacted else until
        self._hear(journal, self._said)

    def contents_gone(self, task: str) -> bool:
        """Whether the result of a task has left the journal."""
        ends = (at for at, _, event in self._ledger.events if isinstance(event, TaskCompleted) and event.task == task)
        return next(ends, 0) < self._disk.base.next

    def finder(self, kernel: Kernel) -> TaskFinder:
        """As the control plane makes it."""
        return TaskFinder(lambda: MemoryJournal(self._disk), self._kept.reader, kernel.machine.state)

    # Looking back

    def _look_back(self) -> None:
        if self._kernel() is not None and self._ledger.submitted:
            looks = (
                self._judge.check_read_model,
                self._find_some,
                self._find_some,
                self._walk,
                self._walk,
                self._export,
                self._travel,
                self._verify,
            )
            self._world.rng.choice(looks)()
        self._world.after(self._world.between(50, 450), "somebody looks back", self._look_back)

    def _find_some(self) -> None:
        """Final tasks that the cell has forgotten are found, and what keys stand for."""
        kernel, rng, ledger = self._kernel(), self._world.rng, self._ledger
        if kernel is None or not ledger.settled:
            return
        state = kernel.machine.state
        forgotten = [task for task in ledger.settled if task not in state.tasks]
        chosen = rng.sample(forgotten, min(len(forgotten), 3))
        keys = [
            (spec.tenant, spec.terms.idempotency_key)
            for spec in map(ledger.submitted.__getitem__, chosen)
            if spec.terms is not None and spec.terms.idempotency_key
        ]
        # The key of any task may be forgotten, also of one that the cell has.
        keys += [at for at in ledger.terms_book.keys if at not in state.keys]

        def done(found: tuple[list[Settled], dict[tuple[str, str], str]] | None) -> None:
            if found is None:
                self._world.coverage["nobody can tell"] += 1
                return
            self._world.coverage["final tasks found"] += 1
            outcomes = {outcome.task: outcome for outcome in found[0]}
            for task in chosen:
                if not self.is_outcome(outcomes.get(task), ledger.settled[task]):
                    raise Violation("found", task, f"is found as {outcomes.get(task)}, and is {ledger.settled[task]}")
            for at in keys:
                if found[1].get(at) != ledger.terms_book.key_of(*at):
                    raise Violation("found", found[1].get(at, ""), f"is what the key {at} is said to stand for")

        async def find() -> tuple[list[Settled], dict[tuple[str, str], str]] | None:
            finder, outcomes = self.finder(kernel), []
            behind = self._kept.read_model.reached().sequence < self._disk.tail.next - 1
            try:
                for tenant in sorted({ledger.submitted[task].tenant for task in chosen}):
                    outcomes += await finder.outcomes(list(chosen), tenant)
                found = await finder.keys(keys)
            except CannotTell as error:
                if not behind and self._kept.read_model.reached().sequence == self._disk.tail.next - 1:
                    raise Violation("found", "", f"all is known, and still: {error}") from error
                return None
            return outcomes, {at: entry.task for at, entry in found.items()}

        drive(self._world, "somebody finds tasks", find(), done)

    def is_outcome(self, told: Settled | None, durable: Settled) -> bool:
        """Whether what is told of a task is what became of it; its result may be older than what the journal keeps."""
        if told is None or told == durable:
            return told is not None
        expired = told.failure is not None and told.failure.kind == "expired"
        self._world.coverage["result expired"] += 1
        return (
            expired
            and durable.state is TaskState.COMPLETED
            and structs.replace(told, failure=None, result=durable.result) == durable
            and self.contents_gone(durable.task)
        )

    def _walk(self) -> None:
        self._world.coverage["list walked through"] += 1
        one = Walk(self._world, self._ledger, self._judge, self._kept, self._kernel)
        drive(self._world, "somebody reads a list", walk(one), one.done)

    def _export(self) -> None:
        """The trail of some task, at any time of its life and long after it."""
        world, ledger = self._world, self._ledger
        task = world.rng.choice(list(ledger.submitted))
        wanted = [one for one in ledger.events if getattr(one[2], "task", None) == task]
        journal = MemoryJournal(self._disk)
        kept, held = self._kept, self._kept.archive.held()
        try:
            trail = export_trail(task, journal, kept.archive, kept.signer, kept.reader())
            checked = check_trail(encode_trail(trail), (kept.signer.public_key,))
        except TrailMissing as error:
            first = wanted[0][0]
            # The records of one anchor prove each other: with the first of them all of it goes.
            needed = min((decode_anchor(one.data).first for one in kept.archive.anchors(first, first)), default=first)
            if needed >= (held.first or self._disk.base.next):
                raise Violation("trail", task, str(error)) from error
            world.coverage["trail no longer kept"] += 1
            return
        except TrailInvalid as error:
            raise Violation("trail", task, str(error)) from error
        if list(checked.events) != wanted:
            raise Violation("trail", task, f"tells {checked.events}, and there were {wanted}")
        world.coverage["trail of a compacted task" if wanted[0][0] < self._disk.base.next else "trail"] += 1

    def _travel(self) -> None:
        """The state of some moment within what is kept."""
        world, last = self._world, self._disk.tail.next - 1
        sequence = world.rng.randint(1, last)
        reader, snapshots = MemoryJournal(self._disk), self._kept.snapshots
        try:
            instant_after(reader, snapshots, sequence)
        except NotThere:
            first = self._disk.base.next
            if sequence >= max(first, min((at for at in snapshots.sequences() if at + 1 >= first), default=first)):
                raise Violation("past", "", f"the moment after {sequence} is not to be had") from None
            world.coverage["moment that is no longer kept"] += 1
            return
        world.coverage["moment of the past"] += 1
        try:
            state = fold_until(reader, snapshots, sequence)
        except NoBeginning:
            if not self._harmed:
                raise
            world.coverage["moment behind a damaged snapshot"] += 1
            return
        if encode_state(state) != self._judge.state_at(sequence):
            raise Violation("past", "", f"the state after {sequence} is not the fold up to there")

    def _verify(self) -> None:
        for archive in (None, self._kept.archive):
            found = verify_journal(
                MemoryJournal(self._disk), archive=archive, keys=(self._kept.signer.public_key,) if archive else ()
            )
            if not found.ok:
                raise Violation("verify", "", f"{found.problems[0]}")

    # The end

    def restless(self) -> list[tuple[str, str, str]]:
        """What is still to be done, as the simulator has it."""
        if self._others and any(other.alive for other in self._others):
            return [("follower", "", "an old one is still there")]
        if self._said is None or self._said.sequence != self._disk.tail.next - 1:
            return [("follower", "", f"does not come to the end: {self._said}")]
        alarms = {about: what for about, what in self._said.alarms.items() if about not in _HARMLESS}
        return [("follower", "", f"{alarms}")] if alarms else []

    def final_checks(self) -> None:
        """All is quiet: everything is there, and nothing is said to be lacking."""
        self._judge.check_read_model()
        self._verify()
        if self._ledger.submitted:
            self._export()
        self._travel()
        one = Walk(self._world, self._ledger, self._judge, self._kept, self._kernel)
        at_once(walk(one))
        one.done(None)
        if one.lacking:
            raise Violation("pages", "", f"all is quiet, and something is lacking: {one.lacking}")


def memory_limits(world: World, limits: Limits) -> Limits:
    """In most of such worlds the cell forgets final tasks, or idempotency keys, soon."""
    if world.rng.random() < 0.7:
        limits = structs.replace(limits, finals_max=FEW_FINALS)
    if world.rng.random() < 0.5:
        limits = structs.replace(limits, keys_max=KEYS, keys_ns=100 * MILLISECOND_NS)
    return limits
