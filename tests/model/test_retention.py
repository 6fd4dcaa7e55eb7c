"""How long things are kept: what contradicts itself is refused, and which snapshots go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.model.retention import SNAPSHOTS_KEPT, Retention, superfluous


def test_the_defaults_do_not_contradict_themselves():
    Retention().check()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"journal_keep_s": 3600.0}, "--keep .* --audit-horizon"),
        ({"trails_keep_s": 3600.0}, "--keep-trails .* --keep "),
        ({"journal_keep_s": 8_000_000.0}, "--keep-trails .* --keep "),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(fields, named):
    with pytest.raises(ValueError, match=named):
        Retention(**fields).check()


STORED = st.dictionaries(st.integers(1, 10_000), st.integers(1, 100), max_size=40).map(
    lambda d: dict(sorted(d.items()))
)


@given(STORED, st.integers(1, 10_000), st.integers(0, 4_000), st.sets(st.integers(1, 10_000), max_size=200))
def test_what_goes_is_what_nobody_needs(stored, journal_first, bytes_max, stay):
    goes = superfluous(stored, journal_first, bytes_max, stay)
    left = {one: size for one, size in stored.items() if one not in goes}
    usable = [one for one in stored if one + 1 >= journal_first]
    assert set(list(stored)[-SNAPSHOTS_KEPT:]) <= left.keys()
    assert not usable or usable[0] in left
    assert all(one + 1 >= journal_first for one in list(left)[:-SNAPSHOTS_KEPT])
    assert stay & set(usable) <= left.keys()
    if sum(left.values()) > bytes_max:
        assert len(left.keys() - stay) <= SNAPSHOTS_KEPT + 1
    assert superfluous(left, journal_first, bytes_max, stay) == []
    if sum(stored[one] for one in usable) <= bytes_max:
        assert set(usable) <= left.keys()


def test_every_second_one_of_the_older_goes():
    stored = {}
    for sequence in range(1_000, 1_000_001, 1_000):
        stored[sequence] = 10
        for one in superfluous(stored, 1, 300):
            del stored[one]
    gaps = [after - before for before, after in zip(stored, list(stored)[1:], strict=False)]
    assert len(stored) == 30
    assert gaps[-1] == 1_000
    assert max(gaps) <= 2 * 1_000_000 / 30 * 2, "nowhere in the past is there a hole"
