"""A new version of a capability takes a share of the tasks, then all of them or none."""

from __future__ import annotations

from merit.core.desk import Desk
from merit.model.commands import EndRollout, StartRollout
from merit.model.events import RolloutEnded, RolloutShared, RolloutStarted
from merit.model.fleet import Rollout, RolloutState
from merit.model.limits import CAPABILITIES_MAX, REMEMBERED_MAX
from merit.model.tasks import Refusal


def start_rollout(desk: Desk, command: StartRollout) -> None:
    """Begin, or give what has begun another share. Tasks that wait are dealt anew."""
    rollouts = desk.state.rollouts
    rollout = rollouts.get(command.capability)
    if rollout is None and len(rollouts) >= CAPABILITIES_MAX:
        reason = f"{CAPABILITIES_MAX:,} capabilities have had a rollout, which is the bound"
        desk.refusals.append(Refusal("", "exhausted", "capability", reason))
        return
    running = rollout is not None and rollout.state is RolloutState.RUNNING
    if rollout is not None and running and rollout.version == command.version:
        if rollout.share_permille != command.share_permille:
            desk.emit(RolloutShared(command.capability, command.share_permille, command.principal))
            desk.lines.deal_anew(command.capability)
    elif rollout is not None and running:
        reason = f"version {rollout.version} is being introduced; promote or abort that first"
        desk.refusals.append(Refusal("", "conflict", "version", reason))
    elif command.only_running:
        now = f"that of {rollout.version} is {rollout.state.name}" if rollout is not None else "there has been none"
        begin = f"merit rollout start {command.capability} {command.version} --share SHARE"
        reason = f"no rollout is running ({now}); begin one with: {begin}"
        desk.refusals.append(Refusal("", "conflict", "version", reason))
    else:
        floors, barred = _inherited(rollout, command.version)
        share = command.share_permille
        desk.emit(RolloutStarted(command.capability, command.version, share, command.principal, floors, barred))
        desk.lines.deal_anew(command.capability)
    desk.lines.consider(command.capability)


def _inherited(before: Rollout | None, version: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What goes on to hold of the rollouts before: versions below which nothing goes, and those that get nothing. Of one
    that is introduced once more nothing is left from the time before."""
    if before is None:
        return (), ()
    promoted = (before.version,) if before.state is RolloutState.PROMOTED else ()
    aborted = (before.version,) if before.state is RolloutState.ABORTED else ()
    floors = tuple(other for other in (*before.floors, *promoted) if other != version)
    barred = tuple(other for other in (*before.barred, *aborted) if other != version)
    return floors[-REMEMBERED_MAX:], barred[-REMEMBERED_MAX:]


def end_rollout(desk: Desk, command: EndRollout) -> None:
    """Everything goes to the version and those after it, or nothing to it any more; either can be taken back."""
    rollout = desk.state.rollouts.get(command.capability)
    after = RolloutState.PROMOTED if command.promote else RolloutState.ABORTED
    if rollout is None:
        reason = f"{command.capability} has no rollout; start one with: merit rollout start"
        desk.refusals.append(Refusal("", "not_found", "capability", reason))
    elif rollout.state is after:
        desk.refusals.append(Refusal("", "conflict", "capability", f"is {after.name} already"))
    else:
        desk.emit(RolloutEnded(command.capability, command.promote, command.principal))
        desk.lines.consider(command.capability)
