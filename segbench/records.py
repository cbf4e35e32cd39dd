"""The lines of a run log: the header of a session, the speed of the machine at its start, and every run."""

from functools import cache
from typing import Annotated

import msgspec

from . import modes
from .cases import MEASURED, Case
from .machine import Machine

SCHEMA = 3
Positive = Annotated[float, msgspec.Meta(gt=0)]  # checked where a file is read

# Names in the code -> names in the files of run logs. The files keep their first names: every committed one is valid.
FILE_NAMES = {
    "Run": "visit",
    "MachineSpeed": "floor",
    "reference_ms": "readings_ms",
    "project": "quiet",
    "fixed-iteration": "usual",
    "samples": "iterations",
    "background_load": "stress",
}
CODE_NAMES = {name: code for code, name in FILE_NAMES.items()}


class Header(msgspec.Struct, kw_only=True, tag_field="kind", tag="header"):
    schema: int
    benchmark: str
    machine: Machine
    settings: dict[str, object]  # what changes what is measured
    versions: dict[str, str]  # of what this session's numbers depend on
    label: str = ""
    started: str = ""  # UTC, ISO 8601
    boot_id: str = ""
    host: str = ""  # machine.host_id(), the same after a reboot; "" where there is none
    commit: str = ""

    @property
    def folder(self) -> str:
        """The name of the run log's folder: the machine's name, and the label where one was given."""
        return f"{self.machine.name}-{self.label}" if self.label else self.machine.name

    @property
    def host_ids(self) -> set[str]:
        """Ids of the host: sessions that share one of these are of one host."""
        return {self.boot_id, self.host} - {""} or {""}


class Run(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="kind", tag=FILE_NAMES["Run"], rename=FILE_NAMES):
    """What one fresh process measured of one case. Times are raw; tables decide later which of them count."""

    case: Case
    session: str = ""  # the run log's file that holds it; known from the file, not written into it
    round: int = 0  # from 1
    started: str = ""  # UTC, ISO 8601
    status: str = "ok"
    reason: str = ""
    budget_s: float = 0
    seconds: float = 0  # wall time of the run, as the sweeping process saw it
    cache: str = ""  # "cold" or "warm": whether a converted or compiled model was on disk; "" where there is none
    # MB that one inference adds to the resident set of the loaded model, for the whole batch
    memory_mb: float | None = None
    # Wall time of its parts. Export, convert and compile are what preparing from nothing takes, `saved_s` is what of
    # that was saved by results on disk.
    phases_s: dict[str, float] = {}
    saved_s: float = 0
    params: int = 0
    gmacs: float = 0  # of one batch, from torch's FLOP counter
    model_mb: float | None = None  # of a converted model on disk
    unpack_ms: float | None = None  # of an inference: copying outputs from a runtime's own layout, where it does
    loaded_mb: float | None = None  # MB that preparing added to the resident set: what was loaded and packed
    decoder_params: int = 0
    decoder_gmacs: float = 0  # of one batch
    per_sample: int = 1  # back-to-back inferences in one sample
    samples_ms: list[Positive] = []  # per inference
    reference_ms: list[tuple[Positive, Positive]] = []  # (convolution, GEMM), before and after each sample
    page_faults: float = 0  # minor faults per timed inference
    others_cpus: float = 0  # CPUs that other processes used meanwhile, beyond those that the threads leave free
    throttled_cpus: float = 0  # CPUs that the quota of a control group took away meanwhile
    stolen_cpus: float = 0  # CPUs that the hypervisor gave to others meanwhile
    rel_error: float | None = None  # relative L2 against FP32 eager, the largest of all outputs; None where not finite
    argmax_agreement: float | None = None  # share of the pixels with the class that FP32 eager gives them
    output_std: float | None = None  # standard deviation of the first output in FP32 eager
    ran: dict[str, str] = {}  # read back from the runtime: output dtype, threads, denormals

    def __post_init__(self):
        """Raises ValueError where it could not be evaluated."""
        if self.status in MEASURED and self.reference_ms and not 1 < len(self.reference_ms) == len(self.samples_ms) + 1:
            raise ValueError(f"{len(self.samples_ms)} samples between {len(self.reference_ms)} reference times")

    @property
    def busy_cpus(self) -> float:
        """CPUs that others took from it."""
        return self.others_cpus + self.throttled_cpus


class MachineSpeed(msgspec.Struct, kw_only=True, tag_field="kind", tag=FILE_NAMES["MachineSpeed"], rename=FILE_NAMES):
    """Reference times and highest rates of arithmetic, before the first case of a session with that many threads."""

    threads: int
    started: str = ""  # UTC, ISO 8601
    reference_ms: list[tuple[Positive, Positive]]
    peak_gflops: dict[str, Positive]  # by precision
    seconds: float = 0  # wall time, with the start of the server where that was needed
    session: str = ""


def renamed(line: Header | MachineSpeed | Run, names: dict[str, str]) -> Header | MachineSpeed | Run:
    """A copy with FILE_NAMES, or CODE_NAMES, for what is not a field: settings, values of a case."""
    if isinstance(line, Header):
        return msgspec.structs.replace(line, settings={names.get(key, key): v for key, v in line.settings.items()})
    if isinstance(line, MachineSpeed):
        return line
    return msgspec.structs.replace(line, case=renamed_case(line.case, names is FILE_NAMES))


@cache
def renamed_case(case: Case, for_file: bool) -> Case:
    names = FILE_NAMES if for_file else CODE_NAMES
    return msgspec.structs.replace(case, protocol=names.get(case.protocol, case.protocol))


class CaseOfSchema2(Case, frozen=True, kw_only=True, omit_defaults=True):
    allocator: str = "pinned"  # or "plain", glibc's as it comes


class RunOfSchema2(Run, kw_only=True, tag_field="kind", tag=FILE_NAMES["Run"], rename=FILE_NAMES):
    case: CaseOfSchema2


DECODERS = {  # by schema, of a line of a run log
    2: msgspec.json.Decoder(Header | MachineSpeed | RunOfSchema2),
    SCHEMA: msgspec.json.Decoder(Header | MachineSpeed | Run),
}


def decoded(text: bytes, schema: int) -> Header | MachineSpeed | Run:
    """A line of a run log, with the code's names. Raises msgspec.MsgspecError."""
    line = DECODERS.get(schema, DECODERS[SCHEMA]).decode(text)
    if isinstance(line, RunOfSchema2):
        fields = {name: getattr(line, name) for name in Run.__struct_fields__}
        line = Run(**fields | {"case": of_schema_2(line.case)})
    return renamed(line, CODE_NAMES)


@cache
def of_schema_2(case: CaseOfSchema2) -> Case:
    """There the allocator was a field of its own, retained where it was not named, and OpenVINO delivered images' maps
    with their channels innermost."""
    nhwc = modes.find(case.mode).runtime == "openvino" and len(case.size) == 2
    parts = [case.mode, *[modes.NHWC] * nhwc, *[modes.RETAINED] * (case.allocator == "pinned")]
    return Case(**{name: getattr(case, name) for name in Case.__struct_fields__} | {"mode": "+".join(parts)})
