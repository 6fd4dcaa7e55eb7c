"""How `merit up` begins and ends."""

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from merit.cli.main import main
from merit.core.codec import UnreadableEvent
from merit.kernel.quarantine import Stopped
from merit.ports.journal import JournalUnavailable
from tests.merit_command import WAIT_S, Running, environment, fleet, merit


def test_one_line_when_ready_and_an_orderly_end(tmp_path: Path):
    with fleet(tmp_path) as made:
        for epoch in (1, 2):
            plane = made.up()
            assert f'"epoch":{epoch},"pid":{plane.pid}' in plane.out
            assert plane.out.count("\n") == 1
            assert plane.stop() == 0
        plane = Running(["-m", "merit", "up", "--grpc", "127.0.0.1:0"], tmp_path, "people", MERIT_STATE=str(made.state))
        made.running.append(plane)
        plane.says("ready: gRPC on 127.0.0.1:")
        plane.send(signal.SIGINT)
        assert plane.ended() == 0


def test_two_do_not_lead_one_directory_nor_listen_on_one_port(tmp_path: Path):
    with fleet(tmp_path) as made:
        plane = made.up()
        ran = made.merit("up", "--grpc", "127.0.0.1:0", "--json")
        assert ran.code == 1
        assert ran.json["error"]["kind"] == "led_elsewhere"
        assert f"process {plane.pid}" in ran.json["error"]["message"]
        ran = made.merit("up", "--grpc", made.server, "--state", "other", "--json")
        assert ran.code == 1
        assert ran.json["error"]["kind"] == "address_taken"
        assert made.merit("status").code == 0


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "example.org:1", "127.0.0.1", "127.0.0.1:70000"])
def test_only_this_machine_is_served(tmp_path: Path, address: str):
    ran = merit("up", "--state", "state", "--grpc", address, "--json", cwd=tmp_path)
    assert ran.code == 2
    assert ran.json["error"]["message"]
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--keep", "1h"], "--keep "),
        (["--keep-trails", "6d"], "--keep-trails"),
        (["--keep", "30d", "--audit-horizon", "31d"], "--audit-horizon"),
        (["--journal-max", "little"], "--journal-max"),
    ],
)
def test_retention_that_contradicts_itself_is_refused_by_name(tmp_path: Path, options: list[str], named: str):
    ran = merit("up", "--state", "state", *options, "--json", cwd=tmp_path)
    assert ran.code == 2
    assert named in ran.json["error"]["message"]
    assert not (tmp_path / "state").exists()


def test_a_damaged_journal_stops_the_start_and_is_named(tmp_path: Path):
    with fleet(tmp_path) as made:
        plane = made.up()
        for n in range(3):
            made.merit("submit", "nobody", f"n:={n}")
        plane.stop()
        damaged = _damage(made.state)
        ran = made.merit("up", "--json")
        assert ran.code == 1
        assert ran.json["error"]["kind"] == "journal_damaged"
        assert ran.json["error"]["sequence"] == damaged
        verified = made.merit("journal", "verify", "--json")
        assert verified.code == 1
        assert [problem["sequence"] for problem in verified.json["problems"]] == [damaged]
        assert f"sequence {damaged}: " in made.merit("journal", "verify").out
        shown = made.merit("journal", "show", "--json")
        assert shown.code == 1
        assert shown.json["error"]["sequence"] == damaged
        assert [event["sequence"] for event in shown.json["events"]] == list(range(1, damaged))


def _damage(state: Path) -> int:
    """Alter one byte of the events of the second record; the sequence where it begins."""
    path = next(path for path in (state / "journal").iterdir() if path.read_bytes()[:15] == b"SQLite format 3")
    with sqlite3.connect(path) as connection:
        first, events = connection.execute(
            "SELECT first, events FROM records ORDER BY first LIMIT 1 OFFSET 1"
        ).fetchone()
        altered = bytes([events[0], events[1], events[2], events[3] ^ 1, *events[4:]])
        connection.execute("UPDATE records SET events = ? WHERE first = ?", (altered, first))
    connection.close()
    return int(first)


def test_a_full_disk_ends_it_without_an_acknowledgement(tmp_path: Path):
    with fleet(tmp_path) as made:
        made.up().stop()
        # No file may grow beyond this: what the operating system then says is what it says of a full disk.
        words = [sys.executable, "-m", "merit", "up", "--state", str(made.state), "--grpc", made.server, "--json"]
        shell = ["sh", "-c", 'ulimit -f 400 && exec "$@"', "sh", *words]
        with (tmp_path / "full.out").open("w+") as out, (tmp_path / "full.err").open("w+") as err:
            plane = subprocess.Popen(shell, cwd=tmp_path, env=environment(), stdout=out, stderr=err)
            try:
                large = '{"text": "' + "x" * 60_000 + '"}'
                acknowledged: list[str] = []
                while plane.poll() is None and len(acknowledged) < 50:
                    ran = made.merit(
                        "submit", "nobody", "--params", large, "--wait-timeout", "3", "--connect-timeout", "5"
                    )
                    acknowledged += [ran.out.strip()] if ran.code == 0 else []
                assert plane.wait(WAIT_S) == 1
            finally:
                plane.kill()
                plane.wait(WAIT_S)
        assert '"kind":"journal_unavailable"' in (tmp_path / "full.out").read_text()
        assert "Traceback" not in (tmp_path / "full.err").read_text()
        made.up()  # there is space again
        listed = {view["id"] for view in made.merit("task", "list", "--json").json["tasks"]}
        assert set(acknowledged) <= listed


@pytest.mark.parametrize("content", ["{", "[1]", '{"digests": 3}'])
def test_a_damaged_quarantine_file_is_named(tmp_path: Path, content: str):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "quarantine.json").write_text(content)
    ran = merit("up", "--state", "state", "--grpc", "127.0.0.1:0", "--json", cwd=tmp_path)
    assert ran.code == 1
    assert "quarantine.json" in ran.json["error"]["message"]


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    ran = merit("up", "--state", "file/state", "--grpc", "127.0.0.1:0", "--json", cwd=tmp_path)
    assert ran.code == 1
    assert "file/state" in ran.json["error"]["message"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Stopped("01a1f89f-2e57-73c8-9583-18c7251fb890", ValueError("defect")), "stopped"),
        (UnreadableEvent("of a newer version"), "journal_unreadable"),
        (JournalUnavailable("disk full"), "journal_unavailable"),
        (OSError(28, "No space left on device", "state"), "state"),
    ],
)
def test_whatever_ends_it_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, error: Exception, kind: str
):
    async def run_until_signal(*_: object) -> None:
        raise error

    monkeypatch.setattr("merit.app.node.run_until_signal", run_until_signal)
    with pytest.raises(SystemExit) as ended:
        main(["up", "--state", str(tmp_path), "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert f'"kind":"{kind}"' in said.out
    assert len(said.err.splitlines()) == 1
