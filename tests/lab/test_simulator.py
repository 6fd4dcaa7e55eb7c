"""The simulator: the product passes, planted bugs do not, and what it says can be relied on."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache

import pytest
from click.testing import CliRunner

from merit.cli.lab import lab
from merit.lab.planted import PLANTS
from merit.lab.simulator import Campaign, SeedFailure, campaign, simulate

SEEDS = 300
SEEDS_PLANTED_MAX = 800
"""Each is found in the first hundred or so now, and worlds change whenever somebody draws once more."""

MET = {
    "CancelTasks carried out",
    "DrainWorker carried out",
    "DrainWorker refused",
    "EndRollout carried out",
    "EndRollout refused",
    "PauseQueue carried out",
    "PauseWorker carried out",
    "PauseWorker refused",
    "PurgeDead carried out",
    "RemoveSchedule carried out",
    "RemoveWorker carried out",
    "ResumeQueue carried out",
    "ResumeWorker carried out",
    "ResumeWorker refused",
    "RetryDead carried out",
    "RetryDead refused",
    "RunSchedule carried out",
    "RunSchedule refused",
    "SetAdmission carried out",
    "SetAllocation carried out",
    "SetAllocation refused",
    "SetRule carried out",
    "SetSchedule carried out",
    "SetTenant carried out",
    "StartRollout carried out",
    "StartRollout refused",
    "TellWorker carried out",
    "TellWorker refused",
    "all decisions explained",
    "append fenced",
    "append refused",
    "append unknown, lost",
    "append unknown, stored",
    "attempt called off",
    "attempt ended: LOST",
    "attempt ended: REFUSED",
    "attempt ended: TIMED_OUT",
    "attempt fell silent",
    "attempt handed back",
    "attempt hangs",
    "attempt shows nothing",
    "cancel",
    "client crash",
    "client gone for good",
    "clock jumps",
    "clock stands still",
    "command heard",
    "completed after a delay",
    "completed under a key",
    "completed with inputs",
    "connection broken",
    "crash after append, before committed",
    "crash after committed, before frames",
    "crash after step, before append",
    "crash between frames",
    "crash with follow-ups to come",
    "dead letter purged",
    "dead letter tried again",
    "demand",
    "dependency",
    "despite dead",
    "died: deadline",
    "died: dependency",
    "died: heartbeat",
    "died: not safe to repeat",
    "died: queue_timeout",
    "died: retry policy",
    "end of the read model lost",
    "estimate",
    "final tasks found",
    "follower ended: JournalCorrupt",
    "follower ended: Superseded",
    "follower ends in an orderly way",
    "follower killed after add_anchor",
    "follower killed after write",
    "follower killed before save",
    "follower killed between steps",
    "follower lags",
    "followers that are rivals",
    "frame lost",
    "frame overtaken",
    "frame repeated",
    "given at home",
    "given behind a wall",
    "given by a rollout",
    "given to the other side",
    "given to the side it was dealt to",
    "given with a demand",
    "given with resources",
    "group",
    "half-open stream",
    "journal compacted",
    "key looked up",
    "key not to be had",
    "known by its idempotency key",
    "leadership lost",
    "limit reached: CAPABILITY",
    "limit reached: KEY",
    "limit reached: TENANT",
    "list walked through",
    "log line heard",
    "lookup fails",
    "lookup",
    "moment of the past",
    "one task needed by many",
    "partition",
    "probe given",
    "process sleeps",
    "protocol violation seen by cell",
    "protocol violation seen by peer",
    "record misread",
    "refused: batch",
    "refused: conflict",
    "refused: exhausted",
    "refused: invalid",
    "refused: not_found",
    "restart",
    "result expired",
    "schedule made a task",
    "schedule passed over: missed",
    "schedule passed over: no room",
    "schedule passed over: overlap",
    "single",
    "snapshot damaged",
    "something lacking in a list",
    "start from a compacted journal",
    "start from snapshot",
    "step heard",
    "stream refused",
    "submitted again after a refusal",
    "submitted again, looked up",
    "task followed",
    "task of another tenant watched",
    "task of somebody else watched",
    "task that nobody can do",
    "times worked out",
    "trail of a compacted task",
    "trail",
    "waiting task explained",
    "whole list read",
    "worker admitted",
    "worker changed in its place",
    "worker comes as another",
    "worker crash",
    "worker drains",
    "worker kept free for a task",
    "worker leaves",
    "worker lies",
    "worker not admitted",
    "worker offers something else",
    "worker refused for good",
    "worker resumes with attempts",
    "worker resumes",
    "worker starts under another name",
    "worker with the name of another",
    "SetAudit carried out",
    "SetSupervision carried out",
    "SetSupervision refused",
    "JudgeWorker carried out",
    "JudgeWorker refused",
    "audit begun",
    "audit broken, accepted",
    "audit broken, not accepted",
    "audit: another answer counts",
    "audit: right by COPY",
    "audit: right by JUDGE",
    "audit: wrong by COPY",
    "audit: wrong by JUDGE",
    "gold: right",
    "gold: wrong",
    "attempt ended: REJECTED",
    "died: audit_broken",
}


@cache
def worlds() -> Campaign:
    total = Campaign()
    assert len(list(campaign(range(SEEDS), total))) == SEEDS
    return total


def found(plant: str, check: str) -> SeedFailure:
    seen: Counter[str | None] = Counter()
    for result in campaign(range(SEEDS_PLANTED_MAX), Campaign(), PLANTS[plant], failures_max=SEEDS_PLANTED_MAX):
        if result.failure is not None and result.failure.check == check:
            return result.failure
        seen[result.failure.check if result.failure else None] += 1
    pytest.fail(f"{plant} was not found by {check!r} in {SEEDS_PLANTED_MAX} worlds; what was seen: {seen}")


def test_the_product_keeps_its_promises():
    assert worlds().failures == []
    assert worlds().seeds == SEEDS


def test_every_kind_of_trouble_is_met():
    assert MET - worlds().coverage.keys() == set()


@pytest.mark.parametrize(
    ("plant", "check"),
    [
        ("acknowledge-before-durable", "durable first"),
        ("forget-attempt-check", "stale report"),
        ("drop-report-ack", "acknowledgements"),
        ("reuse-journal-sequence", "journal sequence"),
        ("reuse-link-sequence", "link sequence"),
        ("forget-effects", "liveness"),
        ("double-credit", "credits"),
        ("limit-not-released", "invariants"),
        ("limit-forgotten-by-new-leader", "limit"),
        ("ignore-rate", "rate"),
        ("retry-unsafe", "not safe to repeat"),
        ("ignore-retry-policy", "retry policy"),
        ("forget-keys", "one task per key"),
        ("double-fire", "schedule"),
        ("forget-delay", "delay"),
        ("forget-deadline", "deadline"),
        ("lose-inputs", "inputs"),
        ("deaf-followers", "followers"),
        ("serve-paused", "takes nothing"),
        ("ignore-walls", "walls"),
        ("keep-resources", "invariants"),
        ("overcommit", "resources"),
        ("overcommit", "concurrency"),
        ("admit-removed", "removed"),
        ("forget-homes", "home"),
        ("serve-aborted", "rollout"),
        ("unsaid-room", "room"),
        ("never-move", "liveness"),
        ("choose-by-chance", "explain"),
        ("forget-words", "words"),
        ("drain-once", "liveness"),
        ("unproven", "admission"),
        ("serve-broken", "takes nothing"),
        ("judge-pinned", "pinned"),
        ("forget-breakers", "invariants"),
        ("review-oneself", "audit"),
        ("accept-rejected", "audit"),
        ("forget-cases", "invariants"),
        ("double-gold", "gold"),
        ("forget-gold", "invariants"),
        ("look-in-vain", "audit"),
        ("copy-unsafe", "audit"),
        ("blame-the-right", "audit"),
        ("judge-by-now", "audit"),
        ("portion-of-anybody", "read model"),
        ("reached-before-rows", "read model"),
        ("believe-the-disk", "snapshots"),
        ("snapshot-of-the-next", "snapshots"),
        ("compact-too-far", "verify"),
        ("compact-the-young", "compaction"),
        ("compact-the-unknown", "compaction"),
        ("archive-later", "compaction"),
        ("rely-on-one", "compaction"),
        ("thin-out-the-beginning", "compaction"),
        ("go-on-behind-a-failure", "follower"),
        ("wrong-base", "follower"),
        ("compact-though-deposed", "fenced"),
        ("skip-in-anchor", "anchors"),
        ("lack-in-silence", "pages"),
        ("forgotten-in-pages", "pages"),
        ("search-the-journal-only", "found"),
        ("forget-keys-of-old", "found"),
        ("forget-keys-of-final", "found"),
        ("forget-keys-of-late-ends", "found"),
        ("begin-where-the-snapshot-is", "read model"),
    ],
)
def test_a_planted_bug_is_found_by_the_right_check(plant, check):
    assert found(plant, check).events


def test_every_plant_is_tested():
    [mark] = [mark for mark in test_a_planted_bug_is_found_by_the_right_check.pytestmark if mark.name == "parametrize"]
    assert {plant for plant, _ in mark.args[1]} == set(PLANTS)


@pytest.mark.parametrize("plant", [None, "forget-attempt-check"])
def test_the_same_seed_gives_the_same_world(plant):
    for seed in range(5):
        first = simulate(seed, PLANTS[plant] if plant else None)
        second = simulate(seed, PLANTS[plant] if plant else None)
        assert first == second


def test_a_world_does_not_depend_on_how_strings_are_hashed():
    code = "from merit.lab.simulator import simulate; print([simulate(seed).digest for seed in range(20)])"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1")
    }
    assert len(digests) == 1


def test_different_seeds_give_different_worlds():
    assert Counter(simulate(seed).digest for seed in range(10)).most_common(1)[0][1] == 1


def test_a_plant_is_gone_afterwards():
    for plant in PLANTS.values():
        simulate(0, plant)
    assert simulate(0).failure is None


def test_the_failure_tells_the_story_of_what_it_is_about():
    failure = found("forget-attempt-check", "stale report")
    assert any("TaskSubmitted" in line and failure.about in line for line in failure.story)
    assert 0 < len(failure.events) <= 30


def test_a_world_that_does_not_come_to_rest_is_a_finding():
    failure = simulate(0, steps_max=50).failure
    assert failure is not None
    assert failure.check == "liveness"


def test_command_line_as_json():
    outcome = CliRunner().invoke(lab, ["simulate", "--seeds", "3", "--json"])
    assert outcome.exit_code == 0
    said = json.loads(outcome.stdout)
    assert said["seeds"] == 3
    assert said["failures"] == []
    assert said["coverage"]
    assert said["seconds"] > 0


def test_command_line_with_a_plant_fails_and_says_how_to_see_it_again():
    outcome = CliRunner().invoke(lab, ["simulate", "--seeds", "3", "--plant", "reuse-link-sequence"])
    assert outcome.exit_code == 1
    assert re.search(r"again: merit lab simulate --seed \d --plant reuse-link-sequence\n", outcome.stdout)


def test_command_line_reproduces_one_seed():
    arguments = ["simulate", "--seed", "0", "--plant", "drop-report-ack", "--json"]
    first, second = (json.loads(CliRunner().invoke(lab, arguments).stdout) for _ in range(2))
    assert first["seeds"] == 1
    assert first["failures"] == second["failures"] != []
