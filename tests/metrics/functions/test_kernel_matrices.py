"""Kernels of wide networks, and the collapse of kernels: golden numbers of arXiv 2406.02105's corrected formulas."""

import math

import numpy as np
import pytest
import torch
from deterministic import two_clouds, waves
from sklearn.datasets import load_digits
from torch import Tensor

from pipeline.data import load_images
from pipeline.metrics import derivative_kernel, dnc1, kernel_dnc1, nngp, ntk

GOLDEN = {  # NC1 of X, ReLU NNGP, ReLU NTK, erf NNGP, erf NTK
    "G(6,2)": (0.032594917, 0.064747701, 0.090949609, 0.013878914, 0.036099843),
    "G(8,3)": (0.032273954, 0.064168007, 0.090635645, 0.012975082, 0.033422566),
    "digits": (1.480432881, 1.730483659, 2.138063921, 1.571491311, 1.780829032),
}


def data(name: str) -> tuple[Tensor, Tensor]:
    if name != "digits":
        return two_clouds(*map(int, name[2:-1].split(",")))
    digits = load_digits()
    rows = np.concatenate([digits.data[digits.target == digit][:150] for digit in (0, 1)]) / 16
    return torch.from_numpy((rows - rows.mean()) / rows.std()), torch.arange(2).repeat_interleave(150)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_collapse_of_kernels(name: str) -> None:
    rows, labels = data(name)
    kernels = (rows @ rows.T, *(kind(rows, phi) for phi in ("relu", "erf") for kind in (nngp, ntk)))
    found = [float(kernel_dnc1(kernel, labels, 2)) for kernel in kernels]
    assert found == pytest.approx(GOLDEN[name], rel=1e-6)


def test_on_images_of_mnist_no_kernel_is_more_collapsed_than_they_are(data_root) -> None:
    """4 against 9, the first 256 of each: NC1 of the images and of the kernels, in the order of `GOLDEN`."""
    split = load_images("mnist", root=data_root, classes=["4", "9"]).train
    first = torch.cat([(split.labels == label).nonzero()[:256, 0] for label in (0, 1)])
    rows = split.images[first].flatten(1).double()
    rows, labels = (rows - rows.mean()) / rows.std(correction=0), split.labels[first]
    kernels = (rows @ rows.T, *(kind(rows, phi) for phi in ("relu", "erf") for kind in (nngp, ntk)))
    found = [float(kernel_dnc1(kernel, labels, 2)) for kernel in kernels]
    assert found == pytest.approx([18.350, 21.442, 24.716, 19.497, 21.539], abs=5e-4)


def test_golden_entries() -> None:
    rows, _ = two_clouds(6, 2)
    assert float(nngp(rows, "relu")[0, 1]) == pytest.approx(1.680910879, rel=1e-9)
    assert float(ntk(rows, "relu")[0, 1]) == pytest.approx(3.300192023, rel=1e-9)
    assert float(nngp(rows, "erf")[0, 1]) == pytest.approx(0.659513358, rel=1e-8)
    assert float(derivative_kernel(rows, "erf")[0, 1]) == pytest.approx(0.319696482, rel=1e-8)
    assert float(ntk(rows, "erf")[0, 1]) == pytest.approx(1.734102996, rel=1e-9)


def test_classes_of_different_sizes() -> None:
    rows, labels = waves(5, 2, 1), torch.tensor([0, 0, 1, 1, 1])
    assert float(kernel_dnc1(rows @ rows.T, labels, 2)) == pytest.approx(16.693776036, rel=1e-9)
    assert float(kernel_dnc1(nngp(rows, "relu"), labels, 2)) == pytest.approx(16.263909007, rel=1e-9)
    assert float(dnc1(rows, labels, 2)) == pytest.approx(16.693776036, rel=1e-9)


def test_what_public_code_has_in_their_place() -> None:
    """Code of arXiv 2406.02105: D.D for the outer product D D^T, and classes of any size weighted alike."""
    rows, labels = two_clouds(6, 2)

    def published(rows: Tensor) -> Tensor:
        inner = rows @ rows.T / 2
        scale = 1 + 2 * inner.diagonal()
        return nngp(rows, "erf") + inner * 4 / math.pi / (scale @ scale - 4 * inner.square()).sqrt()

    assert float(kernel_dnc1(published(rows), labels, 2)) == pytest.approx(0.022636767, rel=1e-7)
    twice, both = rows.repeat(2, 1), labels.repeat(2)  # every row twice: the same collapse
    assert float(kernel_dnc1(ntk(twice, "erf"), both, 2)) == pytest.approx(0.036099843, rel=1e-7)
    assert abs(float(kernel_dnc1(published(twice), both, 2)) / 0.022636767 - 1) > 0.05
    rows, labels = waves(5, 2, 1), torch.tensor([0, 0, 1, 1, 1])
    kernel = rows @ rows.T
    within = torch.stack([kernel[labels == k][:, labels == k].mean() for k in (0, 1)]).mean()
    assert float((kernel.trace() / 5 - within) / (within - kernel.mean())) == pytest.approx(11.821459069, rel=1e-7)
    assert float(kernel_dnc1(kernel, labels, 2)) == pytest.approx(16.693776036, rel=1e-7)


@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("variances", [(1.0, 0.0), (1.7, 0.3)])
def test_kernels_are_the_expectations_that_they_claim_to_be(activation: str, variances: tuple[float, float]) -> None:
    """By quadrature over the two correlated Gaussians."""
    rows = waves(3, 4, 0.4)
    weight, bias = variances
    inner = bias + weight * rows @ rows.T / 4
    # The kink of ReLU is a straight line through the origin: in polar coordinates it costs no digits along the radius.
    phi, slope = {
        "relu": (lambda s: s.clip(0), lambda s: (s > 0).astype(float)),
        "erf": (np.vectorize(math.erf), lambda s: 2 / math.sqrt(math.pi) * np.exp(-(s**2))),
    }[activation]
    radii, along = np.polynomial.legendre.leggauss(120)
    radii, along = 5 * (radii + 1), 5 * along
    angles = (np.arange(4000) + 0.5) * 2 * math.pi / 4000 if activation == "relu" else np.arange(80) * math.pi / 40
    density = np.outer(along * radii * np.exp(-(radii**2) / 2), np.full(len(angles), 1 / len(angles)))
    for i, j in [(0, 1), (1, 2)]:
        root = np.linalg.cholesky(inner[[i, j]][:, [i, j]].numpy())
        first = np.outer(radii, root[0, 0] * np.cos(angles))
        second = np.outer(radii, root[1, 0] * np.cos(angles) + root[1, 1] * np.sin(angles))
        value, of_slopes = (float((density * f(first) * f(second)).sum()) for f in (phi, slope))
        assert float(nngp(rows, activation, *variances)[i, j]) == pytest.approx(value, rel=1e-3, abs=1e-5)
        assert float(derivative_kernel(rows, activation, *variances)[i, j]) == pytest.approx(of_slopes, rel=1e-3)
        expected = bias + weight * (value + float(inner[i, j]) * of_slopes)
        assert float(ntk(rows, activation, *variances)[i, j]) == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_on_a_line_through_zero_the_tangent_kernel_of_relu_is_twice_that_of_features() -> None:
    rows = torch.tensor([[-2.0], [-1.5], [1.0], [3.0]], dtype=torch.float64)
    torch.testing.assert_close(ntk(rows, "relu"), 2 * nngp(rows, "relu"), rtol=1e-12, atol=1e-15)
    assert nngp(rows, "relu")[0, 2].abs() < 1e-15


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_kernels_are_symmetric_and_positive_for_equal_and_opposed_rows(activation: str) -> None:
    rows = torch.cat([waves(4, 3, 2), waves(4, 3, 2), -waves(4, 3, 2), torch.zeros(1, 3, dtype=torch.float64)])
    for kernel in (nngp(rows, activation), ntk(rows, activation)):
        assert kernel.isfinite().all() and torch.equal(kernel, kernel.T)
        assert torch.linalg.eigvalsh(kernel).min() > -1e-13
        assert torch.equal(kernel[:4, :4].diagonal(), kernel[:4, 4:8].diagonal())


def test_collapsed_kernels_are_zero_and_those_without_classes_are_not_a_number() -> None:
    rows = waves(2, 3, 1)[torch.tensor([0, 0, 1, 1, 1])]
    labels = torch.tensor([0, 0, 1, 1, 1])
    assert float(kernel_dnc1(rows @ rows.T, labels, 2)) < 1e-14
    assert kernel_dnc1(rows @ rows.T, labels, 3) == kernel_dnc1(rows @ rows.T, labels, 2)  # the empty class is left out
    assert kernel_dnc1(rows @ rows.T, labels * 0, 2).isnan()
    assert kernel_dnc1(torch.ones(5, 5), labels, 2).isnan()
    assert kernel_dnc1(torch.stack([rows @ rows.T] * 2), labels, 2).shape == (2,)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda rows: nngp(rows, "gelu"), "activation must be one of relu, erf, got 'gelu'"),
        (lambda rows: ntk(rows, "relu", weight_variance=-1.0), "weight_variance"),
        (lambda rows: nngp(rows, "erf", "1"), "weight_variance must be a finite number of at least 0, got '1'"),
        (lambda rows: nngp(rows[0], "relu"), r"rows must have shape \(N, d\)"),
        (lambda rows: kernel_dnc1(rows, torch.arange(4) % 2, 2), "kernel must be square"),
        (lambda rows: kernel_dnc1(rows @ rows.T, torch.arange(4), 3), "labels must lie in 0..2"),
    ],
)
def test_bad_input_is_told_in_one_sentence(call, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call(waves(4, 3, 1))
