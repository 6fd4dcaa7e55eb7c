"""Judges of plug-ins: what is installed takes its seat; what cannot be made is left out, and the log says why."""

from importlib.metadata import EntryPoint

import pytest

from merit.app import plug_ins
from merit.app.judges import ENGINES_GROUP, MODELS_GROUP, SCORINGS_GROUP, load_panel
from merit.auditing.reputation import SimpleReputation
from merit.core.panel import BUILT_IN_PANEL
from merit.core.recovering import desk_of
from merit.core.state import State
from merit.model.limits import Limits
from merit.supervision.adaptive import Adaptive
from merit.supervision.scoring import Reference


class Unmakeable:
    def __init__(self) -> None:
        raise RuntimeError("not today")


@pytest.fixture
def load(monkeypatch):
    """Load with these entry points installed: group, name, value."""

    def with_these(*points):
        found = [EntryPoint(name, value, group) for group, name, value in points]
        monkeypatch.setattr(plug_ins, "entry_points", lambda group: [one for one in found if one.group == group])
        load_panel.cache_clear()
        return load_panel()

    yield with_these
    load_panel.cache_clear()


def test_those_that_come_with_it_are_there(load):
    assert load() == BUILT_IN_PANEL


def test_those_that_are_installed_are_there_too_each_in_its_place(load):
    panel = load(
        (MODELS_GROUP, "mine", "merit.auditing.reputation:SimpleReputation"),
        (SCORINGS_GROUP, "mine", "merit.supervision.scoring:Reference"),
        (ENGINES_GROUP, "mine", "merit.supervision.adaptive:Adaptive"),
    )
    assert isinstance(panel.models["mine"], SimpleReputation)
    assert isinstance(panel.scorings["mine"], Reference)
    assert isinstance(panel.engines["mine"], Adaptive)
    assert panel.engines["threshold"] is BUILT_IN_PANEL.engines["threshold"]
    assert desk_of(State(), 1, {}, Limits(), panel).panel is panel


def test_what_cannot_be_made_is_left_out_and_said(load, caplog):
    assert load((ENGINES_GROUP, "mine", f"{__name__}:Unmakeable")) == BUILT_IN_PANEL
    assert "decision engine mine is left out, it cannot be made: RuntimeError: not today" in caplog.text
