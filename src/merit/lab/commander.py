"""Somebody who gives a simulated cell commands, one at a time, and looks whether they are carried out."""

from __future__ import annotations

from collections.abc import Callable

from merit.lab.cell import SimulatedCell
from merit.lab.habits import Habits
from merit.lab.violation import Violation
from merit.lab.world import World
from merit.model.commands import Command
from merit.model.limits import MILLISECOND_NS
from merit.model.tasks import Refusal

WHO = "operator"
PATIENCE_NS = 300 * MILLISECOND_NS
"""How long one command is waited for; the process that had it may be gone."""

Check = Callable[[Command], bool]


class Commander:
    """One person, who in the end sees to it that nothing is held up."""

    def __init__(self, world: World, cell: SimulatedCell, habits: Habits) -> None:
        self._world = world
        self._cell = cell
        self._habits = habits
        self._asked = 0
        """Commands so far: an answer to an older one comes too late."""
        self._made = 0
        """Things so far that need a name of their own."""
        self._clearing = False

    def _begin(self, what: str) -> None:
        """Something is done now and then from now on."""
        self._pace_ns = self._world.between(50, 400)
        self._what = what
        self._world.after(self._world.between(0, 300), what, self._act)

    def _act(self) -> None:
        if self._clearing:
            return
        self._world.rng.choice(self._deeds())()
        self._world.after(int(self._pace_ns * (0.5 + self._world.rng.random())), self._what, self._act)

    def _deeds(self) -> tuple[Callable[[], None], ...]:
        """What there is to be done, the usual more than once."""
        raise NotImplementedError

    def _give(self, command: Command, check: Check) -> None:
        """Give a command; when nothing of it was refused, ``check`` says whether it has been carried out."""
        self._asked += 1
        number = self._asked

        def answered(refusals: list[Refusal]) -> None:
            what = type(command).__name__
            self._world.coverage[f"{what} {'refused' if refusals else 'carried out'}"] += 1
            if not refusals and number == self._asked and not check(command):
                raise Violation("durable first", "", f"{command} was answered and is not durable")

        self._cell.command(command, answered)
