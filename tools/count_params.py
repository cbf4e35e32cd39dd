"""Parameters, GMACs and activations of any network here, without timing it and without allocating its weights.

Names: an encoder of the zoo or of timm (resnet18), with a decoder (resnet18+fpn, resnet18+unet), stunet_s, stunet_b,
stunet_l, stunet_h, totalsegmentator, totalsegmentator_small, resenc,
segresnet; 'all' for the zoo and the 3D networks. Networks with branches
that inference folds (MobileOne, RepVGG) have a row before and one after.

    uv run count_params.py resnet18 resnet18+unet stunet_b
    uv run count_params.py --network models:segmenter --size 256 256
    uv run count_params.py --check
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from segbench import zoo
from segbench.cases import sides
from segbench.custom_network import check_name
from segbench.problem import Problem, exit_with
from segbench.settings import default_is, did_you_mean, parse
from segbench.zoo import PATCH, VOLUMES

# What was published, for --check: (name, classes, size, parameters, GMACs, relative tolerance of the GMACs). Networks
# with decoders and the 3D ones to the digit; GMACs of STU-Net (arXiv 2304.06716, table 1, "FLOPs"), ResEnc and
# SegResNet at 128x128x128 to the digits that were published, STU-Net's with its five heads.
PUBLISHED = (
    ("mobileone_s0+fpn", 117, (512, 512), 1_993_525, None, 0),
    ("mobileone_s0+unet", 117, (512, 512), 4_629_973, None, 0),
    ("mobilenetv3_small_100+fpn", 117, (512, 512), 1_765_653, None, 0),
    ("mobilenetv3_small_100+unet", 117, (512, 512), 3_418_037, None, 0),
    ("mobilenetv4_conv_small+fpn", 117, (512, 512), 2_162_773, None, 0),
    ("mobilenetv4_conv_small+unet", 117, (512, 512), 4_316_405, None, 0),
    ("regnetx_002+fpn", 117, (512, 512), 3_146_245, None, 0),
    ("regnetx_002+unet", 117, (512, 512), 4_879_525, None, 0),
    ("resnet18+fpn", 117, (512, 512), 12_053_045, None, 0),
    ("resnet18+unet", 117, (512, 512), 14_242_517, None, 0),
    ("mobilenetv4_conv_medium+fpn", 117, (512, 512), 8_116_549, None, 0),
    ("mobilenetv4_conv_medium+unet", 117, (512, 512), 10_432_997, None, 0),
    ("stunet_s", 105, (128, 128, 128), 14_596_941, 130, 0.01),
    ("stunet_b", 105, (128, 128, 128), 58_262_669, 510, 0.01),
    ("stunet_l", 105, (128, 128, 128), 440_302_605, 3810, 0.01),
    ("stunet_h", 105, (128, 128, 128), 1_457_326_221, 12600, 0.01),
    ("totalsegmentator", 117, (128, 128, 64), 31_288_169, 242.5, 0.001),
    ("resenc", 118, (128, 128, 128), 102_443_150, 725, 0.01),
    ("segresnet", 118, (128, 128, 128), 18_799_830, 587, 0.01),
)
COLUMNS = ("network", "branches", "classes", "size", "params", "trainable", "buffers")
DIGITS = {"weights_mb": 2, "gmacs": 2, "activations_m": 2, "peak_mb": 1}


@dataclass
class Settings:
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """What to count; patterns work ('regnetx_*+unet')."""
    size: Annotated[
        tuple[int, ...] | None,
        tyro.conf.arg(metavar="H W | D H W", help_behavior_hint="(default: 512 512, of 3D networks 128 128 64)"),
    ] = None
    """Sides of the input."""
    network: str = ""
    """A network of your own: package.module:function, which returns an nn.Module; looked for in the current folder
    too."""
    in_chans: int = 3
    """Channels of the input of your own network."""
    num_classes: Annotated[int | None, default_is("117")] = None
    """Of the decoders and the 3D networks; encoders alone keep the 1000 of ImageNet."""
    format: Literal["table", "csv"] = "table"
    check: bool = False
    """Compare with the published counts of the names given, or of all; exit status 1 where one differs."""


def expanded(names: tuple[str, ...]) -> list[str]:
    """Every network that the names mean. Raises Problem for a name that nothing answers to."""
    import timm

    networks = []
    for name in names:
        model, plus, decoder = name.partition("+")
        volumes = [volume for volume in VOLUMES if name in ("all", volume)]
        encoders = zoo.match(model) or ([model] if timm.is_model(model) else [])
        if not volumes and not encoders:
            hint = did_you_mean(model, [*VOLUMES, *zoo.BY_MODEL, *timm.list_models()])
            raise Problem(f"unknown network {name!r}{hint}")
        networks += [encoder + plus + decoder for encoder in encoders] + volumes
    return [*dict.fromkeys(networks)]


def counted(name: str, classes: int, size: tuple[int, ...] | None, every_head: bool = False) -> list[dict]:
    """A row, or two where there are branches to fold."""
    from segbench import counting

    size = size or (PATCH if name in VOLUMES else (512, 512))
    if len(size) != (3 if name in VOLUMES else 2) or min(size) < 1:
        raise Problem(f"{name} takes a size of {'D H W' if name in VOLUMES else 'H W'}, not {' '.join(map(str, size))}")
    try:
        network = counting.network(name, classes, size, every_head)
        folded = counting.reparameterised(network)
        states = {"": network} if folded is None else {"as trained": network, "folded": folded}
        about = {"network": name, "classes": classes if "+" in name or name in VOLUMES else 1000}
        return [
            {**about, "branches": state, "size": sides(size), **counting.count(module, size)._asdict()}
            for state, module in states.items()
        ]
    except ImportError as error:
        raise Problem(f"{name} needs a library that is missing: {error}") from None
    except Problem:
        raise
    except Exception as error:  # whatever a network of timm's raises for a size that it cannot take
        raise Problem(f"{name} cannot be counted at {sides(size)}: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def counted_custom(name: str, size: tuple[int, ...], in_chans: int) -> list[dict]:
    """The row of a user's own network. Raises Problem."""
    check_name(name)
    import torch

    from segbench import counting
    from segbench.models.custom import build_custom

    try:
        network = build_custom(name, str(Path.cwd()), image=torch.zeros(1, in_chans, *size)).to("meta")
        return [{"network": name, "size": sides(size), **counting.count(network, size, in_chans)._asdict()}]
    except Exception as error:  # whatever a network or its module raises
        about = f"{type(error).__name__}, {first_line(error)} (its input is {(1, in_chans, *size)}: --size, --in-chans)"
        raise Problem(f"--network {name}: {about}") from None


def differences(names: list[str]) -> list[str]:
    """Where a count is not the published one, in words."""
    texts = []
    for name, classes, size, params, gmacs, tolerance in PUBLISHED:
        if names and name not in names:
            continue
        row = counted(name, classes, size, every_head=True)[-1]
        if row["params"] != params:
            texts.append(f"{name}: {row['params']:,} parameters, published {params:,}")
        if gmacs and abs(row["gmacs"] - gmacs) > tolerance * gmacs:
            texts.append(f"{name}: {row['gmacs']:.1f} GMACs at {row['size']}, published {gmacs}")
    for known in zoo.ENCODERS:
        if names and known.model not in names:
            continue
        row = counted(known.model, 1000, (512, 512))[-1]
        if abs(row["params"] / 1e6 - known.params_m) > 6e-4 or abs(row["gmacs"] - known.gmacs) > 6e-3:
            counts = f"{row['params'] / 1e6:.3f} M, {row['gmacs']:.2f} GMACs"
            texts.append(f"{known.model}: {counts}, the zoo has {known.params_m} M, {known.gmacs} GMACs")
    return texts


def main() -> int:
    warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)  # of a library that it imports
    settings = parse(Settings(), __doc__)
    classes = 117 if settings.num_classes is None else settings.num_classes
    if classes < 1:
        raise Problem(f"--num-classes {classes} is not positive")
    if settings.network and not settings.names and settings.num_classes is not None:
        raise Problem("--num-classes is for the networks here; the function of --network decides for its own")
    if settings.in_chans < 1:
        raise Problem(f"--in-chans {settings.in_chans} is not positive")
    if settings.network and (len(settings.size or (1, 1)) not in (2, 3) or min(settings.size or (1, 1)) < 1):
        raise Problem(f"--size {' '.join(map(str, settings.size))}: H W, or D H W")
    if not settings.names and not settings.check and not settings.network:
        raise Problem("no network named; try `count_params.py resnet18+unet` or --check")
    names = expanded(settings.names)
    if settings.check:
        texts = differences(names)
        print("\n".join(texts) or "all counts are the published ones")
        return 1 if texts else 0
    rows = [row for name in names for row in counted(name, classes, settings.size)]
    if settings.network:
        rows += counted_custom(settings.network, settings.size or (512, 512), settings.in_chans)
    print(as_csv(rows) if settings.format == "csv" else as_table(rows))
    return 0


def as_csv(rows: list[dict]) -> str:
    import pandas as pd

    from segbench.analysis import tables

    return tables.csv(pd.DataFrame(rows).reindex(columns=[*COLUMNS, *DIGITS])).rstrip("\n")


def as_table(rows: list[dict]) -> str:
    from tabulate import tabulate

    columns = [*COLUMNS, *DIGITS]
    cells = [[row.get(column, "") for column in columns] for row in rows]
    return tabulate(cells, columns, intfmt=",", floatfmt=[f".{DIGITS.get(column, 0)}f" for column in columns])


if __name__ == "__main__":
    exit_with(main)
