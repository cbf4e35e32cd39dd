"""One run in one fresh process, forked from a server that has imported torch and timm but never run an operator.

The sweeping process sends one Order after the other and reads messages. It never imports torch; everything heavy is
imported by `serve`.
"""

import contextlib
import ctypes
import gc
import importlib
import os
import signal
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from .. import machine, modes, runtimes
from ..cases import Case
from ..records import MachineSpeed, Run
from . import errors
from .messages import Done, Exited, Message, Order, Phase, Started

PR_SET_PDEATHSIG = 1  # from Linux's prctl.h
SPEED_S = 2  # that the first reference times of a session take; every run adds to them


def serve() -> None:
    """Fork once for every Order, one after the other, until the sweeping process hangs up."""
    child = 0

    def stop(*_) -> None:
        if child:
            kill_group(child)
        os._exit(1)

    signal.signal(signal.SIGTERM, stop)
    die_with_parent(signal.SIGTERM, int(sys.argv[1]))
    connection = Connection(int(sys.argv[2]))
    warnings.simplefilter("ignore")

    def send(message: Message) -> None:
        connection.send_bytes(msgspec.json.encode(message))

    # Whatever a run needs, so that no fork imports it again.
    importlib.import_module("torch.utils.flop_counter")
    from .. import inputs, models  # noqa: F401
    from . import check, timing  # noqa: F401

    inputs.astronaut()

    server, imported = os.getpid(), 0
    while True:
        try:
            order = msgspec.json.decode(connection.recv_bytes(), type=Order)
        except EOFError:
            return
        if order.case:
            mode = modes.MODES[order.case.mode]
            runtimes.of_mode(mode).preload(mode)
            if order.case.output == "labels":
                importlib.import_module("segbench.kernels.labels")  # compiles at the first import of all
        if imported != len(sys.modules):
            imported = len(sys.modules)
            gc.collect()
            gc.freeze()  # a fork's collections neither walk nor copy what was imported
        child = os.fork()
        if child == 0:
            run_order(order, server, send)
            os._exit(0)
        # The process stays a zombie until its group is gone: its number cannot be another's yet.
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        kill_group(child)
        _, status = os.waitpid(child, 0)
        child = 0
        send(Exited(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0))


def run_order(order: Order, server: int, send: Callable[[Message], None]) -> None:
    """The forked process's whole life."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent(signal.SIGKILL, server)
    os.setpgid(0, 0)  # so that compilers die with it
    with contextlib.suppress(OSError):  # rootless containers do not allow it
        Path("/proc/self/oom_score_adj").write_text("1000")  # the kernel, short of memory, should take this one
    send(Started(os.getpid()))
    if order.case is None:
        send(Done(measure_speed(order)))
        return
    run = Run(case=order.case, budget_s=order.budget_s)
    try:
        measure_case(run, order, lambda name: send(Phase(name)))
    except Exception as error:
        memory = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
        run.status = "oom" if memory else "error"
        run.reason = errors.one_line(error, order.case)[:300]
    send(Done(run))


class Stopwatch:
    """Wall time of the parts of a run, in s."""

    def __init__(self, parts_s: dict[str, float]):
        self.parts_s, self.since = parts_s, time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.parts_s[part], self.since = now - self.since, now


def measure_case(run: Run, order: Order, say: Callable[[str], None]) -> None:
    """Build, prepare, measure and check one case, and write what was seen into the run. Raises what any step raises."""
    import torch

    from .. import models
    from ..inputs import picture
    from . import check, timing

    case, watch = run.case, Stopwatch(run.phases_s)
    mode = modes.MODES[case.mode]
    if mode.allocator == modes.RETAINED:
        timing.spread_allocator()  # until memory is measured
    # Beside a busy process, threads that spin for one another take a hundred times as long, one thread twice.
    untimed_threads = 1 if len(case.size) == 2 and case.batch_size == 1 else case.threads
    torch.set_num_threads(untimed_threads)
    if (allowed := len(os.sched_getaffinity(0))) < case.threads:
        raise RuntimeError(f"{case.threads} threads on {allowed} CPUs: something narrowed the affinity mask")
    say("build")
    if reason := too_large_volume(case):
        run.status, run.reason = "skipped", reason
        return
    network = models.build(case, order.source)
    run.params = models.count(network)
    run.decoder_params = models.decoder_params(network)
    image = picture(case)
    torch.set_num_threads(case.threads)
    watch.lap("build")

    say("prepare")
    before_mb = timing.resident_mb()
    timed, last_step = models.labelled(network, case.output, case.size, case.threads)
    prepared = runtimes.of_mode(mode).prepare(timed, image, mode, case.threads, machine.cache_folder())
    prepared = prepared.then(last_step) if last_step else prepared
    run.cache, run.saved_s, run.model_mb = prepared.cache, round(prepared.saved_s, 3), prepared.model_mb
    run.phases_s |= prepared.steps_s
    run.loaded_mb = round(timing.resident_mb() - before_mb, 1)
    watch.lap("prepare")

    if case.protocol == "fixed-iteration":
        say("measure")
        run.samples_ms = shortened(timing.fixed_iterations(prepared.call, lambda: say("measure")))
        return watch.lap("measure")

    say("memory")
    run.memory_mb = timing.memory(prepared.call)
    if mode.allocator == modes.RETAINED:
        # By how much the heap is grown beforehand. With twice what an inference needs it still grew by an output of
        # 117 MB between samples. Where an inference takes gigabytes, faulting in three times as much takes as long as
        # the inference, and may not fit.
        needed_mb = run.memory_mb or 0
        timing.retain_memory(min(3 * needed_mb, needed_mb + 2000, 500 * machine.free_gb()))
    watch.lap("memory")
    result = take_samples(run, order, prepared.call, say, watch)
    if prepared.unpack:
        run.unpack_ms = shortened([statistics.median(timing.seconds(prepared.unpack) * 1e3 for _ in range(5))])[0]

    say("check")
    run.ran = prepared.ran()
    torch.set_num_threads(untimed_threads)
    outputs = prepared.outputs(result)
    run.ran |= {"output": described(outputs[0]), "allocator": loaded_allocator() or mode.allocator}
    if run.ran["allocator"] != mode.allocator:
        raise RuntimeError(f"the allocator is {run.ran['allocator'] or 'the C library'}'s, not {mode.allocator}'s")
    if case.own:
        outputs = [output.clone() for output in outputs]
        reason = check.on_another_input(network, image, prepared, case.mode)
    check.check_output(run, network, image, outputs)
    if case.own and reason and run.status == "ok":
        run.status, run.reason = "wrong", f"on another input: {reason} against FP32 eager"
    watch.lap("check")


def take_samples(run: Run, order: Order, call: Callable, say: Callable[[str], None], watch: Stopwatch) -> object:
    """Returns what the last timed inference returned."""
    from . import timing

    say("measure")
    reference_workload = timing.ReferenceWorkload()
    watch.lap("reference_workload")
    load = machine.BackgroundLoad(run.case.threads)
    samples = timing.sample(
        call, reference_workload, order.bound_ms, order.samples_wanted, order.budget_s, lambda: say("measure")
    )
    run.others_cpus, run.throttled_cpus, run.stolen_cpus = (round(cpus, 2) for cpus in load.cpus())
    watch.lap("measure")
    run.per_sample, run.page_faults = samples.per_sample, samples.page_faults
    run.samples_ms = shortened(samples.samples_ms)
    run.reference_ms = [tuple(shortened(times)) for times in samples.reference_ms]
    return samples.output


def described(output) -> str:
    """`float32 NHWC`: dtype of a tensor, and how a map lies in memory."""
    dtype = str(output.dtype).removeprefix("torch.")
    if output.dim() != 4 or output.is_contiguous():
        return f"{dtype} NCHW" if output.dim() == 4 else dtype
    return f"{dtype} {'NHWC' if output.permute(0, 2, 3, 1).is_contiguous() else 'strided'}"


def loaded_allocator() -> str:
    """The one that was preloaded, "" for the C library's own."""
    mapped = Path("/proc/self/maps").read_text()
    return next((name for name, (file, _) in runtimes.PRELOADED.items() if f"lib{file}.so" in mapped), "")


def too_large_volume(case: Case) -> str:
    """Why a 3D network will not fit into memory, by a count on torch's meta device; "" where it will."""
    if len(case.size) < 3 or case.own:
        return ""
    from .. import counting

    counts = counting.count(counting.network(case.model, case.classes, case.size), case.size)
    # Weights in FP32, packed by the compiler, and for the check; the heap is grown by three times the activations.
    needed, free = 3 * (counts.weights_mb + counts.peak_mb * case.batch_size) / 1e3, machine.free_gb()
    return f"needs about {needed:.1f} GB of memory, {free:.1f} GB are free" if needed > free else ""


def measure_speed(order: Order) -> MachineSpeed:
    """Reference times with this many threads, taken for SPEED_S or the budget where that is less, and the highest rate
    that arithmetic reaches."""
    import torch

    from . import timing

    torch.set_num_threads(order.threads)
    reference_workload = timing.ReferenceWorkload()
    reference_times, end = [], time.perf_counter() + min(SPEED_S, order.budget_s)
    while time.perf_counter() < end:
        reference_times.append(tuple(shortened(reference_workload.read())))
    timing.retain_memory()
    dtypes = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if order.native_bf16 else {})
    peaks = {precision: shortened([timing.peak_gflops(dtype)])[0] for precision, dtype in dtypes.items()}
    return MachineSpeed(threads=order.threads, reference_ms=reference_times, peak_gflops=peaks)


def shortened(values) -> list[float]:
    """Rounded to five significant digits: run logs hold thousands of samples and are committed."""
    return [float(f"{value:.5g}") for value in values]


def die_with_parent(how: signal.Signals, parent: int) -> None:
    """Have the kernel send this process a signal when its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, how)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)


def kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
