"""`well_behaved.py SERVER NAME`"""

import logging
import sys

from merit import capability, serve


@capability
def increment(n: int) -> int:
    return n + 1


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    serve(server=sys.argv[1], name=sys.argv[2], concurrency=2)
