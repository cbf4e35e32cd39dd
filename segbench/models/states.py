"""State dicts as trainers write them, put into a network."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

LEVELS = ("state_dict", "network_weights", "model_state_dict", "model")  # where trainers keep a state dict
PREFIXES = ("module.", "_orig_mod.", "net.", "network.", "model.")  # that wrappers put before its names
NUMPY = (np._core.multiarray.scalar, np._core.multiarray._reconstruct)


def load(net: nn.Module, weights: Path | str) -> None:
    """Put a state dict of a file into the network, as nnU-Net, STU-Net and torch.compile write them; nothing but
    tensors and numpy's numbers is unpickled.

    Raises ValueError that names what is missing, unexpected, of another shape or kind or not finite, in one message, or
    says that the file holds something else.
    """
    put(net, unwrapped(read(weights)), Path(weights).name)


def put(net: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Put a state dict into the network; `name` is what its problems are reported for."""
    expected = net.state_dict()
    common = expected.keys() & state.keys()
    without_values = {k for k in common if not has_values(state[k], expected[k])}
    wrong = {
        "missing": expected.keys() - state.keys(),
        "unexpected": state.keys() - expected.keys(),
        "without plain values (integer, complex, sparse, meta, quantized or nested)": without_values,
        "of another shape": {k for k in common - without_values if expected[k].shape != state[k].shape},
        "not finite": {k for k in common - without_values if not state[k].isfinite().all()},
    }
    problems = [
        f"{len(keys)} {what} ({', '.join(sorted(keys)[:3])}{', ...' * (len(keys) > 3)})"
        for what, keys in wrong.items()
        if keys
    ]
    if problems:
        raise ValueError(f"{name} does not fit: {'; '.join(problems)}")
    net.load_state_dict(state)


def has_values(tensor: Tensor, expected: Tensor) -> bool:
    plain = tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_quantized or tensor.is_nested)
    return plain and (tensor.is_floating_point() or not expected.is_floating_point())


def read(weights: Path | str) -> object:
    """What torch.save wrote. Raises ValueError for anything that would have to run code to be read."""
    kinds = [kind for kind in vars(np.dtypes).values() if isinstance(kind, type)]
    try:
        with torch.serialization.safe_globals([np.dtype, np.ndarray, *NUMPY, *kinds]):
            return torch.load(weights, map_location="cpu", weights_only=True)
    except Exception:  # a file that is cut or made up raises whatever its bytes lead to
        problem = "holds more than tensors and numbers, or is no file of torch.save"
        raise ValueError(f"{Path(weights).name} {problem}") from None


def unwrapped(state: object) -> dict[str, Tensor]:
    """The state dict of a checkpoint, without the levels and prefixes that trainers, DDP and torch.compile put around
    it. Raises ValueError where there is none."""
    for _ in LEVELS:
        inner = [state[n] for n in LEVELS if isinstance(state.get(n), dict)] if isinstance(state, dict) else []
        state = inner[0] if inner else state
    tensors = {}
    if isinstance(state, dict):
        tensors = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
        tensors.pop("n_averaged", None)  # of torch's AveragedModel
    if not tensors:
        raise ValueError(
            f"the file holds no state dict but {type(state).__name__}: torch.save(network.state_dict(), ...)"
        )
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in tensors)), ""):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors
