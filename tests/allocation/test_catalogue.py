import os
import subprocess
import sys

import pytest

from merit.allocation.catalogue import BUILT_IN, DEFAULT
from merit.allocation.least_loaded import LeastLoaded
from merit.allocation.strategy import Candidate


def test_the_default_is_least_loaded():
    assert BUILT_IN[DEFAULT] is LeastLoaded


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_is_made_from_weights_by_name_and_refuses_those_that_it_does_not_know(name):
    strategy = BUILT_IN[name]({})
    strategy.place(Candidate("w1"))
    assert strategy.choose() == "w1"
    known = "its weights are load, " if name == "weighted" else "it weighs nothing"
    with pytest.raises(ValueError, match=f"knows no weight 'wind'; {known}"):
        BUILT_IN[name]({"wind": 1})


# What no made-up hash shows: a strategy that makes strings of its own, and goes by their hashes.
CHOICES = """
from random import Random
from merit.allocation.catalogue import BUILT_IN
from merit.allocation.strategy import Candidate, Wish
for name, make in BUILT_IN.items():
    rng, strategy = Random(name), make({})
    for number in range(400):
        tags = frozenset(rng.sample(["a", "b", "c", "d"], 2))
        strategy.place(Candidate(f"w{rng.randrange(40)}", 4, rng.randrange(6), given=rng.randrange(9), turn=rng.randrange(9), tags=tags))
        avoid = {f"w{rng.randrange(40)}" for _ in range(rng.randrange(4))}
        wish = Wish(number, rng.choice((-1, 5)), 9, tuple(rng.sample(["a", "b", "c", "d"], 3)))
        print(name, strategy.choose(wish, avoid))
"""


def test_processes_that_hash_otherwise_choose_the_same():
    def choices(seed):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        run = subprocess.run([sys.executable, "-c", CHOICES], env=environment, capture_output=True, check=True)
        return run.stdout

    assert choices(1) == choices(2) != b""
