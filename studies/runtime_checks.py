"""Checks of the runtimes against independent measurements.

Prints tables, and keeps them in checks/, from which pages are made. What each
check measures:

  newcomer: eager mode in a script of ten lines that knows nothing of this
    repository, against the artefact of tools/export.py in another one.
    Their ratio is what `speedup` in the tables promises.
  tools: a mode against the runtime's own tool on the same artefact with
    the same threads, one request at a time: OpenVINO's benchmark_app, and
    of the others, whose tools no package brings, a bare script that does
    what they do (onnxruntime_perf_test, benchncnn, MNN's benchmark).
    Above 1 the mode is faster.
  background_load: what helps torch's eager mode beside a process that
    keeps one core busy (OpenMP's wait policy, fewer threads, threads
    bound to cores), and ONNX Runtime and OpenVINO beside the same.

    uv run studies/runtime_checks.py newcomer tools background_load
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
import numpy as np
import tyro

from segbench import machine, modes, runtimes, settings
from segbench.cases import DECODERS, Case
from segbench.measure import background_load, server
from segbench.problem import Problem, exit_with
from studies import common

BLOCK_S, SIZE = 0.4, (512, 512)
HERE = Path(__file__).resolve().parent
# What each runtime's own tool does: the artefact loaded, buffers that are made once, one request after the other.
TOOLS = {
    "onnxruntime": """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(folder + "/model.onnx", options, providers=["CPUExecutionProvider"])
binding = session.io_binding()
binding.bind_cpu_input("image", image)
for output in session.get_outputs(): binding.bind_output(output.name)
call = lambda: session.run_with_iobinding(binding)
""",
    "ncnn": """
import ncnn
net = ncnn.Net()
net.opt.num_threads = threads
blobs, workspaces = ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator()
net.opt.blob_allocator, net.opt.workspace_allocator = blobs, workspaces
net.load_param(folder + "/model.ncnn.param"); net.load_model(folder + "/model.ncnn.bin")
mat = ncnn.Mat(image[0]).clone()
def call():
    extractor = net.create_extractor()
    extractor.input("in0", mat)
    return [extractor.extract(name) for name in net.output_names()]
""",
    "mnn": """
import MNN
interpreter = MNN.Interpreter(folder + "/model.mnn")
session = interpreter.createSession({"backend": "CPU", "precision": "high", "numThread": threads})
given, outputs = interpreter.getSessionInput(session), interpreter.getSessionOutputAll(session).values()
float32, planes = MNN.Halide_Type_Float, MNN.Tensor_DimensionType_Caffe
host = MNN.Tensor(image.shape, float32, image, planes)
hosts = [MNN.Tensor(o.getShape(), float32, np.empty(o.getShape(), np.float32), planes) for o in outputs]
def call():
    given.copyFrom(host)
    interpreter.runSession(session)
    for output, copy in zip(outputs, hosts): output.copyToHostTensor(copy)
""",
}
PRECISIONS = {"openvino": "f32", "openvino-bf16": "bf16"}  # of benchmark_app, by mode
BEGIN = """
import json, sys, time
import numpy as np
folder, shape, threads, block_s = json.loads(sys.argv[1])
image = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
"""
# As somebody writes it who knows timm and has read a runtime's first page.
EAGER = """
import json, sys, time
import timm, torch
name, _, block_s = json.loads(sys.argv[1])
model = timm.create_model(name).eval()
image = torch.rand(1, 3, 512, 512)
def call():
    with torch.inference_mode():
        return model(image)
print(json.dumps(None), flush=True)
"""
DEPLOYED = {
    "openvino": """
import json, sys, time
import numpy as np, openvino
_, folder, block_s = json.loads(sys.argv[1])
image = np.random.rand(1, 3, 512, 512).astype(np.float32)
model = openvino.Core().compile_model(folder + "/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
call = lambda: model(image)
print(json.dumps(None), flush=True)
""",
    "onnxruntime": """
import json, sys, time
import numpy as np, onnxruntime
_, folder, block_s = json.loads(sys.argv[1])
image = np.random.rand(1, 3, 512, 512).astype(np.float32)
session = onnxruntime.InferenceSession(folder + "/model.onnx")
call = lambda: session.run(None, {"image": image})
print(json.dumps(None), flush=True)
""",
}
# A mode as a sweep prepares it.
MODE = """
import json, sys, time
import msgspec, torch
from segbench import modes
from segbench.cases import Case
from segbench.measure import timing
from studies import common
case, block_s = json.loads(sys.argv[1])
case = msgspec.convert(case, Case)
if modes.find(case.mode).allocator == modes.RETAINED: timing.retain_memory()
torch.set_num_threads(case.threads)
prepared = common.prepare(*common.network(case), case.mode)
call = prepared.call
print(json.dumps(prepared.folder and str(prepared.folder)), flush=True)
"""
# What a runtime itself prints goes to stderr.
APART = """
import os, sys
sys.stdout = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
"""
BLOCKS = """
for _ in range(3): call()
for line in sys.stdin:
    taken, end = [], time.perf_counter() + block_s
    while time.perf_counter() < end or len(taken) < 3:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    print(json.dumps(taken), flush=True)
"""
# Ways to run a network beside a background load: mode, threads fewer than cores, environment.
PASSIVE, BOUND = {"OMP_WAIT_POLICY": "passive"}, {"OMP_PROC_BIND": "true"}
WAYS = {
    "eager": ("baseline", 0, {}),
    "eager, OMP_WAIT_POLICY=passive": ("baseline", 0, PASSIVE),
    "eager, OMP_PROC_BIND=true": ("baseline", 0, BOUND),
    "eager, passive and bound": ("baseline", 0, PASSIVE | BOUND),
    "eager, one thread less": ("baseline", 1, {}),
    "onnxruntime": ("onnxruntime", 0, {}),
    "openvino": ("openvino", 0, {}),
}
Check = Literal["newcomer", "tools", "background_load"]


@dataclass
class Settings:
    checks: Annotated[tuple[Check, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = get_args(Check)
    """Which checks to make."""
    networks: tuple[str, ...] = ("mobilenetv3_small_100", "regnety_004", "resnet18")
    """Encoders; for `tools` encoder+decoder too. background_load takes the first."""
    modes: tuple[str, ...] = ("onnxruntime", "openvino", "openvino-bf16", "ncnn", "ncnn+retained", "mnn")
    """For `tools`."""
    pairs: int = 6
    """Blocks of 0.4 s per network and mode, or per way to run torch."""
    out: Annotated[Path, settings.default_is("studies/checks")] = common.CHECKS
    """Folder for the tables."""
    python: Annotated[str, settings.default_is("this one")] = sys.executable
    """The Python of `newcomer`, as that of another environment with timm, torch, onnxruntime and openvino."""


class Blocks:
    """A process that times a call in blocks on demand."""

    def __init__(self, code: str, argument: list, environment: dict[str, str], python: str = sys.executable):
        self.process = subprocess.Popen(
            [python, "-P", "-W", "ignore", "-c", APART + code + BLOCKS, json.dumps(argument)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=server.cleaned() | environment,
        )

    def read(self) -> object:
        return json.loads(self.process.stdout.readline())

    def times_s(self) -> list[float]:
        """Seconds of each call of one block."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def median_s(self) -> float:
        return statistics.median(self.times_s())

    def __enter__(self) -> "Blocks":
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.communicate()


def blocks_of(network: str, mode: str, threads: int, environment: dict[str, str]) -> Blocks:
    """A process that runs a network as a sweep does; the first line that it writes is the artefact's folder."""
    model, _, decoder = network.partition("+")
    classes = 117 if decoder else 0
    case = Case(model=model, mode=mode, size=SIZE, decoder=decoder, classes=classes, threads=threads)
    needed = runtimes.environment(modes.MODES[mode], threads)
    return Blocks(MODE, [msgspec.to_builtins(case), BLOCK_S], needed | environment)


def newcomer(options: Settings, _: int) -> list[dict]:
    rows = []
    for network, runtime in product(options.networks, DEPLOYED):
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/artefact"
            export = [sys.executable, str(HERE.parent / "tools" / "export.py"), network, "--runtime", runtime]
            done = subprocess.run([*export, "--out", out], capture_output=True, text=True)
            if done.returncode:
                raise Problem(done.stderr.strip().splitlines()[-1])
            argument = [network, out, BLOCK_S]
            # Each time a fresh process, for eager mode differs from process to process.
            ways = [partial(fresh_s, code, argument, options.python) for code in (EAGER, DEPLOYED[runtime])]
            pairs = common.in_turn(*ways, range(options.pairs))
        rows.append({"network": network, "mode": runtime} | pairs.columns("eager / artefact"))
        print(rows[-1], flush=True, file=sys.stderr)
    return rows


def fresh_s(code: str, argument: list, python: str) -> float:
    with Blocks(code, argument, {}, python) as process:
        process.read()
        return statistics.median([process.median_s() for _ in range(3)])


def tools(options: Settings, cores: int) -> list[dict]:
    rows = []
    for network, mode in product(options.networks, options.modes):
        with blocks_of(network, mode, cores, {}) as ours:
            folder = ours.read()
            if mode in PRECISIONS:
                theirs_s = partial(benchmark_app_s, folder, mode, cores)
                pairs = common.in_turn(theirs_s, ours.median_s, range(options.pairs))
            else:
                argument = [folder, [1, 3, *SIZE], cores, BLOCK_S]
                code = BEGIN + TOOLS[modes.find(mode).runtime] + "print(json.dumps(None), flush=True)"
                with Blocks(code, argument, {}) as theirs:
                    theirs.read()
                    pairs = common.in_turn(theirs.median_s, ours.median_s, range(options.pairs))
        model, _, decoder = network.partition("+")
        row = {"network": f"{model} {DECODERS[decoder]}", "mode": mode}
        rows.append(row | {"ms": 1e3 * float(np.median(pairs.second))} | pairs.columns("mode over tool"))
        print(rows[-1], flush=True, file=sys.stderr)
    return rows


def benchmark_app_s(folder: str, mode: str, threads: int) -> float:
    """Median seconds of an inference by OpenVINO's benchmark_app. Raises Problem where it says none."""
    program = Path(sys.executable).with_name("benchmark_app")
    flags = {"-m": f"{folder}/model.xml", "-d": "CPU", "-hint": "none", "-nstreams": 1, "-nthreads": threads}
    flags |= {"-nireq": 1, "-api": "async", "-t": 2, "-infer_precision": PRECISIONS[mode]}
    command = [str(program), *(str(part) for pair in flags.items() for part in pair)]
    done = subprocess.run(command, capture_output=True, text=True, env=server.cleaned())
    found = re.search(r"Median:\s+([\d.]+) ms", done.stdout)
    if not found:
        raise Problem(f"benchmark_app: {(done.stdout + done.stderr).strip().splitlines()[-1]}")
    return float(found[1]) / 1e3


def beside_background_load(options: Settings, cores: int) -> list[dict]:
    """Throughput, inferences over seconds, with the background load and without, each way in turn."""
    network, rates = options.networks[0], {}
    rounds = max(1, options.pairs // 4)
    for loaded, _, (name, (mode, fewer, environment)) in product((False, True), range(rounds), WAYS.items()):
        with blocks_of(network, mode, max(1, cores - fewer), environment) as process:
            process.read()
            with background_load.running(pause_s=0) if loaded else nullcontext():
                time.sleep(1.5 if loaded else 0)  # until it has imported NumPy
                times_s = np.concatenate([process.times_s() for _ in range(4)])
        rates.setdefault((name, loaded), []).append(len(times_s) / times_s.sum())
    rows = []
    for name in WAYS:
        alone, beside = (np.array(rates[name, loaded]) for loaded in (False, True))
        row = {"network": network, "way": name, "img/s alone": alone.mean(), "img/s beside": beside.mean()}
        rows.append(row | {"least": beside.min(), "most": beside.max(), "beside / alone": beside.mean() / alone.mean()})
    return rows


CHECKS = {"newcomer": newcomer, "tools": tools, "background_load": beside_background_load}


def main() -> None:
    options, here = settings.parse(Settings(), __doc__), machine.describe()
    common.print_setting(here, ("torch", "onnxruntime", "openvino", "ncnn", "MNN"))
    for check in options.checks:
        rows = CHECKS[check](options, here.cores)
        common.print_table(check, rows)
        common.keep(check, rows, here, options.out)


if __name__ == "__main__":
    exit_with(main, "finished tables are above")
