"""Limits on how much runs at once and how fast it begins: never more, and never stuck."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merit.core.codec import decode_state, encode_state
from merit.core.gates import Gate
from merit.core.invariants import check
from merit.core.timers import Timers
from merit.model.commands import PauseQueue, ResumeQueue, SetRule, SetTenant
from merit.model.limits import SECOND_NS, Limits
from merit.model.rules import Rule, RuleKind, TenantTerms
from merit.testing.builders import (
    START_NS,
    a_machine,
    a_spec,
    allocate,
    an_id,
    attach,
    cancel,
    completed,
    detach,
    failed,
    limit,
    number_of,
    ref,
    say,
    submit,
    tell,
    tick,
    with_terms,
)

LIMITS = Limits(stale_ns=10**6 * SECOND_NS, grace_ns=0, backoff_ns=1)
TIMER_NS = 1 << 25
"""What a rate may be late, and makes up for."""


def counts(machine):
    """Live attempts by what limits count by."""
    found: Counter[tuple[RuleKind, str, str]] = Counter()
    for task in machine.state.tasks.values():
        if task.attempts and task.attempts[-1].live:
            found[RuleKind.CAPABILITY, task.capability, ""] += 1
            found[RuleKind.TENANT, task.tenant, ""] += 1
            key = task.terms.key if task.terms is not None else ""
            if key:
                found[RuleKind.KEY, task.capability, key] += 1
    return found


def assert_within(machine, rules):
    for (kind, name, _), count in counts(machine).items():
        rule = rules.get((kind, name))
        assert rule is None or not rule.concurrency or count <= rule.concurrency


@given(st.integers(0, 10**9))
@settings(max_examples=25)
def test_all_limits_at_once_are_kept_and_everything_gets_done(seed):
    rng = Random(seed)
    machine = a_machine(limits=LIMITS)
    capabilities, tenants, keys = ["add", "mul"], ["a", "b"], ["", "k1", "k2"]
    rules = {}
    for kind in RuleKind:
        for name in tenants if kind is RuleKind.TENANT else capabilities:
            if rng.random() < 0.7:
                rule = Rule(kind, name, rng.choice([0, 1, 2, 5]), rng.choice([0, 3_000, 50_000]), rng.randint(1, 3))
                tell(machine, SetRule, rule)
                if rule.limits:
                    rules[kind, name] = rule
    number, granted, session, epoch = 0, 1_000, 1, 1
    attach(machine, "w", capabilities, granted=granted, concurrency=100)
    for tenant in tenants:
        specs = []
        for _ in range(20):
            number += 1
            specs.append(with_terms(number, rng.choice(capabilities), key=rng.choice(keys), attempts_max=100))
        submit(machine, *specs, tenant=tenant)
    begun: dict[tuple[RuleKind, str], list[int]] = {}
    for _ in range(5_000):
        if not machine.state.live:
            break
        for sent in allocate(machine):
            task = machine.state.tasks[sent.assignment.task]
            for counted in ((RuleKind.CAPABILITY, task.capability), (RuleKind.TENANT, task.tenant)):
                begun.setdefault(counted, []).append(machine.now_ns)
        assert_within(machine, rules)
        check(machine, machine.state)
        running = list(machine.state.workers["w"].attempts.items())
        some = rng.sample(running, rng.randint(0, len(running)))
        reports = [
            failed(number_of(task), attempt) if rng.random() < 0.2 else completed(number_of(task), attempt)
            for task, attempt in some
        ]
        granted += len(some)
        say(machine, "w", reports=reports, granted=granted)
        if not some:
            due_ns = machine.next_due_ns()
            if due_ns is not None and due_ns < machine.now_ns + 100 * SECOND_NS:
                tick(machine, max(due_ns, machine.now_ns))
        if rng.random() < 0.02:
            # Another leader, which has to find out who holds what from the state alone.
            epoch, session = epoch + 1, session + 1
            state = decode_state(encode_state(machine.state))
            machine = a_machine(state, LIMITS, now_ns=machine.now_ns, epoch=epoch)
            held = [ref(number_of(task), attempt) for task, attempt in state.workers["w"].attempts.items()]
            granted = 1_000
            attach(machine, "w", capabilities, granted=granted, concurrency=100, session=session, held=held)
            begun.clear()
    assert not machine.state.live, "nothing is stuck"
    for counted, times in begun.items():
        if counted in rules and rules[counted].rate_millihz:
            assert_rate(times, rules[counted])
    check(machine, machine.state)


def assert_rate(times, rule):
    """In no window more than the burst and what the rate gives, a late timer's worth aside."""
    for first, start_ns in enumerate(times):
        for last in range(first, len(times)):
            window_ns = times[last] - start_ns + TIMER_NS
            assert last - first + 1 <= max(1, rule.burst) + window_ns * rule.rate_millihz // (1_000 * SECOND_NS) + 1


@given(st.data())
def test_a_rate_over_any_window(data):
    """Whoever asks whenever: the generic cell rate algorithm against its definition."""
    rule = Rule(RuleKind.TENANT, "t", 0, data.draw(st.integers(1, 10**6)), data.draw(st.integers(1, 20)))
    interval_ns = 1_000 * SECOND_NS // rule.rate_millihz
    timers, now_ns, begun = Timers(), START_NS, []
    gate = Gate("gate/t", rule, now_ns, timers)
    for wait in data.draw(
        st.lists(st.sampled_from([0, 0, 1, interval_ns // 3, interval_ns, 5 * interval_ns]), max_size=80)
    ):
        now_ns += wait
        if gate.closed(now_ns):
            at = timers.due_ns("gate/t")
            assert at is not None and at > now_ns, "somebody looks again"  # noqa: PT018  (one thing)
        else:
            gate.take("x", now_ns)
            begun.append(now_ns)
    assert_rate(begun, rule)


def test_a_rate_is_reached_although_timers_are_late():
    machine = a_machine(limits=LIMITS)
    limit(machine, RuleKind.CAPABILITY, "echo", rate_millihz=100_000)
    attach(machine, granted=10_000)
    submit(machine, *(a_spec(number) for number in range(1_000)))
    done = len(allocate(machine))
    while done < 1_000:
        due_ns = machine.next_due_ns()
        assert due_ns is not None, "the rest waits for a timer"
        tick(machine, due_ns)
        done += len(allocate(machine))
    assert 9.9 <= (machine.now_ns - START_NS) / SECOND_NS <= 10.1


def test_a_limit_that_comes_late_counts_what_runs_already():
    machine = a_machine(limits=LIMITS)
    attach(machine, granted=100)
    submit(machine, *(a_spec(number) for number in range(10)))
    assert len(allocate(machine, count_max=5)) == 5
    limit(machine, RuleKind.TENANT, "default", concurrency=3)
    assert allocate(machine) == []
    say(machine, reports=[completed(0), completed(1)])
    assert allocate(machine) == []
    say(machine, reports=[completed(2)])
    assert len(allocate(machine)) == 1
    check(machine, machine.state)
    limit(machine, RuleKind.TENANT, "default", concurrency=6)
    assert len(allocate(machine)) == 3
    limit(machine, RuleKind.TENANT, "default")
    assert machine.state.rules == {}
    assert len(allocate(machine)) == 1
    check(machine, machine.state)


@pytest.mark.parametrize("how", ["completed", "failed", "returned", "canceled", "timed out", "lost", "restarted"])
def test_every_end_of_an_attempt_lets_the_next_one_go(how):
    machine = a_machine(limits=LIMITS)
    limit(machine, RuleKind.KEY, "echo", concurrency=1)
    attach(machine, granted=100)
    attach(machine, "w2", granted=0)
    submit(machine, *(with_terms(number, key="k", run_timeout_ns=5 * SECOND_NS) for number in (1, 2)))
    assert len(allocate(machine)) == 1
    assert allocate(machine) == []
    if how == "completed":
        say(machine, reports=[completed(1)])
    elif how == "failed":
        say(machine, reports=[failed(1, permanent=True)])
    elif how == "returned":
        say(machine, returned=[ref(1)])
    elif how == "canceled":
        cancel(machine, 1)
    elif how == "timed out":
        tick(machine, START_NS + 6 * SECOND_NS)
    elif how == "lost":
        detach(machine)
        tick(machine, START_NS + 4 * SECOND_NS)
        attach(machine)
    else:
        attach(machine, boot="boot-2")
    check(machine, machine.state)
    assert len(allocate(machine)) == 1
    assert_within(machine, machine.state.rules)
    check(machine, machine.state)


def test_keys_are_limited_each_by_itself_and_those_without_one_are_not():
    machine = a_machine(limits=LIMITS)
    limit(machine, RuleKind.KEY, "echo", concurrency=2)
    attach(machine, granted=100)
    submit(machine, *(with_terms(number, key="abc"[number % 3]) for number in range(30)))
    submit(
        machine, *(a_spec(number) for number in range(100, 105)), *(with_terms(n, "other", key="a") for n in (200, 201))
    )
    assert len(allocate(machine)) == 6 + 5
    assert set(counts(machine).values()) == {11, 2}
    check(machine, machine.state)


def test_a_closed_limit_holds_back_nobody_else():
    machine = a_machine(limits=LIMITS)
    limit(machine, RuleKind.TENANT, "slow", concurrency=1)
    attach(machine, granted=100)
    submit(machine, *(a_spec(number, priority=4) for number in range(50)), tenant="slow")
    submit(machine, *(a_spec(100 + number) for number in range(50)), tenant="quick")
    assert len(allocate(machine)) == 51
    assert counts(machine)[RuleKind.TENANT, "slow", ""] == 1


def test_a_paused_queue_gives_nothing_out_and_goes_on_where_it_was():
    machine = a_machine(limits=LIMITS)
    attach(machine, granted=100)
    submit(machine, a_spec(1), a_spec(2))
    assert len(allocate(machine, count_max=1)) == 1
    assert tell(machine, PauseQueue, "echo", "maintenance").refusals == []
    assert allocate(machine) == []
    say(machine, reports=[completed(1)])
    assert allocate(machine) == []
    machine = a_machine(decode_state(encode_state(machine.state)), LIMITS, epoch=2)
    attach(machine, granted=100, session=2)
    assert allocate(machine) == []
    assert machine.state.paused == {"echo": "maintenance"}
    tell(machine, ResumeQueue, "echo")
    assert [effect.assignment.task for effect in allocate(machine)] == [an_id(2)]
    refusal = tell(machine, ResumeQueue, "echo").refusals[0]
    assert (refusal.code, refusal.field, refusal.reason) == ("conflict", "capability", "echo is not paused")


def test_tenants_have_bounds_of_their_own():
    machine = a_machine(limits=Limits(tenant_live_max=3, tenants_max=3))
    tell(machine, SetTenant, TenantTerms("large", live_max=5))
    decision = submit(machine, *(a_spec(number) for number in range(6)), tenant="large")
    assert [(r.code, r.field, r.retry_after_ns) for r in decision.refusals] == [("exhausted", "tenant", SECOND_NS)]
    assert len(submit(machine, *(a_spec(10 + n) for n in range(4)), tenant="usual").refusals) == 1
    assert submit(machine, a_spec(20), tenant="third").refusals == []
    (refusal,) = submit(machine, a_spec(30), tenant="fourth").refusals
    assert (refusal.code, refusal.field) == ("exhausted", "tenant")
    assert "3 tenants, its bound" in refusal.reason
    assert tell(machine, SetTenant, TenantTerms("fifth", 2)).refusals[0].code == "exhausted"
    cancel(machine, 20, tenant="third")
    assert submit(machine, a_spec(30), tenant="fourth").refusals == []
    check(machine, machine.state)


def test_a_full_queue_says_so():
    machine = a_machine(limits=Limits(capability_pending_max=3))
    submit(machine, a_spec(0))
    decision = submit(machine, *(a_spec(number) for number in range(1, 6)), a_spec(9, "other"))
    assert {(refusal.code, refusal.field) for refusal in decision.refusals} == {("exhausted", "capability")}
    assert len(machine.backlog.queues["echo"].flows["default"].lanes) == 1
    assert machine.backlog.pending("echo") == 3
