"""Lists of workers, of which the cell has some, the read model some, and both some."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.gateway.fields import BadField
from merit.gateway.memory import Memory
from merit.gateway.worker_pages import WorkerPages
from merit.gateway.worker_view import WorkerSearch
from merit.model.limits import NAME_LENGTH_MAX
from merit.ports.read_model import Portion, Reached, ReadModelUnavailable
from merit.storage.memory_read_model import MemoryReadModel
from merit.testing.builders import START_NS, an_offer, attach, detach
from merit.testing.read_model_contract import a_worker
from merit.wire.v1 import fleet_pb2
from tests.gateway.operated import StillCell
from tests.gateway.test_task_pages import ScriptedFollower

GONE, IDLE, DEACTIVATED = fleet_pb2.STANDING_GONE, fleet_pb2.STANDING_IDLE, fleet_pb2.STANDING_DEACTIVATED


def left(name, **fields):
    return a_worker(name, **{"left_ns": START_NS + 9, "reason": "said good-bye", **fields})


class Fleet:
    """Workers that are here, workers that are gone and known to the cell, and what the read model remembers."""

    def __init__(self, here=(), gone=(), remembered=()):
        self.cell = StillCell()
        self.follower = ScriptedFollower()
        self.follower.catch_up = lambda: True
        self.model = MemoryReadModel()
        self.broken = False
        for name in here:
            attach(self.cell.machine, name)
        for name in gone:
            attach(self.cell.machine, name)
            detach(self.cell.machine, name, bye=True)
        self.model.write(Portion(0, Reached(100, START_NS), workers=list(remembered)))
        self.pages = WorkerPages(self.cell, Memory(self.open, self.follower))

    def open(self):
        if self.broken:
            raise ReadModelUnavailable("read-model: no space left; make some")
        return self.model.opened()

    async def page(self, limit=0, after="", **wanted):
        return await self.pages.page(WorkerSearch(fleet_pb2.WorkerFilter(**wanted)), limit, after)

    async def names(self, limit=1_000, **wanted):
        found, after = [], ""
        while True:
            page = await self.page(limit, after, **wanted)
            assert len(page.workers) <= limit
            found += [worker.id for worker in page.workers]
            after = page.next_cursor
            if not after:
                return found


@given(
    where=st.lists(
        st.sampled_from(["here", "gone", "remembered", "gone and remembered", "here again", "forgotten"]), max_size=20
    ),
    limit=st.integers(1, 5),
    also_here=st.booleans(),
)
async def test_all_are_listed_once_and_in_order_wherever_they_are(where, limit, also_here):
    names = {f"w{number:02}": place for number, place in enumerate(where)}
    fleet = Fleet(
        [name for name, place in names.items() if place.startswith("here")],
        [name for name, place in names.items() if place.startswith("gone")],
        [left(name) for name, place in names.items() if place in ("remembered", "gone and remembered", "here again")],
    )
    shown = [name for name, place in names.items() if "gone" in place or place == "remembered"]
    if also_here:
        shown += [name for name, place in names.items() if place.startswith("here")]
    assert await fleet.names(limit, standings=[GONE, IDLE] if also_here else [GONE]) == sorted(shown)


async def test_those_that_are_gone_are_found_by_all_that_a_filter_knows():
    rows = [
        left("alpha-1", capabilities=("echo", "render"), versions=("1.2.0", "2.0.0"), tags=("eu", "gpu")),
        left("alpha-2", capabilities=("render",), versions=("1.0.0",), tenants=("acme",), left_ns=START_NS + 20),
        left("beta", tags=("gpu",)),
        a_worker("here-by-now"),
    ]
    # The cell has forgotten the first one, and of the others knows that they were here.
    fleet = Fleet(gone=["alpha-2", "beta"], remembered=rows)
    for wanted, found in (
        ({}, ["alpha-1", "alpha-2", "beta"]),
        ({"capability": "render"}, ["alpha-1", "alpha-2"]),
        ({"capability": "render", "versions": ">=2"}, ["alpha-1"]),
        ({"capability": "echo", "versions": ">=1"}, ["alpha-1"]),
        ({"tags": ["gpu"]}, ["alpha-1", "beta"]),
        ({"tags": ["gpu", "eu"]}, ["alpha-1"]),
        ({"tenant": "red"}, ["alpha-1", "beta"]),
        ({"tenant": "acme"}, ["alpha-1", "alpha-2", "beta"]),
        ({"name": "alpha"}, ["alpha-1", "alpha-2"]),
        ({"left_from_ns": START_NS + 10}, ["alpha-2"]),
        ({"left_to_ns": START_NS + 10}, ["alpha-1", "beta"]),
        ({"left_from_ns": START_NS + 21}, []),
    ):
        assert await fleet.names(standings=[GONE], **wanted) == found, wanted
        assert await fleet.names(1, standings=[GONE], **wanted) == found, wanted
    assert await fleet.names(left_from_ns=1) == ["alpha-1", "alpha-2", "beta"]
    assert await fleet.names() == await fleet.names(standings=[DEACTIVATED]) == []


async def test_what_is_told_of_one_that_is_gone_is_what_both_know():
    row = left("old", capabilities=("echo",), versions=("1.2.0",), tags=("gpu",), tenants=("acme",), lost=True)
    fleet = Fleet(gone=["known"], remembered=[row, left("known"), left("older", capabilities=("echo", "sum"))])
    known, old, older = (await fleet.page(standings=[GONE])).workers
    assert (old.id, old.standing, old.contract) == ("old", GONE, fleet_pb2.CONTRACT_UNSPECIFIED)
    assert (old.left_ns, old.lost, old.reason, old.first_ns) == (START_NS + 9, True, "said good-bye", START_NS)
    assert [(offer.name, offer.version) for offer in old.offers] == [("echo", "1.2.0")]
    assert (list(old.tags), list(old.tenants)) == (["gpu"], ["acme"])
    assert not old.HasField("completed")
    assert not old.HasField("failed")
    assert (known.id, known.contract, known.left_ns) == ("known", fleet_pb2.CONTRACT_SESSION, START_NS + 9)
    assert known.HasField("completed")
    assert [(offer.name, offer.version) for offer in older.offers] == [("echo", ""), ("sum", "")]
    assert await fleet.pages.one("old") == old
    assert await fleet.pages.one("ol") is None
    attach(fleet.cell.machine, "old", offers=(an_offer("echo"),))
    here = await fleet.pages.one("old")
    assert here is not None
    assert (here.standing, here.left_ns) == (IDLE, 0)


async def test_a_list_of_those_that_are_here_asks_the_cell_alone():
    fleet = Fleet(["w1"], remembered=[left("old")])
    fleet.broken = True
    assert await fleet.names() == await fleet.names(standings=[IDLE]) == ["w1"]
    assert (await fleet.page()).lacking == ""
    assert fleet.follower.waited == []


async def test_it_says_what_may_be_missing_once_it_has_waited():
    fleet = Fleet(gone=["known"], remembered=[left("a"), left("b")])
    fleet.follower.catch_up = lambda: False
    sequence = fleet.cell.state.sequence
    page = await fleet.page(1, standings=[GONE])
    assert page.lacking.startswith(f"workers that are gone may be missing: the follower is {sequence} events behind")
    assert "the follower has died" in page.lacking
    assert fleet.follower.waited == [(sequence, 2.0)]
    page = await fleet.page(1, page.next_cursor, standings=[GONE])
    assert ([worker.id for worker in page.workers], page.lacking) == (["b"], "")
    assert len(fleet.follower.waited) == 1
    fleet.follower.catch_up = lambda: True
    fleet.broken = True
    fleet.pages = WorkerPages(fleet.cell, Memory(fleet.open, fleet.follower))
    page = await fleet.page(standings=[GONE])
    assert ([worker.id for worker in page.workers], "no space left" in page.lacking) == (["known"], True)
    assert (await fleet.pages.one("known")) is not None
    with pytest.raises(ReadModelUnavailable):
        await fleet.pages.one("old")
    nobody = WorkerPages(fleet.cell, None)
    page = await nobody.page(WorkerSearch(fleet_pb2.WorkerFilter(standings=[GONE])), 0, "")
    assert "keeps no read model" in page.lacking
    assert await nobody.one("old") is None


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"name": "x" * (NAME_LENGTH_MAX + 1)}, "filter.name"),
        ({"left_from_ns": -1}, "filter.left_from_ns"),
        ({"left_to_ns": -1}, "filter.left_to_ns"),
    ],
)
def test_a_filter_that_cannot_be_is_refused(wanted, field):
    with pytest.raises(BadField) as refused:
        WorkerSearch(fleet_pb2.WorkerFilter(**wanted))
    assert refused.value.field == field
