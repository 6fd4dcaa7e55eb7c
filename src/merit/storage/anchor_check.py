"""Compares a journal with its anchors: whoever alters records can compute all hashes anew, but not the signatures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import msgspec

from merit.model.record import Record, merkle_root
from merit.model.trail import Anchor, SignedAnchor, check_follows, decode_anchor, is_signed
from merit.ports.archive import ArchiveReader


class AnchorCheck:
    """Takes records in order, once they are verified.

    Args:
        archive: has the anchors. Records that are appended meanwhile need not be anchored.
        keys: public keys whose signatures count; none: any, see `keys`.
        note: is called with the sequence and what is wrong.
    """

    def __init__(self, archive: ArchiveReader, keys: Collection[bytes], note: Callable[[int, str], None]) -> None:
        self._trusted = keys
        self._note = note
        self.anchored = archive.held().anchored
        """Sequence of the last event that an anchor covers; 0: there are no anchors."""
        self.count = 0
        """Of the anchors."""
        self.keys: set[bytes] = set()
        """With which they are signed."""
        self._anchors = self._checked(archive.anchors(1, self.anchored))
        self._anchor = next(self._anchors, None)
        self._hashes: list[bytes] = []

    def take(self, record: Record, digest: bytes) -> None:
        """One more record, and its hash."""
        while self._anchor is not None and self._anchor.last < record.first:
            self._compare(self._anchor)
        if self._anchor is not None and self._anchor.first <= record.first:
            if not self._hashes and record.first > self._anchor.first:
                # What is before has been compacted away: the chain leads to the last of them, which is enough.
                self._anchor = msgspec.structs.replace(self._anchor, count=0)
            self._hashes.append(digest)
            if record.last >= self._anchor.last:
                self._compare(self._anchor)

    def finish(self, following: int) -> None:
        """There are no more records: the next event has the sequence `following`."""
        if self.anchored >= following:
            self._note(
                following,
                f"the journal ends here, but it was anchored up to {self.anchored:,}: its end was lost or removed",
            )
        while self._anchor is not None:
            self._advance()

    def _compare(self, anchor: Anchor) -> None:
        whole = anchor.count and (len(self._hashes), merkle_root(self._hashes)) != (anchor.count, anchor.root)
        if self._hashes and (whole or self._hashes[-1] != anchor.last_hash):
            self._note(
                anchor.first,
                f"the records up to {anchor.last:,} are not those that were anchored and signed: the journal was altered",
            )
        self._advance()

    def _advance(self) -> None:
        self._hashes = []
        self._anchor = next(self._anchors, None)

    def _checked(self, signed: Iterator[SignedAnchor]) -> Iterator[Anchor]:
        before: SignedAnchor | None = None
        for one in signed:
            try:
                anchor = decode_anchor(one.data)
            except ValueError as error:
                self._note(decode_anchor(before.data).last + 1 if before is not None else 0, str(error))
                continue
            try:
                check_follows(anchor, before)
            except ValueError as error:
                self._note(anchor.first, str(error))
            if not is_signed(one):
                self._note(anchor.first, f"the anchor up to {anchor.last:,} does not have the signature of its key")
            elif self._trusted and one.key not in self._trusted and one.key not in self.keys:
                self._note(
                    anchor.first,
                    f"from here on anchors are signed with the key {one.key.hex()}, which is not known: if it is another "
                    "node's or an earlier one, give it with --key, too",
                )
            self.count += 1
            self.keys.add(one.key)
            before = one
            yield anchor
