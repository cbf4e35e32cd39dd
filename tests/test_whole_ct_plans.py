"""Checkpoints of other people: their plans are followed or refused in a line, and nothing else comes of them."""

import copy
from unittest.mock import patch

import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from benchmarks.whole_ct import jobs, plans, stock
from segbench.models import states, stunet, volume
from segbench.problem import Problem

SCIPY = "resample_data_or_seg_to_shape"
RULE = {"is_seg": False, "order_z": 0, "force_separate_z": None}
KNOWN = {"mean": -80.0, "std": 140.0, "percentile_00_5": -900.0, "percentile_99_5": 300.0, "median": 1.0}
LABELS = {"background": 0, "spleen": 1, "aorta": 2}
ARGUMENTS = {
    "configuration": "3d_fullres",
    "plans": {
        "dataset_name": "Dataset123_Own",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [2, 0, 1],
        "transpose_backward": [1, 2, 0],
        "foreground_intensity_properties_per_channel": {"0": KNOWN},
        "configurations": {
            "3d_lowres": {"patch_size": [128, 128, 128]},
            "3d_fullres": {
                "inherits_from": "3d_lowres",
                "preprocessor_name": "DefaultPreprocessor",
                "spacing": [3.0, 2.0, 2.5],
                "patch_size": [96, 128, 64],
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": SCIPY,
                "resampling_fn_data_kwargs": RULE | {"order": 3},
                "resampling_fn_probabilities": SCIPY,
                "resampling_fn_probabilities_kwargs": RULE | {"order": 1},
            },
        },
    },
    "dataset_json": {"labels": LABELS, "channel_names": {"0": "CT"}},
}


@pytest.fixture(scope="module", autouse=True)
def narrow():
    """Channels that are few, for files that are small."""
    with patch.dict(stunet.VARIANTS, stunet_s=stunet.Variant(1, 1)):
        yield


@pytest.fixture(scope="module")
def weights(narrow) -> dict:
    return volume.assemble("stunet_s", 3).state_dict()


def checkpoint(path, state, changes=(), **top):
    """A file with entries of ARGUMENTS changed: pairs of a path and a value."""
    arguments = copy.deepcopy(ARGUMENTS)
    for keys, value in changes:
        *outer, last = keys.split("/")
        place = arguments
        for key in outer:
            place = place[key]
        place[last] = value
    torch.save({"network_weights": state, "init_args": arguments, "trainer_name": "nnUNetTrainer"} | top, path)
    return path


def test_all_of_a_checkpoints_plans_are_followed(tmp_path, weights):
    (given,) = jobs.plans_of("stunet_s", (checkpoint(tmp_path / "a.pth", weights),))
    assert given.spacing_mm == (3, 2, 2.5) and given.patch == (96, 128, 64)
    assert given.transpose == (2, 0, 1) and given.backward == (1, 2, 0)
    assert given.names == ["background", "spleen", "aorta"] and given.intensities.percentile_00_5 == -900
    assert (given.image.order, given.image.order_z, given.image.force_separate_z) == (3, 0, None)
    assert (given.logits.order, given.logits.force_separate_z) == (1, None)


def test_nnunet_reads_the_plans_that_it_is_given_as_those_of_the_file(tmp_path, weights):
    (given,) = jobs.plans_of("stunet_s", (checkpoint(tmp_path / "a.pth", weights),))
    ours, theirs = PlansManager(given.for_nnunet()[0]), PlansManager(copy.deepcopy(ARGUMENTS["plans"]))
    assert ours.transpose_backward == theirs.transpose_backward
    assert ours.image_reader_writer_class is theirs.image_reader_writer_class
    theirs.plans["configurations"]["3d_fullres"]["architecture"] = None
    ours, theirs = ours.get_configuration("3d_fullres"), theirs.get_configuration("3d_fullres")
    for name in ("spacing", "patch_size", "normalization_schemes", "use_mask_for_norm", "preprocessor_class"):
        assert getattr(ours, name) == getattr(theirs, name), name
    image, size = np.random.default_rng(0).normal(size=(1, 6, 9, 8)).astype(np.float32), (9, 7, 8)
    for name in ("resampling_fn_data", "resampling_fn_probabilities"):
        both = [getattr(one, name)(image, size, (5, 1, 1), (3, 1.3, 1)) for one in (ours, theirs)]
        assert np.array_equal(*both), name


FULL = "plans/configurations/3d_fullres"
CHANNELS = "plans/foreground_intensity_properties_per_channel"
FOLLOWED = {
    "integer keys": (CHANNELS, {0: KNOWN}),
    "numpy's numbers": (CHANNELS, {"0": {name: np.float64(value) for name, value in KNOWN.items()}}),
    "no labels": ("dataset_json", {}),
    "labels in lists, and one to ignore": ("dataset_json/labels", {n: [v] for n, v in LABELS.items()} | {"ignore": 3}),
    "an order of regions that are none": ("dataset_json/regions_class_order", [1, 2]),
    "by torch": (f"{FULL}/resampling_fn_probabilities", "resample_torch_fornnunet"),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_says_the_same_is_followed(tmp_path, weights, name):
    (given,) = jobs.plans_of("stunet_s", (checkpoint(tmp_path / "a.pth", weights, [FOLLOWED[name]]),))
    assert given.intensities == plans.Intensities(-900, 300, -80, 140) and len(given.names) == 3
    assert given.logits.order == 1


REFUSED = {
    "cascade": (f"{FULL}/previous_stage", "3d_lowres", "of a cascade"),
    "2D": (f"{FULL}/patch_size", [96, 128], "2D configuration"),
    "regions": ("dataset_json/labels", {"background": 0, "whole": [1, 2], "core": 2}, "regions"),
    "two channels": ("dataset_json/channel_names", {"0": "CT", "1": "PET"}, "one channel"),
    "two schemes": (f"{FULL}/normalization_schemes", ["CTNormalization"] * 2, "one channel"),
    "unknown scheme": (f"{FULL}/normalization_schemes", ["MyNormalization"], "MyNormalization"),
    "unknown resampling": (f"{FULL}/resampling_fn_data", "no_resampling_hack", "no_resampling_hack"),
    "unknown keyword": (f"{FULL}/resampling_fn_data_kwargs", {"sigma": 3}, "sigma"),
    "logits by splines": (f"{FULL}/resampling_fn_probabilities_kwargs", RULE | {"order": 3}, "order 3"),
    "unknown preprocessor": (f"{FULL}/preprocessor_name", "../../evil", "evil"),
    "unknown reader": ("plans/image_reader_writer", "Tiff3DIO", "Tiff3DIO"),
    "percentile None": (CHANNELS, {"0": KNOWN | {"percentile_00_5": None}}, "percentile_00_5"),
    "percentile missing": (CHANNELS, {"0": {"mean": 1, "std": 2}}, "percentile_00_5"),
    "mean NaN": (CHANNELS, {"0": KNOWN | {"mean": float("nan")}}, "nan"),
    "another channel": (CHANNELS, {"1": KNOWN}, "has no 0"),
    "no intensities": (CHANNELS, None, "foreground_intensity_properties_per_channel"),
    "no deviation": (CHANNELS, {"0": KNOWN | {"std": 0.0}}, "'std': 0.0"),
    "plans of nnU-Net 1": ("plans", {"num_modalities": 1, "plans_per_stage": {0: {}}}, "not followed: spacing"),
    "no patch": (FULL, {"spacing": [3, 2, 2.5]}, "not followed: patch_size"),
    "logits by cubic splines along z": (
        f"{FULL}/resampling_fn_probabilities_kwargs",
        RULE | {"order": 1, "order_z": 3},
        "3 along z",
    ),
    "a negative label": ("dataset_json/labels", {"background": 0, "a": -1, "b": 2}, "background 0"),
    "a tensor": (CHANNELS, {"0": torch.zeros(3)}, "Expected `object`"),
    "no permutation": ("plans/transpose_forward", [0, 0, 1], "transpose_forward"),
    "another way back": ("plans/transpose_backward", [2, 0, 1], "transpose_backward"),
    "spacing of 0": (f"{FULL}/spacing", [0, 1, 1], "spacing"),
    "spacing inf": (f"{FULL}/spacing", [float("inf"), 1, 1], "spacing"),
    "spacing of text": (f"{FULL}/spacing", "1.5", "spacing"),
    "a patch that does not divide": (f"{FULL}/patch_size", [100, 128, 128], "divisible by 32"),
    "more labels than classes": ("dataset_json/labels", LABELS | {"liver": 3}, "3 classes, its plans name 4"),
    "labels that are none": ("dataset_json/labels", {"background": 0, "a": "x", "b": 2}, "labels"),
    "no background": ("dataset_json/labels", {"a": 0, "b": 1, "c": 2}, "background"),
    "inherits itself": (f"{FULL}/inherits_from", "3d_fullres", "inherits from itself"),
    "inherits nothing": (f"{FULL}/inherits_from", "4d", "no configuration 4d"),
    "no such configuration": ("configuration", "3d_other", "no configuration 3d_other"),
    "plans of text": ("plans", "/etc/passwd", "Expected `object`"),
    "configurations of a list": ("plans/configurations", [1], "configurations"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_followed_is_named_in_a_line(tmp_path, weights, name):
    keys, value, says = REFUSED[name]
    with pytest.raises(Problem) as problem:
        jobs.plans_of("stunet_s", (checkpoint(tmp_path / "a.pth", weights, [(keys, value)]),))
    text = str(problem.value)
    assert says in text and "a.pth" in text and "\n" not in text and len(text) < 300, text


@pytest.mark.parametrize(("axes", "mirrored"), [((0, 1, 2), True), ([0], True), (None, False), ((), False)])
def test_mirroring_that_is_left_out_is_known(tmp_path, weights, axes, mirrored):
    path = checkpoint(tmp_path / "a.pth", weights, inference_allowed_mirroring_axes=axes)
    assert jobs.plans_of("stunet_s", (path,))[0].mirrored == mirrored


def spoiled(weights: dict, change) -> dict:
    """The weights with one of them changed."""
    name = "seg_outputs.4.bias"
    return weights | {name: change(weights[name].clone())}


WRONG_WEIGHTS = {
    "sparse": (lambda w: spoiled(w, torch.Tensor.to_sparse), "without plain values"),
    "meta": (lambda w: spoiled(w, lambda t: t.to("meta")), "without plain values"),
    "NaN": (lambda w: spoiled(w, lambda t: t.fill_(torch.nan)), "1 not finite (seg_outputs.4.bias)"),
    "integers": (lambda w: {name: (10 * t).to(torch.int8) for name, t in w.items()}, "without plain values"),
    "one class": (lambda w: volume.assemble("stunet_s", 1).state_dict(), "has one class"),
    "integer key": (lambda w: {0: torch.zeros(3)}, "no state dict"),
    "another network": (lambda w: {"a": torch.zeros(3)}, "missing"),
    "a head of no dimension": (lambda w: w | {"seg_outputs.4.weight": torch.tensor(1.0)}, "of another shape"),
}


@pytest.mark.parametrize("name", WRONG_WEIGHTS)
def test_weights_that_are_none_are_one_line(tmp_path, weights, name):
    change, says = WRONG_WEIGHTS[name]
    torch.save(change(weights), tmp_path / "a.pth")
    with pytest.raises(Problem) as problem:
        jobs.plans_of("stunet_s", (tmp_path / "a.pth",))
    assert says in str(problem.value) and "\n" not in str(problem.value), problem.value


def test_weights_in_half_precision_and_in_themselves_are_read(tmp_path, weights):
    round_about = {"state_dict": {name: tensor.half() for name, tensor in weights.items()}}
    round_about["model"] = round_about
    round_about["state_dict"]["n_averaged"] = torch.tensor(3)
    torch.save(round_about, tmp_path / "a.pth")
    network = volume.assemble("stunet_s", 3)
    states.load(network, tmp_path / "a.pth")
    assert torch.equal(network.seg_outputs[4].bias, weights["seg_outputs.4.bias"].half().float())


@pytest.mark.parametrize("classes", [2, 105, 117, 300])
def test_networks_of_any_number_of_classes_are_followed(tmp_path, classes):
    torch.save(volume.assemble("stunet_s", classes).state_dict(), tmp_path / "a.pth")
    (given,) = jobs.plans_of("stunet_s", (tmp_path / "a.pth",))
    assert len(given.names) == classes and given.spacing_mm == (1.5,) * 3 and given.intensities is None


def test_another_of_totalsegmentators_networks_is_refused():
    """Vertebrae and ribs have 27 classes each; the names of labels tell them apart, and so does the data set."""
    parts = [["background", *part] for part in jobs.names_of_parts()]
    tasks = jobs.TASKS["total"]
    numbered = ["background", *(f"class {n}" for n in range(1, 27))]
    jobs.check_part("a.pth", plans.Plans((1.5,) * 3, parts[1]), 1, parts, tasks)
    jobs.check_part("a.pth", plans.Plans((1.5,) * 3, numbered, dataset="Dataset292_x"), 1, parts, tasks)
    with pytest.raises(Problem, match="segments rib_left_1 where sacrum is wanted"):
        jobs.check_part("a.pth", plans.Plans((1.5,) * 3, parts[4]), 1, parts, tasks)
    with pytest.raises(Problem, match="Dataset295_ribs"):
        jobs.check_part("a.pth", plans.Plans((1.5,) * 3, numbered, dataset="Dataset295_ribs"), 1, parts, tasks)
    with pytest.raises(Problem, match="25 classes, 27 are wanted"):
        jobs.check_part("a.pth", plans.Plans((1.5,) * 3, parts[0]), 1, parts, tasks)


@pytest.mark.parametrize(("size", "model"), [("big", "totalsegmentator"), ("small", "totalsegmentator_small")])
def test_nnunet_makes_the_network_here_of_the_plans_that_it_is_given(size, model):
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    given = stock.architecture(size)
    made = get_network_from_plans(*given.values(), 1, 25, deep_supervision=False).state_dict()
    here = volume.assemble(model, 25).state_dict()
    assert {name: value.shape for name, value in made.items()} == {name: value.shape for name, value in here.items()}
