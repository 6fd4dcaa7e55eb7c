"""Every command against a real control plane and a real worker."""

import json
import os
import pty
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.merit_command import Fleet, Running, environment, fleet, merit, until

# `merit map` looks every 5 s whether something holds it up; a test need not wait for that.
IMPATIENT = [
    "-c",
    "from merit.cli import map; from merit.cli.main import main; vars(map)['_LOOK_S'] = 1.0; main()",
]


def test_submit_waits_and_gives_the_result(busy: Fleet):
    ran = merit("submit", "hello", "input=hello", "--server", busy.server, "--wait", "--json", cwd=busy.folder)
    assert ran.code == 0
    assert {**ran.json, "id": ""} == {
        "id": "",
        "state": "COMPLETED",
        "result": "hello hello",
        "error": None,
        "attempts": 1,
        "worker": "w1",
    }
    assert busy.merit("submit", "hello", "input=you", "--wait").out == "hello you\n"


def test_submit_values_are_strings_or_json(busy: Fleet):
    assert busy.merit("submit", "add", "a:=1", "b:=2", "--wait").out == "3\n"
    ran = busy.merit("submit", "add", "--params", "-", "b:=5", "--wait", "--json", given='{"a": 40, "b": 0}')
    assert ran.json["result"] == 45
    ran = busy.merit("submit", "add", "a=1", "b:=2", "--json")
    assert ran.code == 1
    assert ran.json["error"]["field"] == "parameters.a"
    assert "a:=1" in ran.err


def test_what_a_task_asks_of_its_worker_is_shown(busy: Fleet):
    words = ["--versions", "<2, >=1", "--tag", "gpu", "--tag", "zone-a", "--without-tag", "spot"]
    words += ["--resource", "memory=512Mi", "--resource", "gpu=1", "--worker", "w7", "--prefer", "zone-a"]
    task = busy.merit("submit", "hello", "input=x", *words, "--strategy", "least-loaded").out.strip()
    demand = busy.merit("task", "show", task, "--json").json["terms"]["demand"]
    assert demand == {
        "versions": ">=1,<2",
        "worker": "w7",
        "tags": ["gpu", "zone-a"],
        "without_tags": ["spot"],
        "resources": {"gpu": 1, "memory": 512 * 2**20},
        "strategy": "least-loaded",
        "prefers": ["zone-a"],
    }
    assert "needs       gpu=1 memory=512Mi" in busy.merit("task", "show", task).out
    busy.merit("task", "cancel", task)


def test_a_demand_that_cannot_be_is_refused_with_what_to_write(busy: Fleet):
    ran = busy.merit("submit", "hello", "input=x", "--versions", "newest", "--json")
    assert (ran.code, ran.json["error"]["field"]) == (1, "terms.demand.versions")
    assert "write >=1.2,<2" in ran.json["error"]["message"]


def test_submit_says_why_a_task_failed(busy: Fleet):
    ran = busy.merit("submit", "boom", "--wait", "--json", "--attempts", "1")
    assert ran.code == 1
    assert (ran.json["state"], ran.json["result"]) == ("DEAD", None)
    assert "no such luck" in ran.json["error"]["message"]
    ran = busy.merit("submit", "boom", "--wait", "--attempts", "1")
    assert (ran.code, ran.out) == (1, "")
    assert "no such luck" in ran.err


def test_submit_gives_up_waiting_but_not_the_task(busy: Fleet):
    ran = busy.merit("submit", "nobody_has_this", "--wait", "--wait-timeout", "0.2", "--json")
    assert ran.code == 4
    assert ran.json["error"]["kind"] == "timeout"
    shown = busy.merit("task", "show", ran.json["error"]["id"], "--json").json
    assert shown["state"] == "PENDING"
    assert "nobody_has_this" in shown["why"]


def test_tasks_are_listed_shown_and_canceled(busy: Fleet):
    ids = [busy.merit("submit", "nobody_has_that", f"n={n}").out.strip() for n in range(3)]
    page = busy.merit("task", "list", "--capability", "nobody_has_that", "--limit", "2", "--json").json
    rest = busy.merit("task", "list", "--capability", "nobody_has_that", "--cursor", page["next_cursor"], "--json").json
    assert [view["id"] for view in page["tasks"] + rest["tasks"]] == ids[::-1]
    ran = busy.merit("task", "cancel", *ids, "--reason", "not needed", "--json")
    assert (ran.code, ran.json) == (0, {"canceled": ids, "refused": []})
    ran = busy.merit("task", "cancel", ids[0], "--json")
    assert (ran.code, ran.json["canceled"]) == (1, [])
    listed = busy.merit("task", "list", "--state", "canceled")
    assert all(one in listed.out for one in ids)
    assert 'parameters  {"n":"0"}' in busy.merit("task", "show", ids[0]).out


def test_map_keeps_the_order_and_names_the_lines(busy: Fleet):
    lines = "".join(f'{{"a": {n}, "b": 1}}\n' for n in range(300)) + "\n"
    ran = busy.merit("map", "add", "-", given=lines)
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.code == 0
    assert [(row["line"], row["result"]) for row in rows] == [(n + 1, n + 1) for n in range(300)]
    (busy.folder / "in.jsonl").write_text(lines + '{"a": "x", "b": 1}\n')
    ran = busy.merit("map", "add", "in.jsonl", "--as-completed", "--json")
    assert ran.code == 1
    assert (ran.json["completed"], ran.json["failed"]) == (300, 1)
    assert [row["line"] for row in ran.json["results"] if row["state"] == "REFUSED"] == [302]


def test_map_reads_all_lines_before_it_submits_one(busy: Fleet):
    before = busy.merit("status", "--json").json["sequence"]
    ran = busy.merit("map", "add", "-", "--json", given='{"a": 1, "b": 2}\n[1]\n')
    assert ran.code == 2
    assert "line 2" in ran.json["error"]["message"]
    assert busy.merit("status", "--json").json["sequence"] == before


def test_status_shows_the_fleet(busy: Fleet):
    ran = busy.merit("status", "--json")
    assert [(row["id"], row["state"]) for row in ran.json["fleet"]] == [("w1", "ACTIVE")]
    assert ran.json["epoch"] == 1
    assert "w1" in busy.merit("status").out


def test_journal_is_shown_beside_the_running_control_plane(busy: Fleet):
    task = busy.merit("submit", "hello", "input=journal", "--wait", "--json").json["id"]
    events = busy.merit("journal", "show", "--task", task, "--payloads", "--json").json["events"]
    assert [event["event"] for event in events][::2] == ["TaskSubmitted", "TaskCompleted"]
    assert events[0]["fields"]["parameters"] == {"input": "journal"}
    assert events[-1]["fields"]["result"] == "hello journal"
    first, last = events[0]["sequence"], events[-1]["sequence"]
    ran = busy.merit("journal", "show", "--first", str(first), "--last", str(last))
    assert len(ran.out.splitlines()) == last - first + 1
    assert "hello journal" not in ran.out
    verified = busy.merit("journal", "verify", "--json")
    assert verified.json["ok"]
    assert verified.json["last"] >= last


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_journal_that_says_nothing_about_it_is_told(busy: Fleet, more: list[str]):
    task = "01a1f89f-2e57-73c8-9583-18c7251fb890"
    ran = busy.merit("journal", "show", "--task", task, "--last", "1", *more)
    assert (ran.code, ran.out) == (1, '{"events":[]}\n' if more else "")
    assert ran.err == f"merit: nothing about task {task} in sequences 1 to 1\n"


def test_a_task_that_nobody_can_run_is_taken_with_a_hint(busy: Fleet):
    ran = busy.merit("submit", "nobody_can", "--json")
    assert ran.code == 0
    assert ran.err.startswith("merit: the task waits: no connected worker offers nobody_can")
    assert len(ran.err.splitlines()) == 1
    assert busy.merit("task", "show", ran.json["id"], "--json").json["state"] == "PENDING"
    assert busy.merit("submit", "hello", "input=x").err == ""


def test_pages_and_none(busy: Fleet):
    ids = [busy.merit("submit", "nobody_pages", f"n={n}").out.strip() for n in range(2)]
    ran = busy.merit("task", "list", "--capability", "nobody_pages", "--limit", "1")
    assert ids[1] in ran.out
    name, words = ran.err.strip().split(": ", 1)
    assert name == "more"
    last = busy.merit(*shlex.split(words)[1:])
    assert ids[0] in last.out
    ran = busy.merit("task", "list", "--capability", "nobody_pages", "--state", "dead")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "merit: no tasks with --state dead --capability nobody_pages\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["submit", "hello", "input=x", "--run-timeout", "1e300"], 2),
        (["submit", "hello", "input=x", "--after", "yesterday"], 1),
        (["task", "show", "01a1f89f-2e57-73c8-9583-18c7251fb890"], 1),
        (["submit", "hello", "input=x", "--timeout", "9999d"], 1),
        (["submit", "hello", "input=x", "--delay", "1s", "--not-before", "2h"], 2),
        (["submit", "hello", "--input", "input=yesterday"], 1),
        (["task", "list", "--cursor", "x"], 1),
        (["task", "follow", "01a1f89f-2e57-73c8-9583-18c7251fb890"], 1),
        (["queue", "show", "nobody_knows"], 1),
        (["queue", "pause", "x" * 300], 1),
        (["queue", "resume", "hello"], 1),
        (["queue", "share", "é"], 1),
        (["dead", "show", "01a1f89f-2e57-73c8-9583-18c7251fb890"], 1),
        (["schedule", "add", "x", "every day", "hello", "input=x"], 1),
        (["schedule", "add", "x", "0 3 * * *", "hello", "input=x", "--zone", "Atlantis"], 1),
        (["schedule", "add", "x", "0 3 * * *", "add", "a=1"], 1),
        (["schedule", "show", "never"], 1),
        (["schedule", "pause", "never"], 1),
        (["schedule", "remove", "never"], 1),
        (["schedule", "run", "never"], 1),
        (["journal", "show", "--state", "nowhere"], 2),
        (["journal", "verify", "--state", "nowhere"], 2),
        (["worker"], 2),
        (["worker", "no_such_module"], 2),
        (["worker", "json"], 2),
        (["worker", "missing.py"], 2),
        (["worker", "broken.py"], 2),
        (["worker", "--command", "missing.toml"], 2),
    ],
)
def test_wrong_input_is_one_line_and_a_document(busy: Fleet, words: list[str], code: int):
    (busy.folder / "broken.py").write_text("import json\nthis is wrong\n")
    ran = busy.merit(*words, "--json")
    assert ran.code == code
    assert len(ran.err.splitlines()) - ran.err.count(" INFO ") == 1
    assert ran.err.splitlines()[-1].startswith("merit: ")
    assert ran.json["error"]["message"]


def test_unreachable_is_told_from_failed(busy: Fleet):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{nobody.getsockname()[1]}"
        ran = busy.merit("submit", "hello", "input=x", "--server", server, "--connect-timeout", "0.3", "--json")
    assert ran.code == 3
    assert ran.json["error"]["kind"] == "unreachable"


def test_worker_runs_a_file_and_commands(busy: Fleet):
    (busy.folder / "package").mkdir()
    (busy.folder / "package" / "__init__.py").touch()
    (busy.folder / "package" / "inner.py").write_text("WORD = 'inner'\n")
    (busy.folder / "package" / "offer.py").write_text(
        "from merit import capability\nfrom .inner import WORD\n\n"
        "@capability(cpu=True)\ndef word(n: int) -> str:\n    return WORD * n\n"
    )
    (busy.folder / "commands.toml").write_text(
        '[[command]]\nname = "echo"\nargv = ["echo", "--", "{text}"]\noutput = "text"\n'
        '[command.parameters]\ntext = { type = "string" }\n'
    )
    words = [
        "worker",
        "package/offer.py",
        "--command",
        "commands.toml",
        "--server",
        busy.server,
        "--name",
        "w2",
        "--json",
    ]
    worker = Running(["-m", "merit", *words], busy.folder, "w2")
    try:
        worker.says("attached", "err")
        assert json.loads(worker.out)["capabilities"] == ["word", "echo"]
        assert busy.merit("submit", "word", "n:=2", "--wait").out == "innerinner\n"
        ran = busy.merit("submit", "echo", "text=a b; c", "--wait", "--json")
        assert ran.json["result"]["stdout"].strip().endswith("a b; c")
        assert worker.stop() == 0
    finally:
        worker.kill()
    until(lambda: len(busy.merit("status", "--json").json["fleet"]) == 1, "the worker has left")


def test_an_interrupted_wait_leaves_the_task_alone(busy: Fleet):
    words = ["submit", "nobody_ever", "--wait", "--json", "--server", busy.server]
    waiting = Running(["-m", "merit", *words], busy.folder, "waiting")
    try:
        waiting.says("no connected worker", "err")
        waiting.send(signal.SIGINT)
        assert waiting.ended() == 130
    finally:
        waiting.kill()
    assert json.loads(waiting.out)["error"]["kind"] == "interrupted"
    assert "goes on" in waiting.err
    assert "Traceback" not in waiting.err
    assert len(busy.merit("task", "list", "--capability", "nobody_ever", "--json").json["tasks"]) == 1


def test_a_reader_that_goes_away_is_no_error(busy: Fleet):
    program = 'exec "$0" -m merit journal show --json | head -c 1'
    ran = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {program}", sys.executable],
        cwd=busy.folder,
        env=environment(MERIT_STATE=str(busy.state)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout == "{"
    assert "Traceback" not in ran.stderr
    assert "Exception" not in ran.stderr


def test_map_says_why_nothing_comes_and_what_goes_on(busy: Fleet):
    (busy.folder / "two.jsonl").write_text("{}\n{}\n")
    waiting = Running([*IMPATIENT, "map", "nobody_maps", "two.jsonl", "--server", busy.server], busy.folder, "mapping")
    try:
        waiting.says("no connected worker offers nobody_maps", "err")
        waiting.send(signal.SIGINT)
        assert waiting.ended() == 130
    finally:
        waiting.kill()
    assert "Traceback" not in waiting.err
    assert "2 of 2 tasks were submitted, 0 results have come" in waiting.err
    cancel = next(line for line in waiting.err.splitlines() if line.startswith("  merit "))
    assert busy.merit(*shlex.split(cancel)[1:], "--yes").out == "2 canceled\n"
    states = [one["state"] for one in busy.merit("task", "list", "--capability", "nobody_maps", "--json").json["tasks"]]
    assert states == ["CANCELED", "CANCELED"]


def test_map_says_that_the_control_plane_is_away_and_goes_on(tmp_path: Path):
    with fleet(tmp_path) as made:
        plane = made.up()
        (tmp_path / "one.jsonl").write_text('{"a": 1, "b": 2}\n')
        mapping = Running([*IMPATIENT, "map", "add", "one.jsonl", "--server", made.server], tmp_path, "mapping")
        made.running.append(mapping)
        until(lambda: made.merit("status", "--json").json["pending"] == 1, "the task is taken")
        plane.kill()
        mapping.says(f"the control plane at {made.server} is away", "err")
        made.up()
        made.worker("w1")
        assert mapping.ended() == 0
        assert json.loads(mapping.out)["result"] == 3


def test_map_shows_how_far_it_is_beside_its_results(busy: Fleet):
    ours, theirs = pty.openpty()
    try:
        with (busy.folder / "map.out").open("w") as out:
            ran = subprocess.Popen(
                [sys.executable, "-m", "merit", "map", "add", "-", "--server", busy.server],
                env=environment(TERM="xterm"),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=theirs,
                text=True,
            )
        os.close(theirs)
        assert ran.stdin is not None
        with ran.stdin as lines:
            lines.write("".join(f'{{"a": {n}, "b": 1}}\n' for n in range(100)))
        shown = b"".join(iter(lambda: _read(ours), b""))
        assert ran.wait(60) == 0
    finally:
        os.close(ours)
    results = [json.loads(line)["result"] for line in (busy.folder / "map.out").read_text().splitlines()]
    assert results == [n + 1 for n in range(100)]
    assert b"100/100" in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other end is closed
        return b""
