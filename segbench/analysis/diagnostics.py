"""What disturbed the measuring, in words: the number, what follows from it, and what to do."""

from collections.abc import Iterable

import numpy as np

from ..cases import BUSY_CPUS
from ..records import Run

PAGE_FAULTS = 500  # per inference: 2 MB that the allocator gave back and fetched again


def warnings(runs: Iterable[Run]) -> list[str]:
    """What a reader should know of runs before trusting them, a line a kind."""
    runs = [run for run in runs if run.reference_ms]
    causes = {
        "others_cpus": "other processes used {:.2f} CPUs beside {}; close them, or leave cores to them (--threads)",
        "stolen_cpus": "the hypervisor gave {:.2f} CPUs to other machines beside {}; come back at another hour",
        "throttled_cpus": "the control group's quota took {:.2f} CPUs away beside {}; use fewer --threads",
    }
    lines = []
    for field, text in causes.items():
        busy = [value for run in runs if (value := getattr(run, field)) > BUSY_CPUS]
        if 5 * len(busy) > len(runs):
            lines.append(text.format(np.median(busy), f"{len(busy)} of {len(runs)} runs"))
    faults = [run.page_faults for run in runs if run.case.allocator == "retained"]
    if faults and (often := float(np.median(faults))) > PAGE_FAULTS:
        lines.append(
            f"{often:.0f} page faults per inference though the allocator was to keep its memory: torch is served by "
            "another one than glibc's, so read `pinned` as `plain`"
        )
    return lines
