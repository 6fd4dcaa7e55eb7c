"""What only the journal remembers."""

import os

import pytest

from merit.core.codec import encode_event
from merit.model.events import TaskSubmitted
from merit.model.record import seal
from merit.model.tasks import Priority, Terms
from merit.runtime.task_finder import TaskFinder
from merit.storage.sqlite_journal import SqliteJournal
from merit.storage.sqlite_reader import open_reader
from merit.testing.builders import START_NS, an_id

TASKS = 2_000


def submitted(number, key="", tenant="default"):
    terms = Terms(idempotency_key=key) if key else None
    return encode_event(
        TaskSubmitted(an_id(number), tenant, "p", "echo", os.urandom(32), "", Priority.MEDIUM, 1, 1, terms=terms)
    )


@pytest.fixture
def finder(tmp_path):
    journal = SqliteJournal(tmp_path, "cell")
    tail = journal.lead("leader", START_NS)
    events = [submitted(number, f"key {number}" if number % 2 else "") for number in range(TASKS)]
    events.append(submitted(TASKS, "key 1", tenant="them"))
    journal.append(seal("cell", tail.next, tail.epoch, "leader", START_NS, tail.last_hash, events))
    journal.close()
    return TaskFinder(lambda: open_reader(tmp_path, "cell"))


async def test_a_key_is_found_for_its_own_tenant_only(finder):
    found = await finder.keys([("default", "key 1"), ("them", "key 1"), ("them", "key 3"), ("default", "key 2")])
    assert {at: entry.task for at, entry in found.items()} == {
        ("default", "key 1"): an_id(1),
        ("them", "key 1"): an_id(TASKS),
    }
    assert found["default", "key 1"].content != found["them", "key 1"].content


# A bound on time, since that is what it is about: it was minutes before, with the interpreter's lock held throughout.
@pytest.mark.timeout(20)
async def test_looking_for_thousands_of_keys_costs_no_more_than_for_one(finder):
    keys = [("default", os.urandom(12).hex()) for _ in range(60_000)]
    assert await finder.keys([*keys, ("default", "key 7")]) == await finder.keys([("default", "key 7")])
