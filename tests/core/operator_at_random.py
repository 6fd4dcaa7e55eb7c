"""The part of ``AnyOrder`` that is about queues: dead letters, pauses, limits, tenants, schedules."""

from random import Random
from typing import Any

from msgspec.structs import replace

from merit.core.machine import Machine
from merit.model.commands import (
    PauseQueue,
    PlanSchedule,
    PurgeDead,
    RemoveSchedule,
    ResumeQueue,
    RetryDead,
    RunSchedule,
    SetRule,
    SetSchedule,
    SetTenant,
)
from merit.model.effects import WorkOutTimes
from merit.model.limits import SECOND_NS
from merit.model.rules import Rule, RuleKind, TenantTerms
from merit.model.schedules import Missed, Overlap, Schedule
from merit.testing.builders import TENANT, an_id
from tests.core.fleet_at_random import CAPABILITIES

TENANTS = [TENANT, TENANT, "other", "third", "fourth"]


class OperatorAtRandom:
    """To be mixed into ``AnyOrder``, which has the machine, the journal and the chance."""

    machine: Machine
    rng: Random
    now_ns: int
    fresh: int
    wanted: list[WorkOutTimes]
    tell: Any
    some_spec: Any

    def retry_dead(self):
        state, rng = self.machine.state, self.rng
        ids = [*rng.sample(list(state.dead_letters), min(2, len(state.dead_letters))), an_id(rng.randrange(40))]
        pairs = []
        for name in dict.fromkeys(ids):
            self.fresh += 1
            pairs.append((name, an_id(self.fresh)))
        letters = dict(state.dead_letters)
        decision = self.tell(RetryDead(rng.choice(TENANTS), "tester", pairs))
        refused = {refusal.task for refusal in decision.refusals}
        for old, new in pairs:
            assert (old in refused) != (new in state.tasks)
            if old in refused:
                assert letters.get(old) is state.dead_letters.get(old), "what could not be retried stays"
            else:
                assert old not in state.dead_letters
                assert letters[old].successor == new
                terms = state.tasks[new].terms
                assert terms is not None
                assert terms.origin == old

    def purge_dead(self):
        state = self.machine.state
        ids = [
            *self.rng.sample(list(state.dead_letters), min(1, len(state.dead_letters))),
            an_id(self.rng.randrange(40)),
        ]
        self.tell(PurgeDead(self.rng.choice(TENANTS), "tester", ids))

    def pause(self):
        self.tell(PauseQueue(TENANT, "tester", self.rng.choice(CAPABILITIES), "because"))

    def resume(self):
        for name in CAPABILITIES:
            self.tell(ResumeQueue(TENANT, "tester", name))

    def tenant(self):
        rng = self.rng
        terms = TenantTerms(rng.choice(TENANTS), rng.randint(1, 3), rng.choice([0, 0, 5]))
        self.tell(SetTenant(TENANT, "tester", terms))

    def rule(self):
        rng = self.rng
        kind = rng.choice(list(RuleKind))
        name = rng.choice(TENANTS if kind is RuleKind.TENANT else CAPABILITIES)
        rule = Rule(kind, name, rng.choice([0, 1, 3]), rng.choice([0, 0, 500, 5_000]), rng.randint(1, 3))
        self.tell(SetRule(TENANT, "tester", rule))

    def schedule(self):
        rng = self.rng
        name, tenant = rng.choice(["hourly", "daily"]), rng.choice(TENANTS)
        if rng.random() < 0.2:
            self.tell(RemoveSchedule(tenant, "tester", name))
            return
        missed, overlap = rng.choice(list(Missed)), rng.choice(list(Overlap))
        template = replace(self.some_spec(), id="", after=(), terms=None)
        schedule = Schedule(name, tenant, rng.choice(["a", "b"]), "UTC", template, missed, overlap, rng.random() < 0.2)
        self.tell(SetSchedule(tenant, "tester", schedule))

    def run_schedule(self):
        self.fresh += 1
        self.tell(
            RunSchedule(self.rng.choice(TENANTS), "tester", self.rng.choice(["hourly", "daily"]), an_id(self.fresh))
        )

    def plan(self):
        """The shell answers, late, twice, or for something that is over."""
        if not self.wanted:
            return
        rng = self.rng
        asked = rng.choice(self.wanted)
        period_ns = rng.choice([SECOND_NS, 40 * SECOND_NS, 100 * SECOND_NS])
        missed = max(0, (self.now_ns - asked.after_ns) // period_ns)
        times = tuple(asked.after_ns + period_ns * n for n in range(max(1, missed - 3), missed + 3))
        schedule = asked.schedule
        self.tell(PlanSchedule(TENANT, "cell", schedule.name, schedule.cron, schedule.zone, asked.after_ns, times))
