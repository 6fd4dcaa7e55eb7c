"""What the durable journals have in common: what they refuse, and that they refuse everything after a doubt."""

from __future__ import annotations

from merit.model.record import JournalError, Record, Tail
from merit.ports.journal import Fenced, JournalUnavailable


class FailStop:
    """A journal, as far as it can fail for good."""

    cell: str
    _failure: str | None = None

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise JournalUnavailable(self._failure)

    def _failed(self, error: JournalError) -> JournalError:
        """After an error in writing only opening anew tells what is stored."""
        self._failure = self._failure or f"a former write failed ({error}): close this journal and open it again"
        return error

    def _check_follows(self, record: Record, expected: Tail) -> None:
        if record.cell != self.cell:
            raise Fenced(
                f"record {record.first} of cell {record.cell!r} was refused: this is the journal of {self.cell!r}"
            )
        if (record.first, record.previous, record.epoch) != (expected.next, expected.last_hash, expected.epoch):
            raise Fenced(
                f"record {record.first} of epoch {record.epoch} was refused: "
                f"sequence {expected.next} of epoch {expected.epoch} and the hash before it were expected"
            )
