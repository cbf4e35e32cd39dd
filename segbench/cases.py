"""What is measured, and what came out: a case is one row of every table, a visit one fresh process that measured it."""

import msgspec

# What a visit can end as. Each but `ok` carries its reason; no row is ever dropped.
STATUSES = ("ok", "timeout", "oom", "error", "wrong", "skipped")


def sides(size: tuple[int, ...]) -> str:
    """`512x512`"""
    return "x".join(map(str, size))


class Case(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One network under one mode on one input. Hashable: two visits belong together when their cases are equal."""

    model: str
    mode: str
    size: tuple[int, ...]  # (H, W) in pixels, or (D, H, W) in voxels
    batch_size: int = 1
    threads: int = 1
    allocator: str = "pinned"  # "pinned" or "plain", see measure.pin_allocator
    protocol: str = "quiet"  # or "usual", see measure.usual
    decoder: str = ""  # "" for the encoder with its classifier, "features" for its maps alone, or "fpn", "unet"
    classes: int = 0  # of the decoder
    pretrained: bool = False
    weights: str = ""  # a file with a state dict, for the 3D networks
    seed: int = 0

    @property
    def network(self) -> str:
        """`resnet18 fpn`, `stunet_s 128x128x64, 117 classes`"""
        volume = f"{sides(self.size)}, {self.classes} classes" if len(self.size) == 3 else ""
        return " ".join(part for part in (self.model, self.decoder, volume) if part)

    @property
    def name(self) -> str:
        """What a progress bar shows: `resnet18 compile`."""
        unusual = [self.allocator] * (self.allocator != "pinned") + [self.protocol] * (self.protocol != "quiet")
        batch = f"batch {self.batch_size}" if self.batch_size > 1 else ""
        return " ".join(part for part in (self.network, self.mode, batch, *unusual) if part)

    @property
    def group(self) -> "Case":
        """The same case whatever the mode, decoder, batch and allocator: what is visited next to each other and
        compared."""
        return msgspec.structs.replace(self, mode="", allocator="", decoder="", classes=0, batch_size=0)


class Visit(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="kind", tag="visit"):
    """What one fresh process saw of one case. Times are raw; tables decide later which of them count."""

    case: Case
    session: int = 0
    round: int = 0  # from 1
    started: str = ""  # UTC, ISO 8601
    status: str = "ok"
    reason: str = ""
    budget_s: float = 0
    seconds: float = 0  # wall time of the visit, as the sweeping process saw it
    phases_s: dict[str, float] = {}  # wall time of its parts; `inference` and `readings` are parts of `measure`
    params: int = 0
    gmacs: float = 0  # of one batch, from torch's FLOP counter
    decoder_params: int = 0
    decoder_gmacs: float = 0  # of one batch
    compiled: str = ""  # "cold" or "warm": whether Inductor found its graph on disk; "" where nothing is compiled
    per_sample: int = 1  # back-to-back inferences in one sample
    samples_ms: list[float] = []  # per inference
    readings_ms: list[tuple[float, float]] = []  # (convolution, GEMM), one more than samples: before and after each
    page_faults: float = 0  # minor faults per timed inference
    others_cpus: float = 0  # CPUs that other processes used meanwhile
    stolen_cpus: float = 0  # CPUs that the hypervisor gave to others meanwhile
    # MB that one inference adds to the resident set of the loaded model, for the whole batch
    memory_mb: float | None = None
    rel_error: float | None = None  # relative L2 of the first output against FP32 eager; None where not finite
    argmax_agreement: float | None = None  # share of the pixels with the class that FP32 eager gives them
    output_std: float | None = None  # standard deviation of the first output in FP32 eager
    ran: dict[str, str] = {}  # read back from the runtime: output dtype, threads, denormals
