"""Deep RFM: golden values of a kernel machine and its gradients, and what its layers compute."""

import math

import pytest
import torch

from pipeline.metrics import layer_metrics
from pipeline.networks import build_backbone
from pipeline.networks.kernel_machine import LaplaceMachine, gradient_outer_product, matrix_root, unit_rows

LABELS = torch.tensor([0] * 6 + [1] * 4 + [2] * 2)


@pytest.fixture
def rows():
    """The input T of the specification."""
    entries = [[math.sin(0.7 * i + 1.3 * j + 0.45 * i * j) for j in range(4)] for i in range(12)]
    return torch.tensor(entries, dtype=torch.float64) + 1.5 * torch.eye(4, dtype=torch.float64)[LABELS]


def targets():
    return 2 * torch.eye(3, dtype=torch.float64)[LABELS] - 1


def test_machine_and_gradients_have_their_golden_values(rows):
    unit = unit_rows(rows)
    machine = LaplaceMachine.fitted(unit, targets(), 2.0, 1e-3)
    known = torch.tensor([3.099989396722, -0.709452455229, -2.399057551295], dtype=torch.float64)
    torch.testing.assert_close(machine.alpha[0], known, rtol=1e-9, atol=0)
    product = gradient_outer_product(machine)
    assert product.trace().item() == pytest.approx(3.082761577539, rel=1e-9)
    assert product[0, 0].item() == product.max().item() == pytest.approx(1.547775445705, rel=1e-9)
    assert product[0, 1].item() == pytest.approx(-0.325295935080, rel=1e-9)
    projected = unit @ matrix_root(product / product.max())
    found = [float(layer_metrics(table, LABELS, 3)["dnc1"]) for table in (unit, projected)]
    assert found == pytest.approx([0.715632301898, 0.337714315652], rel=1e-9)


def test_the_outer_product_is_that_of_autograd_and_coincident_rows_do_not_count(rows):
    table = torch.cat([unit_rows(rows), unit_rows(rows)[:1]])
    labels = torch.cat([targets(), targets()[:1]])
    machine = LaplaceMachine.fitted(table, labels, 1.5, 1e-2)
    total = torch.zeros(4, 4, dtype=torch.float64)
    for row in table:
        apart = (table - row).norm(dim=1) > 1e-10
        jacobian = torch.autograd.functional.jacobian(
            lambda x, apart=apart: torch.exp(-(x - table[apart]).norm(dim=1) / 1.5) @ machine.alpha[apart], row
        )
        total += jacobian.mT @ jacobian / len(table)
    torch.testing.assert_close(gradient_outer_product(machine), total, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("random_features", ["relu", "cosine"])
def test_layers_collapse_what_they_are_fitted_to_and_the_control_does_not(random_features, rows):
    images = torch.cat([rows, torch.ones(12, 1, dtype=torch.float64)], dim=1).view(12, 5, 1, 1).float()
    settings = {"depth": 3, "width": 40, "random_features": random_features, "frequency": 0.5}
    net, control = (build_backbone("rfm", (5, 1, 1), agop=agop, **settings) for agop in (True, False))
    assert [block.removeprefix("network.") for block in net.blocks[:3]] == [
        "layer1.x",
        "layer1.projected",
        "layer1.phi",
    ]
    for backbone in (net, control):
        backbone.network.fit(images, LABELS, 3)
    scatter = [float(layer_metrics(backbone(images), LABELS, 3)["dnc1"]) for backbone in (net, control)]
    first = net.network.layers[0]
    assert scatter[0] < 0.5 * scatter[1]
    flat = images.flatten(1).double()
    standard = (flat - flat.mean(0)) / flat.std(0).clamp(min=1e-30)
    torch.testing.assert_close(first.x((flat - net.network.mean) * net.network.scale), unit_rows(standard))
    assert net.network.scale[4] == 0 and net(images).dtype == torch.float64
    assert control.network.layers[0].projected.weight.equal(torch.eye(5, dtype=torch.float64))
    assert (net.network.decide(net(images)).argmax(1) == LABELS).all()
