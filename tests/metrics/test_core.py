"""The metrics of `core` against their definitions and worked examples, with the reasons of their undefined cases."""

import doctest
import inspect
import math

import brute_force
import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline import metrics
from pipeline.metrics import ClassStatistics, core, layer_metrics, undefined_reasons
from pipeline.metrics.engine import functional
from pipeline.metrics.engine.rows import Aim, second_look


def is_defined_by_features(name: str) -> bool:
    definition = getattr(brute_force, name, None)
    return definition is not None and list(inspect.signature(definition).parameters) == ["z", "y", "k"]


FEATURE_METRICS = [name for name in metrics.metrics() if is_defined_by_features(name)]


def draw(seed: int, sizes: tuple[int, ...], width: int, offset: float = 1.0) -> tuple[Tensor, Tensor]:
    """Gaussian classes of the given sizes about random means, in shuffled order, float64."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    means = 2 * torch.randn(len(sizes), width, generator=generator, dtype=torch.float64) + offset
    noise = torch.randn(len(labels), width, generator=generator, dtype=torch.float64)
    return means[labels] + noise, labels


def collapsed(means: list[list[float]], sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return torch.tensor(means, dtype=torch.float64)[labels], labels


def rotation(width: int, seed: int = 0) -> Tensor:
    matrix = torch.randn(width, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(matrix).Q


def assert_equal(actual: Tensor, expected: float, rtol: float = 1e-10, atol: float = 1e-13) -> None:
    assert actual.dtype == torch.float64
    assert actual.shape == ()
    assert float(actual) == pytest.approx(float(expected), rel=rtol, abs=atol)


# --- definitions -----------------------------------------------------------------------------------------------------

PROBLEMS = [((7, 9), 3), ((5, 5), 2), ((1, 12, 4), 6), ((6, 3, 5, 8), 4), ((30, 2, 7), 40)]


@pytest.mark.parametrize("name", FEATURE_METRICS)
@pytest.mark.parametrize(("sizes", "width"), PROBLEMS)
def test_feature_metrics_follow_their_definitions_with_unequal_classes(
    name: str, sizes: tuple[int, ...], width: int
) -> None:
    z, y = draw(3, sizes, width)
    expected = getattr(brute_force, name)(z.numpy(), y.numpy(), len(sizes))
    assert_equal(getattr(metrics, name)(z, y, len(sizes)), expected)


@pytest.mark.parametrize(("sizes", "width"), PROBLEMS)
def test_metrics_with_weights_follow_their_definitions(sizes: tuple[int, ...], width: int) -> None:
    k = len(sizes)
    z, y = draw(4, sizes, width)
    generator = torch.Generator().manual_seed(5)
    hidden, last, after = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in [(9, width), (k, width), (4, 9)]
    )
    decisions = torch.randint(0, k, (len(y),), generator=generator)
    arrays = z.numpy(), y.numpy()
    assert_equal(metrics.dnc3(hidden, z, y, k), brute_force.dnc3(hidden.numpy(), *arrays, k))
    assert_equal(metrics.nc3_duality(last, z, y, k), brute_force.nc3_duality(last.numpy(), *arrays, k))
    assert_equal(metrics.nc4(z, y, decisions, k), brute_force.nc4(*arrays, decisions.numpy(), k))
    assert_equal(metrics.balancedness(hidden, after), brute_force.balancedness(hidden.numpy(), after.numpy()))
    assert_equal(metrics.stable_rank(hidden), brute_force.stable_rank(hidden.numpy()))
    assert_equal(metrics.numerical_rank(hidden), brute_force.rank(hidden.numpy()))


def test_class_means_are_the_rows_of_the_mean_matrix() -> None:
    z, y = draw(6, (4, 7, 2), 5)
    expected = brute_force.class_means(z.numpy(), y.numpy(), 3)
    np.testing.assert_allclose(metrics.class_means(z, y, 3).numpy(), expected, rtol=1e-14, atol=1e-14)


def test_layer_metrics_are_the_single_functions_under_their_names() -> None:
    z, y = draw(7, (6, 5, 8), 6)
    weight, following = z[:4] * 1.5, z[:7, :4]
    decisions = (y + (torch.arange(19) % 3 == 0)) % 3
    values = layer_metrics(z, y, 3, weight, following, decisions, nearest=True)
    expected = {name: getattr(metrics, name)(z, y, 3) for name in FEATURE_METRICS} | {
        "rank_means": metrics.numerical_rank(metrics.class_means(z, y, 3)),
        "stable_rank_means": metrics.stable_rank(metrics.class_means(z, y, 3)),
        "active_units": metrics.active_units(z),
        "classes_counted": torch.tensor(3.0, dtype=torch.float64),
        "classes_left_out": torch.tensor(0.0, dtype=torch.float64),
        "dnc3": metrics.dnc3(weight, z, y, 3),
        "rank_weight": metrics.numerical_rank(weight),
        "stable_rank_weight": metrics.stable_rank(weight),
        "balancedness": metrics.balancedness(weight, following),
        "nc4": metrics.nc4(z, y, decisions, 3),
        "ncm_accuracy": metrics.ncm_accuracy(z, y, z, y, 3),
    }
    assert values.keys() == expected.keys()
    for name, value in values.items():
        assert_equal(value, expected[name], rtol=1e-14)
    assert layer_metrics(z, y, 3, weight[:3]).keys() - layer_metrics(z, y, 3, weight).keys() == {"nc3_duality"}


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(functional).attempted > 0
    assert doctest.testmod(functional).failed == 0


# --- worked examples -------------------------------------------------------------------------------------------------


def test_three_classes_worked_by_hand() -> None:
    # class 0: (2, 0), (4, 0) -> mean (3, 0), squared deviations 1 + 1
    # class 1: (0, 1), (0, 5) -> mean (0, 3), squared deviations 4 + 4
    # class 2: (-3, -4), (-3, -2) -> mean (-3, -3), squared deviations 1 + 1
    # mu_G = (0, 0); tr Sigma_W = 12 / 6 = 2; tr Sigma_B = (9 + 9 + 18) / 3 = 12
    z = torch.tensor([[2, 0], [4, 0], [0, 1], [0, 5], [-3, -4], [-3, -2]], dtype=torch.float64)
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    assert_equal(metrics.dnc1(z, y, 3), 2 / 12)
    # variances 1, 4, 1; ||mu_0 - mu_1||^2 = 18, ||mu_0 - mu_2||^2 = 45, ||mu_1 - mu_2||^2 = 45
    assert_equal(metrics.cdnv(z, y, 3), (5 / 36 + 2 / 90 + 5 / 90) / 3)
    # Sigma_B = [[6, 3], [3, 6]], inverse [[6, -3], [-3, 6]] / 27; Sigma_W = diag(2, 10) / 6
    assert_equal(metrics.nc1_pinv(z, y, 3), (12 * 6 / 27 / 6) / 3)
    # M M^T = 3 Sigma_B has eigenvalues 27 and 9: stable rank 36 / 27, and three means in two dimensions
    assert_equal(layer_metrics(z, y, 3)["stable_rank_means"], 36 / 27)
    assert_equal(layer_metrics(z, y, 3)["rank_means"], 2)
    assert metrics.dnc2(z, y, 3) == math.inf
    # 4 of the 12 entries are zero
    assert_equal(metrics.active_units(z), 8 / 12)
    # row (1, 1): closest mean (-3, -3), sine 0, weight 2; row (0, 2): closest mean (0, 3), sine 0, weight 4
    # row (3, -1): cosines 3 / sqrt(10), -1 / sqrt(10), -1 / sqrt(5): closest mean (3, 0), sine 1 / sqrt(10), weight 10
    weight = torch.tensor([[1, 1], [0, 2], [3, -1]], dtype=torch.float64)
    assert_equal(metrics.dnc3(weight, z, y, 3), math.sqrt(10) / 16)


def test_three_means_in_three_dimensions_worked_by_hand() -> None:
    # M = diag(1, 2, 4) up to the order of axes: singular values 4, 2, 1; M^T M = diag(1, 4, 16), norm sqrt(273)
    z, y = collapsed([[0, 1, 0], [2, 0, 0], [0, 0, 4]], (2, 1, 3))
    assert_equal(metrics.dnc2(z, y, 3), 4)
    cosine = (1 + 4 + 16) / math.sqrt(273) / math.sqrt(3)  # the distance of unit vectors is sqrt(2 - 2 cos)
    assert_equal(metrics.nc2_frame(z, y, 3), math.sqrt(2 - 2 * cosine))


def test_ncm_accuracy_is_that_of_the_training_means_on_any_split() -> None:
    z = torch.tensor([[0.0, 0.0], [2.0, 0.0], [10.0, 0.0], [12.0, 0.0]])
    y = torch.tensor([0, 0, 1, 1])  # means at 1 and 11
    other, labels = torch.tensor([[5.0, 9.0], [7.0, -9.0], [7.0, 0.0]]), torch.tensor([0, 0, 1])
    assert_equal(metrics.ncm_accuracy(z, y, z, y, 2), 1)
    assert_equal(metrics.ncm_accuracy(other, labels, z, y, 2), 2 / 3)
    assert_equal(metrics.ncm_accuracy(other + 1e9, labels, z.double() + 1e9, y, 2), 2 / 3)
    reference = metrics.ClassStatistics.from_features(z, y, 2)
    values = layer_metrics(other, labels, 2, decisions=labels, reference=reference, nearest=True)
    assert_equal(values["ncm_accuracy"], 2 / 3)
    assert_equal(values["nc4"], 1 / 3)


def test_ncm_accuracy_leaves_out_samples_of_classes_without_training_samples() -> None:
    z, y = torch.eye(3), torch.tensor([0, 0, 1])
    # The mean of class 0 lies between both; the third sample has no class to be right about.
    assert_equal(metrics.ncm_accuracy(z, torch.tensor([0, 1, 2]), z, y, 3), 0.5)


def test_nc4_counts_disagreements_with_the_nearest_mean() -> None:
    # class means (0) and (10): samples 0, 0, 6 lie at mean 2; 8, 12 at 10: sample 6 is 4 from both, the first counts
    z = torch.tensor([[0.0], [0.0], [6.0], [8.0], [12.0]])
    y = torch.tensor([0, 0, 0, 1, 1])
    assert_equal(metrics.nc4(z, y, torch.tensor([0, 0, 0, 1, 1]), 2), 0)
    assert_equal(metrics.nc4(z, y, torch.tensor([1, 0, 0, 0, 1]), 2), 2 / 5)


def test_exactly_collapsed_distinct_classes_have_no_variability() -> None:
    z, y = collapsed([[0.1, 0.7], [1 / 3, -0.3], [1e6 + 0.1, 3]], (1000, 3, 77))
    for name in ("dnc1", "nc1_pinv", "cdnv"):
        assert getattr(metrics, name)(z, y, 3) == 0


@pytest.mark.parametrize("k", [2, 3, 5])
def test_dnc2_of_an_orthogonal_frame_is_one(k: int) -> None:
    z, y = collapsed((3.7 * rotation(7)[:k]).tolist(), (4, 2, 9, 1, 3)[:k])
    assert_equal(metrics.dnc2(z, y, k), 1, rtol=1e-14)
    assert_equal(metrics.nc2_frame(z, y, k), 0, atol=1e-14)


@pytest.mark.parametrize("k", [3, 4])
def test_nc2_simplex_of_a_simplex_is_zero_wherever_it_lies_and_of_an_orthogonal_frame_too(k: int) -> None:
    simplex = (torch.eye(k, dtype=torch.float64) - 1 / k) @ rotation(6)[:k]
    for offset in (0.0, 5.0):  # an orthogonal frame minus its centre is a simplex: offset by the centre
        z, y = collapsed((simplex + offset).tolist(), (4, 2, 9, 1)[:k])
        assert_equal(metrics.nc2_simplex(z, y, k), 0, atol=1e-14)
    simplex[0] *= 1.5
    z, y = collapsed(simplex.tolist(), (4, 2, 9, 1)[:k])
    assert metrics.nc2_simplex(z, y, k) > 0.1
    # a centred simplex is singular: it is no orthogonal frame
    assert metrics.dnc2(*collapsed((simplex - simplex.mean(0)).tolist(), (4, 2, 9, 1)[:k]), k) == math.inf


def test_nc2_simplex_of_two_classes_is_zero_even_for_random_means() -> None:
    for seed in range(5):
        assert_equal(metrics.nc2_simplex(*draw(seed, (9, 4), 6), 2), 0, atol=1e-14)


@pytest.mark.parametrize("scale", [1.0, -2.5, 1e-9, 1e7])
def test_dnc3_of_rows_collinear_with_means_is_zero_to_rounding(scale: float) -> None:
    z, y = draw(9, (6, 5, 7), 20)
    means = metrics.class_means(z, y, 3)
    weight = torch.stack([scale * means[2], torch.zeros(20, dtype=torch.float64), means[0], -3 * means[1]])
    assert metrics.dnc3(weight, z, y, 3) < 1e-15


def test_dnc3_resolves_tiny_angles() -> None:
    z, y = collapsed([[1, 0, 0], [0, 1, 0]], (2, 2))
    weight = torch.tensor([[1.0, 0.0, 1e-12]], dtype=torch.float64)
    assert_equal(metrics.dnc3(weight, z, y, 2), 1e-12, rtol=1e-10, atol=0)


def test_dnc3_weighs_rows_by_their_squared_norm_and_passes_over_zero_means() -> None:
    # row (0, 3): the only non-zero mean is (1, 0), sine 1, weight 9; row (1, 0): sine 0, weight 1
    z, y = collapsed([[1, 0], [0, 0]], (2, 2))
    assert_equal(metrics.dnc3(torch.tensor([[0.0, 3.0], [1.0, 0.0], [0.0, 0.0]]), z, y, 2), 0.9)


def test_nc3_duality_of_proportional_weights_is_zero_and_of_opposite_ones_two() -> None:
    z, y = draw(10, (5, 9, 3), 8)
    centred = metrics.class_means(z, y, 3)
    centred = centred - centred.mean(0)
    assert_equal(metrics.nc3_duality(7 * centred, z, y, 3), 0, atol=1e-14)
    assert_equal(metrics.nc3_duality(-centred, z, y, 3), 2)


def test_balanced_factors_have_balancedness_zero_and_a_doubled_one_three() -> None:
    left, right = rotation(5, 1), rotation(5, 2)
    spectrum = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5, 0.0], dtype=torch.float64))
    weight, following = left @ spectrum @ right.T, rotation(5, 3) @ spectrum @ left.T
    assert_equal(metrics.balancedness(weight, following), 0, atol=1e-14)
    assert_equal(metrics.balancedness(weight, 2 * following), 3)  # 4 A - A over A


def test_ranks_of_known_spectra() -> None:
    matrix = rotation(4, 1) @ torch.diag(torch.tensor([2.0, 1.0, 1e-2, 1e-4], dtype=torch.float64)) @ rotation(4, 2)
    assert_equal(metrics.numerical_rank(matrix), 3)
    assert_equal(metrics.numerical_rank(matrix, rtol=1e-6), 4)
    assert_equal(metrics.stable_rank(matrix), (4 + 1 + 1e-4 + 1e-8) / 4)
    assert_equal(metrics.numerical_rank(torch.zeros(3, 2)), 0)


@pytest.mark.parametrize("name", ["dnc2", "nc2_frame"])
def test_uncentred_metrics_are_changed_by_a_translation(name: str) -> None:
    z, y = draw(12, (8, 5, 6), 7)
    assert abs(getattr(metrics, name)(z + 3, y, 3) / getattr(metrics, name)(z, y, 3) - 1) > 0.1


# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("offset", "spread"), [(1e6, 1.0), (1.0, 1e-6), (0.0, 1e-6)])
def test_offsets_and_near_collapse_cost_no_digits(dtype: torch.dtype, offset: float, spread: float) -> None:
    z, y = draw(13, (11, 8), 4, offset=0)
    means = metrics.class_means(z, y, 2)
    near = (offset + means[y] + spread * (z - means[y])).to(dtype)
    dnc1, cdnv = brute_force.exact_dnc1_and_cdnv(near.double().numpy(), y.numpy(), 2)
    assert_equal(metrics.dnc1(near, y, 2), dnc1, rtol=1e-11, atol=0)
    assert_equal(metrics.cdnv(near, y, 2), cdnv, rtol=1e-11, atol=0)


@pytest.mark.parametrize("distance", [1e3, 1e8])
def test_a_first_sample_far_from_its_class_costs_no_digits(distance: float) -> None:
    """Deviations are taken from the first sample of a class before its mean is known."""
    z, y = draw(15, (40, 30), 4)
    z[(y == 0).nonzero()[0]] += distance
    dnc1, cdnv = brute_force.exact_dnc1_and_cdnv(z.numpy(), y.numpy(), 2)
    assert_equal(metrics.dnc1(z, y, 2), dnc1, rtol=1e-12, atol=0)
    assert_equal(metrics.cdnv(z, y, 2), cdnv, rtol=1e-12, atol=0)


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("spread", [1.0, 1e-6])
def test_the_second_look_is_what_samples_and_means_say(monkeypatch: pytest.MonkeyPatch, offset: float, spread: float):
    """Against distances and projections in longdouble, sample by sample, with means of another split's."""
    z, y = draw(16, (23, 17, 30), 5)
    means = metrics.class_means(z, y, 3)
    z, other = offset + means[y] + spread * (z - means[y]), offset + means + 0.1 * torch.arange(3.0)[:, None]
    decisions = torch.arange(len(y)) % 3
    own = ClassStatistics.from_features(z, y, 3)
    reference = ClassStatistics.from_features(other, torch.arange(3), 3)
    directions = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    monkeypatch.setattr("pipeline.metrics.engine.chunks.CHUNK_ELEMENTS_CPU", 35)  # seven samples at a time
    row_sums, along = [core.hits, core.misses, core.squares], {"squares": directions}
    hits, misses, squares = second_look(own, reference, row_sums, Aim(along), decisions).tolist()
    exact, classes = z.numpy().astype(np.longdouble), y.numpy()
    nearest = ((exact[:, None] - other.numpy().astype(np.longdouble)) ** 2).sum(-1).argmin(1)
    centred = exact - np.stack([exact[classes == c].mean(0) for c in range(3)])[classes]
    assert (hits, misses) == ((nearest == classes).sum(), (nearest != decisions.numpy()).sum())
    assert squares == pytest.approx(float(((centred @ directions.numpy().astype(np.longdouble)) ** 2).sum()), rel=1e-9)


@pytest.mark.parametrize("name", ["dnc1", "nc1_pinv", "cdnv", "nc2_simplex"])
def test_an_offset_that_is_removed_exactly_changes_nothing(name: str) -> None:
    z, y = draw(14, (11, 8, 20), 4)
    offset = z + 2.0**20  # rounds z; taking the offset off again does not round
    assert_equal(getattr(metrics, name)(offset, y, 3), getattr(metrics, name)(offset - 2.0**20, y, 3), rtol=1e-11)


def test_features_that_require_gradients_are_measured_without() -> None:
    z, y = draw(16, (4, 4), 3)
    values = layer_metrics(z.requires_grad_(), y, 2, torch.ones(2, 3, requires_grad=True))
    assert not any(value.requires_grad for value in values.values())


# --- members ---------------------------------------------------------------------------------------------------------


def test_features_shared_by_the_weights_of_all_members_are_measured_once() -> None:
    z, y = draw(17, (6, 9), 4)
    weights = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = layer_metrics(z, y, 2, weights)
    assert values["dnc1"].shape == ()
    assert values["dnc3"].shape == (3,)
    assert_equal(values["dnc3"][1], metrics.dnc3(weights[1], z, y, 2))


def test_a_diverged_member_leaves_the_others_alone() -> None:
    z, y = draw(18, (6, 9), 4)
    weight = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batch = torch.stack([z, z, z])
    batch[1, 3, 2] = math.inf
    weight[1] = math.nan
    values = layer_metrics(batch, y, 2, weight, decisions=y)
    alone = layer_metrics(z, y, 2, weight[2], decisions=y)
    for name, value in values.items():
        assert value[1].isnan()
        assert_equal(value[2], alone[name])
    reasons = undefined_reasons(batch, y, 2, weight, decisions=y)
    assert reasons["dnc1"] == "member 1: the features are not finite, or overflow when squared"
    assert reasons["rank_weight"] == "member 1: the matrix is not finite"
    assert reasons.keys() == values.keys()


# --- undefined cases -------------------------------------------------------------------------------------------------


def assert_undefined(z: Tensor, y: Tensor, k: int, reasons: dict[str, str], defined: set[str]) -> None:
    weight = torch.ones(2, z.shape[1], dtype=torch.float64)
    values = layer_metrics(z, y, k, weight)
    told = undefined_reasons(z, y, k, weight)
    assert {name for name, value in values.items() if value.isfinite()} == defined
    assert told.keys() == values.keys() - defined
    for name, reason in reasons.items():
        assert values[name].isnan()
        assert reason in told[name]


OF_WEIGHT = {"rank_weight", "stable_rank_weight"}
OF_LABELS = {"classes_counted", "classes_left_out"}


def test_one_class_in_the_data_is_undefined() -> None:
    z, _ = draw(19, (5, 5), 3)
    reason = "the data hold one class only"
    assert_undefined(
        z,
        torch.ones(10, dtype=torch.int64),
        2,
        {"dnc1": reason, "dnc2": reason, "dnc3": reason},
        {"active_units", *OF_LABELS, *OF_WEIGHT},
    )


def test_a_class_without_samples_is_left_out() -> None:
    z, y = draw(20, (5, 5), 3)
    assert undefined_reasons(z, y, 3) == {}
    for name in FEATURE_METRICS:
        assert_equal(getattr(metrics, name)(z, y, 3), getattr(metrics, name)(z, y, 2), rtol=0, atol=0)
    assert metrics.class_means(z, y, 3).isnan().all(-1).tolist() == [False, False, True]


def test_no_samples_at_all_are_undefined() -> None:
    reason = "there are no samples"
    z, y = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    assert_undefined(z, y, 2, {"dnc1": reason, "dnc2": reason, "active_units": reason}, OF_LABELS | OF_WEIGHT)


def test_features_that_are_all_zero_are_undefined() -> None:
    z, y = torch.zeros(6, 3), torch.arange(6) % 2
    coincide, zero = "the class means coincide", "all class means are zero"
    expected = {"dnc1": coincide, "nc1_pinv": coincide, "nc2_simplex": coincide, "cdnv": "two class means coincide"}
    expected |= {"dnc2": zero, "nc2_frame": zero, "dnc3": zero, "stable_rank_means": zero}
    assert_undefined(z, y, 2, expected, {"active_units", "effective_rank", "rank_means", *OF_LABELS, *OF_WEIGHT})


def test_class_means_equal_up_to_rounding_have_no_between_class_scatter() -> None:
    z, _ = draw(21, (500, 1), 3, offset=1e3)
    z = z[:500]
    both, y = torch.cat([z, z.flip(0)]), torch.arange(2).repeat_interleave(500)
    reason = "the class means coincide"
    assert_undefined(
        both,
        y,
        2,
        {"dnc1": reason, "nc1_pinv": reason},
        {
            "active_units",
            "effective_rank",
            "rank_means",
            "stable_rank_means",
            "nc2_frame",
            "dnc3",
            *OF_LABELS,
            *OF_WEIGHT,
        },
    )
    assert metrics.dnc2(both, y, 2) == math.inf
    assert "linearly dependent" in undefined_reasons(both, y, 2)["dnc2"]


def test_means_that_cancel_up_to_rounding_are_zero() -> None:
    z, _ = draw(22, (6, 6), 3)
    # Every class holds z and -z, so that all means are zero, up to the rounding of their sums.
    assert_undefined(
        torch.cat([z, -z]),
        torch.arange(12).repeat(2) % 2,
        2,
        {"dnc2": "all class means are zero", "dnc3": "all class means are zero"},
        {"active_units", "effective_rank", "rank_means", *OF_LABELS, *OF_WEIGHT},
    )


def test_two_coinciding_means_of_three_leave_dnc1_defined_but_not_cdnv() -> None:
    z, y = draw(23, (6, 6), 4)
    third = z[y == 0]
    z, y = torch.cat([z, third]), torch.cat([y, torch.full((6,), 2)])
    values = layer_metrics(z, y, 3)
    assert values["cdnv"].isnan()
    assert values["dnc2"] == math.inf
    assert values["dnc1"].isfinite()
    assert values["nc1_pinv"].isfinite()  # the pseudo-inverse leaves out the direction without any scatter
    assert undefined_reasons(z, y, 3)["cdnv"] == "two class means coincide"


def test_collinear_means_far_from_the_origin_span_one_direction_up_to_rounding() -> None:
    noise, y = draw(27, (50, 50, 50), 4, offset=0)
    noise = noise - metrics.class_means(noise, y, 3)[y]
    line = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64) * torch.tensor([0.3, 0.7, -0.2, 0.1])
    near, far = noise + line[y], noise + line[y] + 1e6 / 3
    # Rounding moves the far means off the line by 1e-11, which must not count as a second direction.
    assert_equal(metrics.nc1_pinv(far, y, 3), metrics.nc1_pinv(near, y, 3), rtol=1e-8)


def test_fewer_dimensions_than_classes_hold_no_orthogonal_frame() -> None:
    assert metrics.dnc2(*draw(24, (4, 4, 4), 2), 3) == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite_are_undefined(bad: float) -> None:
    z, y = draw(25, (5, 5), 3)
    z[4, 1] = bad
    reason = "the features are not finite"
    assert_undefined(z, y, 2, {"dnc1": reason, "dnc2": reason, "dnc3": reason, "active_units": reason}, OF_WEIGHT)


def test_zero_weights_are_undefined() -> None:
    z, y = draw(26, (5, 5), 3)
    weight = torch.zeros(2, 3)
    values, reasons = layer_metrics(z, y, 2, weight), undefined_reasons(z, y, 2, weight)
    for name, reason in {"dnc3": "weight", "nc3_duality": "weight", "stable_rank_weight": "matrix"}.items():
        assert values[name].isnan()
        assert reasons[name] == f"the {reason} is zero"
    assert_equal(values["rank_weight"], 0)
    assert metrics.balancedness(weight, torch.ones(3, 2)).isnan()


# --- bad arguments ---------------------------------------------------------------------------------------------------

Z, Y = torch.zeros(4, 3), torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Z, Y, 1), r"num_classes must be an int of at least 2, got 1\."),
        ((Z, Y, 2.0), r"num_classes must be an int of at least 2, got 2\.0\."),
        ((Z, torch.tensor([0, 1, 2, 1]), 2), r"labels must lie in 0\.\.1 for num_classes = 2, got 2\."),
        ((Z, torch.tensor([0, -1, 1, 1]), 2), r"labels must lie in 0\.\.1 for num_classes = 2, got -1\."),
        ((Z, Y[:3], 2), r"labels must have shape \(4,\), one per sample, got \(3,\)\."),
        ((Z, Y[:, None], 2), r"labels must have shape \(4,\), one per sample, got \(4, 1\)\."),
        ((Z, Y.float(), 2), r"labels must be an int64 tensor, got a torch\.float32 tensor\."),
        ((Z, [0, 1, 0, 1], 2), r"labels must be an int64 tensor, got list\."),
        ((Z[0], Y[:3], 2), r"features must have shape \(N, d\), with member dimensions first if any, got \(3,\)\."),
        ((Z[:, :0], Y, 2), r"features must have shape \(N, d\), with member dimensions first if any, got \(4, 0\)\."),
        ((Z.long(), Y, 2), r"features must be a floating-point tensor, got a torch\.int64 tensor\."),
        ((Z.numpy(), Y, 2), r"features must be a floating-point tensor, got ndarray\."),
        ((Z, Y, 2, Z.T), r"weight must have 3 columns, one per feature, got shape \(3, 4\)\."),
        ((Z, Y, 2, Z[0]), r"weight must have shape \(out, in\)"),
        ((Z, Y, 2, Z, Z), r"next_weight must have 4 columns, one per row of weight, got shape \(4, 3\)\."),
        ((Z, Y, 2, None, Z), r"next_weight needs the weight that comes before it"),
        ((Z.expand(2, 4, 3), Y, 2, Z.expand(5, 4, 3)), r"weight must have the member dimensions of features, \(2,\)"),
        ((Z, Y, 2, None, None, Y[:2]), r"decisions must have shape \(\.\.\., 4\), one per sample, got \(2,\)\."),
        ((Z, Y, 2, None, None, Y.float()), r"decisions must be an int64 tensor of class indices"),
    ],
)
def test_bad_arguments_are_named_in_one_sentence(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer_metrics(*arguments)


def test_nc3_duality_is_for_the_last_weight_only() -> None:
    with pytest.raises(ValueError, match=r"weight must have num_classes = 2 rows, got shape \(4, 3\)\."):
        metrics.nc3_duality(Z, Z, Y, 2)
