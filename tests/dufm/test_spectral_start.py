"""The spectral start: descent without decay keeps its singular vectors, which a start off it would not."""

import pytest
import torch

from pipeline.dufm import forward
from pipeline.dufm.descent import Descent
from pipeline.dufm.objectives import load_objective
from pipeline.dufm.spectral_start import fourier_modes, spectral_factors
from pipeline.runtime.randomness import generator

LABELS = torch.arange(5).repeat_interleave(2)


def _drawn(spread: float, members: int = 2):
    sources = [generator(seed, "start") for seed in range(members)]
    return spectral_factors([6, 4, 7], LABELS, 5, sources, 0.7, spread)


def test_modes_are_orthonormal_and_without_the_constant():
    for classes in (2, 5, 6):
        modes, frequency = fourier_modes(classes)
        torch.testing.assert_close(modes.T @ modes, torch.eye(classes - 1, dtype=torch.float64))
        assert modes.sum(dim=0).abs().max() < 1e-12 and len(frequency) == classes - 1


def test_factors_share_their_singular_values_and_make_the_outputs_circulant():
    features, weights = _drawn(0.3)
    for factor in (features, *weights):
        torch.testing.assert_close(torch.linalg.svdvals(factor)[:, :4], torch.linalg.svdvals(features)[:, :4])
    outputs = forward(features, weights, "linear")[-1][:, ::2]
    torch.testing.assert_close(outputs, outputs.roll((1, 1), dims=(1, 2)))
    same = forward(*_drawn(0.0), "linear")[-1][:, ::2]
    torch.testing.assert_close(same, same[:, :1, :1] * 5 / 4 * (torch.eye(5, dtype=torch.float64) - 0.2))


def test_descent_changes_the_singular_values_alone():
    features, weights = _drawn(0.3)
    settings = {"num_classes": 5, "lr": 0.5, "weight_decay": 0.0, "feature_decay": 0.0, "activation": "linear"}
    descent = Descent(features, weights, LABELS, loss=load_objective("cross_entropy"), **settings)
    descent.advance(300)
    modes = fourier_modes(5)[0]
    outputs = forward(descent.features, descent.weights, "linear")[-1][:, ::2]
    seen = modes.T @ outputs @ modes
    assert (seen - torch.diag_embed(seen.diagonal(dim1=-2, dim2=-1))).abs().max() < 1e-9
    assert seen.max() > 10


@pytest.mark.parametrize(
    ("widths", "labels", "said"), [([6, 3], LABELS, "at least 4"), ([6, 6], LABELS[1:], "equally many")]
)
def test_what_cannot_be_built_is_refused(widths, labels, said):
    with pytest.raises(ValueError, match=said):
        spectral_factors(widths, labels, 5, [generator(0, "start")], 1.0)
