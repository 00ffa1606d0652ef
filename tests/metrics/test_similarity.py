"""Golden values of similarity on the input T and relu(T W^T)."""

import pytest
import torch
from golden import H, K, W, Y

from pipeline.metrics import layer_metrics, undefined_reasons
from pipeline.metrics.engine.pairing import Cross, PairStatistics
from pipeline.metrics.similarity import cka, cka_batch

AFTER = torch.relu(H @ W.T)


def test_golden_values() -> None:
    found = layer_metrics(AFTER, Y, K, families=("similarity",), previous=H)
    assert float(found["cka"]) == pytest.approx(0.735656686697, rel=1e-9)
    assert float(found["cka_batch"]) == pytest.approx(0.698706107666, rel=1e-9)
    assert float(layer_metrics(H, Y, K, W, families=("similarity",))["subspace_cosine"]) == pytest.approx(
        0.722722372672, rel=1e-9
    )


def test_golden_angles_of_the_last_subspaces() -> None:
    means = torch.stack([H[label == Y].mean(0) for label in range(K)])
    angles = torch.linalg.svdvals(torch.linalg.svd(W).Vh[:K] @ torch.linalg.svd(means).Vh[:K].T)
    assert angles.tolist() == pytest.approx([1, 1, 0.168167118015], rel=1e-9)
    found = layer_metrics(H, Y, K, W, families=("similarity",))["subspace_cosine"]
    assert float(found) == pytest.approx(float(angles.mean()), rel=1e-12)


def test_golden_value_of_two_batches() -> None:
    halves = (slice(0, 6), slice(6, 12))
    parts = [PairStatistics.of_rows(H[half], AFTER[half]) for half in halves]
    for found in (PairStatistics.merged(parts), PairStatistics.of_rows(H, AFTER, halves)):
        assert float(cka_batch(found)) == pytest.approx(0.656212413081, rel=1e-9)
        assert float(cka(found)) == pytest.approx(0.735656686697, rel=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("sizes", [[12], [5, 5, 2], [1] * 12, [0, 7, 0, 5]])
def test_any_parts_give_what_all_rows_give_however_far_away_they_are(sizes: list[int], offset: float) -> None:
    parts = [Cross.of_rows(*pair) for pair in zip((H + offset).split(sizes), AFTER.split(sizes), strict=True)]
    expected = (H - H.mean(0)).T @ (AFTER - AFTER.mean(0))
    torch.testing.assert_close(Cross.merged(parts).product, expected, rtol=1e-9, atol=1e-9 if offset else 1e-13)


def test_unbiased_hsic_is_the_mean_over_quadruples() -> None:
    from itertools import permutations

    from pipeline.metrics.engine.pairing import unbiased_hsic

    x, y = H[:6], AFTER[:6]
    k, m = x @ x.T, y @ y.T
    terms = [k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in permutations(range(6), 4)]
    assert float(unbiased_hsic(x, y)[0]) == pytest.approx(float(sum(terms) / len(terms)), rel=1e-10)


def test_what_is_undefined_says_why() -> None:
    asked = {"families": ("similarity",)}
    told = undefined_reasons(AFTER[:3], Y[:3], K, previous=H[:3], **asked)
    assert told == {"cka_batch": "a batch has fewer than 4 rows"}
    told = undefined_reasons(AFTER, Y, K, previous=torch.ones_like(H), **asked)
    assert told["cka"] == "all rows of one of the places are the same" and "not positive" in told["cka_batch"]
    with pytest.raises(ValueError, match=r"previous must have 12 rows"):
        layer_metrics(AFTER, Y, K, previous=H[:3], **asked)
