"""Bugs to plant in what is kept beside the journal; see :mod:`merit.lab.planted`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from msgspec.structs import replace

from merit.app.follower import JournalFollower
from merit.app.restore import beginning
from merit.app.retaining import Retaining, Within
from merit.app.snapshotting import Snapshotting
from merit.core.state import KeyEntry
from merit.gateway import task_pages
from merit.gateway.task_pages import TaskPages
from merit.lab.instead import instead
from merit.model.record import JournalCorrupt, Record, Tail
from merit.model.trail import SignedAnchor
from merit.ports.journal import JournalReader
from merit.ports.read_model import Portion, Reached
from merit.runtime import task_finder
from merit.runtime.anchoring import Anchoring
from merit.runtime.task_finder import TaskFinder
from merit.storage.memory_journal import MemoryDisk, MemoryJournal
from merit.storage.memory_read_model import MemoryReadModel


@contextmanager
def portion_of_anybody() -> Iterator[None]:
    """The read model takes any portion, whatever it follows on; nor does a follower look whether there is another one."""
    original = MemoryReadModel.write

    def write(self: MemoryReadModel, portion: Portion) -> None:
        original(self, replace(portion, after=self._kept.reached.sequence))

    with go_on_behind_a_failure(), instead(MemoryReadModel, "write", write):
        yield


def reached_before_rows() -> AbstractContextManager[None]:
    """How far the read model is stands in it before the rows do."""

    def write(self: JournalFollower, portion: Portion) -> None:
        until = portion.until
        self._read_model.write(Portion(portion.after, until))
        self._read_model.write(replace(portion, after=until.sequence))
        self._reached = until

    return instead(JournalFollower, "_write", write)


def believe_the_disk() -> AbstractContextManager[None]:
    """What is read of the journal is folded without being verified."""

    def read(self: MemoryJournal, first: int | None = None, last: int | None = None) -> Iterator[Record]:
        return (one for one in self.scan(first, last) if not isinstance(one, JournalCorrupt))

    return instead(MemoryJournal, "read", read)


def snapshot_of_the_next() -> AbstractContextManager[None]:
    """A snapshot is said to be of the event after the last one that is in it."""
    original = Snapshotting.save

    def save(self: Snapshotting, sequence: int, record_hash: bytes, data: bytes, journal_first: int) -> None:
        original(self, sequence + 1, record_hash, data, journal_first)

    return instead(Snapshotting, "save", save)


def compact_too_far() -> AbstractContextManager[None]:
    """The journal loses one record more than it may."""
    original = MemoryDisk.remove

    def remove(self: MemoryDisk, count: int) -> None:
        original(self, min(count + 1, len(self.records) - 1))

    return instead(MemoryDisk, "remove", remove)


def compact_the_young() -> AbstractContextManager[None]:
    """What is within the audit horizon goes like all else."""

    def before_ns(self: Retaining, _age_s: float) -> int:
        return self._clock()

    return instead(Retaining, "_before_ns", before_ns)


def compact_the_unknown() -> AbstractContextManager[None]:
    """The journal is compacted, however far the anchors and the read model are."""
    original = Retaining.turn

    def turn(self: Retaining, _within: Within) -> bool:
        return original(self, Within(2**62, 2**62))

    return instead(Retaining, "turn", turn)


def archive_later() -> AbstractContextManager[None]:
    """What is to go counts as archived before it is."""

    def archive_some(_self: Retaining, target: int) -> int:
        return target

    return instead(Retaining, "_archive_some", archive_some)


def rely_on_one() -> AbstractContextManager[None]:
    """One snapshot is enough to rely on."""

    def are_verified_from(self: Snapshotting, sequence: int) -> bool:
        return any(one >= sequence for one in self.stored)

    return instead(Snapshotting, "are_verified_from", are_verified_from)


def thin_out_the_beginning() -> AbstractContextManager[None]:
    """The snapshot to which the journal is compacted may be let go like others, when there are too many."""

    def hold(self: Snapshotting, _sequences: Collection[int]) -> None:
        self._stay = ()

    return instead(Snapshotting, "hold", hold)


def go_on_behind_a_failure() -> AbstractContextManager[None]:
    """What was handed over is done, whatever became of what was handed over before it."""

    def hand_over(self: JournalFollower, job: Callable[[], None]) -> None:
        self._jobs.append(self._thread.submit(job))

    return instead(JournalFollower, "_hand_over", hand_over)


def wrong_base() -> AbstractContextManager[None]:
    """The journal names the record before the last of those that were removed as the one that it follows."""
    original = MemoryDisk.remove

    def remove(self: MemoryDisk, count: int) -> None:
        before = self.records[max(count - 2, 0)]
        original(self, count)
        self.base = Tail(self.base.next, before.previous, self.base.epoch)

    return instead(MemoryDisk, "remove", remove)


def compact_though_deposed() -> AbstractContextManager[None]:
    """Whoever led once may compact the journal for ever."""
    original = MemoryJournal.compact

    def compact(self: MemoryJournal, until: int) -> int:
        leader, self._disk.leader = self._disk.leader, self
        try:
            return original(self, until)
        finally:
            self._disk.leader = leader

    return instead(MemoryJournal, "compact", compact)


def skip_in_anchor() -> AbstractContextManager[None]:
    """Now and then a record is left out of its anchor."""
    original = Anchoring.take

    def take(self: Anchoring, record: Record) -> SignedAnchor | None:
        signed = original(self, record)
        if len(self._hashes) > 1 and record.first % 3 == 0:
            del self._hashes[0]
        return signed

    return instead(Anchoring, "take", take)


def lack_in_silence() -> AbstractContextManager[None]:
    """Nobody is told that final tasks may be missing, though the cell has forgotten them and the read model lags."""

    def judged(_self: TaskPages, _reached: Reached, sequence: int, _kept_since_ns: int) -> Any:
        return task_pages._Known(sequence)

    return instead(TaskPages, "_judged", judged)


def forgotten_in_pages() -> AbstractContextManager[None]:
    """A page ends with what the cell has, though the read model has looked at less of what is between."""
    original = TaskPages._merged

    def merged(self: TaskPages, live: Any, old: Any, page: Any, *others: Any) -> Any:
        return original(self, live, old, replace(page, before=0), *others)

    return instead(TaskPages, "_merged", merged)


@contextmanager
def search_the_journal_only() -> Iterator[None]:
    """What has left the journal is not looked for in the read model, and its tasks are taken for new."""
    with instead(TaskFinder, "_remembered", lambda *_: None), instead(TaskFinder, "_check_new", lambda *_: None):
        yield


def forget_keys_of_old() -> AbstractContextManager[None]:
    """The read model does not know what idempotency keys stand for."""

    def keys(_self: MemoryReadModel, _wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], KeyEntry]:
        return {}

    return instead(MemoryReadModel, "keys", keys)


def forget_keys_of_final() -> AbstractContextManager[None]:
    """A key is taken to be free as soon as its task is final, though the read model may not know that yet."""
    original = TaskFinder._live_keys

    def live_keys(self: TaskFinder, asked: set[tuple[str, str]], since_ns: int) -> dict[tuple[str, str], KeyEntry]:
        tasks = self._state.tasks if self._state is not None else {}
        return {at: entry for at, entry in original(self, asked, since_ns).items() if not tasks[entry.task].state.final}

    return instead(TaskFinder, "_live_keys", live_keys)


def forget_keys_of_late_ends() -> AbstractContextManager[None]:
    """What came while the read model knew what happened, and has ended since, is taken to have had no key."""

    def keys_of(_reader: JournalReader, names: set[str], _asked: set[tuple[str, str]], _last: int) -> dict[Any, Any]:
        names.clear()
        return {}

    return instead(task_finder, "_keys_of", keys_of)


def begin_where_the_snapshot_is() -> AbstractContextManager[None]:
    """A follower that starts goes on from the latest snapshot, and says that the read model is there, too."""

    def begun(self: JournalFollower, reached: Reached) -> Any:
        state, expected = beginning(self._reader, self._snapshots)
        if state.sequence > reached.sequence:
            self._read_model.write(Portion(reached.sequence, Reached(state.sequence, reached.time_ns)))
        return state, expected

    return instead(JournalFollower, "_beginning", begun)


MEMORY_PLANTS: Mapping[str, Callable[[], AbstractContextManager[Any]]] = {
    "portion-of-anybody": portion_of_anybody,
    "reached-before-rows": reached_before_rows,
    "believe-the-disk": believe_the_disk,
    "snapshot-of-the-next": snapshot_of_the_next,
    "compact-too-far": compact_too_far,
    "compact-the-young": compact_the_young,
    "compact-the-unknown": compact_the_unknown,
    "archive-later": archive_later,
    "rely-on-one": rely_on_one,
    "thin-out-the-beginning": thin_out_the_beginning,
    "go-on-behind-a-failure": go_on_behind_a_failure,
    "wrong-base": wrong_base,
    "compact-though-deposed": compact_though_deposed,
    "skip-in-anchor": skip_in_anchor,
    "lack-in-silence": lack_in_silence,
    "forgotten-in-pages": forgotten_in_pages,
    "search-the-journal-only": search_the_journal_only,
    "forget-keys-of-old": forget_keys_of_old,
    "forget-keys-of-final": forget_keys_of_final,
    "forget-keys-of-late-ends": forget_keys_of_late_ends,
    "begin-where-the-snapshot-is": begin_where_the_snapshot_is,
}
