"""What stopped the cell once is set aside, with what belongs to it."""

from merit.kernel.quarantine import Quarantine, digest_of
from merit.testing.builders import a_spec


def test_a_group_with_a_task_that_is_set_aside_is_not_taken_in_part():
    specs = [a_spec(number) for number in (1, 2, 3)]
    quarantine = Quarantine(frozenset({digest_of(specs[1])}))
    passed, refusals = quarantine.without(specs, atomic=True)
    assert passed == []
    assert {refusal.task: refusal.code for refusal in refusals} == {
        specs[0].id: "batch",
        specs[1].id: "poisoned",
        specs[2].id: "batch",
    }
    passed, refusals = quarantine.without(specs, atomic=False)
    assert passed == [specs[0], specs[2]]
    assert [refusal.task for refusal in refusals] == [specs[1].id]
