"""What all tests share: how hypothesis looks for examples."""

import os

from hypothesis import HealthCheck, settings

# No deadline and no complaint about slow data: both measure the machine, which tests share with others.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
