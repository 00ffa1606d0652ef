"""The path through a leaky network: momenta, weights and energies are those of the objective that is minimised."""

from dataclasses import replace

import pytest
import torch

from pipeline.config import OptimizerConfig
from pipeline.data import ImageData, Split
from pipeline.dufm.objectives import load_objective
from pipeline.measure import flows
from pipeline.measure.flows import is_leaky, path_bytes
from pipeline.measure.layers import measure_backbone
from pipeline.metrics import estimated_rank
from pipeline.metrics.engine.settings import MeasureSettings
from pipeline.networks import build_backbone
from pipeline.runs.training.learners import Classifier
from pipeline.runs.training.objective import WeightPenalty

ASKED = MeasureSettings(("core", "paths"))
DEPTH, LAYERS, DECAY = 2.0, 3, 0.05


@pytest.fixture(scope="module")
def images() -> ImageData:
    generator = torch.Generator().manual_seed(0)
    splits = []
    for count in (10, 6):
        labels = torch.arange(count) % 3
        splits.append(Split(torch.randn(count, 5, 1, 1, generator=generator) + labels[:, None, None, None], labels))
    made = ImageData.from_splits("drawn", *splits, ("a", "b", "c"))
    return replace(made, mean=torch.zeros(5), std=torch.ones(5))


def leaky(**more):
    options = {"depth": LAYERS, "width": 4, "norm": "none", "leak": DEPTH, "steps": "irregular", "bias": True}
    return build_backbone("residual_mlp", (5, 1, 1), **options | more).double()


@pytest.mark.parametrize("bias", [True, False])
def test_the_residual_is_the_gradient_of_the_objective(images, bias: bool, monkeypatch) -> None:
    """d objective / dW_l = lambda rho_l / Lt (W_l - Lt B_l sigma(A_{l-1})^T)."""
    monkeypatch.setattr(flows, "CHUNK", 4)  # parts make up the mean
    torch.manual_seed(0)
    backbone = leaky(bias=bias)
    learner = Classifier(
        backbone, 3, load_objective("mse"), OptimizerConfig(), 1, 0, penalty=WeightPenalty(DECAY, "steps")
    )
    if bias:
        with torch.no_grad():
            for block in backbone.network.blocks:
                block.outer.bias.normal_()
    measured = measure_backbone(backbone, images, learner.decide, settings=ASKED, fitting=learner.leaky_fit)
    at = {layer.layer: layer.values for layer in measured.layers if layer.tap == "post"}
    learner.eval()
    total = learner(images.train.images.double(), images.train.labels)
    total.backward()
    shares = []
    for block, rho in zip(backbone.network.blocks, backbone.network.rho, strict=True):
        parts = [block.outer.weight] + ([block.outer.bias] if bias else [])
        slope, size = (sum(it.detach().square().sum() for it in own) ** 0.5 for own in ([p.grad for p in parts], parts))
        shares.append(float(slope * DEPTH / (DECAY * rho) / size))
    last = at[f"network.blocks.{LAYERS - 1}"]
    assert float(last["stationarity_residual"]) == pytest.approx(max(shares), rel=1e-9)
    assert not any("stationarity_residual" in at[f"network.blocks.{number}"] for number in range(LAYERS - 1))
    assert "test_hamiltonian" not in last


def test_every_layer_has_its_energies_and_singular_values(images) -> None:
    torch.manual_seed(1)
    backbone = leaky()
    learner = Classifier(
        backbone, 3, load_objective("mse"), OptimizerConfig(), 1, 0, penalty=WeightPenalty(DECAY, "steps")
    )
    found = flows.leaky_layers(backbone, images, learner.leaky_fit)
    measured = measure_backbone(backbone, images, learner.decide, settings=ASKED, fitting=learner.leaky_fit)
    for at in measured.layers:
        path, number = found[at.layer, "post"].path, found[at.layer, "post"].layer
        gated = torch.nn.functional.pad(path.rows[number - 1].relu(), (0, 1), value=1.0)
        rho = path.steps[number - 1]
        after = (1 - rho * DEPTH) * path.rows[number - 1] + rho * gated @ path.weights[number - 1].T
        torch.testing.assert_close(path.rows[number], after, rtol=1e-10, atol=1e-12)
        ranks = [estimated_rank(path.rows[at], path.momenta[number - 1], DEPTH) for at in (number - 1, number)]
        assert float(at.values["estimated_rank"]) == pytest.approx(float(ranks[0]))
        assert float(at.values["estimated_rank_midpoint"]) == pytest.approx(float(sum(ranks) / 2))
        difference = at.values["kinetic_energy"] - at.values["potential_energy"]
        assert float(at.values["stable_hamiltonian"]) == pytest.approx(float(difference), rel=1e-9)
        values = torch.linalg.svdvals(path.rows[number])
        assert [float(at.values[f"path_value{part}"]) for part in ("", "/k=2", "/k=4")] == pytest.approx(
            [float(values[at]) for at in (0, 1, 3)]
        )
    held = found["network.blocks.0", "post"].path
    assert path_bytes(backbone, 10) == held.rows.nbytes + held.momenta.nbytes


def test_other_networks_and_objectives_have_no_path(images) -> None:
    assert is_leaky(leaky()) and not is_leaky(build_backbone("mlp", (5, 1, 1), hidden=[4]))
    for other in ({"leak": 0.0, "steps": "equal"}, {"norm": "rms"}, {"block_layers": 2}, {"activation": "tanh"}):
        assert not is_leaky(leaky(**other))
    backbone = leaky()
    for penalty in (None, WeightPenalty(DECAY, "equal"), WeightPenalty(0.0, "steps")):
        learner = Classifier(backbone, 3, load_objective("mse"), OptimizerConfig(), 1, 0, penalty=penalty)
        assert learner.leaky_fit is None
    *_, last = measure_backbone(backbone, images, settings=ASKED).layers
    assert "hamiltonian" not in last.values
