"""What converted and compiled code is filed under, and where: nobody gets what another network or user made."""

import os

import pytest

from segbench import machine
from segbench.problem import Problem


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
        monkeypatch.setattr(machine.os, "getuid", lambda uid=os.getuid() + 1: uid)
        temporary = temporary.rename(temporary.parent / f"benchmark_cnn-{os.getuid()}")
    with pytest.raises(Problem, match=r"another user's .* XDG_CACHE_HOME"):
        machine.cache_folder()
