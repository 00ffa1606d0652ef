"""What is told before a run about what families keep is what is held."""

import torch

from pipeline.measure.costs import family_bytes, in_words
from pipeline.measure.layers import state_bytes
from pipeline.metrics.engine.pairing import PairStatistics
from pipeline.metrics.engine.settings import MeasureSettings

WIDTHS = {("a", "post"): 7, ("b", "post"): 9, ("c", "post"): 5}


def test_core_and_all_that_is_accumulated_cost_what_their_state_takes() -> None:
    core = MeasureSettings()
    assert 2 * family_bytes(WIDTHS, 3, core)["core"] == state_bytes(list(WIDTHS.values()), 3)
    asked = MeasureSettings(families=("core", "cosine", "elements", "spectrum", "probe"))
    found = family_bytes(WIDTHS, 3, asked)
    assert list(found) == sorted(asked.families, key=list(found).index) and found["cosine"] == found["core"]
    assert 2 * sum(found.values()) == state_bytes(list(WIDTHS.values()), 3, asked)


def test_pairs_groups_and_rows_cost_what_is_kept_of_them() -> None:
    pair = PairStatistics.of_rows(torch.randn(4, 7), torch.randn(4, 9))
    held = sum(it.product.nbytes for it in (pair.cross, pair.first, pair.second))
    few = {place: WIDTHS[place] for place in list(WIDTHS)[:2]}
    assert family_bytes(few, 3, MeasureSettings(families=("similarity",)))["similarity"] == held
    both = [family_bytes(WIDTHS, 3, MeasureSettings(("similarity",), pairs=pairs)) for pairs in ("consecutive", "all")]
    assert both[0]["similarity"] < both[1]["similarity"]
    assert family_bytes(WIDTHS, 3, MeasureSettings(("groups",)), groups=2)["groups"] == 8 * 2 * 3 * 2 * 21
    more = [family_bytes(WIDTHS, 3, MeasureSettings(("foreign",)), rows=rows)["foreign"] for rows in (0, 100)]
    assert more[1] - more[0] == 8 * 100 * len(WIDTHS)


def test_they_are_told_in_a_line() -> None:
    assert in_words({"core": 2048, "groups": 0, "probe": 3 << 20}, 4) == (
        "state of 4 places in each split: core 2 KiB, probe 3 MiB"
    )
