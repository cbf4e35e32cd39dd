"""The label kernels where they have to run: in forks, in pools, where nothing can be written; of FP16; and networks
with many classes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segbench.kernels import labels
from segbench.models import build_segmenter, encoder, segmenter

from .conftest import ROOT

IMPORT = "from segbench.kernels import labels"
# What a process does: the labels by argmax of the logits that a factor of 1 leaves as they are.
SAME = """
import multiprocessing, os
import numpy as np
from segbench.kernels import labels

def is_argmax(seed):
    logits = np.random.default_rng(seed).normal(size=(1, 3, 6, 7)).astype(np.float32)
    return np.array_equal(labels.upsample_labels(logits, 1, 2), logits.argmax(1))

if __name__ == "__main__":
    assert is_argmax(0)
"""
FORK = """
    child = os.fork()
    if child == 0:
        os._exit(0 if is_argmax(1) else 1)
    assert os.waitpid(child, 0)[1] == 0 and is_argmax(2)
"""
POOL = """
    with multiprocessing.get_context({kind!r}).Pool(2) as pool:
        assert pool.map(is_argmax, range(4)) == [True] * 4
"""


def run(script: Path, code: str, **environment: str) -> subprocess.CompletedProcess:
    script.write_text(code)
    clean = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CACHE_HOME")}
    clean |= {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, env=clean)


@pytest.mark.parametrize("code", [FORK, POOL.format(kind="fork"), POOL.format(kind="spawn")])
def test_processes_made_from_one_that_used_the_kernels_use_them_too(tmp_path, code):
    done = run(tmp_path / "script.py", SAME + code)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["", "/proc/nowhere"])
def test_kernels_work_uncached_where_nothing_can_be_written(tmp_path, cache):
    """Root may write anywhere, so folders that cannot be made stand for those that are read-only."""
    shutil.copyfile(labels.__file__, tmp_path / "labels.py")
    (tmp_path / "__pycache__").touch()
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME"), "/proc/nowhere")
    done = run(tmp_path / "script.py", SAME.replace(IMPORT, "import labels"), **nowhere, NUMBA_CACHE_DIR=cache)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "__pycache__").is_file()


@pytest.mark.parametrize("decoder", ["fpn", "unet"])
def test_calibration_never_makes_maps_of_all_classes(decoder, monkeypatch):
    """40,000 maps of 512x512 are 42 GB. What calibration sets does not depend on it."""
    sizes = []
    real = encoder.calibrate

    def watched(net, *args):
        net.register_forward_hook(lambda _, __, outputs: sizes.append(outputs[0].numel()))
        real(net, *args)

    monkeypatch.setattr(segmenter, "calibrate", watched)
    few, many = (build_segmenter("lcnet_050", decoder, classes, (64, 64)) for classes in (3, 3000))
    assert max(sizes) <= 3000 * 4 * 4
    norms = [key for key in few.state_dict() if "running" in key]
    assert norms and all(torch.equal(few.state_dict()[key], many.state_dict()[key]) for key in norms)


def halves() -> torch.Tensor:
    """(1, 65536, 1, 1): every number of FP16."""
    return torch.from_numpy(np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(1, -1, 1, 1))


def test_every_half_is_the_number_that_it_is():
    values = halves()[0, :, :, 0].float().numpy()
    bits = halves()[0, :, :, 0].numpy().view(np.uint16)
    made = np.zeros((2**16, 3), np.float32)
    labels.load(bits, np.uint32(13), made)
    expected = np.nan_to_num(values, nan=-1e38, posinf=1e38, neginf=-1e38)
    assert np.array_equal(made, np.repeat(expected, 3, axis=1))


@pytest.mark.parametrize("library", ["torch", "numpy"])
def test_labels_of_halves_are_those_of_the_same_numbers_in_fp32(library):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 9, 6, 7, generator=generator).half()
    given = logits if library == "torch" else logits.numpy()
    upsampled = F.interpolate(logits.float(), scale_factor=4.0, mode="bilinear").argmax(1)
    made = np.asarray(labels.upsample_labels(given, 4, 1))
    assert (made == upsampled.numpy()).mean() > 0.9999
    planes = given[:, :, None]
    assert np.array_equal(np.asarray(labels.resample_labels(planes, (1, 24, 28), 1))[:, 0], made)
    weight, bias = torch.randn(9, 5, 2, 2, generator=generator), torch.randn(5, generator=generator)
    expected = F.conv_transpose2d(logits.float(), weight, bias, stride=2).argmax(1)
    assert (np.asarray(labels.head_labels(given, weight, bias, 1)) == expected.numpy()).mean() > 0.99
