"""Every committed figure comes from a committed journal."""

import subprocess
import sys

from .conftest import ROOT

RENDER = ROOT / "tools" / "render.py"


def test_what_is_committed_is_what_the_journals_give():
    done = subprocess.run([sys.executable, RENDER, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_figure_changed_by_hand_is_found():
    sys.path.insert(0, str(RENDER.parent))
    import render

    text = "before\n<!-- table: families -->\nby hand\n<!-- end -->\nafter\n"
    made = render.rendered(text)
    assert made != text and "`resnet18`" in made and made.startswith("before\n") and made.endswith("after\n")
    assert render.rendered(made) == made
