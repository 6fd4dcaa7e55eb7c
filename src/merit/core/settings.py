"""What operators set: queues paused and resumed, limits, what tenants get, how results are looked at."""

from __future__ import annotations

from merit.core.desk import Desk
from merit.core.queueing import come_forward
from merit.core.reserving import let_go
from merit.model.commands import PauseQueue, ResumeQueue, SetAudit, SetRule, SetTenant
from merit.model.events import AuditSet, QueuePaused, QueueResumed, RuleSet, TenantSet
from merit.model.limits import CAPABILITIES_MAX, RULES_MAX
from merit.model.tasks import Refusal


def pause_queue(desk: Desk, command: PauseQueue) -> None:
    """Nothing of the capability is given out any more."""
    if command.capability not in desk.state.paused and _full(desk):
        return
    for task_id, worker in list(desk.state.reserved.items()):
        if desk.state.tasks[task_id].capability == command.capability:
            let_go(desk, worker)
    desk.emit(QueuePaused(command.capability, command.principal, command.reason))


def resume_queue(desk: Desk, command: ResumeQueue) -> None:
    """It is given out again."""
    if command.capability not in desk.state.paused:
        desk.refusals.append(Refusal("", "conflict", "capability", f"{command.capability} is not paused"))
        return
    desk.emit(QueueResumed(command.capability, command.principal))
    desk.lines.mark(command.capability)


def set_rule(desk: Desk, command: SetRule) -> None:
    """A limit is there, changed or gone; it counts what runs already."""
    rule, gates = command.rule, desk.gates
    known = (rule.kind, rule.name) in desk.state.rules
    if not known and (not rule.limits or _full(desk)):
        return
    desk.emit(RuleSet(rule, command.principal))
    come_forward(desk, gates.set(rule, desk.now_ns))
    if rule.limits and not known:
        concerned = (
            task
            for worker in desk.state.workers.values()
            for task_id in worker.attempts
            if rule.name in ((task := desk.state.tasks[task_id]).capability, task.tenant)
        )
        gates.hold(concerned, desk.now_ns)


def set_tenant(desk: Desk, command: SetTenant) -> None:
    """A tenant gets more or less from now on."""
    terms = command.terms
    if terms.tenant not in desk.state.tenants and (terms.usual or _full(desk)):
        return
    desk.emit(TenantSet(terms, command.principal))
    desk.backlog.shares.set_weight(terms.tenant, terms.weight)


def set_audit(desk: Desk, command: SetAudit) -> None:
    """Results of a capability that come from now on are looked at like this."""
    policy, audits = command.policy, desk.state.audits
    known = policy.capability in audits
    if not known and policy.nothing:
        return
    if not known and len(audits) >= CAPABILITIES_MAX:
        reason = f"{CAPABILITIES_MAX:,} capabilities have an audit policy, which is the bound"
        desk.refusals.append(Refusal("", "exhausted", "capability", reason))
        return
    desk.emit(AuditSet(policy, command.principal))


def _full(desk: Desk) -> bool:
    state = desk.state
    if len(state.rules) + len(state.paused) < RULES_MAX and len(state.tenants) < desk.limits.tenants_max:
        return False
    reason = (
        f"this cell keeps {RULES_MAX:,} limits and pauses and {desk.limits.tenants_max:,} tenants; remove some first"
    )
    desk.refusals.append(Refusal("", "exhausted", "name", reason))
    return True
