"""Strategies of plug-ins: what is installed is found; what cannot be used is left out, and the log says why."""

from importlib.metadata import EntryPoint

import pytest

from merit.allocation.catalogue import BUILT_IN
from merit.allocation.least_loaded import LeastLoaded
from merit.app import plug_ins
from merit.app.strategies import GROUP, load_strategies


@pytest.fixture
def load(monkeypatch):
    """Load with these entry points installed."""

    def with_these(*points):
        found = [EntryPoint(name, value, GROUP) for name, value in points]
        monkeypatch.setattr(plug_ins, "entry_points", lambda group: found if group == GROUP else [])
        load_strategies.cache_clear()
        return load_strategies()

    yield with_these
    load_strategies.cache_clear()


def test_those_that_come_with_it_are_there(load):
    assert load() == BUILT_IN


def test_one_that_is_installed_is_there_too(load):
    found = load(("mine", "merit.allocation.least_loaded:LeastLoaded"))
    assert found == {**BUILT_IN, "mine": LeastLoaded}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("least-loaded", "merit.allocation.round_robin:RoundRobin", "its name is taken"),
        ("mine", "no_such_module:Mine", "ModuleNotFoundError"),
        ("mine", "merit.allocation.least_loaded:missing", "AttributeError"),
        ("mine", "merit.allocation.catalogue:DEFAULT", "nothing that makes one"),
    ],
)
def test_what_cannot_be_used_is_left_out_and_said(load, caplog, name, value, said):
    assert load((name, value)) == BUILT_IN
    assert said in caplog.text
