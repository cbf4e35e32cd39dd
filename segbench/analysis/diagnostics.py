"""Warnings about what disturbed the measuring: the number, and what to do."""

from collections.abc import Iterable

import numpy as np

from .. import modes
from ..cases import BUSY_CPUS
from ..records import Run

PAGE_FAULTS = 500  # per inference: 2 MB that the allocator gave back and fetched again


def warnings(runs: Iterable[Run]) -> list[str]:
    """A line for every kind of disturbance that many runs had."""
    runs = [run for run in runs if run.reference_ms]
    causes = {
        "others_cpus": "other processes used {:.2f} CPUs during {}; close them, or leave cores to them (--threads)",
        "stolen_cpus": "the hypervisor gave {:.2f} CPUs to other machines during {}; come back at another hour",
        "throttled_cpus": "the control group's quota withheld {:.2f} CPUs during {}; use fewer --threads",
    }
    lines = []
    for field, text in causes.items():
        busy = [value for run in runs if (value := getattr(run, field)) > BUSY_CPUS]
        if 5 * len(busy) > len(runs):
            lines.append(text.format(np.median(busy), f"{len(busy)} of {len(runs)} runs"))
    faults = [run.page_faults for run in runs if modes.find(run.case.mode).allocator == modes.RETAINED]
    if faults and (often := float(np.median(faults))) > PAGE_FAULTS:
        lines.append(
            f"{often:.0f} page faults per inference although the allocator was to retain memory: torch uses another "
            "allocator than glibc's, so `+retained` means nothing here"
        )
    return lines
