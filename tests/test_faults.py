"""Ways in which somebody's machine is not ours, each as public bug reports have it."""

import os
import subprocess
import sys

import msgspec
import pytest
import timm
import torch

from segbench import counting, machine, models
from segbench.cases import Case
from segbench.measure import check, errors, server
from segbench.runtimes import torch as torch_runtime
from segbench.settings import Settings, parse, resolve

from .conftest import ENCODER_ONLY, Script

QUICK = ("--models", "lcnet_100", "--modes", "baseline", "--rounds", "1", "--samples", "2")


@pytest.mark.parametrize(
    "name",
    [
        "TORCHDYNAMO_DISABLE",
        "TORCH_COMPILE_DISABLE",
        "TORCHINDUCTOR_FREEZING",
        "ONEDNN_DEFAULT_FPMATH_MODE",
        "DNNL_MAX_CPU_ISA",
        "OMP_NUM_THREADS",
        "GOMP_CPU_AFFINITY",
        "KMP_AFFINITY",
        "MKL_NUM_THREADS",
        "MALLOC_TRIM_THRESHOLD_",
        "GLIBC_TUNABLES",
        "LD_PRELOAD",
    ],
)
def test_what_a_shell_exports_is_not_passed_on(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert name in server.removed_variables()
    process = server.Server({"OWN": "1"})
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    monkeypatch.setattr(server, "SERVE", code)
    process.start()
    process.process.wait()
    seen = msgspec.json.decode(process.last_words())
    assert name not in seen and seen["CUDA_VISIBLE_DEVICES"] == "" and seen["OWN"] == seen["HF_HUB_OFFLINE"] == "1"


@pytest.mark.slow
def test_compile_means_compiled_whatever_is_exported(script):
    """TORCHDYNAMO_DISABLE made eager of it, with the status ok; an affinity made two threads share a CPU."""
    flags = ("--models", "lcnet_100", "--modes", "compile", "--rounds", "1", "--samples", "2")
    done = script.run(*flags, TORCHDYNAMO_DISABLE="1", GOMP_CPU_AFFINITY="0")
    assert done.returncode == 0 and "Not passed on" in done.stdout, done.stdout + done.stderr
    (run,) = script.run_log().runs
    assert run.cache and run.phases_s["compile"] > 0.1


def test_fp32_that_is_not_is_seen_by_its_error(monkeypatch):
    """ONEDNN_DEFAULT_FPMATH_MODE=BF16, which guides for Arm set, does so to convolutions; the check of a network sees
    nothing, for what it expects errs alike. Not every CPU can be told to, so it is done here by hand."""
    assert check.fp32_error() < 1e-5
    conv2d = torch.conv2d

    def in_bf16(image, weight):
        if image.dtype == torch.float64:
            return conv2d(image, weight)
        return conv2d(image.bfloat16(), weight.bfloat16()).float()

    monkeypatch.setattr(torch, "conv2d", in_bf16)
    assert check.fp32_error() > 1e-3


@pytest.fixture(scope="module")
def measured(tmp_path_factory, cache):
    """A small run, started where a queue.py of the user's and another clone's segbench lie, with a cache folder that a
    compiler cannot use."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "queue.py").write_text("raise SystemExit(1)")
    (folder / "segbench").mkdir()
    (folder / "segbench" / "__init__.py").write_text("raise SystemExit(1)")
    script = Script(folder / "out", cache)
    environment = script.environment | {"XDG_CACHE_HOME": str(folder / "my cache")}
    script.done = subprocess.run(script.command(*QUICK), capture_output=True, text=True, cwd=folder, env=environment)
    return script


def test_children_never_import_from_the_users_folder(measured):
    assert measured.done.returncode == 0, measured.done.stdout + measured.done.stderr
    assert (measured.table().throughput_img_s > 0).all()


def test_a_cache_that_a_compiler_cannot_use_is_said(measured):
    assert "has a space in it" in measured.done.stdout


def report(script, shell: str = "{}", **environment: str) -> subprocess.CompletedProcess:
    command = shell.format(f"{sys.executable} {ENCODER_ONLY} --report --out {script.out}")
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=os.environ | environment, errors="replace"
    )


def test_a_notebooks_window_and_settings_and_a_latin_locale_cost_no_picture(measured, tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 40\n")
    settings = {"MPLBACKEND": "module://no_such.backend", "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    done = report(measured, PYTHONIOENCODING="latin-1", **settings)
    assert done.returncode == 0 and "benchmark_plot.png" in done.stdout, done.stderr


@pytest.mark.parametrize("shell", ["set -o pipefail; {} 2>&- | head -1", "{} >&-"])
def test_a_closed_pipe_and_closed_streams_cost_a_line_at_most(measured, shell):
    done = report(measured, shell)
    assert "Traceback" not in done.stdout + done.stderr and done.returncode in (0, 141), done.stderr


def test_a_full_disk_costs_the_picture_and_not_the_table(measured):
    done = report(measured, "ulimit -f 30; trap '' XFSZ; {}")
    assert done.returncode == 2 and "lcnet_100" in done.stdout and "Traceback" not in done.stderr
    assert "cannot be written" in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "C++ compile error\n\nOutput:\n/tmp/x.cpp:2:10: fatal error: Python.h: No such file\n",
            "python3-dev",
        ),
        ("C++ compile error\nOutput:\nx.cpp:7:1: error: 'vec' was not declared\n more", "'vec' was not declared"),
        ("\n  first line\nsecond", "first line"),
        ("", ""),
    ],
)
def test_a_reason_is_the_compilers_first_error_or_the_first_line(text, says):
    assert says in errors.first_complaint(text) and "\n" not in errors.first_complaint(text)


def test_an_error_says_where_it_was_raised_and_what_size_timm_made_the_model_for():
    """timm's assertions have no text, and its errors about a size name tensors."""
    case = Case(model="crossvit_9_240", mode="baseline", size=(224, 224))
    with pytest.raises(RuntimeError) as timms:
        models.build(case)(torch.rand(1, 3, 224, 224))
    assert errors.one_line(timms.value, case).endswith("(timm made it for 240x240)")
    with pytest.raises(AssertionError) as silent:
        raise AssertionError
    assert errors.one_line(silent.value, case) == "AssertionError: raise AssertionError"


def test_as_many_compilers_as_a_containers_quota_allows(monkeypatch):
    monkeypatch.setattr(machine, "cgroup_quota", lambda *_: 1.5)
    assert torch_runtime.environment(threads=2)["TORCHINDUCTOR_COMPILE_THREADS"] == "1"


def test_home_is_what_a_tilde_means_also_behind_an_equals_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    defaults = Settings(modes=("baseline",))
    assert resolve(parse(defaults, "", ["--out=~/results"]), tmp_path, defaults, {}).out == tmp_path / "results"


def test_no_user_and_no_home_cost_nothing():
    """A container's user whom /etc/passwd does not know."""
    code = "import os, runpy, sys; os.getuid = lambda: 123456; sys.argv = sys.argv[1:]\n"
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(ENCODER_ONLY), "--models", "lcnet_100", "--list"]
    without = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    done = subprocess.run(command, capture_output=True, text=True, env=without)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


def test_a_network_that_hands_parameters_on_is_counted():
    """timm publishes a file of 19.4 MB (pit_ti_224) and 0.7 GMACs (card of pit_ti_distilled_224); what could be trained
    still can."""
    network = timm.create_model("pit_ti_224").to("meta")
    counts = counting.count(network, (224, 224))
    assert counts.weights_mb == pytest.approx(19.4, abs=0.05) and counts.gmacs == pytest.approx(0.7, abs=0.05)
    assert counts.trainable == counts.params and all(tensor.requires_grad for tensor in network.parameters())
