"""The parent's side of the workers: one process that forks them, limits for each, and what their deaths mean. This
process never imports torch."""

import os
import signal
import subprocess
import sys
from multiprocessing import Pipe
from tempfile import TemporaryFile

import msgspec

from .. import machine
from ..cases import Case
from ..records import MachineSpeed, Run
from . import worker
from .messages import Done, Exited, Message, Order, Phase, Started

# Longest silence of a worker in s, by phase ("" while torch is imported).
LIMITS_S = {"": 300, "build": 300, "prepare": 300, "check": 300}
INFERENCE_S = 15  # that one inference may take, or the budget where that is more; the first one twice as long

# What a shell exports is no part of a case: prefixes of variables that change how torch, its libraries or the allocator
# compute.
REMOVED = ("TORCHDYNAMO_", "TORCH_COMPILE_", "TORCHINDUCTOR_", "TORCH_LOGS", "PYTORCH_", "ATEN_", "ONEDNN_", "DNNL_")
REMOVED += ("NUMBA_", "OMP_", "GOMP_", "KMP_", "MKL_", "MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
# A GPU in the machine is no part of a CPU benchmark: Inductor asks for its properties in the fork, and fails.
HIDDEN = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
# Not -m: that would put the working directory on the path, and a user's queue.py would hide Python's.
SERVE = "from segbench.measure import worker; worker.serve()"


def removed_variables() -> list[str]:
    """Variables of this process that its servers do not get."""
    return sorted(name for name in os.environ if name.startswith(REMOVED) and name != "TORCHINDUCTOR_CACHE_DIR")


def cleaned() -> dict[str, str]:
    """This process's environment without what would change a measurement, and with accelerators hidden."""
    removed = removed_variables()
    return {name: value for name, value in os.environ.items() if name not in removed} | dict.fromkeys(HIDDEN, "")


class ServerDied(Exception):
    """The process that forks the workers is gone."""


class Server:
    """The parent's side of worker.serve. Started at first use, and again if it dies."""

    def __init__(self, environment: dict[str, str]) -> None:
        """`environment`: what the runtimes of its workers need set before the process starts."""
        self.environment = environment
        self.process: subprocess.Popen | None = None
        self.log = TemporaryFile()  # noqa: SIM115 (closed with the server)

    def start(self) -> None:
        fixed = {"OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}  # NumPy's threads would not survive a fork
        fixed["NUMBA_CACHE_DIR"] = str(machine.cache_folder() / "numba")
        self.connection, theirs = Pipe()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", SERVE, str(os.getpid()), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                env=cleaned() | self.environment | fixed,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the sweep to handle
            )

    def run(self, order: Order) -> Run | MachineSpeed:
        """Carry one order out in a fresh process. One that is too slow or dies is a Run too, with status and reason.
        Raises ServerDied where there is no process left to ask."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        kills, group, phase, answer, late = oom_kills(), 0, "", None, False
        try:
            self.connection.send_bytes(msgspec.json.encode(order))
        except OSError:
            raise ServerDied(self.last_words()) from None
        while True:
            limit = LIMITS_S.get(phase, longest_s(order) * (2 if phase == "memory" else 1) + 1)
            match self.receive(limit):
                case None if late or not group:
                    self.stop()
                    raise ServerDied(f"no answer for {limit:.0f} s")
                case None:
                    late = True
                    worker.kill_group(group)
                case Started(pid):
                    group = pid
                case Phase(name):
                    phase = name
                case Exited(signal_number) if answer is None:
                    return failure(order, phase, signal_number, late, oom_kills() > kills)
                case Exited():
                    return answer
                case Done(line):
                    answer = line

    def receive(self, timeout_s: float) -> Message | None:
        """The next message, or None if there is none in time."""
        try:
            in_time = self.connection.poll(timeout_s)
            return msgspec.json.decode(self.connection.recv_bytes(), type=Message) if in_time else None
        except (EOFError, OSError):  # OSError: it died while it had something to read
            raise ServerDied(self.last_words()) from None

    def last_words(self) -> str:
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it left no message"

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()  # it takes its worker's process group with it
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None


def failure(order: Order, phase: str, signal_number: int, late: bool, oom: bool) -> Run:
    """The run of a process that ended without an answer."""
    case = order.case or Case(model="reference workload", mode="", size=())
    run = Run(case=case, budget_s=order.budget_s, status="error")
    if late and phase in ("memory", "measure"):
        bound = run.case.batch_size / longest_s(order)
        run.status, run.reason = "timeout", f"no inference within {longest_s(order):g} s: < {bound:.2g} img/s"
    elif late:
        run.status, run.reason = "timeout", f"{phase or 'start'} took more than {LIMITS_S[phase]} s"
    elif signal_number == signal.SIGKILL and oom:
        run.status, run.reason = "oom", f"killed by the kernel while it was short of memory ({phase})"
    elif signal_number:
        run.reason = f"died by {signal.Signals(signal_number).name} in phase {phase!r}"
    else:
        run.reason = f"ended early in phase {phase!r}"
    return run


def longest_s(order: Order) -> float:
    return max(order.budget_s, INFERENCE_S)


def oom_kills() -> int:
    text = machine.read("/proc/vmstat") or ""
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)
