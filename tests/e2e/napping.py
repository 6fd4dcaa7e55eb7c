"""A worker that sleeps until a file is there: `napping.py SERVERS FOLDER`."""

import sys
import time
from pathlib import Path

from merit import capability, serve


@capability
def nap_until(file: str) -> str:
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    while not (Path(sys.argv[2]) / file).exists():
        time.sleep(0.01)
    return "slept"


if __name__ == "__main__":
    serve(nap_until, server=sys.argv[1], name="napping")
