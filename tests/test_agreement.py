"""How far rankings of networks agree."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from studies import rankings

I7, I9 = (rankings.Ranking(f"timm, {cpu}, torch 2.4", "", "compile") for cpu in ("i7-12700H", "i9-10940X"))


def test_the_correlation_is_spearmans_with_bonett_and_wrights_interval():
    tables = rankings.published()
    i7, i9 = (tables[ranking].drop("mobileone_s0") for ranking in (I7, I9))
    common = i7.index.intersection(i9.index)
    result = rankings.agreement(i7, i9)
    expected = np.corrcoef(rankdata(i7[common]), rankdata(i9[common]))[0, 1]
    assert result.networks == len(common) and result.rho == pytest.approx(expected)
    half_width = 1.96 * np.sqrt((1 + expected**2 / 2) / (len(common) - 3))
    assert np.arctanh(result.high) - np.arctanh(result.low) == pytest.approx(2 * half_width)


def test_places_are_positive_where_the_second_ranking_has_a_network_higher():
    here = pd.Series({f"model{number}": 100.0 - number for number in range(12)})
    there = here.copy()
    there["model11"] = 200.0
    result = rankings.agreement(here, there)
    assert result.largest(2) == "model11 +11, model0 -1"
    same = rankings.agreement(here, here)
    assert same.rho == 1 and same.largest(2) == ""
    assert rankings.agreement(here[:9], there) is None


def test_every_row_of_the_published_tables_is_a_network():
    tables = rankings.published()
    assert tables[I7]["resnet18"] == 62.22 and tables[I9]["resnet18"] == 126.23  # as timm-cpu.csv has it
    assert [len(rows) for ranking, rows in tables.items() if ranking.source.startswith("timm")] == [48, 45, 48]
    source, freezing = rankings.REFERENCE_PROJECT, rankings.WITH_DECODER
    reference = {ranking[1:]: len(rows) for ranking, rows in tables.items() if ranking.source == source}
    assert reference["fpn", freezing] == reference["unet", freezing] == 40
    assert reference[rankings.BOTH, freezing] == 46 and {"baseline", "compile"} <= {mode for _, mode in reference}
    assert "resnet18 + UNet" in tables[rankings.Ranking(source, rankings.BOTH, freezing)]
