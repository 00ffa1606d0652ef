"""Softmax codes: the trends over depth and width are read off finished runs, and their absence too."""

import torch
from readable import drawn_for
from study_results import one

from pipeline.config import Config
from pipeline.dufm.spectral_start import spectral_factors
from pipeline.runtime.randomness import generator
from pipeline.storage.record import COMPLETED, write_summary
from pipeline.storage.tensors import write_tensors
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.softmax_codes import claims, draw


def _run(folder, point, depth=3, width=8, spread=0.0, seeds=2):
    """A run that ends with factors of this spread of singular values."""
    place = folder / point
    place.mkdir()
    labels = torch.arange(6)
    sources = [generator(seed, "start") for seed in range(seeds)]
    features, weights = spectral_factors([width] * depth, labels, 6, sources, 1.0, spread)
    named = {
        "activation": "linear",
        "depth": depth,
        "widths": [width] * depth,
        "num_classes": 6,
        "samples_per_class": 1,
    }
    said = {
        "status": COMPLETED,
        "layers": [],
        "seeds": list(range(seeds)),
        "problem": named,
        "loss": {"total": [1e-4] * seeds},
    }
    write_summary(place, said)
    tensors = {"labels": labels, "features/1": features}
    write_tensors(place, tensors | {f"weights/{i}": weight for i, weight in enumerate(weights, 1)}, max_mb=10)
    return Result(Point(point, ()), Config(), place)


def _runs(folder, shallow, deep):
    """Of these spreads: collapsed where it is 0, low-rank where it is large."""
    return [
        _run(folder, "spectral-depth_1-steps_10", 1, spread=shallow),
        _run(folder, "spectral-depth_3-steps_1", spread=shallow),
        _run(folder, "spectral-depth_3-steps_10", spread=deep),
        _run(folder, "equal", spread=shallow),
        _run(folder, "depth_1", 1, spread=shallow),
        _run(folder, "depth_3", spread=deep),
        _run(folder, "width_160", width=9, spread=shallow),
    ]


def test_low_rank_at_depth_and_collapse_at_width_bear_out_the_claims(tmp_path):
    results = _runs(tmp_path, 0.0, 2.0)
    judged = claims(results)
    assert len(judged) == 8 and all(claim.holds for claim in judged)
    assert "abstract" in one(judged, "rank of the outputs").owner and "theorem" in one(judged, "stay").owner
    (figure,) = drawn_for("column", lambda: draw(results)).values()
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["$L = 1$", "$L = 3$"]


def test_the_other_way_round_fails(tmp_path):
    judged = claims(_runs(tmp_path, 2.0, 0.0))
    assert [claim.claim for claim in judged if claim.holds] == [
        "random starts: every seed fits its labels, cross-entropy"
    ]
