"""`merit at`, `--at` and `merit journal replay` on a journal in which much has changed since."""

import importlib
import json
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import apsw
import click
import pytest

from merit.app.state_directory import StateDirectory
from merit.app.stores import open_stores
from merit.cli import at as module
from merit.cli.at import READING, FoldNews
from merit.cli.main import COMMANDS, main
from merit.core.codec import FOLD_VERSION, encode_state, fold, state_digest
from merit.core.state import State
from merit.model.commands import (
    PauseQueue,
    PurgeDead,
    RemoveSchedule,
    RemoveWorker,
    ResumeQueue,
    SetSchedule,
    StartRollout,
)
from merit.model.ids import id_time_ns
from merit.model.limits import SECOND_NS, Limits
from merit.model.record import record_hash
from merit.model.rules import RuleKind
from merit.model.schedules import Schedule
from merit.model.tasks import TaskSpec
from merit.storage.file_snapshots import FileSnapshots
from merit.testing.builders import (
    a_tenant,
    allocate,
    an_id,
    an_offer,
    attach,
    completed,
    failed,
    limit,
    say,
    submit,
    tell,
    with_terms,
)
from tests.app.recorded_life import Recorded

DONE, DIED, WAITS, RUNS, LATER, PAUSED = range(1, 7)


class Then:
    """The journal of a life, and a moment in the middle of it, in a record with events before and after."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        recorded = self.recorded = Recorded(Limits(backoff_ns=1, grace_ns=0), id_time_ns(an_id(1)))
        machine = recorded.machine
        offers = (an_offer("echo", version="1.0.0"), an_offer("sum"))
        attach(machine, "w1", offers=offers, tags=("eu",), concurrency=1, granted=2)
        recorded.close()
        limit(machine, RuleKind.CAPABILITY, "sum", concurrency=3)
        a_tenant(machine, "red", weight=3)
        tell(machine, SetSchedule, Schedule("nightly", "default", "0 3 * * *", "UTC", TaskSpec("", "echo")))
        tell(machine, StartRollout, "echo", "2.0.0", 100)
        tell(machine, PauseQueue, "sum", "the licence has expired")
        submit(machine, with_terms(DONE), with_terms(DIED))
        allocate(machine)
        recorded.close()
        say(machine, "w1", reports=[completed(DONE), failed(DIED, permanent=True)], granted=3)
        submit(machine, with_terms(RUNS), with_terms(PAUSED, "sum"), with_terms(WAITS, after=(RUNS,)))
        allocate(machine)
        recorded.close()
        self.sequence, self.time_ns = recorded.disk.tail.next - 1, recorded.disk.records[-1].time_ns
        # Since then
        tell(machine, ResumeQueue, "sum")
        tell(machine, RemoveSchedule, "nightly")
        tell(machine, PurgeDead, [an_id(DIED)])
        limit(machine, RuleKind.CAPABILITY, "sum")
        a_tenant(machine, "red", weight=1)
        submit(machine, with_terms(LATER))
        say(machine, "w1", reports=[completed(RUNS, result=b'"late"')])
        recorded.close()
        tell(machine, RemoveWorker, "w1", "sold")
        recorded.close()
        self.write()
        self.snapshots()

    def write(self) -> None:
        records = self.recorded.disk.records
        with closing(open_stores(self.state).journal()) as journal:
            journal.lead("leader-1", records[0].time_ns)
            for record in records:
                journal.append(record)

    def snapshots(self) -> FileSnapshots:
        """One after every record but the last."""
        kept, state = FileSnapshots(StateDirectory(self.state).snapshots), State()
        for record in self.recorded.disk.records[:-1]:
            fold(state, record)
            kept.save(record.last, FOLD_VERSION, record_hash(record), encode_state(state))
        return kept

    @property
    def time(self) -> str:
        return datetime.fromtimestamp(self.time_ns / SECOND_NS, UTC).isoformat()


@pytest.fixture(scope="module")
def then(tmp_path_factory: pytest.TempPathFactory) -> Then:
    return Then(tmp_path_factory.mktemp("past"))


@pytest.fixture
def run(then, capsys):
    """Runs a command line in this process: exit code, stdout, stderr."""

    def run(*words, state=then.state):
        with pytest.raises(SystemExit) as ended:
            main([str(state) if word is Then else word for word in words])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


@pytest.fixture
def ask(run, then):
    """What a command tells of then, as a document."""

    def ask(*words, at=None):
        code, out, err = run("at", "--state", Then, at or f"#{then.sequence}", *words, "--json")
        assert (code, err.count("\n")) == (0, 1), err
        assert err.startswith("merit: as it was at ")
        return json.loads(out)

    return ask


def names() -> Iterator[str]:
    """Of all commands that there are, but for the one that works."""
    for name in COMMANDS:
        found = getattr(importlib.import_module(f"merit.cli.{name}"), name)
        if isinstance(found, click.Group):
            yield from (f"{name} {inner}" for inner in found.list_commands(click.Context(found)))
        else:
            yield name


ASKED = {
    "status": [],
    "explain": [an_id(DONE)],
    "task list": [],
    "task show": [an_id(DONE)],
    "worker list": [],
    "worker show": ["w1"],
    "capability list": [],
    "capability show": ["echo"],
    "rollout status": ["echo"],
    "queue list": [],
    "queue show": ["sum"],
    "queue limits": [],
    "queue shares": [],
    "dead list": [],
    "dead show": [an_id(DIED)],
    "schedule list": [],
    "schedule show": ["nightly"],
    "supervision show": [],
}


@pytest.mark.parametrize("name", sorted(READING))
def test_every_command_that_asks_works_for_people_and_for_programs(run, ask, then, name):
    words = [*name.split(), *ASKED[name]]
    assert ask(*words)
    code, out, err = run("at", "--state", Then, then.time, *words)
    assert (code, bool(out)) == (0, True), err
    assert err == f"merit: as it was at {err.split()[5]} after event {then.sequence:,}; {module._UNKNOWN}\n"


def test_every_other_command_is_refused_before_anything_is_read(run):
    assert set(names()) > READING
    for name in sorted(set(names()) - READING):
        code, out, err = run("at", "--state", "nowhere", "-1m", *name.split(), "--json")
        assert (code, json.loads(out)["error"]["kind"]) == (2, "usage"), name
        assert f"merit {name}" in err
        assert "task list" in err


@pytest.mark.parametrize("words", [["worker", "hello"], ["task"], ["fly"], ["queue", "fly"], ["--limit"]])
def test_what_is_no_command_is_refused(run, words):
    code, out, err = run("at", "-1m", *words)
    assert (code, out) == (2, "")
    assert err.startswith("merit: ")


def test_what_is_told_is_what_was_then(ask):
    tasks = {task["id"]: task["state"] for task in ask("task", "list")["tasks"]}
    states = {DONE: "COMPLETED", DIED: "DEAD", RUNS: "ASSIGNED", PAUSED: "PENDING", WAITS: "WAITING"}
    assert tasks == {an_id(number): state for number, state in states.items()}
    assert "the licence has expired" in ask("task", "show", an_id(PAUSED))["why"]
    (worker,) = ask("worker", "list")["workers"]
    assert (worker["state"], worker["attempts"], worker["seen"]) == ("BUSY", 1, None)
    assert ask("worker", "show", "w1")["tasks"] == [an_id(RUNS)]
    (queue,) = [one for one in ask("queue", "list")["queues"] if one["capability"] == "sum"]
    assert (queue["pending"], queue["paused"], queue["workers"]) == (1, True, 1)
    assert [task["id"] for task in ask("dead", "list")["tasks"]] == [an_id(DIED)]
    assert ask("schedule", "show", "nightly")["name"] == "nightly"
    status = ask("status")
    assert (status["pending"], status["waiting"], status["assigned"], status["dead_letters"]) == (1, 1, 1, 1)
    assert "RUNNING" in json.dumps(ask("rollout", "status", "echo"))
    explained = ask("explain", an_id(RUNS))
    assert (explained["chosen"], explained["agrees"]) == ("w1", True)
    assert "licence" in ask("explain", an_id(PAUSED))["why"]


def test_what_no_journal_knows_is_not_told_as_if_it_were_known(run, ask, then):
    (listed,), shown = ask("worker", "list")["workers"], ask("worker", "show", "w1")
    assert listed["room"] is shown["room"] is None
    (echo, _), shown = ask("capability", "list")["capabilities"], ask("capability", "show", "echo")
    assert echo["with_room"] is shown["with_room"] is echo["usual_s"] is shown["usual_s"] is None

    def said(*words):
        code, out, _ = run("at", "--state", Then, f"#{then.sequence}", *words)
        assert code == 0
        return out

    heading, row = said("worker", "list").splitlines()
    assert row[heading.index("ROOM") : heading.index("ROOM") + 4].strip() == "?"
    assert "room not known" in said("worker", "show", "w1")
    heading, row, *_ = said("capability", "list").splitlines()
    for column in ("WITH ROOM", "USUAL"):
        assert row[heading.index(column) : heading.index(column) + len(column)].strip() == "?"
    assert "not known how many with room" in said("capability", "show", "echo")


def test_the_status_of_then_has_only_what_was_known_then(run, ask, then):
    numbers = {
        "cell",
        "epoch",
        "sequence",
        "waiting",
        "pending",
        "assigned",
        "auditing",
        "completed",
        "dead",
        "canceled",
        "workers",
    }
    standing = {"workers_punished", "workers_paused", "breakers_open"}
    assert set(ask("status")) == {*numbers, *standing, "dead_letters", "fleet"}
    _, out, _ = run("at", "--state", Then, f"#{then.sequence}", "status")
    *lines, last = out.splitlines()
    assert last.startswith("not known of then: store, journal bytes, ")
    assert not any(line.startswith(("store", "journal", "follower", "snapshot", "started")) for line in lines)


def test_options_may_be_given_with_an_equals_sign(run, then):
    for words in (["--state", str(then.state)], [f"--state={then.state}"]):
        for when in (f"#{then.sequence}", "-0.001s"):
            code, out, err = run("at", *words, when, "status", "--json")
            assert (code, json.loads(out)["cell"]) == (0, "cell-1"), err


def test_what_is_told_of_the_end_is_otherwise(ask, then):
    last = f"#{then.recorded.disk.tail.next - 1}"
    assert ask("task", "show", an_id(RUNS), at=last)["result"] == "late"
    (gone,) = ask("worker", "list", at=last)["workers"]
    assert (gone["state"], gone["reason"]) == ("DEACTIVATED", "sold")
    assert ask("dead", "list", at=last)["tasks"] == []


def test_durations_and_ages_count_from_then(ask, then):
    ten_minutes_later = datetime.fromtimestamp(then.time_ns / SECOND_NS + 600, UTC).isoformat()
    (queue,) = [one for one in ask("queue", "list")["queues"] if one["capability"] == "sum"]
    assert queue["oldest_age_s"] < 1
    assert ask("task", "list", "--since", "9m", at=ten_minutes_later)["tasks"] == []
    assert len(ask("task", "list", "--since", "11m", at=ten_minutes_later)["tasks"]) == 6


def test_inside_a_record_it_is_after_that_event(ask, then):
    record = next(one for one in then.recorded.disk.records if one.last == then.sequence)
    assert len(record.events) > 2
    counts = [ask("status", at=f"#{sequence}")["sequence"] for sequence in range(record.first, record.last)]
    assert counts == list(range(record.first, record.last))
    first = ask("task", "list", at=f"#{record.first}")["tasks"]
    assert {task["id"] for task in first} == {an_id(DONE), an_id(DIED)}


def test_a_moment_without_a_state_is_refused_with_those_that_there_are(run, then):
    for when in ("2001-01-01", "#0", "#1000000"):
        code, out, err = run("at", "--state", Then, when, "status", "--json")
        assert (code, json.loads(out)["error"]["kind"]) == (2, "no_such_moment")
        assert "the journal can tell from event 1 at " in err
    code, _, err = run("at", "--state", Then, "2099-01-01", "status")
    assert (code, "still to come" in err) == (2, True)
    code, _, err = run("at", "--state", "nowhere", "-1m", "status")
    assert (code, "there is no journal" in err) == (2, True)


def test_damage_is_named_and_nothing_is_told_of_what_was_altered(run, tmp_path):
    other = Then(tmp_path)
    victim = other.recorded.disk.records[1]
    with closing(apsw.Connection(str(StateDirectory(other.state).journal / "journal.sqlite3"))) as connection:
        (events,) = next(connection.execute("SELECT events FROM records WHERE first = ?", (victim.first,)))
        altered = events.replace(b"licence", b"license")
        connection.execute("UPDATE records SET events = ? WHERE first = ?", (altered, victim.first))
    for path in StateDirectory(other.state).snapshots.iterdir():
        path.unlink()
    code, out, _ = run("at", "--state", Then, f"#{victim.last}", "queue", "list", "--json", state=other.state)
    error = json.loads(out)["error"]
    assert (code, error["kind"], error["sequence"]) == (1, "journal_damaged", victim.first)


def test_wrong_usage_of_the_command_is_told_before_anything_is_folded(run, then, monkeypatch):
    monkeypatch.setattr("merit.app.past.fold_until", None)
    code, _, err = run("at", "--state", Then, "-1s", "task", "list", "--foo")
    assert (code, err) == (2, "merit: No such option '--foo'; see merit task list --help\n")
    code, _, err = run("at", "--state", Then, "-1s", "task", "list", "--server", "127.0.0.1:1")
    assert (code, "by no server" in err) == (2, True)
    code, out, _ = run("at", "--state", Then, "-1h", "task", "list", "--help")
    assert (code, out.startswith("Usage: merit task list ")) == (0, True)
    code, out, _ = run("at", "-h")
    assert (code, out.startswith("Usage: merit at ")) == (0, True)


def test_the_page_after_one_is_of_the_same_moment(run, then):
    code, _, err = run("at", "--state", Then, then.time, "dead", "list", "--limit", "1")
    assert code == 0
    assert "more:" not in err
    code, _, err = run("at", "--state", Then, then.time, "task", "list", "--limit", "2")
    more = err.splitlines()[-1]
    assert more.startswith(f"more: merit at --state {then.state} '#{then.sequence}' task list ")


@pytest.mark.parametrize(
    "words", [["task", "list"], ["task", "show", an_id(RUNS)], ["worker", "list"], ["worker", "show", "w1"]]
)
def test_the_option_is_the_same_spelled_otherwise(run, ask, then, monkeypatch, words):
    monkeypatch.setenv("MERIT_STATE", str(then.state))
    code, out, err = run(*words, "--at", f"#{then.sequence}", "--json")
    assert code == 0, err
    assert json.loads(out) == ask(*words)
    assert run(*words, "--at", "2001-01-01")[0] == 2


def test_a_long_fold_is_told_of_if_somebody_sees_it(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    news = FoldNews(2_000)
    news(1_000)
    news.end()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(time, "monotonic", lambda: 10**9)
    news(1_000)
    news.end()
    assert "1,000 of 2,000 events" in capsys.readouterr().err


# Replay


def test_a_replay_shows_the_state_in_a_few_numbers(run, then):
    state = State()
    for record in then.recorded.disk.records:
        fold(state, record)
    code, out, _ = run("journal", "replay", "--state", Then, "--json")
    found = json.loads(out)
    assert (code, found["digest"], found["sequence"]) == (0, state_digest(state), state.sequence)
    assert found["snapshot"] == then.recorded.disk.records[-2].last
    code, out, _ = run("journal", "replay", "--state", Then, "--to", then.time, "--from-beginning", "--json")
    found = json.loads(out)
    assert (code, found["sequence"], found["snapshot"], found["pending"], found["workers"]) == (
        0,
        then.sequence,
        None,
        1,
        1,
    )
    code, out, _ = run("journal", "replay", "--state", Then, "--to", f"#{then.sequence}")
    assert found["digest"] in out


def test_a_replay_names_the_snapshot_that_it_used(run, tmp_path):
    other = Then(tmp_path)
    records = other.recorded.disk.records
    other.snapshots().save(records[-2].last, FOLD_VERSION, record_hash(records[-2]), b"nonsense")
    code, out, _ = run("journal", "replay", "--state", Then, "--json", state=other.state)
    assert (code, json.loads(out)["snapshot"]) == (0, records[-3].last)
    for path in StateDirectory(other.state).snapshots.iterdir():
        path.unlink()
    code, out, _ = run("journal", "replay", "--state", Then, "--json", state=other.state)
    assert (code, json.loads(out)["snapshot"]) == (0, None)


def test_a_comparison_proves_the_snapshots_or_finds_the_wrong_one(run, then, tmp_path):
    code, out, _ = run("journal", "replay", "--state", Then, "--compare", "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)
    other = Then(tmp_path)
    victim = other.recorded.disk.records[1]
    state = State()
    fold(state, other.recorded.disk.records[0])
    fold(state, victim)
    state.completed += 1
    other.snapshots().save(victim.last, FOLD_VERSION, record_hash(victim), encode_state(state))
    code, out, err = run("journal", "replay", "--state", Then, "--compare", "--json", state=other.state)
    wrong = [one["sequence"] for one in json.loads(out)["compared"] if one["problem"]]
    assert (code, wrong[0]) == (1, victim.last)
    assert "comparisons failed" in err
    other.snapshots()
    code, out, _ = run("journal", "replay", "--state", Then, "--compare", state=other.state)
    assert (code, "the same: " in out) == (0, True)
