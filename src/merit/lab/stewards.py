"""The people who look after a simulated fleet: they pause, drain, remove and tell workers, say how workers are chosen and
what they have to prove, introduce versions, and are harsh or lenient with those who do badly."""

from __future__ import annotations

from collections.abc import Callable

from merit.lab.answers import ALIKE, PROBE, PROBE_RESULT
from merit.lab.cell import SimulatedCell
from merit.lab.commander import PATIENCE_NS, WHO, Commander
from merit.lab.habits import CAPABILITIES, STRATEGIES, VERSIONS, Habits
from merit.lab.world import World
from merit.model.auditing import AuditPolicy, GoldTask, OnBroken
from merit.model.commands import (
    CancelTasks,
    Command,
    DrainWorker,
    EndRollout,
    JudgeWorker,
    PauseWorker,
    RemoveWorker,
    ResumeWorker,
    SetAdmission,
    SetAllocation,
    SetAudit,
    SetSupervision,
    StartRollout,
    TellWorker,
)
from merit.model.fleet import Admission, Allocation, Probe, RolloutState, Weight
from merit.model.limits import MILLISECOND_NS, SECOND_NS
from merit.model.supervision import Policy, Verdict
from merit.model.tasks import TaskState
from merit.model.workers import WorkerState

LENIENT = Policy(punish_at=0, circuit_failures=1_000_000, every_ns=200 * MILLISECOND_NS)
"""Nobody is held back."""
HARSH = Policy(
    every_ns=50 * MILLISECOND_NS,
    reward_at=90_000,
    punish_at=85_000,
    attempts_min=1,
    cool_down_ns=0,
    pause_after=2,
    pause_below=1_000,
    pause_ns=100 * MILLISECOND_NS,
    pauses_max=4,
    canaries=2,
    circuit_failures=2,
    circuit_window=4,
    circuit_open_ns=100 * MILLISECOND_NS,
    circuit_open_ns_max=400 * MILLISECOND_NS,
    circuit_probes=2,
)
"""Whoever fails now and then is held back for moments."""
_DICE = Policy(engine="dice")


class SimulatedSteward(Commander):
    """See the module.

    Args:
        world: whose person it is.
        cell: that takes the commands.
        habits: of the world.
        all_here: whether every worker that there is has come.
    """

    def __init__(self, world: World, cell: SimulatedCell, habits: Habits, all_here: Callable[[], bool]) -> None:
        super().__init__(world, cell, habits)
        self._all_here = all_here
        deeds = (
            self._pause,
            self._resume,
            self._drain,
            self._remove,
            self._tell,
            self._choose,
            self._introduce,
            self._admit,
            self._supervise,
            self._judge,
            self._audit,
        )
        self._favourites = tuple(world.rng.sample(deeds, world.rng.choice((2, 4, len(deeds)))))
        """Few of them in most worlds, so that these come often."""
        if habits.audits:
            self._favourites += (self._audit,) * len(self._favourites)
        if habits.governs:
            self._begin("steward acts")

    @property
    def quiet(self) -> bool:
        """Whether nobody has to prove anything, is kept away or held back any more, durably."""
        state = self._cell.ledger.state
        calm = not state.admissions and not state.audits and state.policy == LENIENT
        return calm and not self._kept_away() and not self._held_back()

    def clear_up(self) -> None:
        """From now on only what holds things up is undone."""
        self._clearing = True
        self._undo()

    def _undo(self) -> None:
        state, kept_away = self._cell.ledger.state, self._kept_away()
        if state.admissions:
            self._give(SetAdmission("", WHO, Admission(next(iter(state.admissions)))), self._admission_set)
        elif state.audits:
            self._give(SetAudit("", WHO, AuditPolicy(next(iter(state.audits)))), self._audited)
        elif state.policy != LENIENT:
            self._give(SetSupervision("", WHO, LENIENT), self._supervised)
        elif held_back := self._held_back():
            name = self._world.rng.choice(held_back)
            self._give(JudgeWorker("", WHO, name, Verdict.PARDON, "enough"), self._pardoned)
        elif kept_away:
            self._give(ResumeWorker("", WHO, self._world.rng.choice(kept_away)), self._resumed)
        elif self._all_here() and all(w.state is WorkerState.ACTIVE for w in state.workers.values()):
            self._give_up()
        self._world.after(PATIENCE_NS, "steward clears up", self._undo)

    def _give_up(self) -> None:
        """When all is done that somebody can do: what nobody can ever do."""
        ledger = self._cell.ledger
        hopeless = set(ledger.fleet_book.hopeless())
        for task in ledger.unsettled():
            known = ledger.state.tasks[task]
            if task not in hopeless and not (known.state is TaskState.WAITING and known.blocked_by):
                return
        for task in sorted(hopeless)[:1]:
            self._world.coverage["task that nobody can do"] += 1
            self._give(CancelTasks(ledger.submitted[task].tenant, WHO, [task]), self._canceled)

    def _kept_away(self) -> list[str]:
        profiles = self._cell.ledger.state.profiles.values()
        return [profile.worker for profile in profiles if profile.paused or profile.removed]

    def _held_back(self) -> list[str]:
        profiles = self._cell.ledger.state.profiles.values()
        return [profile.worker for profile in profiles if not profile.conduct.at_liberty]

    def _deeds(self) -> tuple[Callable[[], None], ...]:
        return self._favourites

    def _somebody(self) -> str:
        """Mostly a worker that is known."""
        rng, profiles = self._world.rng, list(self._cell.ledger.state.profiles)
        return rng.choice(profiles) if profiles and rng.random() < 0.95 else "nobody"

    # What is done with workers

    def _pause(self) -> None:
        self._give(PauseWorker("", WHO, self._somebody(), "is looked at"), self._paused)

    def _paused(self, command: Command) -> bool:
        assert isinstance(command, PauseWorker)
        profile = self._cell.ledger.state.profiles.get(command.worker)
        return profile is None or profile.paused

    def _resume(self) -> None:
        kept_away = self._kept_away()
        name = self._world.rng.choice(kept_away) if kept_away else self._somebody()
        self._give(ResumeWorker("", WHO, name), self._resumed)

    def _resumed(self, command: Command) -> bool:
        assert isinstance(command, ResumeWorker)
        profile = self._cell.ledger.state.profiles.get(command.worker)
        # What it has to prove once more may have gone wrong already.
        return profile is None or not profile.removed

    def _drain(self) -> None:
        name = self._somebody()
        boot = self._cell.ledger.boots.get(name, "")

        def drains(_command: Command) -> bool:
            ledger = self._cell.ledger
            return ledger.boots.get(name) != boot or ledger.state.workers[name].state is WorkerState.DRAINING

        self._give(DrainWorker("", WHO, name), drains)

    def _remove(self) -> None:
        if self._world.rng.random() < 0.5:
            self._give(RemoveWorker("", WHO, self._somebody(), "has gone mad"), self._removed)

    def _removed(self, command: Command) -> bool:
        assert isinstance(command, RemoveWorker)
        state = self._cell.ledger.state
        profile = state.profiles.get(command.worker)
        return command.worker not in state.workers and (profile is None or profile.removed)

    def _tell(self) -> None:
        self._made += 1
        # With a number, so that each is known from the others.
        word = f"{self._world.rng.choice(('RESET', 'RETRAIN'))} {self._made}"
        self._give(TellWorker("", WHO, self._somebody(), word), self._told)

    def _told(self, command: Command) -> bool:
        assert isinstance(command, TellWorker)
        return self._cell.ledger.fleet_book.was_told(command.worker, command.word)

    # What is set for all

    def _choose(self) -> None:
        rng = self._world.rng
        name = rng.choice((*STRATEGIES, *STRATEGIES, "weighted", "", "", "dice"))
        weights = (Weight("load", rng.choice((0, 500))), Weight("cost", 1_000)) if name == "weighted" else ()
        allocation = Allocation(rng.choice(("", *CAPABILITIES)), name, weights)
        self._give(SetAllocation("", WHO, allocation), self._chosen)

    def _chosen(self, command: Command) -> bool:
        assert isinstance(command, SetAllocation)
        allocation = command.allocation
        found = self._cell.ledger.state.allocations.get(allocation.capability)
        return found == (allocation if allocation.strategy else None)

    def _supervise(self) -> None:
        self._give(SetSupervision("", WHO, self._world.rng.choice((LENIENT, HARSH, HARSH, _DICE))), self._supervised)

    def _supervised(self, command: Command) -> bool:
        assert isinstance(command, SetSupervision)
        return self._cell.ledger.state.policy == command.policy

    def _audit(self) -> None:
        rng = self._world.rng
        policy = AuditPolicy(
            rng.choice(CAPABILITIES),
            copies=rng.choice((1, 2, 2, 3, 3)),
            judge=rng.choice(("",) * 6 + CAPABILITIES),
            gold=(GoldTask(PROBE, PROBE_RESULT),) * rng.choice((0, 1)),
            gold_permille=rng.choice((200, 1_000)),
            newcomer_tasks=rng.choice((0, 5, 100)),
            timeout_ns=rng.choice((200 * MILLISECOND_NS, 20 * SECOND_NS)),
            on_broken=rng.choice((OnBroken.ACCEPT, OnBroken.REJECT)),
            comparison=ALIKE,
        )
        self._give(SetAudit("", WHO, policy), self._audited)

    def _audited(self, command: Command) -> bool:
        assert isinstance(command, SetAudit)
        found = self._cell.ledger.state.audits.get(command.policy.capability)
        return found == (None if command.policy.nothing else command.policy)

    def _judge(self) -> None:
        verdict = self._world.rng.choice((Verdict.PARDON, Verdict.PIN, Verdict.UNPIN))
        factor = self._world.rng.choice((100, 500, 2_000)) if verdict is Verdict.PIN else 0
        self._give(JudgeWorker("", WHO, self._somebody(), verdict, "by and by", factor), self._judged)

    def _judged(self, command: Command) -> bool:
        assert isinstance(command, JudgeWorker)
        profile = self._cell.ledger.state.profiles.get(command.worker)
        pinned = {Verdict.PIN: True, Verdict.UNPIN: False}.get(command.verdict)
        return profile is None or pinned is None or profile.conduct.pinned is pinned

    def _pardoned(self, command: Command) -> bool:
        assert isinstance(command, JudgeWorker)
        return command.worker not in self._held_back()

    def _admit(self) -> None:
        rng = self._world.rng
        if rng.random() < 0.5:
            return
        timeout_ns = rng.choice((600 * MILLISECOND_NS, 60 * SECOND_NS))
        probe = Probe(PROBE, rng.choice((b"", PROBE_RESULT)), timeout_ns)
        admission = Admission(rng.choice(CAPABILITIES), (probe,) * rng.choice((0, 1, 2)))
        self._give(SetAdmission("", WHO, admission), self._admission_set)

    def _admission_set(self, command: Command) -> bool:
        assert isinstance(command, SetAdmission)
        admission = command.admission
        found = self._cell.ledger.state.admissions.get(admission.capability)
        return found == (admission if admission.probes else None)

    def _introduce(self) -> None:
        rng, rollouts = self._world.rng, self._cell.ledger.state.rollouts
        name = rng.choice(list(rollouts)) if rollouts and rng.random() < 0.6 else rng.choice(CAPABILITIES)
        known = rollouts.get(name)
        if known is not None and rng.random() < 0.5:
            self._give(EndRollout("", WHO, name, rng.random() < 0.3), self._ended)
            return
        version = known.version if known is not None and rng.random() < 0.8 else rng.choice(VERSIONS[1:])
        self._give(StartRollout("", WHO, name, version, rng.choice((0, 200, 500, 1_000))), self._introduced)

    def _introduced(self, command: Command) -> bool:
        assert isinstance(command, StartRollout)
        rollout = self._cell.ledger.state.rollouts[command.capability]
        found = (rollout.version, rollout.share_permille, rollout.state)
        return found == (command.version, command.share_permille, RolloutState.RUNNING)

    def _ended(self, command: Command) -> bool:
        assert isinstance(command, EndRollout)
        state = self._cell.ledger.state.rollouts[command.capability].state
        return state is (RolloutState.PROMOTED if command.promote else RolloutState.ABORTED)

    def _canceled(self, command: Command) -> bool:
        assert isinstance(command, CancelTasks)
        return all(task in self._cell.ledger.settled for task in command.tasks)
