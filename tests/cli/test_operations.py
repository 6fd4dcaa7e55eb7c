"""`merit queue`, `merit dead` and `merit schedule` against a real control plane and a real worker."""

import json
import os
import pty
import subprocess
import sys

from tests.merit_command import Fleet, Running, environment, until


def test_a_queue_is_listed_shown_paused_and_resumed(busy: Fleet):
    assert busy.merit("queue", "pause", "hello", "--reason", "a rest").out == "hello paused\n"
    task = busy.merit("submit", "hello", "input=x", "--tenant", "acme").out.strip()
    assert "paused: a rest" in busy.merit("task", "show", task).out
    (view,) = [one for one in busy.merit("queue", "list", "--json").json["queues"] if one["capability"] == "hello"]
    assert (view["pending"], view["workers"], view["paused"], view["pause_reason"]) == (1, 1, True, "a rest")
    heading, *rows = busy.merit("queue", "list").out.splitlines()
    row = next(row for row in rows if row.startswith("hello "))
    assert row.index("a rest") == heading.index("PAUSED")
    shown = busy.merit("queue", "show", "hello", "--json").json
    assert shown["tenants"] == [{"tenant": "acme", "pending": 1, "running": 0, "weight": 1}]
    assert "acme" in busy.merit("queue", "show", "hello").out
    assert busy.merit("queue", "resume", "hello", "--json").json == {"capability": "hello", "paused": False}
    assert busy.merit("task", "follow", task, "--tenant", "acme").out.endswith("hello x\n")


def test_limits_are_set_listed_and_ended(busy: Fleet):
    words = ["queue", "limit", "--key-of", "hello"]
    assert busy.merit(*words, "--concurrency", "2").out == "each key of hello: 2 at once\n"
    ran = busy.merit("queue", "limit", "--capability", "hello", "--rate", "90/m", "--burst", "3", "--json")
    assert ran.json == {"kind": "CAPABILITY", "name": "hello", "concurrency": None, "rate_hz": 1.5, "burst": 3}
    busy.merit("queue", "limit", "--tenant", "acme", "--rate", "30/h")
    limits = busy.merit("queue", "limits", "--json").json["limits"]
    assert [(one["kind"], one["name"]) for one in limits] == [
        ("CAPABILITY", "hello"),
        ("TENANT", "acme"),
        ("KEY", "hello"),
    ]
    assert [line.split()[0] for line in busy.merit("queue", "limits").out.splitlines()[1:]] == [
        "capability",
        "tenant",
        "each",
    ]
    assert "1.5/s (burst 3); each key: 2 at once" in busy.merit("queue", "list").out
    for option, name in (("--capability", "hello"), ("--tenant", "acme"), ("--key-of", "hello")):
        assert busy.merit("queue", "limit", option, name, "--none").out.endswith("no limit\n")
    assert busy.merit("queue", "limits").err == "merit: no limits\n"


def test_shares(busy: Fleet):
    assert (
        busy.merit("queue", "share", "acme", "--weight", "3", "--live-max", "5").out
        == "acme: weight 3, 5 tasks at most\n"
    )
    (view,) = [one for one in busy.merit("queue", "shares", "--json").json["tenants"] if one["tenant"] == "acme"]
    assert view == {"tenant": "acme", "weight": 3, "live_max": 5, "live": 0}
    assert "acme" in busy.merit("queue", "shares").out
    assert busy.merit("queue", "share", "acme", "--json").json == {"tenant": "acme", "weight": 1, "live_max": None}


def test_dead_letters_are_listed_shown_tried_again_and_purged(busy: Fleet):
    words = ["submit", "boom", "--attempts", "1", "--label", "of=dead", "--wait", "--json"]
    one, two, three = (busy.merit(*words).json["id"] for _ in range(3))
    listed = busy.merit("dead", "list", "--label", "of=dead", "--json").json["tasks"]
    assert [view["id"] for view in listed] == [three, two, one]
    rows = busy.merit("dead", "list", "--label", "of=dead").out.splitlines()[1:]
    assert all("no such luck" in row for row in rows)
    more = busy.merit("dead", "list", "--label", "of=dead", "--limit", "2")
    assert "--cursor" in more.err
    assert "no such luck" in busy.merit("dead", "show", one).out
    assert busy.merit("dead", "show", one, "--json").json["dead_letter"]

    ran = busy.merit("dead", "retry", one, one.replace("0", "1"), "--json")
    assert ran.code == 1
    (pair,) = ran.json["retried"]
    assert pair["dead"] == one
    assert [refused["kind"] for refused in ran.json["refused"]] == ["not_found"]
    assert busy.merit("task", "show", pair["task"], "--json").json["terms"]["origin"] == one
    assert f"tried again as {pair['task']}" in busy.merit("task", "show", one).out

    ran = busy.merit("dead", "purge", "--label", "of=dead")
    assert (ran.code, ran.out) == (2, "")
    assert "nothing was done: say it again with --yes" in ran.err
    ran = busy.merit("dead", "retry", "--label", "of=dead", "--text", "luck", "--until", "0.001s", "--yes")
    assert all(" is tried again as " in line for line in ran.out.splitlines())
    until(
        lambda: len(busy.merit("dead", "list", "--label", "of=dead", "--json").json["tasks"]) == 3, "all are dead again"
    )
    assert busy.merit("dead", "purge", two).code == 1  # it was tried again: nothing is left of it to purge
    assert len(busy.merit("dead", "purge", "--label", "of=dead", "--json").json["purged"]) == 3
    assert busy.merit("dead", "list", "--label", "of=dead").err == "merit: no dead letters with --label of=dead\n"
    assert busy.merit("dead", "purge", "--all", "--yes").code == 0


def test_a_schedule_is_added_shown_paused_run_and_removed(busy: Fleet):
    words = ["schedule", "add", "nightly", "0 3 * * *", "add", "a:=1", "b:=2", "--zone", "Europe/Berlin"]
    ran = busy.merit(*words, "--overlap", "allow", "--missed", "skip", "--priority", "high", "--label", "who=cron")
    assert ran.out.startswith("nightly: next at 20")
    view = busy.merit("schedule", "show", "nightly", "--json").json
    assert (view["overlap"], view["missed"], view["priority"]) == ("ALLOW", "SKIP", "HIGH")
    assert (view["parameters"], view["terms"]) == ({"a": 1, "b": 2}, {"labels": {"who": "cron"}})
    assert len(view["next"]) == 4
    task = busy.merit("schedule", "run", "nightly").out.strip()
    assert busy.merit("task", "follow", task, "--json").json["result"] == 3
    assert busy.merit("schedule", "pause", "nightly", "--json").json == {"name": "nightly", "paused": True}
    assert "paused" in busy.merit("schedule", "list").out
    shown = busy.merit("schedule", "show", "nightly").out
    assert "labels      who=cron" in shown
    assert f"last task   {task}" in shown
    assert busy.merit("schedule", "resume", "nightly").out.startswith("nightly: next at 20")
    view = busy.merit("schedule", "show", "nightly", "--json").json
    assert (view["paused"], view["made"], view["last_task"], view["terms"]) == (
        False,
        1,
        task,
        {"labels": {"who": "cron"}},
    )
    listed = busy.merit("task", "list", "--schedule", "nightly", "--json").json["tasks"]
    assert [one["id"] for one in listed] == [task]
    assert busy.merit("schedule", "remove", "nightly").out == "nightly removed\n"
    assert busy.merit("schedule", "list", "--json").json == {"schedules": []}
    assert busy.merit("schedule", "list").err.startswith("merit: no schedules")


def test_a_schedule_makes_tasks_by_itself(busy: Fleet):
    busy.merit("schedule", "add", "often", "* * * * * *", "add", "a:=1", "b:=1")
    until(lambda: busy.merit("schedule", "show", "often", "--json").json["made"] > 1, "two were made")
    assert busy.merit("schedule", "remove", "often", "--json").json == {"name": "often", "removed": True}


def test_tasks_by_filter(busy: Fleet):
    ids = [
        busy.merit("submit", "nobody_filters", "--label", f"n={n}", "--tenant", "acme").out.strip() for n in range(3)
    ]
    some = ["--capability", "nobody_filters", "--tenant", "acme"]
    listed = busy.merit("task", "list", *some, "--since", "1h", "--all", "--json").json
    assert ([view["id"] for view in listed["tasks"]], listed["next_cursor"]) == (ids[::-1], "")
    assert [line.split()[0] for line in busy.merit("task", "list", *some, "--all").out.splitlines()] == [
        "ID",
        *ids[::-1],
    ]
    assert busy.merit("task", "list", *some, "--label", "n=1", "--json").json["tasks"][0]["id"] == ids[1]
    assert busy.merit("task", "list", *some, "--until", "1h").err.startswith("merit: no tasks with --capability")
    assert busy.merit("task", "list", *some, "--state", "running", "--state", "waiting", "--json").json["tasks"] == []
    ran = busy.merit("task", "cancel", "--capability", "nobody_filters", "--tenant", "acme")
    assert ran.code == 2
    assert "3 tasks will be canceled; nothing was done: say it again with --yes" in ran.err
    assert busy.merit("task", "cancel", "--capability", "nobody_filters", "--json").json == {
        "canceled": 0
    }  # of default
    assert busy.merit("task", "cancel", "--label", "n=0", "--tenant", "acme", "--json").json == {"canceled": 1}
    assert busy.merit("task", "cancel", *some, "--yes").out == "2 canceled\n"


def test_who_is_there_is_asked_before_many_are_canceled(busy: Fleet):
    busy.merit("submit", "nobody_asks")
    for answer, said in (("n\n", b"nothing was done"), ("y\n", b"1 canceled")):
        ours, theirs = pty.openpty()
        ran = subprocess.Popen(
            [sys.executable, "-m", "merit", "task", "cancel", "--capability", "nobody_asks", "--server", busy.server],
            env=environment(TERM="dumb"),
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        os.close(theirs)
        os.write(ours, answer.encode())
        output = ran.communicate(timeout=60)[0]
        os.close(ours)
        assert b"1 task will be canceled. Go on?" in output
        assert said in output
        assert ran.returncode == (1 if answer == "n\n" else 0)


def test_options_of_a_task_are_kept_and_shown(busy: Fleet):
    first = busy.merit("submit", "hello", "input=first", "--wait", "--tenant", "acme", "--json").json["id"]
    words = ["--priority", "high", "--timeout", "2h", "--run-timeout", "90", "--queue-timeout", "30m"]
    words += ["--heartbeat-timeout", "10s", "--estimate", "250ms", "--retry", "timed-out=0", "--retry", "lost=2"]
    words += ["--backoff", "1s", "--backoff-max", "1m", "--not-safe-to-repeat", "--key", "k"]
    words += ["--idempotency-key", "once"]
    words += ["--label", "team=blue", "--description", "said", "--delay", "1h", "--deadline", "90m", "--after", first]
    words += ["--input", f"input={first}", "--despite-dead", "--attempts", "7", "--tenant", "acme"]
    task = busy.merit("submit", "hello", *words).out.strip()
    view = busy.merit("task", "show", task, "--json").json
    assert (view["priority"], view["tenant"], view["run_timeout_s"], view["attempts_max"]) == ("HIGH", "acme", 90, 7)
    terms = view["terms"]
    assert (terms.pop("not_before") < terms.pop("deadline"), view["description"]) == (True, "said")
    assert terms == {
        "queue_timeout_s": 1800,
        "heartbeat_timeout_s": 10,
        "estimate_s": 0.25,
        "retry": {"timed_out": 0, "lost": 2, "backoff_s": 1, "backoff_s_max": 60},
        "safe_to_repeat": False,
        "key": "k",
        "idempotency_key": "once",
        "labels": {"team": "blue"},
        "inputs": {"input": first},
        "despite_dead": True,
    }
    shown = busy.merit("task", "show", task).out
    assert f"input       input = the result of {first}" in shown
    assert "limits      1m30s a run, 10s without progress, 30m in the queue, 7 attempts" in shown
    assert "it is delayed until" in shown
    once = ["--idempotency-key", "once", "--tenant", "acme"]
    ran = busy.merit("submit", "hello", "input=another", *once, "--json")
    assert (ran.code, ran.json["error"]["kind"], ran.json["error"]["field"]) == (1, "conflict", "terms.idempotency_key")
    busy.merit("task", "cancel", task, "--tenant", "acme")


def followed_until_it_is_heard(busy: Fleet, where: str, *options: str) -> Running:
    words = ["-m", "merit", "submit", "speaks", "--follow", *options, "--server", busy.server]
    following = Running(words, busy.folder, f"following-{where}")
    following.says("line one", where)
    (busy.folder / "heard").touch()
    assert following.ended() == 0
    return following


def test_steps_are_followed(busy: Fleet):
    heard = followed_until_it_is_heard(busy, "err")
    assert heard.out == "done\n"
    steps = heard.err.splitlines()
    assert any("RUNNING  attempt 1 on w1" in line for line in steps)
    assert any("50%  half of it" in line for line in steps)
    assert any(" | " in line and "line one" in line for line in steps)
    assert "COMPLETED  after 1 attempt" in steps[-1]
    followed = json.loads(followed_until_it_is_heard(busy, "out", "--json").out)
    assert followed["result"] == "done"
    assert [step["state"] for step in followed["steps"]][-1] == "COMPLETED"
    late = busy.merit("task", "follow", followed["id"], "--json").json
    assert [step["state"] for step in late["steps"]] == ["COMPLETED"]
    ran = busy.merit("submit", "boom", "--attempts", "1", "--follow")
    assert (ran.code, ran.out) == (1, "")
    assert "no such luck" in ran.err
    waits = busy.merit("submit", "nobody_follows").out.strip()
    ran = busy.merit("task", "follow", waits, "--wait-timeout", "200ms", "--json")
    assert (ran.code, ran.json["error"]["kind"]) == (4, "timeout")
    assert [step["state"] for step in ran.json["steps"]] == ["PENDING"]


def test_a_bar_shows_progress_on_a_terminal(busy: Fleet):
    ours, theirs = pty.openpty()
    ran = subprocess.Popen(
        [sys.executable, "-m", "merit", "submit", "speaks", "--follow", "--server", busy.server],
        env=environment(TERM="xterm"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65_536):
            shown += data
            if b"half of it" in shown:
                (busy.folder / "heard").touch()
    except OSError:  # the other end is closed
        pass
    assert ran.communicate(timeout=60)[0] == b"done\n"
    os.close(ours)
    assert b"50%" in shown
    assert b"half of it" in shown


def test_a_submit_that_finds_no_room_says_so_and_waits_for_it(busy: Fleet):
    busy.merit("queue", "share", "small", "--live-max", "1")
    task = busy.merit("submit", "nobody_has_room", "--tenant", "small").out.strip()
    words = ["-m", "merit", "submit", "hello", "input=x", "--tenant", "small", "--wait", "--server", busy.server]
    waiting = Running(words, busy.folder, "no-room")
    try:
        waiting.says("has no room for it", "err")
        busy.merit("task", "cancel", task, "--tenant", "small")
        assert waiting.ended() == 0
        assert waiting.out == "hello x\n"
    finally:
        waiting.kill()


def test_map_takes_the_options(busy: Fleet):
    lines = "".join(f'{{"a": {n}, "b": 1}}\n' for n in range(3))
    words = ["map", "add", "-", "--label", "from=map", "--key", "k", "--tenant", "acme", "--timeout", "5m"]
    assert len(busy.merit(*words, given=lines).out.splitlines()) == 3
    listed = busy.merit("task", "list", "--label", "from=map", "--tenant", "acme", "--json").json["tasks"]
    assert [view["terms"] for view in listed] == [{"key": "k", "labels": {"from": "map"}}] * 3
    assert json.loads(busy.merit(*words, given=lines).out.splitlines()[0])["result"] == 1
