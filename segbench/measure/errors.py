"""What a run log says of an error: one line, without a path of the machine."""

import re
import traceback
from pathlib import Path

from .. import machine
from ..cases import Case, sides


def one_line(error: Exception, case: Case) -> str:
    """Its type, and what it says or else the statement that raised it. Where timm raised it at a size that is not the
    model's, the size that timm made the model for."""
    import timm

    frames = traceback.extract_tb(error.__traceback__)
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error)).replace(str(machine.cache_folder()), "the cache")
    line = f"{type(error).__name__}: {first_complaint(text) or frames[-1].line}"
    timm_raised_it = any("timm" in Path(frame.filename).parts for frame in frames)
    if not timm_raised_it or len(case.size) == 3 or not timm.is_model(case.model):
        return line
    native_size = timm.get_pretrained_cfg(case.model).input_size[1:]
    return line if native_size == case.size else f"{line[:200]} (timm made it for {sides(native_size)})"


def first_complaint(text: str) -> str:
    """A compiler's first error with a hint, or else the first line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Exception from src/")] or lines  # where OpenVINO raised it
    complaint = next((line for line in lines if re.search(r"\b(fatal )?error: ", line)), "")
    if "Python.h" in complaint:
        complaint += " (install the headers of this Python, for example python3-dev)"
    return complaint or next(iter(lines), "")
