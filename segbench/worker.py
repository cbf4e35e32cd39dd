"""One visit in one fresh process, forked from a server that has imported torch and timm but never run an operator.

The sweeping process writes one Order a line to the server's standard input and reads messages, one a line, from its
standard output. It never imports torch; everything heavy is imported by `serve`.
"""

import contextlib
import ctypes
import gc
import importlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import msgspec

from .cases import Case, Visit

PR_SET_PDEATHSIG = 1  # from Linux's prctl.h
FLOOR_S = 2  # readings for the first floors of a session; every visit adds to them


class Order(msgspec.Struct, tag=True):
    """What to do in a fresh process: visit a case, or, without one, find this machine's floors and peaks."""

    threads: int
    case: Case | None = None
    floor_ms: tuple[float, float] = (0, 0)
    quiet_wanted: int = 10
    budget_s: float = 15
    native_bf16: bool = False


class Started(msgspec.Struct, tag=True):
    pid: int  # also the process group's


class Phase(msgspec.Struct, tag=True):
    """What the process does from now on; sent again as a sign of life."""

    name: str  # build, prepare, memory, measure, check


class Floors(msgspec.Struct, tag=True):
    readings_ms: list[tuple[float, float]]
    peak_gflops: dict[str, float]  # by dtype: float32, bfloat16 where it is native


class Done(msgspec.Struct, tag=True):
    visit: Visit


class Exited(msgspec.Struct, tag=True):
    signal: int = 0  # that ended the process; 0 if it ended by itself


Message = Started | Phase | Floors | Done | Exited


def serve() -> None:
    """Fork once for every Order, one after the other, until standard input ends."""
    child = 0

    def die(*_) -> None:
        if child:
            kill_group(child)
        os._exit(1)

    signal.signal(signal.SIGTERM, die)
    die_with_parent(signal.SIGTERM, int(sys.argv[1]))
    messages = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints goes to the log
    warnings.simplefilter("ignore")

    def send(message: Message) -> None:
        os.write(messages, msgspec.json.encode(message) + b"\n")

    # Whatever a visit needs, so that no fork imports it again.
    importlib.import_module("torch.utils.flop_counter")
    from . import inputs, measure, models, modes  # noqa: F401

    inputs.astronaut()

    orders, server, imported = msgspec.json.Decoder(Order), os.getpid(), 0
    for line in sys.stdin.buffer:
        order = orders.decode(line)
        if order.case and modes.MODES[order.case.mode].compile:
            importlib.import_module("torch._inductor.compile_fx")  # takes 2.5 s
        if imported != len(sys.modules):
            imported = len(sys.modules)
            gc.collect()
            gc.freeze()  # a fork's collections neither walk nor copy what was imported
        child = os.fork()
        if child == 0:
            obey(order, server, send)
            os._exit(0)
        # The process stays a zombie until its group is gone: its number cannot be another's yet.
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        kill_group(child)
        _, status = os.waitpid(child, 0)
        child = 0
        send(Exited(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0))


def obey(order: Order, server: int, send: Callable[[Message], None]) -> None:
    """The forked process's whole life."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent(signal.SIGKILL, server)
    os.setpgid(0, 0)  # so that compilers die with it
    Path("/proc/self/oom_score_adj").write_text("1000")  # the kernel, short of memory, should take this one
    send(Started(os.getpid()))
    if order.case is None:
        send(find_floors(order))
        return
    visit = Visit(case=order.case, budget_s=order.budget_s)
    try:
        look(visit, order, lambda name: send(Phase(name)))
    except Exception as error:
        text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        memory = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
        visit.status = "oom" if memory else "error"
        visit.reason = f"{type(error).__name__}: {text}"[:300]
    send(Done(visit))


def look(visit: Visit, order: Order, phase: Callable[[str], None]) -> None:
    """Build, prepare, measure and check one case, and write down what was seen. Raises whatever the network raises."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from . import machine, measure, models, modes
    from .inputs import picture

    case, spent = visit.case, visit.phases_s
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        spent[name], clock = now - clock, now

    if case.allocator == "pinned":
        measure.spread_allocator()  # until memory is measured
    torch.set_num_threads(case.threads)
    phase("build")
    if reason := too_large_volume(case):
        visit.status, visit.reason = "skipped", reason
        return
    module = models.build(case)
    visit.params = models.count(module)
    visit.decoder_params = sum(models.count(part) for part in models.decoder_parts(module).values())
    image = picture(case.size, case.batch_size)
    call = modes.apply(case.mode, module, image)
    lap("build")

    phase("prepare")
    call()
    if modes.MODES[case.mode].compile:
        from torch._dynamo.utils import counters
        from torch._inductor.async_compile import shutdown_compile_workers

        hits = counters["inductor"]
        visit.compiled = "warm" if hits["fxgraph_cache_hit"] and not hits["fxgraph_cache_miss"] else "cold"
        shutdown_compile_workers()  # nothing may run beside a measurement
    lap("prepare")

    if case.protocol == "usual":
        phase("measure")
        visit.samples_ms = [shorten(value) for value in measure.usual(call, lambda: phase("measure"))]
        return lap("measure")

    phase("memory")
    visit.memory_mb = measure.memory(call)
    if case.allocator == "pinned":
        # With twice of it the heap still grew by an output of 117 MB in the midst of the samples. Where an inference
        # takes gigabytes, to fault in three times of it takes as long as the inference, and may not fit.
        needed = visit.memory_mb or 0
        measure.pin_allocator(room_mb=min(3 * needed, needed + 2000, 500 * machine.free_gb()))
    lap("memory")

    phase("measure")
    yardsticks = measure.Yardsticks()
    lap("yardsticks")
    neighbours = measure.Neighbours()
    seen = measure.sample(
        call, yardsticks, order.floor_ms, order.quiet_wanted, order.budget_s, lambda: phase("measure")
    )
    visit.others_cpus, visit.stolen_cpus = (round(cpus, 2) for cpus in neighbours.cpus())
    lap("measure")
    spent |= {"inference": seen.inference_s, "readings": seen.readings_s}
    visit.per_sample, visit.page_faults = seen.per_sample, seen.page_faults
    visit.samples_ms = [shorten(value) for value in seen.samples_ms]
    visit.readings_ms = [tuple(shorten(value) for value in reading) for reading in seen.readings_ms]

    phase("check")
    with torch.inference_mode():
        expected = module(image)
        # Counted apart and without arithmetic: under the counter a bilinear interpolation takes seconds.
        with FlopCounterMode(display=False) as flops:
            module.to("meta")(image.to("meta"))
    visit.gmacs = flops.get_total_flops() / 2e9
    counts = flops.get_flop_counts()
    parts = [f"{type(module).__name__}.{name}" for name in models.decoder_parts(module)]
    visit.decoder_gmacs = sum(sum(counts[part].values()) for part in parts if part in counts) / 2e9
    if case.classes:
        same = seen.output[0].argmax(dim=1) == expected[0].argmax(dim=1)
        visit.argmax_agreement = float(same.float().mean())
    visit.rel_error, visit.output_std = relative_error(seen.output[0], expected[0]), float(expected[0].std())
    finite = all(bool(output.isfinite().all()) for output in seen.output)
    if not finite:
        visit.status, visit.reason, visit.rel_error = "wrong", "the output holds NaN or infinity", None
    elif visit.rel_error > modes.max_error(case.mode):
        visit.status = "wrong"
        visit.reason = f"relative error {visit.rel_error:.2g} against FP32 eager exceeds {modes.max_error(case.mode):g}"
    visit.ran = {
        "dtype": str(seen.output[0].dtype).removeprefix("torch."),
        "threads": str(torch.get_num_threads()),
        "denormals": "kept" if float(torch.tensor(1e-30) * torch.tensor(1e-10)) else "flushed",
    }
    lap("check")


def too_large_volume(case: Case) -> str:
    """Why a 3D network will not fit into memory, by a count on torch's meta device; "" where it will.

    Three times the weights: FP32, packed by the compiler, and those of the check. Three times the activations: the
    allocator is given room for as many.
    """
    if len(case.size) < 3:
        return ""
    from . import counting, machine

    counts = counting.count(counting.network(case.model, case.classes, case.size), case.size)
    needed, free = 3 * (counts.weights_mb + counts.peak_mb * case.batch_size) / 1e3, machine.free_gb()
    return f"needs about {needed:.1f} GB of memory, {free:.1f} GB are free" if needed > free else ""


def find_floors(order: Order) -> Floors:
    """What the yardsticks and the largest workloads reach here with this many threads: readings for FLOOR_S, or the
    budget where that is less."""
    import torch

    from . import measure

    measure.pin_allocator()
    torch.set_num_threads(order.threads)
    yardsticks = measure.Yardsticks()
    readings, end = [], time.perf_counter() + min(FLOOR_S, order.budget_s)
    while time.perf_counter() < end:
        readings.append(tuple(shorten(value) for value in yardsticks.read()))
    dtypes = [torch.float32, torch.bfloat16] if order.native_bf16 else [torch.float32]
    return Floors(readings, {str(d).removeprefix("torch."): shorten(measure.peak_gflops(d)) for d in dtypes})


def relative_error(output, expected) -> float:
    """L2 norm of the difference over that of what is expected."""
    return float((output.float() - expected).norm() / expected.norm())


def shorten(value: float) -> float:
    """Five significant digits: a journal of thousands of samples is read and committed."""
    return float(f"{value:.5g}")


def die_with_parent(how: signal.Signals, parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, how)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)


def kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    serve()
