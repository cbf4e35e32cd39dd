"""State dicts as trainers write them, put into a network."""

import pickle
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

    Raises ValueError that names what is missing, unexpected or of another shape, in one message, or says that the file
    holds something else.
    """
    name, state = Path(weights).name, unwrapped(read(weights))
    expected = net.state_dict()
    wrong = {
        "missing": sorted(expected.keys() - state.keys()),
        "unexpected": sorted(state.keys() - expected.keys()),
        "of another shape": sorted(k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape),
    }
    problems = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' * (len(keys) > 3)})" for what, keys in wrong.items() if keys
    ]
    if problems:
        raise ValueError(f"{name} does not fit: {'; '.join(problems)}")
    net.load_state_dict(state)


def read(weights: Path | str) -> object:
    """What torch.save wrote. Raises ValueError for anything that would have to run code to be read."""
    kinds = [kind for kind in vars(np.dtypes).values() if isinstance(kind, type)]
    try:
        with torch.serialization.safe_globals([np.dtype, np.ndarray, *NUMPY, *kinds]):
            return torch.load(weights, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, OSError):
        problem = "holds more than tensors and numbers, or is no file of torch.save"
        raise ValueError(f"{Path(weights).name} {problem}") from None


def unwrapped(state: object) -> dict[str, Tensor]:
    """The state dict of a checkpoint, without the levels and prefixes that trainers, DDP and torch.compile put around
    it. Raises ValueError where there is none."""
    while isinstance(state, dict) and (
        inner := next((state[n] for n in LEVELS if isinstance(state.get(n), dict)), None)
    ):
        state = inner
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, dict) else {}
    if not tensors:
        raise ValueError(
            f"the file holds no state dict but {type(state).__name__}: torch.save(network.state_dict(), ...)"
        )
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in tensors)), ""):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors
