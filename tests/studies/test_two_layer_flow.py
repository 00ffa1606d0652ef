"""Two-layer networks: classifier in coordinates of the means, rows along margins, and what claims say of both."""

import pytest
import torch
from measured_results import point_of, result_of
from readable import drawn_for
from safetensors.torch import save_file
from study_results import one

from pipeline.data import load_images
from pipeline.storage.tensors import write_tensors
from pipeline.studies._measured import CLASSIFIER
from pipeline.studies.engine.study import QUICK
from pipeline.studies.two_layer_flow import STUDY, Network, claims, draw, measurements
from pipeline.theory import max_margin_directions


def _run(folder, kind, intra, inter=0.02, turned=0.0):
    """A network whose first layer has two rows per class along its margin, turned towards another coordinate."""
    point = point_of(STUDY, QUICK, f"{kind}-seed_0")
    curves = {
        CLASSIFIER: {"cos_intra_mean": [0.5, intra], "cos_inter_max": [0.3, inter]},
        None: {"test_accuracy": [0.9]},
    }
    result = result_of(folder, STUDY, point, curves)
    images = load_images(result.config.data.name, **result.config.data.request, seed=result.config.seed)
    rows, labels = images.train.images.flatten(1), images.train.labels
    first = max_margin_directions(rows, labels).float() + turned * torch.eye(3, rows.shape[1])
    first = torch.cat([first, 2 * first])
    second = torch.eye(3) - 1 / 3
    second = torch.cat([second, second], 1)
    features = torch.relu(rows @ first.T)
    write_tensors(result.folder, {"labels": labels, "features/1": features, "weights/1": second}, max_mb=10)
    (result.folder / "checkpoints").mkdir()
    save_file({"network.hidden1.0.weight": first}, result.folder / "checkpoints" / "backbone.safetensors")
    return result


def test_rows_along_margins_and_a_classifier_of_the_means_are_told(tmp_path):
    network = Network(_run(tmp_path, "small_start", 0.99))
    assert network.along_margins == pytest.approx([1, 1, 1], abs=1e-6)
    assert max(network.along_means) < 1 - 1e-4
    # what of the classifier is across the span of the means does not count
    across = torch.linalg.svd(network.means).Vh[-1]
    network.second = 5 * (torch.eye(3, dtype=torch.float64) - 1 / 3) @ network.means + across
    assert network.off_simplex == pytest.approx(0, abs=1e-9)
    network.second = -network.second
    assert network.off_simplex == pytest.approx(2, abs=1e-9)
    assert all(0.5 < share <= 1 for share in network.separability)


def test_claims_hold_for_collapsed_directions(tmp_path):
    results = [
        _run(tmp_path, kind, intra) for kind, intra in (("small_start", 0.95), ("rms_norm", 0.99), ("usual_start", 0.8))
    ]
    judged = claims(results)
    assert len(judged) == 7
    assert all(claim.holds for claim in judged if "simplex" not in claim.claim)
    assert {said.quantity.partition(":")[0] for said in measurements(results)} == {
        "small start",
        "small start, RMSNorm",
        "usual start",
    }
    (figure,) = drawn_for("column", lambda: draw(results)).values()
    assert len(figure.axes) == 4 and len(figure.axes[0].lines) == 3


def test_claims_fail_for_directions_that_stay_apart(tmp_path):
    judged = claims(
        [
            _run(tmp_path, "small_start", 0.4, inter=0.3, turned=2.0),
            _run(tmp_path, "rms_norm", 0.3),
            _run(tmp_path, "usual_start", 0.9),
        ]
    )
    for part in ("within classes, <=", "less than before", "orthogonal", "margins", "RMSNorm", "usual start"):
        assert not one(judged, part).holds
