"""The encoders: 17 families, 48 models, one line each. To add an encoder, add its line."""

import fnmatch
from typing import NamedTuple


class Encoder(NamedTuple):
    """A timm model and what is known of it beforehand; the tests hold what is built against it."""

    family: str
    model: str  # timm's name
    params_m: float  # M, with the classifier of 1000 classes, reparameterised
    gmacs: float  # GMAC at 512x512, batch 1 (torch's FLOP counter, timm 1.0.22)
    top1: float | None  # %, ImageNet-1k val: timm's results-imagenet.csv (2026-08), the model's default weights ...
    top1_size: int | None  # ... at this image size, in pixels


# fmt: off
ENCODERS = (
    #        family         model                      params   gmacs   top1   at
    Encoder("MobileOne",   "mobileone_s0",             2.079,  1.43, 71.398,  224),
    Encoder("MobileOne",   "mobileone_s1",             4.765,  4.31, 75.760,  224),
    Encoder("MobileOne",   "mobileone_s2",             7.808,  6.77, 77.504,  224),
    Encoder("MobileOne",   "mobileone_s3",            10.078,  9.90, 78.002,  224),
    Encoder("MobileNetV4", "mobilenetv4_conv_small",   3.774,  0.96, 73.756,  224),
    Encoder("MobileNetV4", "mobilenetv4_conv_medium",  9.716,  4.31, 79.916,  256),
    Encoder("MobileNetV4", "mobilenetv4_conv_large",  32.591, 11.33, 82.974,  384),
    Encoder("MobileNetV3", "mobilenetv3_small_100",    2.543,  0.29, 67.636,  224),
    Encoder("MobileNetV3", "mobilenetv3_large_100",    5.483,  1.11, 75.784,  224),
    Encoder("RegNetX",     "regnetx_002",              2.685,  1.04, 68.758,  224),
    Encoder("RegNetX",     "regnetx_004",              5.158,  2.08, 72.482,  224),
    Encoder("RegNetX",     "regnetx_008",              7.260,  4.18, 77.294,  224),
    Encoder("RegNetX",     "regnetx_016",              9.190,  8.37, 79.440,  224),
    Encoder("RegNetX",     "regnetx_032",             15.297, 16.59, 80.916,  224),
    Encoder("RegNetY",     "regnety_002",              3.163,  1.04, 70.288,  224),
    Encoder("RegNetY",     "regnety_004",              4.344,  2.09, 75.594,  224),
    Encoder("RegNetY",     "regnety_008",              6.263,  4.16, 76.334,  224),
    Encoder("RegNetY",     "regnety_016",             11.202,  8.41, 80.668,  224),
    Encoder("ResNet",      "resnet18",                11.690,  9.48, 71.504,  224),
    Encoder("ResNet",      "resnet34",                21.798, 19.14, 76.420,  224),
    Encoder("ResNet",      "resnet50",                25.557, 21.36, 80.382,  224),
    Encoder("EfficientNet", "efficientnet_b0",          5.289,  2.01, 77.698,  224),
    Encoder("EfficientNet", "efficientnet_b1",          7.794,  2.97, 80.404,  240),
    Encoder("EfficientNet", "efficientnet_b2",          9.110,  3.43, 79.324,  256),
    Encoder("RepVGG",      "repvgg_a0",                8.309,  7.11, 72.426,  224),
    Encoder("RepVGG",      "repvgg_a1",               12.790, 12.35, 74.474,  224),
    Encoder("RepVGG",      "repvgg_a2",               25.500, 26.73, 76.488,  224),
    Encoder("RepVGG",      "repvgg_b0",               14.339, 15.97, 75.158,  224),
    Encoder("LCNet",       "lcnet_100",                2.954,  0.80, 72.130,  224),
    Encoder("LCNet",       "lcnet_150",                4.501,  1.73,   None, None),
    Encoder("TinyNet",     "tinynet_a",                6.188,  2.38, 77.666,  192),
    Encoder("TinyNet",     "tinynet_b",                3.731,  1.44, 74.946,  188),
    Encoder("TinyNet",     "tinynet_c",                2.457,  0.72, 71.214,  184),
    Encoder("EdgeNeXt",    "edgenext_x_small",         2.337,  2.13, 74.874,  256),
    Encoder("EdgeNeXt",    "edgenext_small",           5.587,  5.01, 81.068,  256),
    Encoder("ConvNeXt",    "convnext_tiny",           28.589, 23.27, 84.192,  224),
    Encoder("ConvNeXt",    "convnext_small",          50.224, 45.36, 85.164,  224),
    Encoder("GhostNetV2",  "ghostnetv2_100",           6.157,  0.87, 75.186,  224),
    Encoder("GhostNetV2",  "ghostnetv2_130",           8.960,  1.40, 76.746,  224),
    Encoder("GhostNetV2",  "ghostnetv2_160",          12.393,  2.08, 77.836,  224),
    Encoder("DenseNet",    "densenet121",              7.979, 14.80, 75.574,  224),
    Encoder("DenseNet",    "densenet169",             14.149, 17.55, 75.922,  224),
    Encoder("ViT",         "vit_tiny_patch16_224",     5.876, 10.43, 75.452,  224),
    Encoder("ViT",         "vit_small_patch16_224",   22.369, 31.75, 81.402,  224),
    Encoder("PoolFormer",  "poolformer_s12",          11.915,  9.47, 77.238,  224),
    Encoder("PoolFormer",  "poolformer_s24",          21.389, 17.72, 80.294,  224),
    Encoder("MobileNetV2", "mobilenetv2_100",          3.505,  1.57, 72.910,  224),
    Encoder("MobileNetV2", "mobilenetv2_140",          6.109,  3.03, 76.528,  224),
)
# fmt: on

BY_MODEL = {encoder.model: encoder for encoder in ENCODERS}
FAMILIES = tuple(dict.fromkeys(encoder.family for encoder in ENCODERS))
# The five that the reference project's README puts first.
FIVE = ("mobileone_s0", "regnetx_002", "mobilenetv4_conv_small", "lcnet_100", "mobilenetv3_small_100")
# What the sweeps with decoders begin with: small and large, with depthwise convolutions and without, of five and four
# levels, and a transformer.
TWELVE = (
    *FIVE,
    "mobileone_s1",
    "mobilenetv4_conv_medium",
    "regnety_004",
    "resnet18",
    "efficientnet_b0",
    "edgenext_x_small",
    "vit_tiny_patch16_224",
)
# The official 3D models; segbench/models makes them.
VOLUMES = ("stunet_s", "stunet_b", "stunet_l", "stunet_h")
VOLUMES += ("totalsegmentator", "totalsegmentator_small", "resenc", "segresnet")
PATCH, TILE = (128, 128, 64), (128, 128, 128)  # voxels: what they are compared on, what they cut a volume into


class ReleasedModel(NamedTuple):
    """How a released 3D model goes over a volume, in tiles of TILE voxels."""

    name: str
    model: str
    classes: int  # output channels of one network; 0 where it is all classes of the sweep
    networks: int
    resolution_mm: float


# Each of TotalSegmentator's five networks tells about 24 classes and the background apart, its --fast one all 117 and
# the background.
RELEASED = (
    ReleasedModel("STU-Net-S, 1.5 mm", "stunet_s", 0, 1, 1.5),
    ReleasedModel("STU-Net-B, 1.5 mm", "stunet_b", 0, 1, 1.5),
    ReleasedModel("TotalSegmentator, 1.5 mm", "totalsegmentator", 25, 5, 1.5),
    ReleasedModel("TotalSegmentator --fast, 3 mm", "totalsegmentator", 118, 1, 3.0),
    ReleasedModel("TotalSegmentator v3, small, 1.5 mm", "totalsegmentator_small", 25, 5, 1.5),
)


def family(model: str) -> str:
    """The family of a zoo model; for any other timm model the part of its name before the first digit or underscore."""
    if model in VOLUMES:
        return "3D"
    if ":" in model:
        return "own"
    architecture = model.split(".")[0]  # what follows names the weights
    if architecture in BY_MODEL:
        return BY_MODEL[architecture].family
    return architecture.split("_")[0].rstrip("0123456789") or model


def match(name: str) -> list[str]:
    """Zoo models that `name` means: a model, a family (any case), `five`, `twelve`, `all`, or a pattern."""
    groups = {"all": BY_MODEL, "five": FIVE, "twelve": TWELVE}
    if name.lower() in groups:
        return [*groups[name.lower()]]
    members = [encoder.model for encoder in ENCODERS if encoder.family.lower() == name.lower()]
    return members or fnmatch.filter(BY_MODEL, name)
