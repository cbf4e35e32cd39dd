"""What kernels.py and parts.py share: calls timed in turn, in a process that is set up like a worker's."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from segbench.runtimes import SHORT_SPIN

if TYPE_CHECKING:
    import numpy as np

HERE = Path(__file__).resolve().parent
CLASSES = 117


def set_up(threads: int) -> None:
    """Before anything else imports torch, whose threads would otherwise spin into the call that comes next."""
    warnings.simplefilter("ignore")
    os.environ.update(SHORT_SPIN)
    import torch

    from segbench.measure import timing

    torch.set_num_threads(threads)
    timing.retain_memory(2000)


def in_turn(calls: dict[str, Callable[[], object]], turns: int) -> "dict[str, np.ndarray]":
    """Seconds (turns,) of each call: one call of each, then again, after two calls of each to warm up."""
    import numpy as np

    from segbench.measure.timing import seconds

    for call in calls.values():
        call()
        call()
    taken = [[seconds(call) for call in calls.values()] for _ in range(turns)]
    return dict(zip(calls, np.array(taken).T, strict=True))
