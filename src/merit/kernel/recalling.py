"""What a client says that may have been said before, perhaps so long ago that only the journal remembers.

Tasks that it submits again after a reconnect, and idempotency keys that are older than what the cell keeps: everything
that the client says waits until the journal has been looked into.
"""

from __future__ import annotations

from collections.abc import Iterable

from merit.core.state import KeyEntry, State
from merit.core.submitting import asked_for
from merit.kernel.waiting import FromClient, Lookup
from merit.model.frames import ClientFrame, Settled
from merit.model.tasks import Refusal, TaskSpec
from merit.session.server_end import ServerEnd


class Recall:
    """Clients of whose words some may not be new."""

    def __init__(self) -> None:
        self._parked: dict[ServerEnd, list[FromClient]] = {}

    def park(self, item: FromClient, state: State) -> Lookup | bool:
        """Whether what a client says has to wait: with a question for the journal, or for the answer to one before."""
        parked = self._parked.get(item.end)
        if parked is not None:
            parked.append(item)
            return True
        if not state.forgotten and not state.keys_forgotten:
            return False
        # Also after looking: what was there then may have been forgotten while the journal was read.
        again = item.frame.again if state.forgotten else ()
        doubtful = [name for name in again if name not in state.tasks and name not in item.known]
        keys = _doubtful_keys(item, state) if state.keys_forgotten else []
        if not doubtful and not keys:
            return False
        self._parked[item.end] = [item]
        return Lookup(item.end, doubtful, again=True, keys=keys)

    def found(
        self, lookup: Lookup, outcomes: Iterable[Settled], keys: dict[tuple[str, str], KeyEntry]
    ) -> list[FromClient]:
        """What waited for the answer, in its order, with the answer."""
        parked = self._parked.pop(lookup.end, None)
        if parked is None:
            return []  # another of its questions could not be answered, and so its stream has ended
        first, *others = parked
        known = {outcome.task: outcome for outcome in outcomes}
        looked = first.known | {task_id: known.get(task_id) for task_id in lookup.tasks}
        recalled = first.keys | {at: keys.get(at) for at in lookup.keys}
        return [FromClient(first.end, first.frame, first.refusals, looked, recalled), *others]

    def drop(self, end: ServerEnd) -> None:
        """It will say everything again on another stream."""
        self._parked.pop(end, None)


def keep_keys(item: FromClient, state: State) -> None:
    """Note what the keys of a frame stand for before anything of it is taken in: that may push some of them out."""
    for spec in _specs(item.frame) if state.keys else ():
        if spec.terms is not None and spec.terms.idempotency_key:
            at = (item.end.tenant, spec.terms.idempotency_key)
            entry = state.keys.get(at)
            if entry is not None:
                item.keys[at] = entry


def _doubtful_keys(item: FromClient, state: State) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for spec in _specs(item.frame):
        if spec.terms is not None and spec.terms.idempotency_key and spec.id not in state.tasks:
            at = (item.end.tenant, spec.terms.idempotency_key)
            if at not in state.keys and at not in item.keys:
                found.append(at)
    return list(dict.fromkeys(found))


def _specs(frame: ClientFrame) -> Iterable[TaskSpec]:
    yield from frame.tasks
    for group in frame.groups:
        yield from group


def without_recalled(
    item: FromClient, specs: list[TaskSpec], *, atomic: bool
) -> tuple[list[TaskSpec], list[tuple[str, str]], list[Refusal]]:
    """The specs that are new as far as the journal knows; those that are other tasks by their keys, as pairs of ids; and
    refusals of those whose key stands for something else: with all the others that are new, if the submit is atomic."""
    fresh: list[TaskSpec] = []
    known: list[tuple[str, str]] = []
    refusals: list[Refusal] = []
    for spec in specs:
        key = spec.terms.idempotency_key if spec.terms is not None else ""
        entry = item.keys.get((item.end.tenant, key)) if key else None
        if item.known.get(spec.id) is not None:
            continue
        if entry is None or entry.task == spec.id:
            fresh.append(spec)
        elif entry.content == asked_for(spec):
            known.append((spec.id, entry.task))
        else:
            reason = f"task {entry.task} has this key and other content; make a new key, or submit the same again"
            refusals.append(Refusal(spec.id, "conflict", "terms.idempotency_key", reason))
    if atomic and refusals:
        reason = f"not taken, since task {refusals[0].task} of the same submit was refused"
        refusals += [Refusal(spec.id, "batch", "tasks", reason) for spec in fresh]
        fresh = []
    return fresh, known, refusals
