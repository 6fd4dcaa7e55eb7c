"""What is probably true, by many answers: on seeded sets with known truth, and on public ones where they are at hand.

The public sets (bluebird, rte, dog, cf_weather, d_product; a folder each, with label.csv and truth.csv) are not part of the
project: ``MERIT_CROWD_DATA`` names the folder that has them.
"""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merit.auditing.answers import CLASSES_MAX, AnswerTable
from merit.auditing.dawid_skene import dawid_skene
from merit.auditing.truth import find_truth
from merit.auditing.votes import count_votes, vote_on_all
from merit.lab.bench.votes import LARGE, SHAPES, CrowdShape, mean_scores, read_sets

LIMIT = settings(max_examples=80, deadline=None)
WORDS = st.sampled_from(["a", "b", "c", None])
ANSWERS = st.lists(st.tuples(st.sampled_from("123456"), st.sampled_from("uvwxyz"), WORDS), max_size=40)


def test_the_most_voices_win():
    count = count_votes([("u", "a"), ("v", "b"), ("w", "a")])
    assert (count.winner, count.permille, count.tied, count.silent) == ("a", 666, False, False)
    assert count.votes == (("a", 2_000), ("b", 1_000))


def test_a_tie_is_no_silence_and_an_abstention_no_voice():
    tie = count_votes([("u", "a"), ("v", "b"), ("w", None)])
    assert (tie.winner, tie.tied, tie.silent, tie.leaders, tie.abstained) == (None, True, False, ("a", "b"), 1)
    silence = count_votes([("u", None), ("v", None)])
    assert (silence.winner, silence.tied, silence.silent, silence.abstained) == (None, False, True, 2)
    assert count_votes([]).silent


def test_voices_weigh_what_their_worker_is_worth():
    voices = [("u", "a"), ("v", "b"), ("w", "b")]
    assert count_votes(voices, {"u": 900, "v": 400, "w": 400}).winner == "a"
    assert count_votes(voices, {"u": 900, "v": 450, "w": 450}).tied
    assert count_votes(voices, {"u": 900}).winner == "b"
    nobody = count_votes(voices, {"u": 0, "v": 0, "w": -5})
    assert nobody.silent
    assert nobody.abstained == 3


def test_a_worker_has_one_voice():
    assert count_votes([("u", "a"), ("u", "b"), ("v", "b"), ("u", "b")]).votes == (("b", 2_000),)
    table = AnswerTable([("1", "u", "a"), ("1", "u", "b")])
    assert (table.size, table.classes) == (1, ["b"])


@LIMIT
@given(ANSWERS)
def test_all_ways_live_with_any_answers(answers):
    table = AnswerTable(answers)
    asked = {task for (task, _), word in {(task, who): word for task, who, word in answers}.items() if word}
    votes = vote_on_all(table)
    assert set(votes) == asked
    for found in (find_truth(table), dawid_skene(table)):
        truths = found.truths()
        assert set(truths) == asked
        for task, truth in truths.items():
            said = {table.classes[table.pairs[pair][1]] for pair in table.pairs_of_task[table.tasks.index(task)]}
            assert (truth.answer in said) == truth.given
            assert 0 <= truth.permille <= 1_000
        for one in found.accuracies().values():
            assert 0 <= one.permille <= 1_000
            assert 0 <= one.answers <= len(answers)


def test_it_is_the_same_every_time():
    answers = SHAPES["dense"].made(1).answers
    for way in (find_truth, dawid_skene):
        one, other = way(AnswerTable(answers)), way(AnswerTable(answers))
        assert one.shares == other.shares
        assert one.iterations == other.iterations


def test_a_unanimous_crowd_is_right():
    for way in (find_truth, dawid_skene):
        found = way(AnswerTable([(f"t{task}", f"w{worker}", "yes") for task in range(3) for worker in range(3)]))
        assert {truth.answer for truth in found.truths().values()} == {"yes"}
        assert {one.permille for one in found.accuracies().values()} == {1_000}


def test_a_worker_of_whom_nobody_can_say_anything_gets_no_sample():
    answers = [("1", "u", "a"), ("2", "v", "a"), ("2", "w", "a")]
    accuracies = find_truth(AnswerTable(answers)).accuracies()
    assert (accuracies["u"].permille, accuracies["u"].answers) == (0, 0)
    assert (accuracies["v"].permille, accuracies["v"].answers) == (1_000, 1)


def test_of_equally_likely_answers_it_is_one_that_somebody_gave():
    truths = find_truth(AnswerTable([("1", "u", "a"), ("2", "v", "b")])).truths()
    assert [(truth.answer, truth.given) for truth in truths.values()] == [("a", True), ("b", True)]


def test_what_nobody_said_may_be_true():
    """Two who are known to say no to everything have said no, where nearly all is yes."""
    honest = [(f"t{task}", worker, "no" if task % 10 == 0 else "yes") for task in range(200) for worker in "uvw"]
    naysayers = [(f"t{task}", worker, "no") for task in range(200) for worker in "xy"]
    answers = [*honest, *naysayers, ("alone", "x", "no"), ("alone", "y", "no")]
    found = find_truth(AnswerTable(answers)).truths()["alone"]
    assert (found.answer, found.given) == ("yes", False)


def test_it_says_who_takes_which_for_which():
    answers = CrowdShape(tasks=300, workers=6, each=6, skill=lambda _: 0.9, stubborn=1).made(2).answers
    found = find_truth(AnswerTable(answers))
    first = found.confusion("w0")
    assert set(first) == {"c0", "c1"}
    assert all(row == {"c0": sum(row.values())} for row in first.values())
    second = found.confusion("w1")
    assert all(row[truth] > 4 * (sum(row.values()) - row[truth]) for truth, row in second.items())
    assert abs(sum(sum(row.values()) for row in second.values()) - 300_000) < 10


@pytest.mark.parametrize("way", [find_truth, dawid_skene])
def test_accuracies_are_those_of_the_workers(way):
    """Of workers with 150 answers, to about as much as chance leaves open."""
    shape = CrowdShape(tasks=600, workers=20, each=5, skill=lambda rng: rng.uniform(0.5, 0.95), labels=3)
    made = shape.made(3)
    answers, truth = made.answers, made.truth
    right: dict[str, list[bool]] = {}
    for task, worker, said in answers:
        right.setdefault(worker, []).append(said == truth[task])
    accuracies = way(AnswerTable(answers)).accuracies()
    errors = [abs(accuracies[worker].permille - 1_000 * sum(hits) / len(hits)) for worker, hits in right.items()]
    assert all(accuracies[worker].answers == len(hits) for worker, hits in right.items())
    assert sum(errors) / len(errors) < 35
    assert max(errors) < 110


FEW_TASKS = CrowdShape(tasks=25, workers=8, each=3, skill=lambda rng: rng.uniform(0.6, 0.95))


@pytest.mark.parametrize("kind", SHAPES)
def test_the_default_keeps_up_with_the_better_of_both(kind):
    """In the mean over seeds. Where workers are all alike a vote cannot be beaten, only approached."""
    vote, reference, own = mean_scores([SHAPES[kind].made(seed) for seed in range(20 if kind == "alike" else 6)])
    assert own >= max(vote, reference) - (1.0 if kind == "alike" else 0.5)


def test_it_keeps_up_where_there_is_little_to_learn_from():
    vote, reference, own = mean_scores([FEW_TASKS.made(seed) for seed in range(30)])
    assert own >= max(vote, reference) - 1.5


def test_neither_of_both_would_do():
    vote, reference, own = mean_scores([SHAPES["liars"].made(seed) for seed in range(4)])
    assert min(reference, own) > vote + 8
    vote, reference, own = mean_scores([SHAPES["sparse"].made(seed) for seed in range(4)])
    assert min(vote, own) > reference + 8


def test_with_too_many_different_answers_it_is_a_vote():
    answers = [(f"t{task}", f"w{worker}", f"{task} {worker // 2}") for task in range(40) for worker in range(3)]
    assert len(AnswerTable(answers).classes) > CLASSES_MAX
    found = find_truth(AnswerTable(answers))
    assert {task: truth.answer for task, truth in found.truths().items()} == {f"t{n}": f"{n} 0" for n in range(40)}
    assert found.truths()["t0"].permille == 667
    with pytest.raises(ValueError, match=r"there are 80 different answers; .* up to 32"):
        dawid_skene(AnswerTable(answers))


def test_likelihoods_that_no_float_can_hold():
    """A thousand workers on each task."""
    for labels in (2, 4):
        shape = CrowdShape(tasks=12, workers=1_000, each=1_000, skill=lambda _: 0.8, labels=labels)
        assert shape.made(5).scores() == (100, 100, 100)


def test_it_is_quick():
    """A second of the processor for 25,000 answers, with room for machines that are slower."""
    answers = LARGE.made(7).answers
    began = time.process_time()
    table = AnswerTable(answers)
    vote_on_all(table)
    dawid_skene(table)
    find_truth(table).accuracies()
    assert time.process_time() - began < 4


PUBLIC = {
    "bluebird": (75.9, 88.9),
    "rte": (87.5, 92.8),
    "dog": (81.2, 84.3),
    "cf_weather": (88.0, 83.0),
    "d_product": (89.7, 94.0),
}
"""Right by a majority and by Dawid and Skene, in per cent, as crowd-kit reckons it."""


@pytest.mark.skipif("MERIT_CROWD_DATA" not in os.environ, reason="MERIT_CROWD_DATA names no folder with public sets")
@pytest.mark.parametrize("name", PUBLIC)
def test_on_public_sets(name):
    vote, reference, own = read_sets(Path(os.environ["MERIT_CROWD_DATA"]))[name].scores()
    assert (round(vote, 1), round(reference, 1)) == PUBLIC[name]
    assert own >= max(vote, reference) - 0.5
