"""A background load on demand: one process of one thread that computes or copies memory, in bursts or all the time."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from .worker import die_with_parent

PAUSE_S, BURST_S = 1.2, 0.6  # means of exponential distributions: one core is busy for a third of the time
LONGEST_S = 5
COMMAND = "from segbench.measure import background_load; background_load.main()"


@contextlib.contextmanager
def running(pause_s: float = PAUSE_S) -> Iterator[None]:
    """Run it until the block ends, however that ends. `pause_s`: mean seconds between two bursts."""
    command = [sys.executable, "-P", "-c", COMMAND, str(os.getpid()), str(pause_s)]
    process = subprocess.Popen(command, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"}, start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    import numpy as np

    die_with_parent(signal.SIGKILL, int(sys.argv[1]))
    chance, pause_s = random.Random(0), float(sys.argv[2])
    matrix, block = np.random.default_rng(0).random((256, 256)), np.zeros(8 << 20)  # 64 MB: far more than any L2
    kinds = (lambda: matrix @ matrix, block.copy)
    while True:
        time.sleep(min(chance.expovariate(1 / pause_s), LONGEST_S) if pause_s else 0)
        work, end = chance.choice(kinds), time.monotonic() + min(chance.expovariate(1 / BURST_S), LONGEST_S)
        while time.monotonic() < end:
            work()
