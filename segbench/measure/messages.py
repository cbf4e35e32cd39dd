"""What the sweeping process and the server that forks its workers say to each other, in JSON."""

import msgspec

from ..cases import Case
from ..records import MachineSpeed, Run


class Order(msgspec.Struct, tag=True):
    """What to do in a fresh process: run a case, or, without one, take reference times and find peak rates."""

    threads: int
    case: Case | None = None
    bound_ms: tuple[float, float] = (0, 0)  # up to which reference times are valid
    samples_wanted: int = 12  # valid ones
    budget_s: float = 2
    source: str = ""  # path of the weights that the case names, or of the module of the user's network
    native_bf16: bool = False


class Started(msgspec.Struct, tag=True):
    pid: int  # also the process group's


class Phase(msgspec.Struct, tag=True):
    """What the process does from now on; sent again as a sign of life."""

    name: str  # build, prepare, memory, measure, check


class Done(msgspec.Struct, tag=True):
    line: Run | MachineSpeed


class Exited(msgspec.Struct, tag=True):
    signal: int = 0  # that ended the process; 0 if it ended by itself


Message = Started | Phase | Done | Exited
