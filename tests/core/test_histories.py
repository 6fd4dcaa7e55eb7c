"""Journals of the past, replayed for ever: the same events give the same state, whatever the interpreter's hashes."""

import json
import sys

import pytest

from merit.core.codec import decode_event
from merit.model.events import Event
from tests.histories.replay import records_of
from tests.replay_on import HISTORIES, SEEDS, disagreements, replay_with


@pytest.mark.parametrize("seed", SEEDS)
def test_history_repeats_itself(seed):
    found = replay_with(sys.executable, seed)
    assert len(found["histories"]) >= 6
    assert disagreements(found) == []


def test_a_difference_is_named():
    found = replay_with(sys.executable, "0")
    found["histories"]["plain"]["digest"] = "0" * 64
    found["histories"]["cancels"]["outcome"][0][1] = "COMPLETED"
    lines = disagreements(found)
    assert [line.split(":")[0] for line in lines] == ["cancels", "plain"]
    assert "FOLD_VERSION in merit.core.codec has to go up" in lines[1]


def test_every_kind_of_event_is_in_some_history():
    histories = [json.loads(path.read_text()) for path in HISTORIES.glob("*.json")]
    kinds = {
        type(decode_event(data)) for history in histories for record in records_of(history) for data in record.events
    }
    assert kinds == set(Event.__subclasses__())
