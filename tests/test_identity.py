"""What converted and compiled code is filed under, and where: nobody gets what another network or user made."""

import copy
import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from segbench import machine
from segbench.problem import Problem
from segbench.runtimes import conversion

from .conftest import ROOT


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where the cache's folder in the temporary folder will be: the user's own cannot be written to."""
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    machine.cache_folder.cache_clear()
    yield tmp_path / f"benchmark_cnn-{os.getuid()}"
    machine.cache_folder.cache_clear()


def test_the_cache_in_the_temporary_folder_is_closed_to_others(temporary):
    assert machine.cache_folder().parent == temporary and temporary.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["owner", "writable", "link"])
def test_a_cache_that_another_user_made_is_refused(temporary, kind, monkeypatch):
    if kind == "link":
        (temporary.parent / "elsewhere").mkdir()
        temporary.symlink_to(temporary.parent / "elsewhere")
    else:
        temporary.mkdir()
        temporary.chmod(0o777 if kind == "writable" else 0o755)
    if kind == "owner":
        other = os.getuid() + 1
        monkeypatch.setattr(machine.os, "getuid", lambda: other)
        temporary = temporary.rename(temporary.parent / f"benchmark_cnn-{os.getuid()}")
    with pytest.raises(Problem, match=r"another user's .* XDG_CACHE_HOME"):
        machine.cache_folder()


NETWORK = """
import helper, torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.deep = False
        self.options = {"nested": [1, {"scale": 2}], "names": {"a", "b", "c"}}
        self.act = lambda x: x.relu()

    def forward(self, x):
        import late
        return self.act(self.conv(x)) * helper.FACTOR * late.FACTOR

def make():
    torch.manual_seed(0)
    return Net()
"""
SAYS = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
from segbench.models.custom import build_custom
from segbench.runtimes.conversion import fingerprint
for folder in sys.argv[1:]:
    print(fingerprint(build_custom("mine:make", folder), torch.zeros(1, 1, 8, 8), {}))
    sys.path.remove(folder)
    for name in {"mine", "helper", "late"} & {*sys.modules}:
        del sys.modules[name]
"""


def written(folder: Path, file: str = "", old: str = "", new: str = "") -> Path:
    """A user's folder: a module, one that it imports, one that it imports when it is called, and another."""
    folder.mkdir()
    files = {"mine.py": NETWORK, "helper.py": "FACTOR = 1\n", "late.py": "FACTOR = 1\n", "other.py": "x = 1\n"}
    for name, text in files.items():
        assert name != file or old in text
        (folder / name).write_text(text.replace(old, new) if name == file else text)
    return folder


def digests_of(folders: list[Path], seed: str) -> list[str]:
    """In a process of its own."""
    about = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
    child = subprocess.run([sys.executable, "-c", SAYS, *folders], capture_output=True, text=True, env=about)
    assert child.returncode == 0, child.stderr
    return child.stdout.split()


def test_whatever_changes_what_runs_changes_the_identity_and_nothing_else(tmp_path):
    first, unrelated = written(tmp_path / "first"), written(tmp_path / "unrelated", "other.py", "1", "2")
    latin = written(tmp_path / "latin")
    text = "# -*- coding: latin-1 -*-\n" + NETWORK.replace("import helper, torch", "import helper, torch  # gr\xfcn")
    (latin / "mine.py").write_bytes(text.encode("latin-1"))
    changed = [
        written(tmp_path / "helper", "helper.py", "1", "2"),
        written(tmp_path / "late", "late.py", "1", "2"),
        written(tmp_path / "function", "mine.py", "manual_seed(0)", "manual_seed( 0)"),
        latin,
    ]
    same, *others = digests_of([first, *changed], "1")
    assert digests_of([first, unrelated], "2") == [same, same]
    assert len({same, *others}) == 1 + len(changed) and all(len(digest) == 24 for digest in others)


IMAGE = torch.zeros(1, 1, 8, 8)


def small(**attributes) -> torch.nn.Module:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Identity())
    for name, value in attributes.items():
        setattr(network[1], name, value)
    return network


def scaled(by: float):
    return lambda x: x * by


class Holder:
    def __init__(self, value):
        self.value, self.itself = value, self


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (True, False),
        ([1, {"deep": (2, 3)}], [1, {"deep": (2, 4)}]),
        (Holder({1, 2}), Holder({1, 3})),
        (scaled(2.0), scaled(3.0)),
        (functools.partial(torch.clamp, min=0), functools.partial(torch.clamp, min=1)),
        (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
        (np.zeros(3), np.zeros(3, np.float32)),
        (torch.relu, torch.sigmoid),
        (torch.zeros(2).to_sparse(), torch.ones(2).to_sparse()),
    ],
)
def test_attributes_count_at_any_depth(one, other):
    digests = [conversion.fingerprint(small(thing=value), IMAGE, {}) for value in (one, copy.deepcopy(one), other)]
    assert digests[0] == digests[1] != digests[2] and not digests[0].endswith(conversion.ONCE)


def test_what_cannot_be_read_is_known_once(tmp_path):
    with (tmp_path / "file").open("w") as file:
        network = small(file=file)
        first, second = (conversion.fingerprint(network, IMAGE, {}) for _ in range(2))
    assert first != second and first.endswith(conversion.ONCE)
    made = [conversion.cached(tmp_path / name, lambda draft: (draft / "x").touch()) for name in (first, second)]
    assert not any(step.on_disk for step in made)


def test_unusual_networks_have_an_identity():
    scope = {"torch": torch}
    exec("class Nowhere(torch.nn.Module):\n    __module__ = 'nowhere'\n    def forward(self, x): return x + 1", scope)
    changed = {"torch": torch}
    exec("class Nowhere(torch.nn.Module):\n    __module__ = 'nowhere'\n    def forward(self, x): return x + 2", changed)
    buffer = torch.nn.Identity()
    buffer.register_buffer("values", torch.ones(2, dtype=torch.bfloat16))
    traced = torch.jit.trace(small(), IMAGE)
    networks = [scope["Nowhere"](), changed["Nowhere"](), buffer, torch.nn.LazyConv2d(2, 3), traced]
    networks += [torch.fx.symbolic_trace(small()), torch.nn.utils.parametrizations.weight_norm(small()[0])]
    first, second = ([conversion.fingerprint(network, IMAGE, {}) for network in networks] for _ in range(2))
    assert first == second and len({*first}) == len(networks)


def test_hooks_count_and_their_number_in_the_process_does_not():
    plain, hooked = small(), small()
    torch.nn.Linear(1, 1).register_forward_hook(scaled(1.0))
    hooked.register_forward_hook(lambda module, args, output: output + 1)
    again = small()
    again.register_forward_hook(lambda module, args, output: output + 1)
    names = [conversion.fingerprint(network, IMAGE, {}) for network in (plain, hooked, again)]
    assert names[0] != names[1] == names[2]


def test_torchscript_has_one_identity_in_every_process():
    code = (
        "import torch; from segbench.runtimes.identity import fingerprint; torch.manual_seed(0);"
        "print(fingerprint(torch.jit.script(torch.nn.Conv2d(3, 4, 3)), torch.zeros(1, 3, 8, 8), {}))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    digests = {
        subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": seed}).stdout
        for seed in "12"
    }
    assert len(digests) == 1 and len(digests.pop().strip()) == 24
