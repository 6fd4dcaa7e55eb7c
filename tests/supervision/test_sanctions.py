import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from merit.model.limits import SECOND_NS
from merit.model.supervision import DAY_NS, FACTOR_MAX, FACTOR_MIN, Policy, Stage, Verdict
from merit.model.track_record import Rating
from merit.supervision.engine import Opinion
from merit.supervision.sanctions import Dossier, sanctions, wait_ns

POLICY = Policy()
NOW_NS = 1_700_000_000 * SECOND_NS
REWARD, PUNISH = Opinion(Verdict.REWARD, "good"), Opinion(Verdict.PUNISH, "bad", (("score", 1),))


def verdicts(case, opinion=None, policy=POLICY, now_ns=NOW_NS):
    return [sanction.verdict for sanction in sanctions(case, opinion, policy, now_ns)]


def factor(case, opinion, policy=POLICY):
    return sanctions(case, opinion, policy, NOW_NS)[-1].factor


def test_a_reward_makes_the_factor_larger_and_a_punishment_smaller():
    assert factor(Dossier(), REWARD) == 1_100
    assert factor(Dossier(), PUNISH) == 900
    assert factor(Dossier(factor=1_950), REWARD) == FACTOR_MAX
    assert factor(Dossier(factor=105), PUNISH) == FACTOR_MIN
    # However small the factor and the step: it moves.
    assert factor(Dossier(factor=101), REWARD, Policy(reward_permille=1)) == 102
    assert factor(Dossier(factor=101), PUNISH, Policy(punish_permille=1)) == 100


def test_who_has_all_is_given_no_more():
    assert sanctions(Dossier(factor=FACTOR_MAX), REWARD, POLICY, NOW_NS) == []


def test_a_decision_has_its_evidence():
    (one,) = sanctions(Dossier(punishments=1), PUNISH, POLICY, NOW_NS)
    assert (one.verdict, one.factor, one.reason) == (Verdict.PUNISH, 900, "bad")
    assert one.figures == (("score", 1), ("punishments", 2))


def test_a_pause_takes_enough_punishments_in_a_row_and_a_small_factor():
    assert verdicts(Dossier(factor=555, punishments=1), PUNISH) == [Verdict.PUNISH]
    assert verdicts(Dossier(factor=556, punishments=2), PUNISH) == [Verdict.PUNISH]  # 0.5 is not below 0.5
    assert verdicts(Dossier(factor=555, punishments=2), PUNISH) == [Verdict.PUNISH, Verdict.PAUSE]
    assert verdicts(Dossier(factor=1_000, punishments=9), PUNISH) == [Verdict.PUNISH]


def test_the_third_pause_within_a_day_is_the_last():
    case = Dossier(factor=200, punishments=2, pauses=(NOW_NS - DAY_NS + 1, NOW_NS - 1), authorised=True)
    punished, out, revoked = sanctions(case, PUNISH, POLICY, NOW_NS)
    assert [punished.verdict, out.verdict, revoked.verdict] == [Verdict.PUNISH, Verdict.DEACTIVATE, Verdict.REVOKE]
    assert out.factor == punished.factor == 180
    assert "third time within a day" in out.reason
    assert verdicts(replace(case, pauses=(NOW_NS - DAY_NS, NOW_NS - 1)), PUNISH) == [Verdict.PUNISH, Verdict.PAUSE]


def test_whoever_is_caught_cheating_is_out_at_once_whatever_else():
    for stage in (Stage.ACTIVE, Stage.PAUSED, Stage.PROBATION):
        case = Dossier(stage=stage, cheating="it copied w2", decided_ns=NOW_NS, only_for="ocr")
        (out,) = sanctions(case, REWARD, POLICY, NOW_NS)
        assert out.verdict is Verdict.DEACTIVATE
        assert out.reason == "it was caught cheating: it copied w2; nobody is left for ocr"


@pytest.mark.parametrize("stage", Stage)
def test_nothing_is_decided_about_whom_a_person_has_pinned(stage):
    case = Dossier(stage=stage, pinned=True, cheating="yes", wrong=3, rating=Rating(0, 0, 0), authorised=True)
    assert sanctions(case, PUNISH, POLICY, NOW_NS) == []


def test_whoever_is_out_stays_out():
    assert sanctions(Dossier(stage=Stage.OUT, right=9, score=100_000, backlog=9), REWARD, POLICY, NOW_NS) == []


def test_there_is_a_cool_down_whatever_the_engine_says():
    case = Dossier(decided_ns=NOW_NS - POLICY.cool_down_ns + 1)
    assert verdicts(case, PUNISH) == []
    assert verdicts(case, PUNISH, now_ns=NOW_NS + 1) == [Verdict.PUNISH]


def test_the_last_of_a_capability_is_not_paused_and_it_is_said():
    case = Dossier(factor=200, punishments=5, pauses=(NOW_NS - 2, NOW_NS - 1), only_for="ocr")
    (kept,) = sanctions(case, PUNISH, POLICY, NOW_NS)
    assert (kept.verdict, kept.factor) == (Verdict.PUNISH, 180)
    assert kept.reason == "bad; it would be paused, but nobody else is left for ocr"
    # When nothing is left to take, it is said now and then, not every time.
    least = replace(case, factor=FACTOR_MIN, decided_ns=NOW_NS - POLICY.pause_ns)
    assert verdicts(least, PUNISH) == [Verdict.PUNISH]
    assert verdicts(least, PUNISH, now_ns=NOW_NS - 1) == []


def test_a_paused_worker_comes_back_when_its_score_has_recovered_and_work_waits():
    case = Dossier(
        stage=Stage.PAUSED, since_ns=NOW_NS - POLICY.pause_ns, score=70_000, backlog=1, pauses=(1, 2, NOW_NS - 5)
    )
    assert verdicts(case) == [Verdict.RESTORE]
    assert verdicts(case, now_ns=NOW_NS - 1) == []
    later = replace(case, pauses=(NOW_NS - 9, NOW_NS - 5))
    assert verdicts(replace(later, score=69_999)) == []
    assert verdicts(replace(later, backlog=0)) == []


def test_a_paused_worker_may_prove_itself_when_its_wait_is_over():
    case = Dossier(stage=Stage.PAUSED, since_ns=NOW_NS, pauses=(NOW_NS,))
    assert verdicts(case, now_ns=NOW_NS + POLICY.pause_ns - 1) == []
    assert verdicts(case, now_ns=NOW_NS + POLICY.pause_ns) == [Verdict.PROBATION]
    assert [wait_ns(replace(case, relapses=count), POLICY, NOW_NS) // SECOND_NS for count in (0, 1, 2, 50)] == [
        60,
        120,
        240,
        24 * 3_600,
    ]
    assert wait_ns(replace(case, pauses=(NOW_NS, NOW_NS)), POLICY, NOW_NS) == 2 * POLICY.pause_ns


def test_on_probation_canaries_decide():
    case = Dossier(stage=Stage.PROBATION, since_ns=NOW_NS)
    assert verdicts(replace(case, right=2), PUNISH) == []
    assert verdicts(replace(case, right=3), PUNISH) == [Verdict.RESTORE]
    assert verdicts(replace(case, right=2, wrong=1), REWARD) == [Verdict.PAUSE]


def test_a_capability_of_which_nobody_is_left_gets_back_whoever_was_paused():
    case = Dossier(stage=Stage.PAUSED, since_ns=NOW_NS, only_for="ocr")
    (back,) = sanctions(case, None, POLICY, NOW_NS)
    assert (back.verdict, back.reason) == (Verdict.PROBATION, "it was paused, but nobody else is left for ocr")
    failing = Dossier(stage=Stage.PROBATION, since_ns=NOW_NS, decided_ns=NOW_NS, wrong=1, only_for="ocr")
    assert verdicts(failing) == []
    assert verdicts(failing, now_ns=NOW_NS + POLICY.pause_ns) == [Verdict.PUNISH]


def test_proven_workers_are_authorised_and_a_little_doubt_does_not_take_it_away():
    proven = Dossier(rating=Rating(950, 900, 980), checked=20)
    assert verdicts(proven) == [Verdict.AUTHORISE]
    assert verdicts(replace(proven, checked=19)) == []
    assert verdicts(replace(proven, rating=Rating(950, 899, 980))) == []
    trusted = replace(proven, authorised=True)
    assert verdicts(trusted) == []
    assert verdicts(replace(trusted, rating=Rating(900, 850, 950))) == []
    assert verdicts(replace(trusted, rating=Rating(900, 849, 950))) == [Verdict.REVOKE]
    assert verdicts(proven, REWARD) == [Verdict.REWARD, Verdict.AUTHORISE]


def test_reset_and_retrain_pass_through():
    for verdict in (Verdict.RESET, Verdict.RETRAIN):
        (one,) = sanctions(Dossier(factor=777), Opinion(verdict, "why", (("a", 1),)), POLICY, NOW_NS)
        assert (one.verdict, one.factor, one.reason, one.figures) == (verdict, 777, "why", (("a", 1),))


times = st.integers(NOW_NS - 3 * DAY_NS, NOW_NS)
cases = st.builds(
    Dossier,
    factor=st.integers(FACTOR_MIN, FACTOR_MAX),
    score=st.integers(0, 100_000),
    rating=st.integers(0, 1_000).map(lambda low: Rating(1_000, low, 1_000)),
    checked=st.integers(0, 100),
    authorised=st.booleans(),
    pinned=st.booleans(),
    cheating=st.sampled_from(["", "", "", "it lied"]),
    stage=st.sampled_from(Stage),
    since_ns=times,
    decided_ns=st.just(0) | times,
    punishments=st.integers(0, 10**6),
    pauses=st.lists(times, max_size=5).map(lambda all_: tuple(sorted(all_))),
    relapses=st.integers(0, 10**6),
    right=st.integers(0, 10),
    wrong=st.integers(0, 2),
    only_for=st.sampled_from(["", "ocr"]),
    backlog=st.integers(0, 9),
)
policies = st.builds(
    Policy,
    reward_permille=st.integers(1, 10_000),
    punish_permille=st.integers(1, 1_000),
    pause_below=st.integers(0, 2_001),
)
opinions = st.none() | st.sampled_from([REWARD, PUNISH, Opinion(Verdict.RESET, "r"), Opinion(Verdict.RETRAIN, "t")])


@given(case=cases, opinion=opinions, policy=policies)
def test_whatever_happens_bounds_and_floors_hold(case, opinion, policy):
    made = sanctions(case, opinion, policy, NOW_NS)
    for sanction in made:
        assert FACTOR_MIN <= sanction.factor <= FACTOR_MAX
        assert type(sanction.factor) is int
        assert sanction.reason
        assert all(type(figure) is int for _, figure in sanction.figures)
    decided = [sanction.verdict for sanction in made]
    assert len(set(decided)) == len(decided)
    if case.only_for:
        assert Verdict.PAUSE not in decided
        assert all("nobody" in one.reason for one in made if one.verdict is Verdict.DEACTIVATE)
    if case.pinned or case.stage is Stage.OUT:
        assert not decided
    if Verdict.REWARD in decided:
        assert made[0].factor > case.factor
    if Verdict.PUNISH in decided:
        assert made[0].factor <= case.factor
    assert sanctions(case, opinion, policy, NOW_NS) == made


@given(case=cases, policy=policies)
def test_whoever_is_paused_is_tried_again_within_a_day(case, policy):
    paused = replace(case, stage=Stage.PAUSED, pinned=False, cheating="")
    (back,) = sanctions(paused, None, policy, NOW_NS + DAY_NS)
    assert back.verdict in {Verdict.RESTORE, Verdict.PROBATION}
    proven = replace(paused, stage=Stage.PROBATION, right=policy.canaries, wrong=0)
    (restored,) = sanctions(proven, None, policy, NOW_NS)
    assert restored.verdict is Verdict.RESTORE
