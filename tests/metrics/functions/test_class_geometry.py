"""Margins and norms: golden values of arXiv 2401.02058's closed form; spectra and Gram matrices of known shapes."""

import math

import pytest
import torch
from deterministic import powers

from pipeline.metrics import class_geometry, geometry_errors, gram_distances, layer_metrics, mean_spectrum

GOLDEN = {  # class sizes, decays: margins, ||h_k||^2, ||w_k||^2
    ((40, 20, 10, 2), 5e-3, 1e-3): (
        (4.890971217, 4.535016407, 4.175023710, 3.311601977),
        (1.497547978, 1.963719708, 2.556669438, 4.534597761),
        (10.217125938, 7.466789274, 5.639095971, 3.439429456),
    ),
    ((40, 20, 10, 2), 3e-2, 1.4e-2): (
        (2.472146144, 2.014771430, 1.487026946, 0),
        (0.495531637, 0.571134016, 0.596137003, 0),
        (7.613489314, 5.000596162, 3.301521846, 1.446873393),
    ),
    ((30, 30, 10, 10, 10), 1e-2, 2e-3): (
        (4.040558021, 4.040558021, 3.438378145, 3.438378145, 3.438378145),
        (1.475403182, 1.475403182, 2.174621279, 2.174621279, 2.174621279),
        (8.176942612, 8.176942612, 4.799560212, 4.799560212, 4.799560212),
    ),
}


def optimum(sizes, weight_decay: float, feature_decay: float):
    """Features, weight and labels by the closed form, section 7: h_k orthogonal, M_k the margins."""
    classes, total = len(sizes), sum(sizes)
    sizes = torch.tensor(sizes, dtype=torch.float64)
    inner = math.sqrt(classes / (classes - 1)) * sizes.sqrt() / (total * math.sqrt(weight_decay * feature_decay)) - 1
    margins = ((classes - 1) * inner.clamp(min=1 / (classes - 1))).log()
    norms = (weight_decay / (feature_decay * sizes)).sqrt() * math.sqrt((classes - 1) / classes) * margins
    means = norms.sqrt()[:, None] * torch.linalg.qr(powers(classes + 2, classes + 2, 1)).Q[:classes]
    scaled = sizes.sqrt()[:, None] * means
    weight = math.sqrt(classes * feature_decay / ((classes - 1) * weight_decay)) * (scaled - scaled.mean(0))
    labels = torch.arange(classes).repeat_interleave(sizes.long())
    return means[labels], weight, labels


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_margins_and_norms(case) -> None:
    features, weight, labels = optimum(*case)
    found = class_geometry(features, weight, labels, len(case[0]))
    margins, features_norms, row_norms = GOLDEN[case]
    assert found.margin.tolist() == pytest.approx(margins, rel=1e-8, abs=1e-9)
    torch.testing.assert_close(found.margin_to_all, found.margin, rtol=1e-9, atol=1e-9)  # every other is as far
    assert found.feature_norm.tolist() == pytest.approx(features_norms, rel=1e-8, abs=1e-9)
    assert found.row_norm.tolist() == pytest.approx(row_norms, rel=1e-8)
    errors = geometry_errors(found, found)
    assert all(float(value.nan_to_num()) == 0 for value in errors.values())


def test_golden_cosines_of_rows() -> None:
    features, weight, labels = optimum((40, 20, 10, 2), 5e-3, 1e-3)
    cosines = class_geometry(features, weight, labels, 4).row_cosines
    first, second = torch.triu_indices(4, 4, 1)
    golden = [-0.501645053, -0.456849260, -0.399438984, -0.322478835, -0.195888529, -0.017905501]
    assert cosines[first, second].tolist() == pytest.approx(golden, rel=1e-7)


def test_errors_tell_how_far_a_geometry_is_from_that_of_theory() -> None:
    features, weight, labels = optimum((40, 20, 10, 2), 5e-3, 1e-3)
    expected = class_geometry(features, weight, labels, 4)
    off = geometry_errors(class_geometry(features, 1.1 * weight, labels, 4), expected)
    assert float(off["margin"]) == pytest.approx(0.1) and float(off["row_norm"]) == pytest.approx(0.21)
    assert float(off["feature_norm"]) < 1e-12 and float(off["row_cosines"]) < 1e-12


def test_margins_are_those_of_loops_with_members_and_a_bias() -> None:
    features, weight = torch.stack([powers(6, 4, 1), powers(6, 4, 2)]), torch.stack([powers(3, 4, 3), powers(3, 4, 4)])
    labels, bias = torch.tensor([0, 1, 1, 2, 0, 1]), torch.tensor([0.3, -0.2, 0.5]).double()
    found = class_geometry(features, weight, labels, 3, bias)
    for member in range(2):
        outputs = features[member] @ weight[member].T + bias
        for label in range(3):
            rows = [outputs[i] for i in range(6) if labels[i] == label]
            others = [j for j in range(3) if j != label]
            assert float(found.margin[member, label]) == pytest.approx(
                sum(float(row[label] - row[others].max()) for row in rows) / len(rows)
            )
            assert float(found.margin_to_all[member, label]) == pytest.approx(
                sum(float(row[label] - row[others].mean()) for row in rows) / len(rows)
            )


def test_spectra_before_and_after_relu() -> None:
    """Small code: three classes on two units, rank 2 before, 3 after where the last code is on a unit of its own."""
    before = torch.tensor([[1.0, -1.0, 0.5], [-1.0, 1.0, 0.5], [-0.9, -0.9, 0.9]]).double()
    labels = torch.arange(3).repeat(2)
    spectra = [mean_spectrum(rows[labels], labels, 3) for rows in (before[:, :2], before.relu())]
    assert [float(found.rank) for found in spectra] == [2, 3] and spectra[0].rtol == 1e-3
    for found, rows in zip(spectra, (before[:, :2], before.relu()), strict=True):
        expected = torch.linalg.svdvals(rows)
        torch.testing.assert_close(found.values[: len(expected)], expected, rtol=1e-12, atol=1e-14)
    nearly = torch.diag(torch.tensor([1.0, 0.5, 5e-3]).double())[labels]
    assert [float(mean_spectrum(nearly, labels, 3, rtol).rank) for rtol in (1e-2, 1e-3)] == [2, 3]


def test_gram_distances_to_frame_and_simplex() -> None:
    labels = torch.arange(4).repeat(2)
    frame = torch.linalg.qr(powers(5, 5, 1)).Q[:4]
    simplex = (frame - frame.mean(0)) * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None]
    scaled = frame * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None]
    to_frame, to_simplex = gram_distances(scaled[labels], labels, 4)
    assert float(to_frame) < 1e-12
    apart = math.sqrt(2 - 2 * 3 / math.sqrt(4 * 3))  # of I / 2 and (I - 1 1^T / 4) / sqrt 3
    assert float(to_simplex) == pytest.approx(apart)
    assert float(gram_distances(simplex[labels], labels, 4).simplex) < 1e-12
    plain = gram_distances(scaled[labels], labels, 4, normalised=False)
    assert float(plain.frame) == pytest.approx(float(layer_metrics(scaled[labels], labels, 4)["nc2_frame"]))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda rows, labels: class_geometry(rows, rows[:2], labels, 3), "weight must have num_classes = 3 rows"),
        (lambda rows, labels: mean_spectrum(rows, labels, 3, 1.0), "rtol must lie between 0 and 1, got 1.0"),
    ],
)
def test_bad_input_is_told_in_one_sentence(call, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call(powers(6, 4, 1), torch.arange(6) % 3)
