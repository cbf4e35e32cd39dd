"""One run in one fresh process, forked from a server that has imported torch and timm but never run an operator.

The sweeping process writes one Order a line to the server's standard input and reads messages, one a line, from its
standard output. It never imports torch; everything heavy is imported by `serve`.
"""

import contextlib
import ctypes
import gc
import importlib
import os
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import msgspec

from .. import machine, modes, runtimes
from ..cases import Case, sides
from ..records import Run
from .messages import Done, Exited, Message, Order, Phase, Speeds, Started

PR_SET_PDEATHSIG = 1  # from Linux's prctl.h
SPEED_S = 2  # reference times for the first floors of a session; every run adds to them


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

    # Whatever a run needs, so that no fork imports it again.
    importlib.import_module("torch.utils.flop_counter")
    from .. import inputs, models  # noqa: F401
    from . import timing  # noqa: F401

    inputs.astronaut()

    orders, server, imported = msgspec.json.Decoder(Order), os.getpid(), 0
    for line in sys.stdin.buffer:
        order = orders.decode(line)
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
        send(measure_speed(order))
        return
    run = Run(case=order.case, budget_s=order.budget_s)
    try:
        measure_case(run, order, lambda name: send(Phase(name)))
    except Exception as error:
        memory = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
        run.status = "oom" if memory else "error"
        run.reason = explained(error, order.case)[:300]
    send(Done(run))


def explained(error: Exception, case: Case) -> str:
    """An error in one line: its type, what it says or else where it was raised, and for what timm raises about a size
    the one that it made the model for."""
    import timm

    frames = traceback.extract_tb(error.__traceback__)
    text = str(error).replace(str(machine.cache_folder()), "the cache")  # no path of a machine enters a run log
    line = f"{type(error).__name__}: {first_error(text) or frames[-1].line}"
    of_timm = any("timm" in Path(frame.filename).parts for frame in frames)
    if not of_timm or len(case.size) == 3 or not timm.is_model(case.model):
        return line
    own = timm.get_pretrained_cfg(case.model).input_size[1:]
    return f"{line[:200]} (timm made it for {sides(own)})" if own != case.size else line


def first_error(text: str) -> str:
    """What a reader needs of an error's text: a compiler's first complaint with a hint, or else the first line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Exception from src/")] or lines  # where OpenVINO raised it
    complaint = next((line for line in lines if re.search(r"\b(fatal )?error: ", line)), "")
    if "Python.h" in complaint:
        complaint += " (install the headers of this Python, for example python3-dev)"
    return complaint or next(iter(lines), "")


class Stopwatch:
    """Wall time of the parts of a run, in s."""

    def __init__(self, parts_s: dict[str, float]):
        self.parts_s, self.since = parts_s, time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.parts_s[part], self.since = now - self.since, now


def measure_case(run: Run, order: Order, say: Callable[[str], None]) -> None:
    """Build, prepare, measure and check one case, and write down what was seen. Raises whatever the network raises."""
    import torch

    from .. import models
    from ..inputs import picture
    from . import timing

    case, watch = run.case, Stopwatch(run.phases_s)
    if case.allocator == "retained":
        timing.spread_allocator()  # until memory is measured
    # Beside a busy process threads that spin for one another take a hundred times as long, one thread twice.
    aside = 1 if len(case.size) == 2 and case.batch_size == 1 else case.threads  # for what is not timed
    torch.set_num_threads(aside)
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
    mode = modes.MODES[case.mode]
    timed, end = models.labelled(network, case.output, case.size, case.threads)
    prepared = runtimes.of_mode(mode).prepare(timed, image, mode, case.threads, machine.cache_folder())
    prepared = prepared.then(end) if end else prepared
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
    if case.allocator == "retained":
        timing.retain_memory(room_mb(run.memory_mb or 0))
    watch.lap("memory")
    result = take_samples(run, order, prepared.call, say, watch)

    say("check")
    run.ran = prepared.ran()
    torch.set_num_threads(aside)
    check_output(run, network, image, prepared.outputs(result))
    watch.lap("check")


def room_mb(needed_mb: float) -> float:
    """By how much the heap is grown beforehand. With twice of what an inference needs it still grew by an output of
    117 MB in the midst of the samples. Where an inference takes gigabytes, to fault in three times of it takes as long
    as the inference, and may not fit."""
    return min(3 * needed_mb, needed_mb + 2000, 500 * machine.free_gb())


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
    run.phases_s |= {"inference": samples.inference_s, "reference_times": samples.reference_s}
    run.per_sample, run.page_faults = samples.per_sample, samples.page_faults
    run.samples_ms = shortened(samples.samples_ms)
    run.reference_ms = [tuple(shortened(reading)) for reading in samples.reference_ms]
    return samples.output


def check_output(run: Run, network, image, outputs) -> None:
    """Against FP32 eager on the same weights; and count the multiply-adds. Moves the network to the meta device."""
    import torch

    from .. import models

    with torch.inference_mode():
        expected = network(image)[0]
        # Counted apart and without arithmetic: under the counter a bilinear interpolation takes seconds. Some networks
        # compute on the CPU what the meta device cannot follow (efficientvit_b0): those have no count.
        with contextlib.suppress(RuntimeError, NotImplementedError, TypeError):
            run.gmacs, run.decoder_gmacs = models.count_gmacs(network.to("meta"), image.to("meta"))
    run.output_std = float(expected.std())
    check = check_values if run.case.output == "logits" else check_labels
    check(run, outputs, expected)
    if (error := fp32_error()) > modes.max_error(modes.BASELINE):
        run.status = "wrong"
        run.reason = f"FP32 is not FP32 here, relative error {error:.2g}: something has it computed in less"


def check_values(run: Run, outputs, expected) -> None:
    if run.case.classes:
        run.argmax_agreement = float((outputs[0].argmax(dim=1) == expected.argmax(dim=1)).float().mean())
    run.rel_error = relative_error(outputs[0], expected)
    bound = modes.max_error(run.case.mode)
    if not all(bool(output.isfinite().all()) for output in outputs):
        run.status, run.reason, run.rel_error = "wrong", "the output holds NaN or infinity", None
    elif run.rel_error > bound:
        run.status = "wrong"
        run.reason = f"relative error {run.rel_error:.2g} against FP32 eager exceeds {bound:g}"


def check_labels(run: Run, outputs, expected) -> None:
    """Of labels an error says nothing: what counts is how many are the same."""
    run.argmax_agreement = float((outputs[0] == expected.argmax(dim=1)).float().mean())
    bound = modes.min_agreement(run.case.mode)
    if run.argmax_agreement < bound:
        run.status = "wrong"
        run.reason = f"{run.argmax_agreement:.3%} of the pixels have FP32 eager's label, less than {bound:.2%}"


def too_large_volume(case: Case) -> str:
    """Why a 3D network will not fit into memory, by a count on torch's meta device; "" where it will.

    Three times the weights: FP32, packed by the compiler, and those of the check. Three times the activations: the
    allocator is given room for as many.
    """
    if len(case.size) < 3 or case.own:
        return ""
    from .. import counting

    counts = counting.count(counting.network(case.model, case.classes, case.size), case.size)
    needed, free = 3 * (counts.weights_mb + counts.peak_mb * case.batch_size) / 1e3, machine.free_gb()
    return f"needs about {needed:.1f} GB of memory, {free:.1f} GB are free" if needed > free else ""


def measure_speed(order: Order) -> Speeds:
    """What the reference workload and the largest workloads reach here with this many threads: reference times for FLOOR_S, or the
    budget where that is less."""
    import torch

    from . import timing

    timing.retain_memory()
    torch.set_num_threads(order.threads)
    reference_workload = timing.ReferenceWorkload()
    reference_times, end = [], time.perf_counter() + min(SPEED_S, order.budget_s)
    while time.perf_counter() < end:
        reference_times.append(tuple(shortened(reference_workload.read())))
    dtypes = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if order.native_bf16 else {})
    peaks = {precision: shortened([timing.peak_gflops(dtype)])[0] for precision, dtype in dtypes.items()}
    return Speeds(reference_times, peaks)


def fp32_error() -> float:
    """The larger relative error of a convolution and a matrix product in FP32 against FP64: 2e-7, or 2e-3 where a
    library was told to compute FP32 in BF16. A network's own check cannot see that: what it expects errs alike."""
    import torch

    generator = torch.Generator().manual_seed(0)
    image, weight = torch.randn(1, 32, 16, 16, generator=generator), torch.randn(32, 32, 3, 3, generator=generator)
    matrix = torch.randn(128, 128, generator=generator)
    pairs = ((torch.conv2d, image, weight), (torch.mm, matrix, matrix))
    return max(relative_error(call(a, b), call(a.double(), b.double())) for call, a, b in pairs)


def relative_error(output, expected) -> float:
    """L2 norm of the difference over that of what is expected."""
    return float((output.float() - expected).norm() / expected.norm())


def shortened(values) -> list[float]:
    """To five significant digits: a run log of thousands of samples is read and committed."""
    return [float(f"{value:.5g}") for value in values]


def die_with_parent(how: signal.Signals, parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, how)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)


def kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
