"""What the follower makes of a journal, whatever happens to it, and that months of it stay bounded."""

import logging
import random
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from merit.app import follower as follower_module
from merit.app import retaining as retaining_module
from merit.app.follower import FollowerOrders, JournalFollower
from merit.app.restore import NoBeginning, restore
from merit.core.codec import encode_state
from merit.model.limits import SECOND_NS
from merit.model.record import JournalCorrupt
from merit.model.retention import Retention
from merit.model.search import TaskQuery, TaskRow, WorkerQuery
from merit.ports.archive import ArchiveUnavailable
from merit.ports.read_model import Portion, Superseded
from merit.ports.signer import SignerUnavailable
from merit.ports.snapshots import SnapshotUnavailable
from merit.storage.memory_archive import MemoryArchive
from merit.storage.memory_journal import MemoryDisk, MemoryJournal
from merit.storage.memory_read_model import MemoryReadModel
from merit.storage.memory_snapshots import MemorySnapshots
from tests.app.a_life import Life, projected

DAY_S = 86_400
HOUR_NS = 3_600 * SECOND_NS
SHORT = Retention(journal_keep_s=7.0 * DAY_S, trails_keep_s=30.0 * DAY_S, audit_horizon_s=1.0 * DAY_S)


class SomeSigner:
    """Signs with nothing, if it is there."""

    def __init__(self):
        self.is_there = True

    @property
    def public_key(self):
        if not self.is_there:
            raise SignerUnavailable("key: permission denied; chmod 600 key")
        return bytes(32)

    def sign(self, data):
        return 2 * self.public_key


class Followed:
    """A cell's life, and all that its follower keeps, in memory."""

    def __init__(self, retention=SHORT, snapshot_events=100):
        self.disk = MemoryDisk("cell-1")
        self.journal = MemoryJournal(self.disk)
        self.life = Life(self.journal)
        self.snapshots = MemorySnapshots()
        self.archive = MemoryArchive("cell-1")
        self.model = MemoryReadModel()
        self.orders = FollowerOrders(retention=retention, snapshot_events=snapshot_events)
        self.signer = SomeSigner()
        self.ever = list(self.disk.records)
        """All records that there ever were."""

    def live(self, tasks, step_ns=SECOND_NS):
        known = len(self.disk.records)
        self.life.go_on(tasks, step_ns)
        self.ever += self.disk.records[known:]

    def begun(self):
        follower = JournalFollower(
            MemoryJournal(self.disk),
            self.snapshots,
            self.archive,
            self.model,
            self.signer,
            self.orders,
            lambda: self.life.now_ns,
        )
        follower.begin()
        return follower

    def go_on(self, follower):
        """To the end of the journal, and a look at what is to go; the journal is compacted as it says. Its last report."""
        for _ in range(2):
            while follower.step():
                pass
            settle(follower)
            self.life.now_ns = max(self.life.now_ns, follower._look_at_ns)
        report = follower.report()
        first = 0
        while first < (base := self.journal.base().next) < report.compact:
            first = base
            self.journal.compact(report.compact)
        return report

    def found(self):
        """All that can be searched: tasks by order, workers by name."""
        tasks: dict[int, TaskRow] = {}
        before = 2**63 - 1
        while True:
            page = self.model.find(TaskQuery(), before, 1_000)
            tasks.update((row.order, row) for row in page.rows)
            if not page.more:
                break
            before = page.before
        return dict(sorted(tasks.items())), {row.worker: row for row in self.model.workers(WorkerQuery(), "", 1_000)}


def settle(follower):
    for job in list(follower._jobs):
        job.result()


def kill(follower):
    """As by kill -9: what it has handed over is done, or it is not."""
    follower._thread.shutdown(cancel_futures=True)


@pytest.fixture(autouse=True)
def _small_portions(monkeypatch):
    monkeypatch.setattr(follower_module, "PORTION_EVENTS", 30)
    monkeypatch.setattr(retaining_module, "ARCHIVED_AT_A_TIME", 50)


def test_what_can_be_searched_is_what_a_projection_of_everything_at_once_has():
    followed = Followed()
    followed.live(200)
    follower = followed.begun()
    report = followed.go_on(follower)
    assert report.sequence == follower.sequence == followed.disk.records[-1].last
    assert report.time_ns == followed.disk.records[-1].time_ns
    assert followed.found() == projected(followed.ever)
    assert not report.alarms


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_killed_at_any_moment_it_goes_on_without_a_gap(seed):
    chance = random.Random(seed)
    followed = Followed(snapshot_events=chance.choice((40, 100, 1_000)))
    followed.live(20)
    follower = followed.begun()
    for _ in range(chance.randrange(2, 10)):
        for _ in range(chance.randrange(8)):
            if chance.random() < 0.5:
                followed.live(chance.randrange(30))
            follower.step()
        kill(follower)
        what = chance.random()
        if what < 0.15:
            followed.model.clear()
        elif what < 0.3:
            followed.snapshots.drop(
                chance.sample(list(followed.snapshots.sequences()), len(followed.snapshots.sequences()) // 2)
            )
        elif what < 0.4:
            followed.archive = MemoryArchive("cell-1")
        elif what < 0.5 and followed.snapshots.sequences():
            followed.snapshots.damage(max(followed.snapshots.sequences()))
        follower = followed.begun()
    followed.go_on(follower)
    follower.end()
    assert followed.found() == projected(followed.ever)
    state, _ = restore(MemoryJournal(followed.disk), followed.snapshots)
    assert encode_state(state) == encode_state(restore(MemoryJournal(followed.disk), MemorySnapshots())[0])


def test_an_orderly_end_leaves_a_snapshot_if_that_spares_the_next_start_much(monkeypatch):
    monkeypatch.setattr(follower_module, "SNAPSHOT_EVENTS_AT_END", 20)
    followed = Followed(snapshot_events=10_000)
    follower = followed.begun()
    for tasks, snapshots in ((10, 1), (1, 1), (20, 2)):
        followed.live(tasks, 1)
        follower = followed.begun()
        followed.go_on(follower)
        follower.end()
        assert len(followed.snapshots.sequences()) == snapshots
    assert max(followed.snapshots.sequences()) == follower.sequence


def test_two_followers_cannot_both_write():
    followed = Followed()
    followed.live(20)
    first, second = followed.begun(), followed.begun()
    followed.go_on(first)
    with pytest.raises(Superseded):
        followed.go_on(second)
    assert followed.found() == projected(followed.ever)


# Months


def test_nothing_is_done_behind_what_failed():
    follower = Followed().begun()
    done, go_on = [], Event()

    def fail():
        go_on.wait()
        raise SnapshotUnavailable("disk full")

    follower._hand_over(fail)
    follower._hand_over(lambda: done.append("the next"))
    go_on.set()
    with pytest.raises(SnapshotUnavailable):
        follower.end()
    assert done == []


def test_whoever_was_superseded_does_nothing_more():
    followed = Followed(snapshot_events=20)
    one, other = followed.begun(), followed.begun()
    followed.live(8)
    followed.go_on(other)
    stored = dict(followed.snapshots.sequences())
    followed.live(8)
    with pytest.raises(Superseded):
        one.step()
        one.end()
    kill(one)
    assert followed.snapshots.sequences() == stored
    done = []
    other = followed.begun()
    followed.model.write(Portion(followed.model.reached().sequence, replace(followed.model.reached(), sequence=1_000)))
    other._hand_over(lambda: done.append("dropped"))
    with pytest.raises(Superseded, match=r"is at 1,000, and not at .* another follower is at work"):
        settle(other)
    assert done == []


@pytest.mark.parametrize(("killed", "bytes_max"), [(False, 15_000), (True, 25_000)])
def test_the_journal_begins_with_a_snapshot_though_they_are_too_large(killed, bytes_max):
    retention = Retention(journal_keep_s=1.0 * DAY_S, audit_horizon_s=1.0 * DAY_S, snapshots_bytes_max=bytes_max)
    followed = Followed(retention, snapshot_events=20)
    follower = followed.begun()
    compact = first = 0
    for _ in range(60):
        # Much comes between the moment when it says how far the journal may go and that when it has gone.
        followed.live(5, HOUR_NS)
        if killed:
            kill(follower)
            follower = followed.begun()
        while follower.step():
            pass
        settle(follower)
        while followed.journal.base().next < compact:
            followed.journal.compact(compact)
        first = followed.journal.base().next
        assert first == 1 or first - 1 in followed.snapshots.sequences()
        compact = follower.report().compact
    assert first > 1
    assert len(followed.snapshots.sequences()) < 9


def test_months_stay_bounded_and_nothing_of_the_last_day_goes():
    followed = Followed()
    follower = followed.begun()
    sizes, starts, archives = [], [], []
    for day in range(90):
        followed.live(24, HOUR_NS)
        if day % 10 == 9:
            kill(follower)
            follower = followed.begun()
        report = followed.go_on(follower)
        assert not report.alarms
        now_ns = followed.life.now_ns
        first = followed.journal.base().next
        assert all(record.first >= first for record in followed.ever if record.time_ns >= now_ns - DAY_S * SECOND_NS)
        newest = max(followed.snapshots.sequences(), default=0)
        sizes.append(len(followed.disk.records))
        starts.append(followed.disk.records[-1].last - newest)
        archives.append(followed.archive.held().segments_bytes)
        # The journal that is left can be folded from its first event on.
        assert first == 1 or first - 1 in followed.snapshots.sequences()
    assert max(sizes[20:]) < 1.3 * max(sizes[:20])
    assert max(starts) <= 100 + 5
    assert max(archives[60:]) < 1.3 * max(archives[30:60])
    assert len(followed.snapshots.sequences()) <= 15
    tasks, _ = followed.found()
    everything, _ = projected(followed.ever)
    kept_ns = followed.life.now_ns - 30 * DAY_S * SECOND_NS
    young = {order: row for order, row in everything.items() if row.ended_ns >= kept_ns}
    assert young.items() <= tasks.items(), "everything final is found as long as it is to be"
    assert len(tasks) < 1.2 * len(young), "and not for ever"
    held = followed.archive.held()
    assert held.last + 1 >= followed.journal.base().next, "what has left the journal is archived"
    assert held.anchored >= held.last
    oldest = next(record for record in followed.ever if record.time_ns >= kept_ns)
    assert held.first <= oldest.first


def test_what_is_too_large_goes_before_its_time_but_not_what_is_within_the_horizon():
    followed = Followed(Retention(journal_bytes_max=60_000))
    follower = followed.begun()
    for _ in range(20):
        followed.live(24, HOUR_NS)
        report = followed.go_on(follower)
        assert not report.alarms
    assert 20_000 < followed.journal.size_bytes() <= 60_000
    assert followed.journal.base().next > 1
    followed.live(400, SECOND_NS)
    kill(follower)
    follower = followed.begun()
    report = followed.go_on(follower)
    assert "--journal-max" in report.alarms["journal"]
    assert "--audit-horizon" in report.alarms["journal"]
    since_ns = followed.life.now_ns - DAY_S * SECOND_NS
    assert all(r.first >= followed.journal.base().next for r in followed.ever if r.time_ns >= since_ns)
    followed.life.now_ns += 2 * DAY_S * SECOND_NS
    followed.live(1)
    followed.go_on(follower)
    assert not followed.go_on(follower).alarms
    assert followed.journal.size_bytes() <= 60_000


def forgotten_all_that_may_go(followed, follower):
    """The last report, once nothing more is forgotten."""
    report = followed.go_on(follower)
    while follower._forgets:
        report = followed.go_on(follower)
    return report


def test_of_too_many_rows_as_many_go_as_have_to_those_that_ended_first():
    followed = Followed(Retention(search_bytes_max=60_000))
    follower = followed.begun()
    for _ in range(5):
        followed.live(24, HOUR_NS)
        assert not forgotten_all_that_may_go(followed, follower).alarms
        assert followed.model.size_bytes() <= 60_000
    tasks, _ = followed.found()
    everything = sorted(projected(followed.ever)[0].values(), key=lambda row: row.ended_ns)
    assert len(tasks) > 50, "no more than has to"
    assert sorted(tasks) == sorted(row.order for row in everything[-len(tasks) :])


def test_too_many_rows_of_the_last_day_stay_and_an_alarm_says_so():
    followed = Followed(Retention(search_bytes_max=10_000))
    followed.live(48, HOUR_NS)
    follower = followed.begun()
    report = forgotten_all_that_may_go(followed, follower)
    assert "--search-max" in report.alarms["search"]
    assert "--audit-horizon" in report.alarms["search"]
    tasks, _ = followed.found()
    since_ns = followed.disk.records[-1].time_ns - DAY_S * SECOND_NS
    young = {order for order, row in projected(followed.ever)[0].items() if row.ended_ns >= since_ns}
    assert young
    assert young == set(tasks)
    followed.life.now_ns += 3 * DAY_S * SECOND_NS
    followed.live(1)
    assert not forgotten_all_that_may_go(followed, follower).alarms
    assert 0 < len(followed.found()[0]) <= 10


# What is missing, or wrong


def old_enough(**retention):
    """A life whose journal could be compacted now."""
    followed = Followed(Retention(journal_keep_s=DAY_S, **retention))
    followed.live(72, HOUR_NS)
    return followed


def test_a_lost_read_model_is_made_again_from_where_the_journal_begins():
    followed = old_enough()
    follower = followed.begun()
    followed.go_on(follower)
    followed.live(5)
    followed.go_on(follower)
    kill(follower)
    first = followed.journal.base().next
    assert first > 1
    followed.model = MemoryReadModel()
    follower = followed.begun()
    alarm = followed.go_on(follower).alarms["missing"]
    begins_ns = next(record.time_ns for record in followed.ever if record.first == first)
    assert alarm.startswith(f"tasks that ended before {follower_module._utc(begins_ns)} cannot be found by search")
    tasks, _ = followed.found()
    everything, _ = projected(followed.ever)
    assert tasks == {order: row for order, row in everything.items() if row.sequence >= first}
    # As long as they would be found otherwise.
    for days, said in ((88, True), (2, False)):
        followed.life.now_ns += days * DAY_S * SECOND_NS
        followed.live(1)
        assert ("missing" in followed.go_on(follower).alarms) is said


def test_a_read_model_that_is_behind_the_journals_beginning_keeps_what_it_has():
    followed = old_enough()
    follower = followed.begun()
    follower.step()
    settle(follower)
    few = followed.found()[0]
    assert few
    kept = MemoryReadModel()
    tasks, _ = projected(record for record in followed.ever if record.last <= follower.report().sequence)
    kept.write(Portion(0, followed.model.reached(), list(tasks.values()), []))
    followed.go_on(follower)
    kill(follower)
    followed.model = kept
    since = follower_module._utc(kept.reached().time_ns)
    assert f" and after {since} cannot be found by search" in followed.go_on(followed.begun()).alarms["missing"]
    assert few.items() <= followed.found()[0].items()
    assert len(followed.found()[0]) > len(few)


def test_without_a_beginning_it_says_so():
    followed = old_enough()
    follower = followed.begun()
    followed.go_on(follower)
    kill(follower)
    followed.snapshots.drop(list(followed.snapshots.sequences()))
    with pytest.raises(NoBeginning, match="restore the state from a copy"):
        followed.begun()


def test_what_is_of_a_longer_journal_is_made_anew(caplog):
    followed = Followed()
    followed.live(100)
    followed.go_on(followed.begun())
    model, other = followed.model, Followed()
    other.model = model
    other.live(10)
    with caplog.at_level(logging.WARNING):
        other.go_on(other.begun())
    assert "made anew" in caplog.text
    assert other.found() == projected(other.ever)


def test_snapshots_of_another_journal_are_refused():
    followed, other = Followed(), Followed()
    followed.live(100)
    followed.go_on(followed.begun())
    other.live(1, HOUR_NS)
    other.live(100)
    other.snapshots = followed.snapshots
    other.model.write(Portion(0, followed.model.reached()))
    with pytest.raises(JournalCorrupt, match="different journals"):
        other.go_on(other.begun())


def test_a_damaged_snapshot_is_not_relied_on():
    followed = old_enough()
    follower = followed.begun()
    while follower.step():
        settle(follower)
        for sequence in followed.snapshots.sequences():
            followed.snapshots.damage(sequence)
    kill(follower)
    follower = followed.begun()
    report = followed.go_on(follower)
    assert "check the disk" in report.alarms["snapshots"]
    assert followed.journal.base().next == 1


class FullArchive(MemoryArchive):
    def add_segment(self, records):
        raise ArchiveUnavailable("archive: disk full; make space")

    def add_anchor(self, anchor):
        raise ArchiveUnavailable("archive: disk full; make space")


def test_without_an_archive_nothing_is_compacted_and_all_else_goes_on():
    followed = old_enough()
    works, followed.archive = followed.archive, FullArchive("cell-1")
    follower = followed.begun()
    report = followed.go_on(follower)
    assert "make space" in report.alarms["anchors"]
    assert followed.journal.base().next == 1
    assert followed.found() == projected(followed.ever)
    follower._archive = follower._retaining._archive = works
    followed.live(1, HOUR_NS)
    followed.go_on(follower)
    followed.live(1, HOUR_NS)
    assert not followed.go_on(follower).alarms
    assert followed.journal.base().next > 1


def test_without_a_key_nothing_is_anchored_nor_compacted_until_there_is_one():
    followed = old_enough()
    followed.signer.is_there = False
    follower = followed.begun()
    report = followed.go_on(follower)
    assert "chmod 600" in report.alarms["anchors"]
    assert followed.journal.base().next == 1
    followed.signer.is_there = True
    followed.live(1, HOUR_NS)
    followed.go_on(follower)
    followed.live(1, HOUR_NS)
    assert not followed.go_on(follower).alarms
    assert followed.journal.base().next > 1


def test_an_archive_that_is_a_copy_of_long_ago_is_left_as_it_is_and_nothing_is_compacted():
    followed = old_enough()
    copy = MemoryArchive("cell-1")
    copy.add_segment(followed.disk.records[:3])
    follower = followed.begun()
    followed.go_on(follower)
    follower._retaining._archive = copy
    held, base = copy.held(), followed.journal.base()
    for _ in range(3):
        followed.live(48, HOUR_NS)
        assert "restore a later one, or put this one away" in followed.go_on(follower).alarms["retention"]
        assert (copy.held(), followed.journal.base()) == (held, base)
    follower._retaining._archive = MemoryArchive("cell-1")  # it was put away
    followed.live(48, HOUR_NS)
    assert not followed.go_on(follower).alarms
    assert follower._retaining._archive.held().first == base.next
    assert followed.journal.base().next > base.next


def test_a_clock_that_is_far_ahead_makes_nothing_old():
    followed = old_enough()
    follower = followed.begun()
    followed.go_on(follower)
    followed.live(24, HOUR_NS)
    followed.go_on(follower)
    held = followed.archive.held()
    found, segments, base = followed.found(), (held.first, held.last), followed.journal.base()
    assert found[0]
    assert held.last
    right_ns = followed.life.now_ns
    followed.life.now_ns += 400 * DAY_S * SECOND_NS
    for _ in range(3):
        followed.go_on(follower)
    held = followed.archive.held()
    assert (followed.found(), (held.first, held.last), followed.journal.base()) == (found, segments, base)
    # And when it has been set right again, the follower goes on as before.
    followed.life.now_ns = right_ns
    followed.live(48, HOUR_NS)
    assert follower._look_at_ns > followed.life.now_ns
    follower.step()
    assert follower._look_at_ns <= followed.life.now_ns + 60 * SECOND_NS
    followed.go_on(follower)
    assert followed.journal.base().next > base.next


def test_an_old_record_that_is_damaged_keeps_nothing_but_compaction_from_going_on():
    followed = old_enough()
    follower = followed.begun()
    while follower.step():
        settle(follower)
    follower.end()  # what is there is anchored now
    place = 20
    whole = followed.disk.records[place]
    followed.disk.records[place] = replace(whole, events=(b"damaged", *whole.events[1:]))
    followed.live(24, HOUR_NS)
    follower = followed.begun()
    for _ in range(3):
        followed.live(24, HOUR_NS)
        report = followed.go_on(follower)
        assert "restore the journal from a copy" in report.alarms["retention"]
        assert report.sequence == followed.disk.records[-1].last
        assert followed.journal.base().next <= whole.first
    followed.disk.records[place] = whole
    followed.live(24, HOUR_NS)
    assert "retention" not in followed.go_on(follower).alarms
    assert followed.journal.base().next > whole.first
