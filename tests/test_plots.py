"""What the picture labels."""

from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.transforms import Bbox

from segbench import zoo
from segbench.analysis import plots


def test_the_pareto_front_holds_what_nothing_smaller_outruns():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"params_m": rng.integers(1, 30, 60) / 2, "throughput_img_s": rng.uniform(5, 200, 60)})
    front = set(plots.pareto(frame).index)
    for index, row in frame.iterrows():
        others = frame.drop(index)
        beaten = ((others.params_m <= row.params_m) & (others.throughput_img_s >= row.throughput_img_s)).any()
        assert (index in front) == (not beaten)


def test_every_family_and_the_front_are_labelled_and_no_label_lies_on_another():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "model": [encoder.model for encoder in zoo.ENCODERS],
            "family": [encoder.family for encoder in zoo.ENCODERS],
            "params_m": [encoder.params_m for encoder in zoo.ENCODERS],
            "throughput_img_s": [60 / encoder.gmacs**0.6 * rng.lognormal(0, 0.3) for encoder in zoo.ENCODERS],
            "decoder": "",
        }
    )
    frame["throughput_low"], frame["throughput_high"] = 0.9 * frame.throughput_img_s, 1.1 * frame.throughput_img_s
    figure, axes = plt.subplots(figsize=(7, 6), layout="constrained")
    plots.throughput(axes, frame)
    texts = [text for text in axes.texts if text.get_text()]
    assert {zoo.family(text.get_text()) for text in texts} == set(zoo.FAMILIES)
    assert {*plots.pareto(frame).model} <= {text.get_text() for text in texts}
    boxes = [text.get_window_extent() for text in texts]
    overlaps = [(a, b) for a, b in combinations(range(len(boxes)), 2) if overlap(boxes[a], boxes[b]) > 0.1]
    assert not overlaps, [(texts[a].get_text(), texts[b].get_text()) for a, b in overlaps]
    plt.close(figure)


def overlap(one, other) -> float:
    """Share of the smaller box that lies within the other."""
    both = Bbox.intersection(one, other)
    return both.width * both.height / min(one.width * one.height, other.width * other.height) if both else 0.0
