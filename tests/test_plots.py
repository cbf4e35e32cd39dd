"""What the picture labels."""

import numpy as np
import pandas as pd

from segbench import plots


def test_the_pareto_front_holds_what_nothing_smaller_outruns():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"params_m": rng.integers(1, 30, 60) / 2, "throughput_img_s": rng.uniform(5, 200, 60)})
    front = set(plots.pareto(frame).index)
    for index, row in frame.iterrows():
        others = frame.drop(index)
        beaten = ((others.params_m <= row.params_m) & (others.throughput_img_s >= row.throughput_img_s)).any()
        assert (index in front) == (not beaten)
