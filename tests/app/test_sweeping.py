"""Large contents stay as long as anybody may want them, and not for ever."""

from hashlib import sha256

import pytest

from merit.app import sweeping as sweeping_module
from merit.app.follower import JournalFollower
from merit.app.sweeping import SLACK_NS
from merit.model.commands import SetSchedule
from merit.model.limits import SECOND_NS
from merit.model.schedules import Schedule
from merit.model.tasks import TaskSpec
from merit.model.tenancy import DEFAULT_TENANT
from merit.ports.blobs import BlobUnavailable
from merit.storage.memory_blobs import MemoryBlobs
from merit.storage.memory_journal import MemoryJournal
from merit.testing.builders import a_spec, attach, cancel, completed, say, submit, with_terms
from tests.app.test_follower import DAY_S, HOUR_NS, SHORT, Followed, settle

DAY_NS = DAY_S * SECOND_NS
STAY_NS = round(SHORT.journal_keep_s) * SECOND_NS + SLACK_NS


class FollowedWithBlobs(Followed):
    """As the door has it: what is named has been put, and so touched, right before."""

    def __init__(self):
        super().__init__()
        self.blobs = MemoryBlobs(clock=lambda: self.life.now_ns)

    def begun(self):
        follower = JournalFollower(
            *(MemoryJournal(self.disk), self.snapshots, self.archive, self.model, self.signer, self.orders),
            lambda: self.life.now_ns,
            self.blobs,
        )
        follower.begin()
        return follower

    def put(self, text):
        return self.blobs.put(DEFAULT_TENANT, text.encode())

    def has(self, *digests):
        return [self.blobs.has(DEFAULT_TENANT, digest) for digest in digests]

    def submitted(self, spec=a_spec, **fields):
        """Its number, and the digest of its parameters."""
        self.life.tasks += 1
        number = self.life.tasks
        blob = self.put(f"parameters {number}")
        self.life.tell(submit, spec(number, parameters=b"", parameters_blob=blob, **fields))
        return number, blob

    def done(self, number):
        """The digest of its result."""
        if not self.life.attached:
            self.life.tell(attach, "w1", granted=1_000_000_000)
            self.life.attached = True
        self.life.bind()
        blob = self.put(f"result {number}")
        self.life.tell(say, "w1", reports=[completed(number, result=b"", result_blob=blob)])
        return blob

    def days(self, follower, count):
        """Small tasks go on meanwhile, which soon make the cell forget others."""
        for _ in range(count):
            self.live(12, 2 * HOUR_NS)
            self.go_on(follower)
        return follower.report()


def test_months_of_large_contents_stay_bounded_and_what_is_needed_stays():
    followed = FollowedWithBlobs()
    follower = followed.begun()
    _, live = followed.submitted(with_terms, not_before_ns=followed.life.now_ns + 50 * DAY_NS, timeout_ns=300 * DAY_NS)
    template = followed.put("a template")
    spec = TaskSpec("", "echo", b"", template)
    order = SetSchedule(DEFAULT_TENANT, "p", Schedule("s", DEFAULT_TENANT, "0 0 1 1 *", "UTC", spec))
    followed.life.keep(followed.life.machine.handle(order, followed.life.now_ns).events)
    held, ends = [], {}
    for day in range(60):
        number, parameters = followed.submitted()
        ends[parameters] = ends[followed.done(number)] = followed.life.now_ns
        report = followed.days(follower, 1)
        assert not report.alarms
        if day % 20 == 19:
            follower.end()
            follower = followed.begun()
        held.append(len(followed.blobs._blobs))
        now_ns = followed.life.now_ns
        for digest, ended_ns in ends.items():
            if now_ns - ended_ns <= SHORT.journal_keep_s * SECOND_NS:
                assert followed.has(digest) == [True], "it is younger than what is kept"
    assert followed.has(live, template) == [True, True], "whatever their age"
    assert max(held[20:]) <= 2 + 2 * (8 + 2)
    assert not followed.has(*list(ends)[:40:2])[0]


def test_contents_stay_for_their_time_after_the_end_of_a_task_that_took_long():
    followed = FollowedWithBlobs()
    follower = followed.begun()
    number, parameters = followed.submitted(
        with_terms, not_before_ns=followed.life.now_ns + 30 * DAY_NS, timeout_ns=99 * DAY_NS
    )
    followed.days(follower, 20)
    followed.life.tell(cancel, number)
    for _ in range(7):
        followed.days(follower, 1)
        assert followed.has(parameters) == [True]
    assert followed.life.machine.state.tasks.keys().isdisjoint({a_spec(number).id}), "the cell has forgotten it"
    followed.days(follower, 3)
    assert followed.has(parameters) == [False]


def test_a_result_that_was_given_to_another_task_stays_as_long_as_that_lives():
    followed = FollowedWithBlobs()
    follower = followed.begun()
    first, _ = followed.submitted()
    now_ns = followed.life.now_ns
    waits = {"not_before_ns": now_ns + 50 * DAY_NS, "timeout_ns": 99 * DAY_NS}
    followed.submitted(with_terms, after=[first], inputs=(("given", a_spec(first).id),), **waits)
    result = followed.done(first)
    followed.days(follower, 20)
    assert followed.has(result) == [True]


def test_a_clock_that_is_ahead_makes_nothing_old():
    followed = FollowedWithBlobs()
    follower = followed.begun()
    number, parameters = followed.submitted()
    result = followed.done(number)
    followed.days(follower, 1)
    now_ns = followed.life.now_ns
    followed.life.now_ns += 365 * DAY_NS
    followed.go_on(follower)
    assert followed.has(parameters, result) == [True, True]
    followed.life.now_ns = now_ns
    followed.days(follower, 10)
    assert followed.has(parameters, result) == [False, False]


def test_after_an_outage_results_that_were_put_before_it_are_waited_for():
    followed = FollowedWithBlobs()
    followed.life.tell(attach, "w1", granted=1_000_000_000)
    followed.life.attached = True
    number, _ = followed.submitted()
    followed.life.bind()
    blob = followed.put("a result whose report did not come through")
    followed.life.now_ns += 30 * DAY_NS
    followed.life.tell(submit, a_spec(900))
    follower = followed.begun()
    followed.go_on(follower)
    assert followed.has(blob) == [True]
    followed.blobs.touch(DEFAULT_TENANT, blob)  # as the door does
    followed.life.tell(say, "w1", reports=[completed(number, result=b"", result_blob=blob)])
    followed.days(follower, 3)
    assert followed.has(blob) == [True]


def test_portions_are_small_and_come_to_everything(monkeypatch):
    monkeypatch.setattr(sweeping_module, "_PORTION", 3)
    followed = FollowedWithBlobs()
    follower = followed.begun()
    waits = {"not_before_ns": followed.life.now_ns + 50 * DAY_NS, "timeout_ns": 99 * DAY_NS}
    live = [followed.submitted(with_terms, **waits)[1] for _ in range(20)]
    old = [followed.put(f"never named {number}") for number in range(20)]
    portions = []
    sweep = followed.blobs.sweep

    def noted(before_ns, keeps, count_max):
        portions.append(sweep(before_ns, keeps, count_max))
        return portions[-1]

    monkeypatch.setattr(followed.blobs, "sweep", noted)
    followed.days(follower, 12)
    for _ in range(30):
        follower.step()
        settle(follower)
    assert not any(followed.has(*old))
    assert all(followed.has(*live))
    assert max(portions) == 3


def test_a_store_that_cannot_be_used_is_told_and_all_else_goes_on(monkeypatch):
    followed = FollowedWithBlobs()
    follower = followed.begun()
    old = followed.put("never named")

    def unavailable(*_):
        raise BlobUnavailable("blobs: permission denied; chmod")

    monkeypatch.setattr(followed.blobs, "sweep", unavailable)
    report = followed.days(follower, 12)
    assert "chmod" in report.alarms["blobs"]
    assert followed.journal.base().next > 1
    monkeypatch.undo()
    assert not followed.days(follower, 1).alarms
    assert followed.has(old) == [False]


def test_a_result_stays_as_long_as_the_cell_has_its_task():
    followed = FollowedWithBlobs()
    follower = followed.begun()
    number, parameters = followed.submitted()
    result = followed.done(number)
    for day in range(20):
        followed.life.now_ns += DAY_NS
        # Something that is no task goes on.
        followed.life.tell(attach, f"w{2 + day}")
        followed.go_on(follower)
    assert a_spec(number).id in followed.life.machine.state.tasks
    assert followed.has(parameters, result) == [True, True]


def test_what_a_task_names_is_not_swept_when_its_time_was_lost():
    """As by a power cut, between two rounds in which what is named is touched."""
    followed = FollowedWithBlobs()
    follower = followed.begun()
    followed.days(follower, 12)
    while follower._sweeping._round_at_ns - followed.life.now_ns < 6 * HOUR_NS:
        followed.live(1, HOUR_NS)
        followed.go_on(follower)
    _, digest = followed.submitted(with_terms, not_before_ns=2**62, timeout_ns=10**18)
    unnamed = followed.put("not named")
    for lost in (digest, unnamed):
        followed.blobs._touched_ns[DEFAULT_TENANT, lost] = 1
    followed.live(1, HOUR_NS)
    followed.go_on(follower)
    assert followed.has(digest, unnamed) == [True, False]


@pytest.mark.parametrize("lost", [False, True])
def test_what_is_named_and_lost_is_no_trouble(lost):
    followed = FollowedWithBlobs()
    follower = followed.begun()
    digest = sha256(b"lost").hexdigest()
    if not lost:
        assert followed.put("lost") == digest
    followed.life.tasks += 1
    spec = with_terms(
        followed.life.tasks, parameters=b"", parameters_blob=digest, not_before_ns=2**62, timeout_ns=10**18
    )
    followed.life.tell(submit, spec)
    assert not followed.days(follower, 12).alarms
    assert followed.has(digest) == [not lost]
