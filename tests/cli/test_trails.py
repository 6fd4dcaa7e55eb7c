"""`merit journal export`, `check`, `key` and `verify` the way people use them."""

import json
import shutil
from pathlib import Path

import apsw
import pytest

from merit.app.state_directory import CELL, StateDirectory
from merit.core.codec import encode_event
from merit.core.trails import check_trail
from merit.model.events import RoomSeen
from merit.model.record import after, seal
from merit.runtime.anchoring import Anchoring
from merit.storage.key_file import KeyFile
from merit.storage.sqlite_archive import SqliteArchive
from merit.storage.sqlite_journal import SqliteJournal
from merit.testing.journal_contract import compact_all
from tests.merit_command import Fleet, fleet, merit


def test_beside_the_control_plane_after_it_and_after_compaction(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with fleet(tmp_path) as made:
        plane = made.up()
        made.worker("w1")
        task = made.merit("submit", "hello", "input=Ada", "--wait", "--json").json["id"]
        ran = made.merit("journal", "export", "--task", task)
        assert ran.out == f"trail-{task}.json\n"
        assert plane.stop() == 0
        key = made.merit("journal", "key").out.strip()
        assert key in ran.err
        # by somebody who has nothing else
        found = merit("journal", "check", f"../trail-{task}.json", "--key", key, "--json", cwd=elsewhere).json
        assert (found["task"], found["state"], found["key_known"]) == (task, "completed", True)
        written = made.merit("journal", "export", "--task", task, "-o", "-").out.encode()
        assert check_trail(written, [bytes.fromhex(key)]).task.result == b'"hello Ada"'
        compacted(made.state)
        ran = made.merit("journal", "export", "--task", task, "-o", "compacted.json", "--json")
        assert (ran.json["file"], ran.json["events"], ran.json["keys"]) == ("compacted.json", found["events"], [key])
        shown = merit("journal", "check", "../compacted.json", cwd=elsewhere).out
        assert f"signed with {key}\nwhose key that is, was not asked" in shown
        assert "\n".join(found["story"]) in shown
        verified = made.merit("journal", "verify").out
        assert "whole" in verified
        assert f"by 1 signature of {key}" in verified
        # what was compacted away can still be read from where the journal begins
        assert len(made.merit("journal", "show").out.splitlines()) == 1
        assert "has been compacted away" in made.merit("journal", "show", "--first", "1").err


def compacted(state: Path) -> None:
    """Archives and removes all that can go, as the follower has it done after a week."""
    paths = StateDirectory(state)
    with SqliteJournal(paths.journal, CELL) as journal:
        tail = journal.lead("test", 1)
        # An event that is last, so that all of the tasks can go.
        journal.append(seal(CELL, tail.next, tail.epoch, "test", 2**60, tail.last_hash, [encode_event(RoomSeen(()))]))
        archive = SqliteArchive(paths.archive, CELL)
        anchoring = Anchoring(archive.last_anchor(), KeyFile(paths.key))
        records = list(journal.read())
        for record in records:
            if (anchor := anchoring.take(record)) is not None:
                archive.add_anchor(anchor)
        if (anchor := anchoring.flush()) is not None:
            archive.add_anchor(anchor)
        archive.add_segment(records)
        archive.close()
        assert compact_all(journal, tail.next) == tail.next


def test_an_altered_journal_is_found_out_though_all_hashes_were_computed_anew(tmp_path: Path):
    with fleet(tmp_path) as made:
        plane = made.up()
        made.merit("submit", "hello", "input=x")
        assert plane.stop() == 0
        paths = StateDirectory(made.state)
        archive = SqliteArchive(paths.archive, CELL)
        with SqliteJournal(paths.journal, CELL) as journal:
            tail = journal.lead("test", 1)
            records = list(journal.read())
            anchoring = Anchoring(archive.last_anchor(), KeyFile(paths.key))
            for record in records:
                anchoring.take(record)
            if (anchor := anchoring.flush()) is not None:
                archive.add_anchor(anchor)
        archive.close()
        assert made.merit("journal", "verify", "--json").json["anchored"] == tail.next - 1
        shutil.rmtree(paths.journal)
        with SqliteJournal(paths.journal, CELL) as journal:
            tail = journal.lead("forger", 1)
            for record in records:
                events = [data.replace(b"hello", b"hallo") for data in record.events]
                forged = seal(CELL, tail.next, tail.epoch, record.holder, record.time_ns, tail.last_hash, events)
                journal.append(forged)
                tail = after(forged)
        ran = made.merit("journal", "verify", "--json")
        assert ran.code == 1
        assert "the journal was altered" in ran.json["problems"][0]["reason"]
        # nor do anchors of another key help
        connection = apsw.Connection(str(paths.archive))
        connection.execute("DELETE FROM anchors")
        connection.close()
        archive = SqliteArchive(paths.archive, CELL)
        forger = Anchoring(None, KeyFile(tmp_path / "forger.key"))
        with SqliteJournal(paths.journal, CELL) as journal:
            journal.lead("forger", 2)
            for record in journal.read():
                forger.take(record)
        signed = forger.flush()
        assert signed is not None
        archive.add_anchor(signed)
        archive.close()
        ran = made.merit("journal", "verify", "--json")
        assert ran.code == 1
        assert "which is not known" in ran.json["problems"][0]["reason"]
        assert made.merit("journal", "verify", "--key", str(tmp_path / "forger.key")).code == 0


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (["export", "--task", "no-id"], 2, "usage"),
        (["export", "--task", "01a1f89f-2e57-73c8-9583-18c7251fb890", "--state", "nowhere"], 2, "journal_unavailable"),
        (["key", "--state", "nowhere"], 2, "key_unavailable"),
        (["check", "trail.json"], 1, "trail_invalid"),
        (["check", "trail.json", "--key", "nothing"], 2, "usage"),
        (["check", "trail.json", "--key", "trail.json"], 2, "usage"),
        (["check", "nowhere.json"], 2, "usage"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, words: list[str], code: int, kind: str):
    (tmp_path / "trail.json").write_text(json.dumps({"format": "another"}))
    ran = merit("journal", *words, "--json", cwd=tmp_path)
    assert (ran.code, ran.json["error"]["kind"]) == (code, kind)
    assert [path.name for path in tmp_path.iterdir()] == ["trail.json"]


def test_a_key_that_is_no_text_is_called_so(tmp_path: Path):
    (tmp_path / "trail.json").write_text("{}")
    (tmp_path / "key.der").write_bytes(b"0*0\x05\x06\x03+ep\x03!\x00\xff\xfe")
    ran = merit("journal", "check", "trail.json", "--key", "key.der", cwd=tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert "key.der is no text: a key is 64 hexadecimal digits, or a file with them or in PEM" in ran.err


def test_an_unknown_task_has_no_trail(busy: Fleet):
    ran = busy.merit("journal", "export", "--task", "01a1f89f-2e57-73c8-9583-18c7251fb890", "--json")
    assert (ran.code, ran.json["error"]["kind"]) == (1, "no_such_trail")
