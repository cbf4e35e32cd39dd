"""What an nnU-Net checkpoint says about how its network is used. It is followed, or refused in a line that names it.

A checkpoint holds its plans, the name of a configuration of these, and the labels of its data set (`init_args`). Known
entries alone are taken, as numbers and names; nothing that a file names is imported or opened.
"""

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from segbench.problem import Problem

SCIPY, TORCH = "resample_data_or_seg_to_shape", "resample_torch_fornnunet"
READERS = Literal["SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient"]
SCHEMES = Literal["CTNormalization", "ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization"]
CONFIGURATION = "3d_fullres"  # what nnU-Net is given is called
HEAD = re.compile(r"seg_(?:outputs|layers)\.(\d+)\.weight$")  # of STU-Net, of nnU-Net's networks
Millimetres = Annotated[float, Meta(ge=0.01, le=100)]
Axis = Annotated[int, Meta(ge=0, le=2)]


class Resampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Keywords of nnU-Net's two functions, and their defaults."""

    is_seg: Literal[False] = False
    order: Annotated[int, Meta(ge=0, le=5)] = 3  # of the splines
    order_z: Annotated[int, Meta(ge=0, le=5)] = 0  # along the axis of thick slices, where these are resampled apart
    force_separate_z: bool | UnsetType | None = UNSET  # None: where the largest spacing is so often the smallest
    separate_z_anisotropy_threshold: Annotated[float, Meta(gt=0)] = 3
    memefficient_seg_resampling: bool | None = None  # of torch's from here: for label maps
    mode: Literal["linear", None] = None
    aniso_axis_mode: Literal["nearest-exact", None] = None

    def separate_axis(self, spacing: list[float], wanted: list[float]) -> int | None:
        """Which axis is resampled apart from the others, if any."""
        from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis

        threshold = self.separate_z_anisotropy_threshold
        return determine_do_sep_z_and_axis(self.force_separate_z, spacing, wanted, threshold)[1]


class Configuration(msgspec.Struct):
    """A configuration of nnU-Net's plans as they stand in a file; what is not there is as nnU-Net plans by default."""

    spacing: tuple[Millimetres, ...] = ()
    patch_size: tuple[Annotated[int, Meta(ge=1, le=1024)], ...] = ()
    normalization_schemes: tuple[SCHEMES, ...] = ("CTNormalization",)
    use_mask_for_norm: tuple[bool, ...] = (False,)
    previous_stage: str | None = None
    preprocessor_name: Literal["DefaultPreprocessor"] = "DefaultPreprocessor"
    resampling_fn_data: Literal[SCIPY, TORCH] = SCIPY
    resampling_fn_data_kwargs: Resampling = Resampling(order=3, force_separate_z=None)
    resampling_fn_probabilities: Literal[SCIPY, TORCH] = SCIPY
    resampling_fn_probabilities_kwargs: Resampling = Resampling(order=1, force_separate_z=None)


class InFile(msgspec.Struct, frozen=True):
    """Plans as they stand in a file."""

    dataset_name: str = ""
    image_reader_writer: READERS = "SimpleITKIO"
    label_manager: Literal["LabelManager", None] = None
    transpose_forward: tuple[Axis, Axis, Axis] = (0, 1, 2)
    transpose_backward: tuple[Axis, ...] | None = None
    configurations: dict[str, dict[str, Any]] = {}
    foreground_intensity_properties_per_channel: dict[str, Any] | None = None
    foreground_intensity_properties_by_modality: dict[str, Any] | None = None


class DataSet(msgspec.Struct, frozen=True):
    labels: dict[str, int | list[int]] = {}
    channel_names: dict[str, Any] | None = None
    modality: dict[str, Any] | None = None


class Arguments(msgspec.Struct):
    """Of nnU-Net's trainer, as a checkpoint has them."""

    plans: InFile = InFile()
    configuration: str = CONFIGURATION
    dataset_json: DataSet = DataSet()


class Intensities(msgspec.Struct):
    """Of the foreground that nnU-Net saw in training, in Hounsfield units."""

    percentile_00_5: float
    percentile_99_5: float
    mean: float
    std: float


class Plans(msgspec.Struct):
    """How a network is used."""

    spacing_mm: tuple[float, ...]  # that it was trained with, of the axes as transposed
    names: list[str]  # of its classes, the background first
    patch: tuple[int, ...] = (128, 128, 128)
    transpose: tuple[int, ...] = (0, 1, 2)  # from the axes of the reader to the network's
    scheme: SCHEMES = "CTNormalization"
    masked: bool = False  # normalise by what is not 0
    intensities: Intensities | None = None  # None: of the CT itself
    image_function: str = SCIPY
    image: Resampling = Resampling(order=3, force_separate_z=None)
    logits_function: str = SCIPY
    logits: Resampling = Resampling(order=1, force_separate_z=None)
    reader: READERS = "SimpleITKIO"
    dataset: str = ""
    mirrored: bool = False  # nnU-Net would average over mirrored tiles, which neither way does

    @property
    def backward(self) -> tuple[int, ...]:
        return tuple(int(axis) for axis in np.argsort(self.transpose))

    def for_nnunet(self, architecture: dict | None = None, by_torch: bool = False) -> tuple[dict, dict]:
        """nnU-Net's plans and data set. `by_torch`: resample logits so, all classes at once."""
        logits_function = TORCH if by_torch else self.logits_function
        configuration = {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "spacing": list(self.spacing_mm),
            "patch_size": list(self.patch),
            "normalization_schemes": [self.scheme],
            "use_mask_for_norm": [self.masked],
            "resampling_fn_data": self.image_function,
            "resampling_fn_data_kwargs": keywords(self.image_function, self.image),
            "resampling_fn_seg": SCIPY,
            "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
            "resampling_fn_probabilities": logits_function,
            "resampling_fn_probabilities_kwargs": keywords(logits_function, self.logits),
            "architecture": architecture,
        }
        plans = {
            "dataset_name": self.dataset,
            "plans_name": "nnUNetPlans",
            "image_reader_writer": self.reader,
            "label_manager": "LabelManager",
            "transpose_forward": list(self.transpose),
            "transpose_backward": list(self.backward),
            "configurations": {CONFIGURATION: configuration},
            "foreground_intensity_properties_per_channel": {"0": msgspec.to_builtins(self.intensities or {})},
        }
        labels = {name: label for label, name in enumerate(self.names)}
        return plans, {"labels": labels, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}


def read(path: Path, state: dict, checkpoint: object, spacing_mm: float, names: list[str]) -> Plans:
    """Plans of a checkpoint whose weights are `state`; what a state dict alone does not say is as released: an
    isotropic spacing, and names of classes where they are so many. Raises Problem for what is not followed."""
    at = f"--weights {path.name}"
    heads = sorted((int(match[1]), key) for key in state if (match := HEAD.search(key)))
    classes = len(state[heads[-1][1]]) if heads and state[heads[-1][1]].dim() else 0
    given = checkpoint.get("init_args", {}) if isinstance(checkpoint, dict) else {}
    try:
        arguments = msgspec.convert(simple(given), Arguments, strict=False)
        alone = not (isinstance(given, dict) and given.get("plans"))
        plans = of_arguments(arguments, at, (spacing_mm,) * 3 if alone else (), (128,) * 3 if alone else ())
    except msgspec.ValidationError as error:
        raise Problem(f"{at}: its plans are not followed: {error}") from None
    if not alone and plans.scheme == "CTNormalization" and not plans.intensities:
        raise Problem(f"{at}: its plans are not followed: no foreground_intensity_properties_per_channel")
    if classes == 1:
        raise Problem(f"{at} has one class: whole_ct follows networks of a background and more")
    if len(plans.names) not in (0, classes):
        raise Problem(f"{at} has {classes} classes, its plans name {len(plans.names)}")
    if not plans.names:
        plans.names = names if len(names) == classes else ["background", *(f"class {n}" for n in range(1, classes))]
    return plans


def of_arguments(arguments: Arguments, at: str, spacing: tuple[float, ...], patch: tuple[int, ...]) -> Plans:
    """`spacing`, `patch`: of a state dict alone; empty where plans have to say them. Raises Problem, or msgspec's
    ValidationError."""
    in_file, name, data = arguments.plans, arguments.configuration, arguments.dataset_json
    entries = of_configuration(in_file.configurations, name, at)
    configuration = msgspec.convert(entries, Configuration, strict=False)
    if inside := configuration.previous_stage:
        raise Problem(f"{at} is of a cascade ({name} comes after {inside}): whole_ct follows 3d_fullres and 3d_lowres")
    if 2 in (len(configuration.spacing), len(configuration.patch_size)):
        raise Problem(f"{at} is of a 2D configuration ({name}): whole_ct follows 3D ones")
    spacing, patch = configuration.spacing or spacing, configuration.patch_size or patch
    checked = {"spacing": len(spacing) == 3, "patch_size": len(patch) == 3}
    checked["normalization_schemes (one channel)"] = len(configuration.normalization_schemes) == 1
    checked["use_mask_for_norm (one channel)"] = len(configuration.use_mask_for_norm) == 1
    checked["channel_names (one channel)"] = len(data.channel_names or data.modality or {"0": "CT"}) == 1
    backward = tuple(int(axis) for axis in np.argsort(in_file.transpose_forward))
    checked["transpose_forward"] = sorted(in_file.transpose_forward) == [0, 1, 2]
    checked["transpose_backward"] = in_file.transpose_backward in (None, backward)
    for key, right in checked.items():
        if not right:
            raise Problem(f"{at}: its plans are not followed: {key}")
    scheme = configuration.normalization_schemes[0]
    functions = configuration.resampling_fn_data, configuration.resampling_fn_probabilities
    image, logits = configuration.resampling_fn_data_kwargs, configuration.resampling_fn_probabilities_kwargs
    image, logits = map(with_defaults, functions, (image, logits))
    if logits.order != 1 or logits.order_z > 1:
        orders = f"{logits.order}, {logits.order_z} along z"
        raise Problem(f"{at}: its plans resample logits by order {orders}: whole_ct follows 1, 0 or 1 along z")
    return Plans(
        spacing,
        names_of(data, at),
        patch,
        in_file.transpose_forward,
        scheme,
        configuration.use_mask_for_norm[0],
        intensities(in_file, at) if scheme == "CTNormalization" else None,
        functions[0],
        image,
        functions[1],
        logits,
        in_file.image_reader_writer,
        in_file.dataset_name,
    )


def with_defaults(function: str, rule: Resampling) -> Resampling:
    """A rule that says all, also of torch's function: that is linear, and takes the nearest of thick slices."""
    if rule.force_separate_z is UNSET:
        rule = msgspec.structs.replace(rule, force_separate_z=None if function == TORCH else False)
    return msgspec.structs.replace(rule, order=1, order_z=0) if function == TORCH else rule


def keywords(function: str, rule: Resampling) -> dict:
    """Of one of nnU-Net's functions, for its plans."""
    names = (
        "force_separate_z",
        "separate_z_anisotropy_threshold",
        *(("order", "order_z") if function == SCIPY else ()),
    )
    return {"is_seg": False} | {name: getattr(rule, name) for name in names}


def of_configuration(configurations: dict, name: str, at: str) -> dict:
    """A configuration with what it inherits."""
    if not configurations:
        return {}
    entries, visited = {}, []
    while name:
        if name in visited or not isinstance(configurations.get(name), dict):
            raise Problem(f"{at}: its plans have no configuration {name}, or one that inherits from itself")
        visited.append(name)
        entries = configurations[name] | entries
        name = str(configurations[name].get("inherits_from") or "")
    return entries


def names_of(data: DataSet, at: str) -> list[str]:
    """Of the classes, by label; nnU-Net numbers its classes in that order."""
    labels = {name: label for name, label in data.labels.items() if name != "ignore"}
    if any(isinstance(label, list) and len(label) > 1 for label in labels.values()):
        raise Problem(f"{at} was trained with regions (labels that overlap): whole_ct follows plain labels")
    numbers = {name: label[0] if isinstance(label, list) and label else label for name, label in labels.items()}
    unlike = [] not in numbers.values() and len(set(numbers.values())) == len(numbers)
    if labels and not (unlike and numbers.get("background") == 0 == min(numbers.values())):
        raise Problem(f"{at}: its labels are no numbers of their own with background 0")
    return sorted(numbers, key=numbers.get)


def intensities(plans: InFile, at: str) -> Intensities | None:
    """Raises Problem where they are there but no numbers."""
    channels = plans.foreground_intensity_properties_per_channel
    channels = plans.foreground_intensity_properties_by_modality if channels is None else channels
    if channels is None:
        return None
    if "0" not in channels:
        raise Problem(f"{at}: its plans are not followed: foreground_intensity_properties_per_channel has no 0")
    values = msgspec.convert(channels["0"], Intensities, strict=False)
    sound = all(map(math.isfinite, msgspec.structs.astuple(values))) and values.std > 0
    if not sound or values.percentile_00_5 >= values.percentile_99_5:
        raise Problem(f"{at}: its plans are not followed: intensities {msgspec.structs.asdict(values)}")
    return values


def simple(value: object, depth: int = 0) -> object:
    """As JSON has it: names of entries as text, numpy's numbers and arrays as Python's, anything else by its type."""
    if depth > 20:
        return "nested too deeply"
    if isinstance(value, dict):
        return {str(key): simple(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [simple(inner, depth + 1) for inner in value]
    if isinstance(value, np.ndarray | np.generic) and value.size < 1000 and value.dtype != object:
        return value.tolist()
    return value if isinstance(value, str | int | float | None) else type(value).__name__
