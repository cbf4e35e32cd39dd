"""The scripts' flags, and what they say of themselves without measuring anything."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from segbench import modes
from segbench.problem import Problem
from segbench.settings import Settings, parse, resolve

from .conftest import COMPARE, ROOT


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--models", "resnet18,resnet34"), "--models resnet18 resnet34"),
        (("--models", "hf-hub:timm/resnet18.a1_in1k"), "timm's own names: resnet18.a1_in1k"),
        (("--models", "stunet_s"), "3D model"),
        (("--modes", "compiled"), "did you mean compile"),
        (("--size", "0", "64"), "--size 0 64"),
        (("--size", "64"), "--size 64"),
        (("--samples", "-1"), "--samples -1"),
        (("--rounds", "0"), "--rounds 0"),
        (("--batch-size", "0"), "--batch-size 0"),
        (("--in-chans", "0"), "--in-chans 0"),
        (("--threads", "4096"), "--threads 4096"),
        (("--budget", "-3"), "--budget -3"),
        (("--budget", "inf"), "--budget inf"),
        (("--budget", "nan"), "--budget nan"),
        (("--label", "../x"), "--label"),
        (("--label", "x" * 41), "--label"),
        (("--models",), "--models names no model"),
        (("--modes",), "--modes names no mode"),
        (("--modes", "openvino+nhcw"), "did you mean openvino+nhwc"),
        (("--until", "5%", "--max-rounds", "1"), "--max-rounds 1"),
        (("--until", "soon"), "--until 'soon'"),
        (("--until", "5%", "--repetitions", "2"), "exclude each other"),
        (("--shard", "3/4", "--rounds", "2"), "at most 2"),
        (("--shard", "2"), "--shard '2'"),
        (("--shard", "1/2", "--until", "5%"), "exclude each other"),
        (("--shard", "1/2", "--restart"), "exclude each other"),
        (("--join", "--restart"), "exclude each other"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input_is_one_line(flags, says):
    defaults = Settings(modes=modes.DEFAULT)
    with pytest.raises(Problem) as problem:
        resolve(parse(defaults, "", flags), Path("unused"), defaults, {})
    assert says in str(problem.value) and "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        pytest.param(("--models", "resnet81"), "did you mean resnet18", marks=pytest.mark.slow),  # it asks timm
        (("--out", "/proc/nowhere"), "cannot be written"),
        (("--report",), "no run log"),
    ],
)
def test_bad_input_has_status_2(script, flags, says):
    done = script.run(*flags)
    *_, last = done.stderr.strip().splitlines()
    assert done.returncode == 2 and says in last, done.stderr
    assert "Traceback" not in done.stderr


def test_compare_says_what_is_wrong_in_a_line(tmp_path):
    done = subprocess.run([sys.executable, COMPARE, tmp_path, tmp_path], capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and str(tmp_path) in done.stderr


SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.py", "benchmarks/*.py", "benchmarks/*/*.py", "tools/*.py")
    for path in ROOT.glob(pattern)
    if re.search(r"exit_with\(|cli\.main\(", path.read_text()) and path.name != "problem.py"
)
INSTALLED = [script for script in SCRIPTS if "ModuleNotFoundError" in (ROOT / script).read_text()]


@pytest.mark.parametrize("path", SCRIPTS)
def test_help_fits_a_terminal_and_needs_no_torch(path):
    heavy = {"torch", "timm", "pandas", "matplotlib", "scipy"}
    code = (
        "import atexit, runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        f"atexit.register(lambda: print('imported:', *{heavy} & set(sys.modules)))\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code, ROOT / path, "--help"], capture_output=True, text=True)
    *lines, imported = done.stdout.splitlines()
    assert done.returncode == 0 and imported.rstrip() == "imported:", done.stdout + done.stderr
    assert lines and not [line for line in lines if len(line) > 80]


@pytest.mark.parametrize("path", INSTALLED)
def test_without_the_environment_a_line_says_how_to_run_it(path):
    done = subprocess.run([sys.executable, "-S", "-E", ROOT / path], capture_output=True, text=True)
    assert done.returncode == 1 and f"uv run {ROOT / path}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_list_needs_no_torch(script):
    done = script.run("--list")
    assert done.returncode == 0 and "lcnet_100" in done.stdout and "runs to go" in done.stdout, done.stderr
    assert not script.out.exists()
