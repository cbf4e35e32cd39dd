"""One whole CT from the scanner's voxels to labels at the same spacing, in one fresh process.

benchmark.py starts it with a Job as JSON; it prints a JobResult as JSON. Ways: `nnunet` is nnU-Net's own predictor and
export (logits resampled to the original spacing, then argmax), `official` TotalSegmentator's (argmax at the networks'
resolution, then the label map resampled; five networks are merged in the order of their parts), both in stock.py.
`optimised` computes the same as one of them, see optimised.py.
"""

import sys
import time
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.whole_ct.common import Laps, Timed
from benchmarks.whole_ct.jobs import Job, JobResult
from benchmarks.whole_ct.optimised import optimised
from benchmarks.whole_ct.stock import stock
from segbench import inputs, machine, modes, runtimes, zoo
from segbench.models.volume import build_volume


@torch.inference_mode()
def run(job: Job) -> JobResult:
    """Segment, and save the labels. Raises ValueError for weights of another network."""
    threads = machine.usable_cores()
    torch.set_num_threads(threads)
    volume = np.load(job.volume) if job.volume else inputs.ct(job.voxels)[0, 0].numpy()
    timed_networks, lap, start = [], Laps(), time.perf_counter()
    way = optimised if job.way == "optimised" else stock
    labels = way(job, volume, lap, networks(job, threads, timed_networks, lap))
    whole_s = time.perf_counter() - start
    np.save(job.labels, labels)
    network_s, parts = sum(network.seconds for network in timed_networks), dict(lap.spent_s)
    prepare_s = parts.pop("preparing")
    parts = {"network": network_s, "stitching": parts.pop("sliding window") - network_s} | parts
    tiles = sum(network.calls for network in timed_networks)
    return JobResult(parts, lap.peaks_mb, whole_s - prepare_s, prepare_s, max(lap.peaks_mb.values()), tiles)


def networks(job: Job, threads: int, timed_networks: list[Timed], lap: Laps) -> Iterator[Timed]:
    """One after the other, each made when it is needed and released before the next; all are added to
    `timed_networks`."""
    sources = job.weights or ("",) * len(job.classes)
    for seed, (classes, source) in enumerate(zip(job.classes, sources, strict=True)):
        with lap("preparing"):
            network = build_volume(job.model, classes, zoo.TILE, seed, source)
            timed = Timed(prepared(network, job.mode, threads) if job.way == "optimised" else network.net, classes)
        del network
        timed_networks.append(timed)
        yield timed
        with lap("sliding window"):
            timed.release()


def prepared(network: nn.Module, name: str, threads: int) -> Callable[[Tensor], Tensor]:
    """A network under a mode, as a function of a tile."""
    mode = modes.MODES[name]
    runtime = runtimes.of_mode(mode)
    runtime.preload(mode)
    prepared_network = runtime.prepare(network, inputs.ct(zoo.TILE), mode, threads, machine.cache_folder())

    def call(tile: Tensor) -> Tensor:
        prepared_network.feed(tile)
        return prepared_network.outputs(prepared_network.call())[0]

    return call


if __name__ == "__main__":
    try:
        done = run(msgspec.json.decode(sys.argv[1], type=Job))
    except ValueError as error:  # weights that are not this network's
        sys.exit(f"segment.py: {error}")
    print(msgspec.json.encode(done).decode())
