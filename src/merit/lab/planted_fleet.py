"""Bugs to plant in what the product does for a fleet; see :mod:`merit.lab.planted`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from msgspec.structs import replace

from merit.allocation.feasibility import reasons_against
from merit.allocation.least_loaded import LeastLoaded
from merit.allocation.ranked import Key
from merit.allocation.strategy import Candidate
from merit.core import admission, allocating, governing, line, lines, machine, recovering, staffing, supervising
from merit.core.desk import Desk
from merit.core.line import Line
from merit.core.lines import Lines
from merit.lab.instead import instead
from merit.model.commands import AttachWorker, Command, TellWorker
from merit.model.effects import SendDrain
from merit.model.events import WorkerHeard
from merit.model.fleet import RolloutState
from merit.model.limits import WORDS_MAX
from merit.model.tasks import Demand, Task
from merit.model.workers import Offer, Profile, Worker
from merit.supervision import breaker
from merit.supervision.sanctions import Dossier


def _handled(command: type[Command], handler: Callable[[Desk, Any], None]) -> AbstractContextManager[None]:
    """One kind of command is handled by another function."""
    handlers: dict[type[Command], Any] = {**machine._HANDLERS, command: handler}
    return instead(machine, "_HANDLERS", handlers)


def serve_paused() -> AbstractContextManager[None]:
    """A worker that is paused is given tasks like any other."""

    def reasons(worker: Worker, capability: str, demand: Demand, tenant: str, *, probing: bool) -> Iterator[str]:
        found = reasons_against(worker, capability, demand, tenant, probing=probing)
        return (reason for reason in found if reason != "is paused")

    return instead(line, "reasons_against", reasons)


def ignore_walls() -> AbstractContextManager[None]:
    """A worker that is there for some tenants only is given everybody's tasks."""

    def reasons(worker: Worker, capability: str, demand: Demand, tenant: str, *, probing: bool) -> Iterator[str]:
        found = reasons_against(worker, capability, demand, tenant, probing=probing)
        return (reason for reason in found if not reason.startswith("takes tasks of"))

    return instead(line, "reasons_against", reasons)


def keep_resources() -> AbstractContextManager[None]:
    """What attempts had in use is not given back when they end."""

    def refresh(self: Lines, worker: Worker) -> None:
        for stands_in, fit in self._places.get(worker.id, ()):
            fit.learn(worker, self._state.profiles.get(worker.id))
            self._offer(stands_in, fit, worker)

    return instead(Lines, "refresh", refresh)


def overcommit() -> AbstractContextManager[None]:
    """What an attempt takes is not counted."""

    def count_in(_in_use: object, _offer: Offer, _task: Task) -> None:
        return

    return instead(lines, "count_in", count_in)


def admit_removed() -> AbstractContextManager[None]:
    """A worker that was removed may join again."""
    original = staffing.attach_worker

    def attach(desk: Desk, command: AttachWorker) -> None:
        profile = desk.state.profiles.get(command.hello.worker)
        removed = profile is not None and profile.removed
        if profile is not None:
            profile.removed = False
        original(desk, command)
        if profile is not None:
            profile.removed = removed

    return _handled(AttachWorker, attach)


def forget_homes() -> AbstractContextManager[None]:
    """Tasks of a stateful capability go to anybody, whatever their key."""

    def home(*_what: object) -> str:
        return ""

    return instead(Lines, "_home", home)


def serve_aborted() -> AbstractContextManager[None]:
    """A version goes on having tasks when its introduction was aborted."""
    original = Lines._dealt

    def dealt(self: Lines, task: Task, demand: Demand, *rest: Any) -> Demand:
        if self._state.rollouts[task.capability].state is RolloutState.ABORTED:
            return demand
        return original(self, task, demand, *rest)

    return instead(Lines, "_dealt", dealt)


def unsaid_room() -> AbstractContextManager[None]:
    """A worker's room is gone by, and does not stand in the journal."""

    def see_rooms(desk: Desk) -> None:
        touched = [desk.state.workers[name] for name in desk.touched if name in desk.state.workers]
        desk.touched.clear()
        for worker in touched:
            worker.room = allocating.room_of(desk, worker)
            desk.lines.refresh(worker)

    return instead(allocating, "see_rooms", see_rooms)


def never_move() -> AbstractContextManager[None]:
    """A task stays in the line in which it was put first, whatever decides that has changed."""

    def belongs(_self: Lines, _task: Task, _line: Line) -> bool:
        return True

    return instead(Lines, "belongs", belongs)


def choose_by_chance() -> AbstractContextManager[None]:
    """A choice goes by something that does not follow from the journal."""
    count = 0

    def key(_self: LeastLoaded, candidate: Candidate) -> Key:
        nonlocal count
        count += 1
        return (count * 7 % 5, candidate.turn, candidate.worker)

    return instead(LeastLoaded, "key", key)


def forget_words() -> AbstractContextManager[None]:
    """A command counts as heard as soon as it is sent."""

    def tell_worker(desk: Desk, command: TellWorker) -> None:
        governing.tell_worker(desk, command)
        if command.worker in desk.state.workers and not desk.refusals:
            desk.emit(WorkerHeard(command.worker, WORDS_MAX))

    return _handled(TellWorker, tell_worker)


def drain_once() -> AbstractContextManager[None]:
    """Who was told to drain and did not hear it is not told again."""

    def told_to(_worker: str) -> SendDrain:
        return SendDrain("nobody")

    return instead(staffing, "SendDrain", told_to)


def unproven() -> AbstractContextManager[None]:
    """Who has passed some probes need not do any others."""

    def missing(_state: object, offer: Offer, profile: Profile | None) -> bool:
        return False

    return instead(admission, "_missing", missing)


def serve_broken() -> AbstractContextManager[None]:
    """A worker whose breaker is open is given tasks like any other."""

    def room(_circuit: object, room_: int, _live: int, _policy: object) -> int:
        return room_

    return instead(breaker, "room", room)


def judge_pinned() -> AbstractContextManager[None]:
    """Something is decided about workers whose factor a person has fixed."""
    original = supervising.dossier_of

    def dossier_of(desk: Desk, profile: Profile) -> Dossier:
        return replace(original(desk, profile), pinned=False, cheating="looks at the clock")

    return instead(supervising, "dossier_of", dossier_of)


def forget_breakers() -> AbstractContextManager[None]:
    """A new leader does not know whose breaker is open, and never tries them again."""

    def recall_conduct(_desk: object) -> None:
        return

    return instead(recovering, "recall_conduct", recall_conduct)


FLEET_PLANTS: Mapping[str, Callable[[], AbstractContextManager[Any]]] = {
    "serve-paused": serve_paused,
    "ignore-walls": ignore_walls,
    "keep-resources": keep_resources,
    "overcommit": overcommit,
    "admit-removed": admit_removed,
    "forget-homes": forget_homes,
    "serve-aborted": serve_aborted,
    "unsaid-room": unsaid_room,
    "never-move": never_move,
    "choose-by-chance": choose_by_chance,
    "forget-words": forget_words,
    "drain-once": drain_once,
    "unproven": unproven,
    "serve-broken": serve_broken,
    "judge-pinned": judge_pinned,
    "forget-breakers": forget_breakers,
}
"""By the name that ``merit lab simulate --plant`` takes."""
