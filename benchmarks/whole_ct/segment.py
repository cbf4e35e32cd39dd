"""One whole CT from a file to labels at the same spacing, in one fresh process.

benchmark.py starts it with a Job as JSON; it prints a JobResult as JSON. Ways: `nnunet` is nnU-Net's own path (logits
resampled to the original spacing, then argmax), `official` TotalSegmentator's (argmax at the networks' resolution, then
the label map resampled; five networks are merged in the order of their parts), both in stock.py. `optimised` computes
the same as one of them, see optimised.py.
"""

import statistics
import sys
import time

import msgspec
import numpy as np
import torch

from benchmarks.whole_ct.common import Laps
from benchmarks.whole_ct.jobs import Job, JobResult
from segbench import machine
from segbench.measure import timing


@torch.inference_mode()
def run(job: Job) -> JobResult:
    """Segment, and save the labels. Raises ValueError for weights of another network, RuntimeError for a file that
    nnU-Net's reader refuses, OSError for a full disk."""
    if job.way == "optimised":
        from benchmarks.whole_ct.optimised import optimised as way
    else:
        from benchmarks.whole_ct.stock import stock as way
    torch.set_num_threads(machine.usable_cores())
    before_ms = reference_ms()
    lap, start = Laps(), time.perf_counter()
    labels = way(job, lap)
    whole_s = time.perf_counter() - start
    torch.set_num_threads(machine.usable_cores())  # the tools set their own
    after_ms = reference_ms()
    np.save(job.labels, labels)
    parts = dict(lap.spent_s)
    prepare_s = parts.pop("preparing")
    parts = {"network": parts.pop("network"), "stitching": parts.pop("sliding window")} | parts
    if job.way == "official":  # files and processes between its steps
        parts["other"] = whole_s - prepare_s - sum(parts.values())
    peak_mb = max(lap.peaks_mb.values())
    calls = lap.calls["network"]
    return JobResult(parts, lap.peaks_mb, whole_s - prepare_s, prepare_s, peak_mb, calls, (before_ms, after_ms))


def reference_ms() -> float:
    """Median time of the reference convolution."""
    workload = timing.ReferenceWorkload()
    return statistics.median(workload.read()[0] for _ in range(9))


if __name__ == "__main__":
    try:
        done = run(msgspec.json.decode(sys.argv[1], type=Job))
    except (ValueError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        sys.exit(f"segment.py: {reason[-1]}")
    print(msgspec.json.encode(done).decode())
