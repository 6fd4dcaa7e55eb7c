"""The people who look after a simulated cell: they set limits, pause queues, plan schedules and look at dead letters."""

from __future__ import annotations

from collections.abc import Callable

from merit.lab.cell import SimulatedCell
from merit.lab.commander import PATIENCE_NS, WHO, Commander
from merit.lab.habits import CAPABILITIES, Habits
from merit.lab.world import World
from merit.model.commands import (
    CancelTasks,
    Command,
    PauseQueue,
    PurgeDead,
    RemoveSchedule,
    ResumeQueue,
    RetryDead,
    RunSchedule,
    SetRule,
    SetSchedule,
    SetTenant,
)
from merit.model.rules import Rule, RuleKind, TenantTerms
from merit.model.schedules import Missed, Overlap, Schedule
from merit.model.tasks import TaskSpec, Terms

SCHEDULES = ("hourly", "nightly")


class SimulatedOperator(Commander):
    """Looks after what waits and what has died."""

    def __init__(self, world: World, cell: SimulatedCell, habits: Habits) -> None:
        super().__init__(world, cell, habits)
        if habits.operates:
            self._begin("operator acts")

    @property
    def quiet(self) -> bool:
        """Whether nothing is paused or planned any more, durably."""
        state = self._cell.ledger.state
        return not state.paused and not state.schedules

    def clear_up(self) -> None:
        """From now on only what holds things up is undone."""
        self._clearing = True
        if self._habits.operates:
            self._undo()

    def _undo(self) -> None:
        state = self._cell.ledger.state
        if state.paused:
            self._give(ResumeQueue("", WHO, next(iter(state.paused))), self._resumed)
        elif state.schedules:
            self._give(RemoveSchedule("", WHO, next(iter(state.schedules))), self._removed)
        # And again: what was asked for before may still come to pass.
        self._world.after(PATIENCE_NS, "operator clears up", self._undo)

    def _deeds(self) -> tuple[Callable[[], None], ...]:
        return (self._limit, self._limit, self._weigh, self._pause, self._letters, self._letters, self._plan, self._run)

    # What is done

    def _limit(self) -> None:
        rng = self._world.rng
        kinds = [RuleKind.CAPABILITY, RuleKind.TENANT] + [RuleKind.KEY] * (2 if self._habits.keys else 1)
        kind = rng.choice(kinds)
        name = rng.choice(self._habits.tenants if kind is RuleKind.TENANT else CAPABILITIES)
        shape = rng.random()
        rule = Rule(
            kind,
            name,
            concurrency=rng.choice((1, 1, 2, 3)) if shape < 0.6 else 0,
            rate_millihz=rng.choice((20_000, 100_000)) if 0.4 < shape < 0.8 else 0,
            burst=rng.choice((1, 3)),
        )
        self._give(SetRule("", WHO, rule), self._limited)

    def _limited(self, command: Command) -> bool:
        assert isinstance(command, SetRule)
        rule, rules = command.rule, self._cell.ledger.state.rules
        return rules.get((rule.kind, rule.name)) == (rule if rule.limits else None)

    def _weigh(self) -> None:
        rng = self._world.rng
        terms = TenantTerms(rng.choice(self._habits.tenants), rng.choice((1, 1, 3, 10)), rng.choice((0, 0, 4, 20)))
        self._give(SetTenant("", WHO, terms), self._weighed)

    def _weighed(self, command: Command) -> bool:
        assert isinstance(command, SetTenant)
        tenant = self._cell.ledger.state.tenants.get(command.terms.tenant)
        return tenant.terms == command.terms if tenant is not None else command.terms.usual

    def _pause(self) -> None:
        rng, paused = self._world.rng, self._cell.ledger.state.paused
        name = rng.choice(CAPABILITIES)
        if name in paused or (paused and rng.random() < 0.6):
            name = next(iter(paused))
            self._give(ResumeQueue("", WHO, name), self._resumed)
        else:
            self._give(PauseQueue("", WHO, name, "maintenance"), self._paused)

    def _paused(self, command: Command) -> bool:
        assert isinstance(command, PauseQueue)
        return command.capability in self._cell.ledger.state.paused

    def _resumed(self, command: Command) -> bool:
        assert isinstance(command, ResumeQueue)
        return command.capability not in self._cell.ledger.state.paused

    def _letters(self) -> None:
        rng, letters = self._world.rng, list(self._cell.ledger.state.dead_letters)
        if not letters:
            return
        chosen = rng.sample(letters, min(len(letters), rng.choice((1, 2, 5))))
        if rng.random() < 0.25:
            self._give(PurgeDead("", WHO, chosen), self._purged)
            return
        if rng.random() < 0.5:
            # In the order in which they died: what they need before them, as it is now.
            chosen.sort(key=letters.index)
        pairs = [(task, self._world.new_id()) for task in chosen]
        self._give(RetryDead("", WHO, pairs), self._retried)

    def _purged(self, command: Command) -> bool:
        assert isinstance(command, PurgeDead)
        return not any(task in self._cell.ledger.state.dead_letters for task in command.tasks)

    def _retried(self, command: Command) -> bool:
        assert isinstance(command, RetryDead)
        ledger = self._cell.ledger
        self._cell.acknowledged.update(new for _, new in command.pairs)
        return all(old not in ledger.state.dead_letters and new in ledger.submitted for old, new in command.pairs)

    def _plan(self) -> None:
        rng, planned = self._world.rng, self._cell.ledger.state.schedules
        if planned and rng.random() < 0.3:
            self._give(RemoveSchedule("", WHO, rng.choice(list(planned))), self._removed)
            return
        name = rng.choice(SCHEDULES)
        # A schedule belongs to its tenant for good.
        tenant = planned[name].schedule.tenant if name in planned else rng.choice(self._habits.tenants)
        schedule = Schedule(
            name,
            tenant,
            str(rng.choice((100, 250, 600))),
            "UTC",
            TaskSpec("", rng.choice(CAPABILITIES), terms=Terms(key="red") if rng.random() < 0.3 else None),
            rng.choice(list(Missed)),
            rng.choice(list(Overlap)),
            rng.random() < 0.1,
        )
        self._give(SetSchedule(tenant, WHO, schedule), self._set)

    def _set(self, command: Command) -> bool:
        assert isinstance(command, SetSchedule)
        planned = self._cell.ledger.state.schedules.get(command.schedule.name)
        return planned is not None and planned.schedule == command.schedule

    def _removed(self, command: Command) -> bool:
        assert isinstance(command, RemoveSchedule)
        return command.name not in self._cell.ledger.state.schedules

    def _run(self) -> None:
        rng, planned = self._world.rng, self._cell.ledger.state.schedules
        if planned:
            self._give(RunSchedule("", WHO, rng.choice(list(planned)), self._world.new_id()), self._ran)
        elif self._cell.acknowledged and rng.random() < 0.3:
            task = rng.choice(sorted(self._cell.acknowledged))
            spec = self._cell.ledger.submitted[task]
            self._give(CancelTasks(spec.tenant, WHO, [task]), self._canceled)

    def _ran(self, command: Command) -> bool:
        assert isinstance(command, RunSchedule)
        return command.task in self._cell.ledger.submitted

    def _canceled(self, command: Command) -> bool:
        assert isinstance(command, CancelTasks)
        return all(task in self._cell.ledger.settled for task in command.tasks)
