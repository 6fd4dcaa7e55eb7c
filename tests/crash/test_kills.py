"""kill -9 of control plane, workers and client, against what was acknowledged."""

import pytest

from tests.crash.campaign import Campaign


async def test_nothing_acknowledged_is_lost_by_kills(tmp_path):
    tally = await Campaign(tmp_path, 24, seed=1).run()
    assert tally.plane_kills == 24
    assert tally.worker_kills >= 2
    assert tally.acknowledged >= 100


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_nothing_acknowledged_is_lost_by_hundreds_of_kills(tmp_path):
    """Every file operation from 1 to 150 after a start, and as many random moments."""
    tally = await Campaign(tmp_path, 300, seed=2).run()
    assert tally.plane_kills == 300
    assert tally.acknowledged >= 1_000
    assert min(tally.keys_again, tally.retried, tally.delayed, tally.scheduled, *tally.limits_reached.values()) >= 20
