"""Bugs to plant in how results are looked at; see :mod:`merit.lab.planted`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from merit.core import allocating, auditing, looking, machine, recovering, timing
from merit.core.desk import Desk
from merit.lab.instead import instead
from merit.model.auditing import AuditCase, AuditPolicy
from merit.model.tasks import Task, TaskState


def review_oneself() -> AbstractContextManager[None]:
    """Whoever has had to do with a result may be asked about it."""

    def barred_from(_state: object, _task: Task) -> tuple[str, ...]:
        return ()

    return instead(allocating, "barred_from", barred_from)


def accept_rejected() -> AbstractContextManager[None]:
    """What a judge has found to be wrong counts all the same."""

    def reject(desk: Desk, task: Task, case: AuditCase, _reason: str) -> None:
        auditing._accept(desk, task, case)

    return instead(auditing, "_reject", reject)


def forget_cases() -> AbstractContextManager[None]:
    """A new leader does not see to it that results are looked at for so long only."""

    def arm(desk: Desk, task: Task) -> None:
        if task.state is not TaskState.AUDITING:
            timing.arm(desk, task)

    return instead(recovering, "arm", arm)


def double_gold() -> AbstractContextManager[None]:
    """A worker may have any number of tasks with known results at a time."""
    original = auditing._draw_gold

    def draw_gold(desk: Desk, worker: str, task: Task, policy: AuditPolicy) -> None:
        desk.tested.pop((worker, task.capability), None)
        original(desk, worker, task, policy)

    return instead(auditing, "_draw_gold", draw_gold)


def forget_gold() -> AbstractContextManager[None]:
    """A new leader does not know who has a task with a known result."""

    def recall_gold(_desk: Desk) -> None:
        return

    return instead(recovering, "recall_gold", recall_gold)


def look_in_vain() -> AbstractContextManager[None]:
    """Those who were asked go on when it is decided."""

    def call_off(_desk: Desk, _review: str) -> None:
        return

    return instead(machine, "call_off", call_off)


def copy_unsafe() -> AbstractContextManager[None]:
    """What is not safe to repeat is copied."""

    def can_be_copied(_worker: object, _task: Task) -> bool:
        return True

    return instead(looking, "_can_be_copied", can_be_copied)


def blame_the_right() -> AbstractContextManager[None]:
    """Whoever differs from the first answer is wrong, whatever the others say."""
    original = auditing._by_vote

    def by_vote(desk: Desk, task: Task, case: AuditCase) -> None:
        judge = auditing._judge

        def blame(desk: Desk, worker: str, task: Task, *, right: bool, how: str, reason: str) -> None:
            judge(desk, worker, task, right=right is (worker == case.worker), how=how, reason=reason)

        with instead(auditing, "_judge", blame):
            original(desk, task, case)

    return instead(auditing, "_by_vote", by_vote)


def judge_by_now() -> AbstractContextManager[None]:
    """Results are looked at as it is set now, not as it was when they came."""
    original = auditing._decide

    def decide(desk: Desk, task: Task, case: AuditCase) -> None:
        policy = desk.state.audits.get(task.capability, AuditPolicy(task.capability))
        case.comparison, case.on_broken = policy.comparison, policy.on_broken
        original(desk, task, case)

    return instead(auditing, "_decide", decide)


AUDIT_PLANTS: Mapping[str, Callable[[], AbstractContextManager[Any]]] = {
    "review-oneself": review_oneself,
    "accept-rejected": accept_rejected,
    "forget-cases": forget_cases,
    "double-gold": double_gold,
    "forget-gold": forget_gold,
    "look-in-vain": look_in_vain,
    "copy-unsafe": copy_unsafe,
    "blame-the-right": blame_the_right,
    "judge-by-now": judge_by_now,
}
"""By the name that ``merit lab simulate --plant`` takes."""
