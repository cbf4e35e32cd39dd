"""What is measured: a case is a row of every table."""

from typing import Annotated

import msgspec

# A run ends ok, timeout, oom, error, wrong or skipped; each but ok has its reason, and no row is ever dropped.
MEASURED = ("ok", "wrong")  # these ran to their end; `wrong` computed something else than FP32 eager does
# What a command sets once for all of its cases. Cases that differ in one of these are not comparable.
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
    "argmax": "argmax after the network",
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
    batch_size: Annotated[int, msgspec.Meta(ge=1)] = 1  # checked where a run log is read
    threads: int = 1
    protocol: str = "project"  # or "fixed-iteration", see timing.fixed_iterations
    decoder: str = ""  # one of DECODERS
    classes: int = 0  # of the decoder, or of a 3D network
    output: str = "logits"  # one of OUTPUTS
    pretrained: bool = False
    weights: str = ""  # of a 3D network: name and digest of a file with a state dict; of a user's network: its digest
    seed: int = 0

    @property
    def own(self) -> bool:
        """Whether `model` is package.module:function, a user's own network."""
        return ":" in self.model

    @property
    def channels(self) -> int:
        """Of the input. A CT has one, whatever the images of the same command have."""
        return self.in_chans if len(self.size) == 2 or self.own else 1

    @property
    def network(self) -> str:
        """`resnet18 fpn`, `stunet_s 128x128x64, 117 classes`"""
        volume = f"{sides(self.size)}, {self.classes} classes" if len(self.size) == 3 else ""
        return " ".join(filter(None, (self.model, self.decoder, volume)))

    @property
    def name(self) -> str:
        """What a progress bar shows: `resnet18 compile`."""
        protocol = self.protocol if self.protocol != "project" else ""
        batch = f"batch {self.batch_size}" if self.batch_size > 1 else ""
        channels = f"in_chans {self.in_chans}" if self.in_chans != 3 else ""
        output = "" if self.output == "logits" else f"({OUTPUTS[self.output]})"
        return " ".join(filter(None, (self.network, self.mode, output, channels, batch, protocol)))

    @property
    def group(self) -> "Case":
        """The same case without mode, decoder, output and batch: the cases of a group are compared, so they are
        measured next to each other, while the machine is in one state."""
        return msgspec.structs.replace(self, mode="", decoder="", classes=0, output="", batch_size=0)

    def under(self, mode: str) -> "Case":
        """The same under another mode."""
        return msgspec.structs.replace(self, mode=mode)
