"""How one call is timed: samples between reference times, memory, page faults."""

import ctypes
import gc
import re
import time
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import NamedTuple

import torch

from ..analysis import stats

# A sample is as many back-to-back inferences as fill this: a machine stays in one state for several of them.
SAMPLE_S = 0.03
READ_BEST_OF = 2  # runs
WARM_UPS = 3  # at most, while an inference still faults in GROWS pages: 4 MB by which the heap got larger
GROWS = 1000
WARM_UP_S = 0.3  # that the reference workload may take for it: beside a busy process one pair of times takes half of it


def set_malloc(**options: int) -> None:
    """Change glibc's malloc in this process. Raises RuntimeError where the C library is another."""
    libc = ctypes.CDLL(None)
    numbers = {"trim_threshold": -1, "mmap_threshold": -3, "mmap_max": -4}  # from glibc's malloc.h
    for name, value in options.items():
        if not hasattr(libc, "mallopt") or not libc.mallopt(numbers[name], value):
            raise RuntimeError("freed memory cannot be retained: this C library is not glibc; leave +retained out")


def spread_allocator() -> None:
    """Give every block of 64 KiB and more pages of its own, for `memory`: it then sees what is alive at a time, and no
    fragmentation of the heap."""
    set_malloc(mmap_max=1 << 16, mmap_threshold=1 << 16)


def retain_memory(room_mb: float = 0) -> None:
    """Keep freed memory in this process. Otherwise glibc may give it back and fault it in again at every inference, or
    not, by the accidents of the heap's history: thousands of page faults and up to 1.8 times as slow (notes.md).

    The same as MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_MAX_ in the environment, but for one fork. `room_mb` of the heap
    are faulted in at once: by itself it grows over a dozen inferences.
    """
    set_malloc(mmap_max=0, trim_threshold=-1)  # never: 2 GB, its largest value, a large batch outgrows
    torch.zeros(int(room_mb * 1e6), dtype=torch.uint8)  # freed at once, and kept


class ReferenceWorkload:
    """A convolution net and a GEMM of fixed size in FP32, whose times show the state of the machine.

    The threads of the convolution net (16 channels, 160x160, four layers; 3.4 ms on two Zen 4 cores) read what the
    others wrote: its time shows where the hypervisor put the cores. The GEMM of 512 (1.3 ms) is bound by compute: its
    time shows the frequency. The values of the inputs do not matter.
    """

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.image = torch.rand(1, 16, 160, 160, generator=generator)
        self.weights = [torch.randn(16, 16, 3, 3, generator=generator) / 12 for _ in range(4)]
        self.matrix = torch.rand(512, 512, generator=generator)
        self.product = torch.empty(512, 512)
        end = time.perf_counter() + WARM_UP_S
        for _ in range(5):  # oneDNN makes its primitives, threads start, pages are faulted in
            self.read()
            if time.perf_counter() > end:
                break

    def convolve(self) -> None:
        x = self.image
        for weight in self.weights:
            x = torch.conv2d(x, weight, padding=1)

    def multiply(self) -> None:
        torch.mm(self.matrix, self.matrix, out=self.product)

    @torch.inference_mode()
    def read(self) -> tuple[float, float]:
        """The reference times: (convolution net, GEMM) in ms."""
        return tuple(min(seconds(work) for _ in range(READ_BEST_OF)) * 1e3 for work in (self.convolve, self.multiply))


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Samples(NamedTuple):
    per_sample: int
    samples_ms: list[float]
    reference_ms: list[tuple[float, float]]
    page_faults: float  # per inference
    output: object  # what the last timed inference returned


def sample(
    call: Callable[[], object],
    reference_workload: ReferenceWorkload,
    bound_ms: tuple[float, float],
    wanted: int,
    budget_s: float,
    alive: Callable[[], None] = lambda: None,
) -> Samples:
    """Time `call` until `wanted` samples are valid or `budget_s` is spent, but at least once. A sample is valid if the
    reference times before and after it are within `bound_ms`.

    `alive` is called at first, and whenever a second has passed since, or one inference if that takes longer.
    """
    for _ in range(WARM_UPS):
        before = getrusage(RUSAGE_SELF).ru_minflt
        per_sample = max(1, round(SAMPLE_S / seconds(call)))
        alive()
        if getrusage(RUSAGE_SELF).ru_minflt - before < GROWS:
            break
    samples, reference_times, faults, valid = [], [reference_workload.read()], 0, 0
    begun = reported = time.perf_counter()
    while True:
        faults -= getrusage(RUSAGE_SELF).ru_minflt
        start = time.perf_counter()
        for _ in range(per_sample):
            output = call()
        samples.append((time.perf_counter() - start) / per_sample * 1e3)
        faults += getrusage(RUSAGE_SELF).ru_minflt
        reference_times.append(reference_workload.read())
        valid += bool(stats.valid_samples(reference_times[-2:], bound_ms)[0])
        now = time.perf_counter()
        if now - reported > 1:
            alive()
            reported = now
        if valid >= wanted or now - begun > budget_s:
            break
    return Samples(per_sample, samples, reference_times, faults / len(samples) / per_sample, output)


def fixed_iterations(call: Callable[[], object], alive: Callable[[], None] = lambda: None) -> list[float]:
    """The fixed-iteration protocol, to compare with: ms of fifty iterations after ten warm-ups, whatever the machine
    does (as in timm's benchmark.py and most papers)."""
    latencies_ms, reported = [], 0.0
    for _ in range(10 + 50):
        if time.perf_counter() - reported > 1:
            alive()
            reported = time.perf_counter()
        latencies_ms.append(seconds(call) * 1e3)
    return latencies_ms[10:]


def resident_mb() -> float:
    """Resident set of this process after freed memory was given back."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    return status_kb("VmRSS") * 1024 / 1e6


def memory(call: Callable[[], object]) -> float | None:
    """MB that one call adds to the resident set at its peak, None where the kernel cannot tell. The caller has made the
    call before, for what the first one loads and packs belongs to the model. ru_maxrss is of no use in a fork: it
    starts with the parent's peak."""
    resident_mb()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, proc_pid_clear_refs(5)
    except OSError:  # some sandboxes have none
        return None
    before = status_kb("VmRSS")
    call()
    return (status_kb("VmHWM") - before) * 1024 / 1e6


def status_kb(field: str) -> int:
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def peak_gflops(dtype: torch.dtype, repeats: int = 5) -> float:
    """The highest rate in GFLOP/s that large matrix products and convolutions reach here with the threads that are set.

    A GEMM of 2048 and a 3x3 convolution of 256 channels at 64x64: 17 and 4.8 GFLOP, so large that nothing else shows.
    What a network reaches is given as a share of this, not of a data sheet.
    """
    matrix, image = torch.rand(2048, 2048).to(dtype), torch.rand(1, 256, 64, 64).to(dtype)
    product, weight = torch.empty_like(matrix), (torch.rand(256, 256, 3, 3) / 100).to(dtype)
    work = {
        2 * 2048**3: lambda: torch.mm(matrix, matrix, out=product),
        2 * 256 * 256 * 9 * 64 * 64: lambda: torch.conv2d(image, weight, padding=1),
    }
    with torch.inference_mode():
        return max(flop / min(seconds(call) for _ in range(repeats)) / 1e9 for flop, call in work.items())
