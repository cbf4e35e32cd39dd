"""What is measured and what came of it: a case is a row of every table, a run one fresh process that measured it."""

import msgspec

# How a run can end. Each but `ok` carries its reason; no row is ever dropped.
STATUSES = ("ok", "timeout", "oom", "error", "wrong", "skipped")
MEASURED = ("ok", "wrong")  # these ran to their end; `wrong` computed something else than FP32 eager does
# What a run sets once for all of its cases. Cases that differ in one of these are not comparable.
SHARED = ("size", "in_chans", "batch_size", "threads", "pretrained", "seed")
BUSY_CPUS = 0.2  # above which a run was disturbed by other processes, and is repeated
FEATURES = "features"  # nothing follows the encoder: its feature maps
# What can follow an encoder, as tables and pictures call it and in their order.
DECODERS = {
    "": "with classifier",
    FEATURES: "feature maps alone",
    "fpn": "FPN",
    "smp-fpn": "smp's FPN",
    "unet": "UNet",
    "smp-unet": "smp's UNet",
}

# What is timed: the network's own output, or a map of labels, in one of three ways.
OUTPUTS = {
    "logits": "logits",
    "argmax": "argmax behind the network",
    "graph": "argmax in the graph",
    "labels": "fused argmax",
}


def sides(size: tuple[int, ...]) -> str:
    """`512x512`"""
    return "x".join(map(str, size))


class Case(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One network under one mode on one input. Hashable: two runs belong together when their cases are equal."""

    model: str
    mode: str
    size: tuple[int, ...]  # (H, W) in pixels, or (D, H, W) in voxels
    in_chans: int = 3  # of an image; see `channels`
    batch_size: int = 1
    threads: int = 1
    allocator: str = "retained"  # "pinned" or "plain", see timing.pin_allocator
    protocol: str = "quiet"  # or "usual", see timing.usual
    decoder: str = ""  # one of DECODERS
    classes: int = 0  # of the decoder, or of a 3D network
    output: str = "logits"  # one of OUTPUTS
    pretrained: bool = False
    weights: str = ""  # name and digest of a file with a state dict, for the 3D networks; digest of an own network
    seed: int = 0

    @property
    def own(self) -> bool:
        """Whether `model` is package.module:function, a user's own network."""
        return ":" in self.model

    @property
    def channels(self) -> int:
        """Of the input. A CT has one, whatever the images of the same run have."""
        return self.in_chans if len(self.size) == 2 or self.own else 1

    @property
    def network(self) -> str:
        """`resnet18 fpn`, `stunet_s 128x128x64, 117 classes`"""
        volume = f"{sides(self.size)}, {self.classes} classes" if len(self.size) == 3 else ""
        return " ".join(part for part in (self.model, self.decoder, volume) if part)

    @property
    def name(self) -> str:
        """What a progress bar shows: `resnet18 compile`."""
        unusual = [self.allocator] * (self.allocator != "retained") + [self.protocol] * (self.protocol != "quiet")
        batch = f"batch {self.batch_size}" if self.batch_size > 1 else ""
        channels = f"in_chans {self.in_chans}" if self.in_chans != 3 else ""
        output = "" if self.output == "logits" else f"({OUTPUTS[self.output]})"
        return " ".join(part for part in (self.network, self.mode, output, channels, batch, *unusual) if part)

    @property
    def group(self) -> "Case":
        """The same case whatever the mode, decoder, output, batch and allocator: the cases of a group are measured next
        to each other, so that the machine is in one state for what is compared."""
        return msgspec.structs.replace(self, mode="", allocator="", decoder="", classes=0, output="", batch_size=0)


class Outcome(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="kind", tag="visit"):
    """What a sweep has to remember of a run: how it ended and what it cost."""

    case: Case
    session: str = ""  # the run log's file that holds it; known from the file, not written into it
    round: int = 0  # from 1
    started: str = ""  # UTC, ISO 8601
    status: str = "ok"
    reason: str = ""
    budget_s: float = 0
    seconds: float = 0  # wall time of the run, as the sweeping process saw it
    cache: str = ""  # "cold" or "warm": whether what preparing makes was found on disk; "" where it makes nothing
    # MB that one inference adds to the resident set of the loaded model, for the whole batch
    memory_mb: float | None = None


class Run(Outcome, tag="visit"):
    """What one fresh process saw of one case. Times are raw; tables decide later which of them count."""

    # Wall time of its parts; `inference` and `reference times` are parts of `measure`. Export, convert and compile are what
    # preparing from nothing takes, `saved_s` what of that was found on disk.
    phases_s: dict[str, float] = {}
    saved_s: float = 0
    params: int = 0
    gmacs: float = 0  # of one batch, from torch's FLOP counter
    model_mb: float | None = None  # of a converted model on disk
    loaded_mb: float | None = None  # MB that preparing left in the resident set: what was loaded, packed and set aside
    decoder_params: int = 0
    decoder_gmacs: float = 0  # of one batch
    per_sample: int = 1  # back-to-back inferences in one sample
    samples_ms: list[float] = []  # per inference
    reference_ms: list[tuple[float, float]] = []  # (convolution, GEMM), one more than samples: before and after each
    page_faults: float = 0  # minor faults per timed inference
    others_cpus: float = 0  # CPUs that other processes used meanwhile, beyond those that the threads leave free
    throttled_cpus: float = 0  # CPUs that the quota of a control group took away meanwhile
    stolen_cpus: float = 0  # CPUs that the hypervisor gave to others meanwhile
    rel_error: float | None = None  # relative L2 of the first output against FP32 eager; None where not finite
    argmax_agreement: float | None = None  # share of the pixels with the class that FP32 eager gives them
    output_std: float | None = None  # standard deviation of the first output in FP32 eager
    ran: dict[str, str] = {}  # read back from the runtime: output dtype, threads, denormals

    @property
    def threads(self) -> int:
        """As a floor has them."""
        return self.case.threads

    @property
    def busy_cpus(self) -> float:
        """CPUs that it wanted and did not get."""
        return self.others_cpus + self.throttled_cpus

    def outcome(self) -> Outcome:
        """Without the samples."""
        return Outcome(**{name: getattr(self, name) for name in Outcome.__struct_fields__})


class MachineSpeed(msgspec.Struct, kw_only=True, tag_field="kind", tag="floor"):
    """What the reference workload and the largest workloads reached in a session before its first case of that many threads."""

    threads: int
    started: str  # UTC, ISO 8601
    reference_ms: list[tuple[float, float]]
    peak_gflops: dict[str, float]  # by precision
    seconds: float = 0  # wall time, with the start of the server where that was needed
    session: str = ""
