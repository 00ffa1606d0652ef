"""Values of every class are those of the classes one by one."""

import pytest
import torch
from golden import H, K, W, Y

from pipeline.metrics import class_values, layer_metrics


def test_means_over_classes_are_the_metrics_of_all() -> None:
    found = class_values(H, Y, K, weight=W)
    known = layer_metrics(H, Y, K, weight=W, nearest=True, families=("core", "cosine", "kernels"))
    assert found["samples"].tolist() == [6, 4, 2]
    assert float(found["cos_intra"].mean()) == pytest.approx(float(known["cos_intra_mean"]))
    assert float(found["dual"].mean()) == pytest.approx(float(known["dual_mean"]))
    assert float(found["norm"].std(correction=0) / found["norm"].mean()) == pytest.approx(float(known["norm_cov"]))
    shares = found["samples"] / len(Y)
    assert float((shares * found["ncm_recall"]).sum()) == pytest.approx(float(known["ncm_accuracy"]))
    for label in range(K):
        own = H[label == Y]
        assert float(found["variance"][label]) == pytest.approx(float((own - own.mean(0)).square().sum(1).mean()))


def test_a_class_without_samples_is_undefined_and_changes_no_other() -> None:
    labels = torch.where(Y == 2, 3, Y)
    found, known = class_values(H, labels, 4), class_values(H, Y, K)
    for name, values in known.items():
        torch.testing.assert_close(found[name][[0, 1, 3]], values)
        assert name == "samples" or found[name][2].isnan()


def test_a_weight_needs_a_row_for_each_class() -> None:
    with pytest.raises(ValueError, match=r"weight must have num_classes = 3 rows, got shape \(2, 4\)"):
        class_values(H, Y, K, weight=W[:2])
