"""How far an order of networks carries over: against the textbook's formula and a published figure."""

import pandas as pd
import pytest

from segbench import zoo
from studies import agreement

I7, I9 = (agreement.Order(f"timm, {cpu}, torch 2.4", "", "compile") for cpu in ("i7-12700H", "i9-10940X"))


def test_timms_two_machines_agree_by_as_much_as_is_known():
    tables = agreement.published()
    names = [encoder.model for encoder in zoo.ENCODERS if encoder.family != "MobileNetV2"]
    i7, i9 = tables[I7].reindex(names), tables[I9].reindex(names)
    found = agreement.agreement(i7, i9)
    assert found.networks == 46 and found.rho == pytest.approx(0.85, abs=0.005)
    # Spearman (1904): without ties 1 - 6 sum d^2 / (n^3 - n), d the differences of places.
    assert found.rho == pytest.approx(1 - 6 * (found.higher**2).sum() / (46**3 - 46))
    assert found.low < found.rho < found.high < 1


def test_who_stands_higher_there_has_a_plus():
    here = pd.Series({f"model{place}": 100.0 - place for place in range(12)})
    there = here.copy()
    there["model11"] = 200
    found = agreement.agreement(here, there)
    assert agreement.farthest(found, 2) == "model11 +11, model0 -1"
    assert agreement.agreement(here, here).rho == 1 and agreement.farthest(agreement.agreement(here, here), 2) == ""
    assert agreement.agreement(here[:9], there) is None


def test_every_published_table_is_read_and_every_network_in_it_known():
    tables = agreement.published()
    assert [len(rows) for order, rows in tables.items() if order.source.startswith("timm")] == [48, 45, 48]
    reference = {order[1:]: len(rows) for order, rows in tables.items() if order.source.startswith("reference")}
    freezing = agreement.WITH_DECODER
    assert reference["fpn", freezing] == reference["unet", freezing] == 40
    assert reference[agreement.BOTH, freezing] == 46 and {"baseline", "compile"} <= {mode for _, mode in reference}
    assert "resnet18 + UNet" in tables[agreement.Order("reference project, Ryzen 7 H 255", agreement.BOTH, freezing)]
