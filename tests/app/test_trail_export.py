"""Trails: made from a journal and its archive, checked with nothing but themselves."""

import json
import random
from hashlib import sha256
from itertools import combinations

import msgspec
import pytest

from merit.app.trail_export import TrailMissing, export_trail
from merit.core.codec import decode_event, encode_event
from merit.core.story import story_of_task
from merit.core.trails import TrailInvalid, _life, check_trail
from merit.model.events import AttemptAssigned, AttemptStarted, Event, TaskReleased, TaskSubmitted
from merit.model.limits import MILLISECOND_NS, SECOND_NS
from merit.model.record import JournalCorrupt, after, seal
from merit.model.tasks import TaskState
from merit.model.trail import Trail, decode_trail, encode_trail
from merit.ports.journal import JournalReader
from merit.ports.read_model import Portion, Reached
from merit.ports.signer import SignerUnavailable
from merit.runtime.anchoring import Anchoring
from merit.storage.key_file import KeyFile
from merit.storage.memory_archive import MemoryArchive
from merit.storage.memory_journal import MemoryDisk, MemoryJournal
from merit.storage.memory_read_model import MemoryReadModel
from merit.testing import builders as b
from merit.testing.journal_contract import compact_all
from tests.histories.replay import records_of
from tests.replay_on import HISTORIES

CELL = "main"
RIVAL = "the-rival"
SECRET = b'{"secret":"what the rival is about"}'
COMPLETED, DEAD, CANCELED, WAITED, OTHERS, RUNNING, PARTED = range(1, 8)
STEP_NS = 40 * MILLISECOND_NS


class Lived:
    """A cell's life of many short records: its journal, and what became of its tasks."""

    def __init__(self) -> None:
        # The ids of `builders` are of this time, and the search begins there.
        self.now_ns = 0x019000000000 * MILLISECOND_NS
        self.machine = b.a_machine(now_ns=self.now_ns)
        self.journal = MemoryJournal(MemoryDisk(CELL))
        self.tail = self.journal.lead("leader", 1)
        self.machine.take_payloads()

    def record(self, *decisions):
        events = [encode_event(event) for decision in decisions for event in decision.events]
        payloads = list(self.machine.take_payloads().values())
        if events:
            made = seal(
                CELL, self.tail.next, self.tail.epoch, "leader", self.now_ns, self.tail.last_hash, events, payloads
            )
            self.journal.append(made)
            self.tail = after(made)
        self.now_ns += STEP_NS

    def submit(self, *numbers, tenant=b.TENANT, **fields):
        self.record(
            b.submit(self.machine, *(b.a_spec(one, **fields) for one in numbers), tenant=tenant, now_ns=self.now_ns)
        )

    def say(self, **words):
        self.record(b.say(self.machine, now_ns=self.now_ns, **words))

    def bind(self):
        """What the machine does at the end of a batch."""
        from merit.model.commands import Allocate, FollowUp

        followed = self.machine.handle(FollowUp(b.TENANT, b.PRINCIPAL, 1_000), self.now_ns)
        self.record(followed, self.machine.handle(Allocate(b.TENANT, b.PRINCIPAL, 1_000), self.now_ns))

    def wait(self, seconds):
        self.now_ns += round(seconds * SECOND_NS)
        self.record(b.tick(self.machine, self.now_ns))


def live() -> Lived:
    lived = Lived()
    lived.record(b.attach(lived.machine, concurrency=50, granted=50, now_ns=lived.now_ns))
    for number in range(100, 130):
        lived.submit(number, tenant=RIVAL, parameters=SECRET)
    lived.submit(COMPLETED, parameters=b'{"text":"hello"}', description="the first one")
    lived.submit(DEAD, parameters=b'{"text":"boom"}')
    lived.submit(CANCELED, parameters=b"{}")
    lived.submit(WAITED, after=[COMPLETED], parameters=b"{}")
    lived.submit(OTHERS, tenant=RIVAL, parameters=SECRET)
    lived.bind()
    for number in range(100, 130):
        lived.say(reports=[b.completed(number)])
    lived.say(
        started=[b.ref(COMPLETED), b.ref(DEAD)],
        reports=[b.failed(COMPLETED), b.failed(DEAD, permanent=True), b.completed(OTHERS, result=SECRET)],
    )
    lived.record(b.cancel(lived.machine, CANCELED, now_ns=lived.now_ns))
    lived.wait(5)
    lived.bind()
    lived.say(reports=[b.completed(COMPLETED, 2, trail=b'["a line"]')])
    lived.bind()
    lived.say(reports=[b.completed(WAITED)])
    lived.submit(RUNNING, parameters=b"{}")
    lived.bind()
    lived.say(started=[b.ref(RUNNING)])
    for number in range(200, 210):
        lived.submit(number, tenant=RIVAL, parameters=SECRET)
    return lived


@pytest.fixture
def lived():
    return live()


@pytest.fixture
def signer(tmp_path):
    return KeyFile(tmp_path / "key")


def anchored(journal: JournalReader, signer, share=1.0, records_max=7):
    """An archive with anchors over this share of the journal."""
    archive, records = MemoryArchive(CELL), list(journal.read())
    anchoring = Anchoring(None, signer, records_max)
    for record in records[: round(share * len(records))]:
        if (anchor := anchoring.take(record)) is not None:
            archive.add_anchor(anchor)
    return archive


def document(task, journal, archive, signer, read_model=None) -> bytes:
    return encode_trail(export_trail(b.an_id(task), journal, archive, signer, read_model))


def unread(document: bytes) -> Trail:
    return msgspec.structs.replace(decode_trail(document), story=())


STATES = {
    COMPLETED: TaskState.COMPLETED,
    DEAD: TaskState.DEAD,
    CANCELED: TaskState.CANCELED,
    WAITED: TaskState.COMPLETED,
    RUNNING: TaskState.RUNNING,
}


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_a_trail_proves_what_became_of_a_task(lived, signer, share):
    """Whether all of it is anchored by now, some, or nothing."""
    archive = anchored(lived.journal, signer, share)
    for number, state in STATES.items():
        found = check_trail(document(number, lived.journal, archive, signer), [signer.public_key])
        assert found.cell == CELL
        assert found.task.state is state
        assert found.keys == (signer.public_key,)
        task = lived.machine.state.tasks[b.an_id(number)]
        assert found.task.attempts == task.attempts
        assert (found.task.parameters, found.task.result) == (task.parameters, task.result)
        assert found.story == story_of_task(task)
        assert found.first_ns == task.submitted_ns
        assert found.last_ns >= task.ended_ns
        assert [one[0] for one in found.events] == sorted({one[0] for one in found.events})
    assert archive.held().anchored < lived.journal.tail().next - 1  # what was made for the trails was not stored


def test_nothing_of_others_is_in_it(lived, signer):
    archive = anchored(lived.journal, signer)
    for number in STATES:
        content = document(number, lived.journal, archive, signer)
        plain = [content]
        for record in decode_trail(content).records:
            plain += [record.header, *(event.data for event in record.events)]
        plain += decode_trail(content).payloads.values()
        mine = {b.an_id(number)} | ({b.an_id(COMPLETED)} if number == WAITED else set())  # which it names itself
        for other in {*map(b.an_id, (*range(1, 8), *range(100, 130), *range(200, 210)))} - mine:
            assert not any(other.encode() in part for part in plain)
        assert not any(RIVAL.encode() in part or b"secret" in part for part in plain)


def test_it_is_proven_after_compaction_too(lived, signer):
    archive = anchored(lived.journal, signer)
    whole = {number: check_trail(document(number, lived.journal, archive, signer)) for number in STATES}
    records = list(lived.journal.read())
    for count in (len(records) // 3, len(records) // 2, len(records) - 1):
        archive.add_segment(records[:count])
        compact_all(lived.journal, records[count].first)
        for number, before in whole.items():
            found = check_trail(document(number, lived.journal, archive, signer), [signer.public_key])
            assert found.events == before.events
            assert [line.partition(" ")[2] for line in found.story] == [line.partition(" ")[2] for line in before.story]
            # Contents go with the journal's records.
            assert count < len(records) - 1 or found.task.result == b""


def test_the_read_model_says_where_to_look(lived, signer, monkeypatch):
    from merit.core.projecting import Projection
    from merit.core.state import State

    projection = Projection(State(profiles_max=10))  # as the leader had said, before the first record
    records = list(lived.journal.read())
    for record in records[:-12]:
        projection.fold(record)
    rows, workers = projection.take()
    read_model = MemoryReadModel()
    read_model.write(Portion(0, Reached(records[-13].last, records[-13].time_ns), rows, workers))
    archive = anchored(lived.journal, signer)
    read = 0
    reading = MemoryJournal.scan

    def counted(self, first=None, last=None):
        nonlocal read
        for record in reading(self, first, last):
            read += 1
            yield record

    monkeypatch.setattr(MemoryJournal, "scan", counted)
    for number in STATES:
        expected, without = document(number, lived.journal, archive, signer), read
        read = 0
        assert document(number, lived.journal, archive, signer, read_model) == expected
        # The end of a dead one is not known from its events: it could have been looked at by somebody since.
        assert read < without - 10 if number == DEAD else read <= without + 20
        read = 0


def test_a_task_whose_id_was_made_by_a_clock_that_was_ahead_is_found_when_it_has_ended(signer):
    lived = Lived()
    lived.now_ns -= 2 * SECOND_NS
    lived.record(b.attach(lived.machine, granted=1, now_ns=lived.now_ns))
    lived.submit(COMPLETED)
    lived.bind()
    lived.wait(3)
    lived.say(reports=[b.completed(COMPLETED)])
    trail = check_trail(document(COMPLETED, lived.journal, MemoryArchive(CELL), signer))
    assert trail.task.state is TaskState.COMPLETED


def test_what_is_not_there_is_said(lived, signer):
    archive = anchored(lived.journal, signer)
    for number in (PARTED, 10**9):
        with pytest.raises(TrailMissing, match="do not have its submission"):
            export_trail(b.an_id(number), lived.journal, archive, signer, None)
    records = list(lived.journal.read())
    compact_all(lived.journal, records[40].first)
    with pytest.raises(TrailMissing, match="submission is older than what is kept"):
        export_trail(b.an_id(COMPLETED), lived.journal, archive, signer, None)


def test_anchors_whose_records_are_gone_in_part_prove_nothing_more(lived, signer):
    archive = anchored(lived.journal, signer, records_max=40)
    records = list(lived.journal.read())
    compact_all(lived.journal, records[20].first)
    with pytest.raises(TrailMissing, match="cannot be proven any more"):
        export_trail(b.an_id(COMPLETED), lived.journal, archive, signer, None)
    assert check_trail(document(RUNNING, lived.journal, archive, signer)).task.state is TaskState.RUNNING


def test_without_the_key_only_what_is_anchored_is_proven(lived, signer, tmp_path):
    archive, none = anchored(lived.journal, signer, 0.85), KeyFile(tmp_path / "none", make=False)
    assert check_trail(document(CANCELED, lived.journal, archive, none), [signer.public_key]).task.state.final
    with pytest.raises(SignerUnavailable, match="there is no key"):
        document(RUNNING, lived.journal, archive, none)


def test_an_altered_journal_gives_no_trail(lived, signer):
    archive = anchored(lived.journal, signer)
    disk = MemoryDisk(CELL)
    for number, record in enumerate(lived.journal.read()):
        events = (*record.events, encode_event(AttemptAssigned("x", 1, "w", 1))) if number == 3 else record.events
        disk.store(
            seal(CELL, disk.tail.next, 1, "leader", record.time_ns, disk.tail.last_hash, events, record.payloads)
        )
    with pytest.raises(JournalCorrupt, match="the journal was altered"):
        document(COMPLETED, MemoryJournal(disk), archive, signer)


# --- what does not pass


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return KeyFile(tmp_path_factory.mktemp("key") / "key")


@pytest.fixture(scope="module")
def good(key):
    lived = live()
    return document(COMPLETED, lived.journal, anchored(lived.journal, key), key)


def refused(trail: Trail | bytes, key: KeyFile, match: str | None = None) -> None:
    content = trail if isinstance(trail, bytes) else encode_trail(trail)
    with pytest.raises(TrailInvalid, match=match):
        check_trail(content, [key.public_key])


@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_bit_is_noticed(good, key, seed):
    """Anywhere in the file; but for what means the same, and the story for people, which is made anew."""
    chance = random.Random(seed)
    same = 0
    for _ in range(250):
        at = chance.randrange(len(good))
        flipped = good[:at] + bytes([good[at] ^ 1 << chance.randrange(8)]) + good[at + 1 :]
        try:
            found = check_trail(flipped, [key.public_key])
        except TrailInvalid:
            continue
        assert unread(flipped) == unread(good)
        assert found == check_trail(good)
        same += 1
    assert same < 50


def variants(trail: Trail):
    """Each byte string of it with one bit changed, each number with another one."""
    for number, anchor in enumerate(trail.anchors):
        for name in ("data", "signature", "key"):
            for wrong in bits(getattr(anchor, name)):
                yield replaced(trail, "anchors", number, msgspec.structs.replace(anchor, **{name: wrong}))
    for number, record in enumerate(trail.records):
        for wrong in bits(record.header):
            yield replaced(trail, "records", number, msgspec.structs.replace(record, header=wrong))
        for path in paths(record.path):
            yield replaced(trail, "records", number, msgspec.structs.replace(record, path=path))
        for change in ({"anchor": record.anchor + 1}, {"anchor": -1}, {"index": record.index + 1}, {"index": -1}):
            yield replaced(trail, "records", number, msgspec.structs.replace(record, **change))
        for place, event in enumerate(record.events):
            changed = [msgspec.structs.replace(event, data=wrong) for wrong in bits(event.data)]
            changed += [msgspec.structs.replace(event, path=path) for path in paths(event.path)]
            changed += [msgspec.structs.replace(event, index=event.index + by) for by in (-1, 1)]
            for one in changed:
                events = (*record.events[:place], one, *record.events[place + 1 :])
                yield replaced(trail, "records", number, msgspec.structs.replace(record, events=events))


def bits(data: bytes):
    chance = random.Random(data)
    for at in range(0, len(data), 3):
        yield data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    yield data[:-1]
    yield data + b"\0"


def paths(path):
    yield (*path, bytes(32))
    for at in range(len(path)):
        yield (*path[:at], *path[at + 1 :])
        yield (*path[:at], sha256(path[at]).digest(), *path[at + 1 :])


def replaced(trail, name, number, value):
    values = getattr(trail, name)
    return msgspec.structs.replace(trail, **{name: (*values[:number], value, *values[number + 1 :])})


def without(trail: Trail, places: set[tuple[int, int]]) -> Trail:
    """The trail without these of its events, each named by the places of its record and itself; otherwise in order."""
    kept = []
    for at, record in enumerate(trail.records):
        events = tuple(event for place, event in enumerate(record.events) if (at, place) not in places)
        if events:
            kept.append(msgspec.structs.replace(record, events=events))
    used = sorted({record.anchor for record in kept})
    records = tuple(msgspec.structs.replace(record, anchor=used.index(record.anchor)) for record in kept)
    anchors = tuple(trail.anchors[number] for number in used)
    return msgspec.structs.replace(trail, records=records, anchors=anchors, payloads={})


@pytest.mark.parametrize("number", [COMPLETED, DEAD, WAITED, RUNNING])
def test_only_starts_and_the_end_can_be_left_out(key, number):
    """Whatever else is left out, in whatever mix, is noticed."""
    lived = live()
    trail = decode_trail(document(number, lived.journal, anchored(lived.journal, key), key))
    places = [(at, place) for at, record in enumerate(trail.records) for place in range(len(record.events))]
    whole = [event for _, _, event in check_trail(encode_trail(trail)).events]
    passed = 0
    for count in range(1, len(places)):
        for gone in combinations(range(len(places)), count):
            try:
                found = check_trail(encode_trail(without(trail, {places[one] for one in gone})), [key.public_key])
            except TrailInvalid:
                continue
            events = [event for _, _, event in found.events]
            begun = [event for event in whole[: whole.index(events[-1]) + 1] if event in events]
            missing = [event for event in whole[: whole.index(events[-1])] if event not in events]
            assert events == begun
            optional = (AttemptStarted, TaskReleased) if number == WAITED else AttemptStarted
            assert all(isinstance(event, optional) for event in missing), missing
            passed += 1
    assert passed >= len(places) - 1, "an end can be left out"


def test_every_life_that_was_ever_recorded_passes():
    """What is refused since something was left out never is when all is there."""
    count = 0
    for path in sorted(HISTORIES.glob("*.json")):
        lives: dict[str, list[tuple[int, int, Event]]] = {}
        for record in records_of(json.loads(path.read_text())):
            for place, data in enumerate(record.events):
                event = decode_event(data)
                if (task := getattr(event, "task", None)) is not None:
                    lives.setdefault(task, []).append((record.first + place, record.time_ns, event))
        for name, events in lives.items():
            if not any(isinstance(event, TaskSubmitted) for _, _, event in events):
                continue  # a command for a task that there never was
            assert _life(Trail("", "", name, (), (), (), {}), events).id == name
            count += 1
    assert count > 50


def test_no_part_of_it_can_be_altered(good, key):
    count = 0
    for wrong in variants(decode_trail(good)):
        refused(wrong, key)
        count += 1
    assert count > 500


def test_events_cannot_be_left_out_or_moved(good, key):
    trail = decode_trail(good)
    for number in range(len(trail.records)):
        left = (*trail.records[:number], *trail.records[number + 1 :])
        used = {record.anchor for record in left}
        if number == len(trail.records) - 1:
            continue  # of an end that is missing nobody can know
        kept = [anchor for index, anchor in enumerate(trail.anchors) if index in used]
        new = {index: place for place, index in enumerate(sorted(used))}
        left = tuple(msgspec.structs.replace(record, anchor=new[record.anchor]) for record in left)
        refused(
            msgspec.structs.replace(trail, records=left, anchors=tuple(kept)),
            key,
            r"does not begin with the submission|cannot have happened|no event names",
        )
    refused(msgspec.structs.replace(trail, records=trail.records[::-1]), key, "does not come after")
    refused(msgspec.structs.replace(trail, records=trail.records + trail.records[-1:]), key, "does not come after")
    first = trail.records[0]
    refused(replaced(trail, "records", 0, msgspec.structs.replace(first, events=())), key, "none of its events")
    refused(
        replaced(trail, "records", 0, msgspec.structs.replace(first, events=first.events * 2)),
        key,
        "does not come after",
    )
    refused(msgspec.structs.replace(trail, records=()), key, "covers none of the records")
    refused(msgspec.structs.replace(trail, records=(), anchors=()), key, "it is empty")
    refused(msgspec.structs.replace(trail, anchors=(*trail.anchors, trail.anchors[0])), key, "covers none")


def test_contents_are_those_that_the_events_name(good, key):
    trail = decode_trail(good)
    assert len(trail.payloads) == 3
    for digest, content in trail.payloads.items():
        refused(msgspec.structs.replace(trail, payloads={**trail.payloads, digest: content + b" "}), key, "was altered")
        left = {other: kept for other, kept in trail.payloads.items() if other != digest}
        assert check_trail(
            encode_trail(msgspec.structs.replace(trail, payloads=left)), [key.public_key]
        ).task.state.final  # erased
    more = {**trail.payloads, sha256(SECRET).hexdigest(): SECRET}
    refused(msgspec.structs.replace(trail, payloads=more), key, "no event names")


def test_it_cannot_be_said_of_another_task_or_cell(good, key):
    trail = decode_trail(good)
    refused(msgspec.structs.replace(trail, task=b.an_id(DEAD)), key, "is not about task")
    refused(msgspec.structs.replace(trail, cell="another"), key, "of cell 'main', not of 'another'")
    refused(msgspec.structs.replace(trail, format="merit-trail/2"), key, "reads merit-trail/1")


def test_another_key_is_told_apart(good, key, tmp_path):
    lived = live()
    other = KeyFile(tmp_path / "other")
    forged = document(COMPLETED, lived.journal, anchored(lived.journal, other), other)
    assert check_trail(forged).keys == (other.public_key,)
    refused(forged, key, "signed with another key")
    assert check_trail(forged, [key.public_key, other.public_key]).task.state.final
    # under the known key's name
    trail = decode_trail(forged)
    named = tuple(msgspec.structs.replace(anchor, key=key.public_key) for anchor in trail.anchors)
    refused(msgspec.structs.replace(trail, anchors=named), key, "the signature is not that of its key")


def impossible():
    """Lives that no control plane would write: which event, and what is said of it."""
    mine = b.an_id(COMPLETED)
    lived = live()
    submitted = next(
        event
        for record in lived.journal.read()
        for event in map(
            msgspec.msgpack.Decoder(TaskSubmitted).decode,
            (record.events[:1] if b"TaskSubmitted" in record.events[0] else ()),
        )
        if event.task == mine
    )
    yield [submitted, submitted], "submitted before"
    yield [AttemptAssigned(mine, 1, "w1", 1)], "does not begin"
    yield [submitted, AttemptAssigned(mine, 2, "w1", 1)], "cannot have happened"
    yield [submitted, AttemptAssigned(mine, 1, "w1", 1), AttemptAssigned(mine, 2, "w1", 1)], "cannot have happened"


@pytest.mark.parametrize(("events", "reason"), list(impossible()), ids=range(4))
def test_an_impossible_life_does_not_pass_whoever_signed_it(key, events, reason):
    disk = MemoryDisk(CELL)
    for event in events:
        content = [encode_event(event)]
        disk.store(seal(CELL, disk.tail.next, 1, "leader", 2 * 10**18, disk.tail.last_hash, content))
    lived = live()
    good = decode_trail(document(COMPLETED, lived.journal, anchored(lived.journal, key), key))
    from merit.app.trail_export import _Anchors, _of_task
    from merit.storage.history import History

    journal = MemoryJournal(disk)
    found = [one for record in journal.read() if (one := _of_task(b.an_id(COMPLETED), record, [])) is not None]
    anchors = _Anchors(History(journal, MemoryArchive(CELL)), MemoryArchive(CELL), key, found)
    records = tuple(anchors.proven(one) for one in found)
    refused(msgspec.structs.replace(good, records=records, anchors=tuple(anchors.signed), payloads={}), key, reason)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b"\xff", b'{"format":"merit-trail/1"}', b"[" * 100_000]
)
def test_what_is_no_trail_is_refused(content, key):
    refused(content, key, "it is no trail")
