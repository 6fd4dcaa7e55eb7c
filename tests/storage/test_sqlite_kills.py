import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("campaign", "kills_max", "kills_min"), [("steps", 1000, 200), ("moments", 100, 100)])
def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path, campaign, kills_max, kills_min):
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("kill_campaign.py"), campaign, tmp_path, str(kills_max)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= kills_min
