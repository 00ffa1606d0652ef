"""Golden values of the AGOP of f = W2 relu(W1 x) on the input T, and of balanced linear networks."""

import pytest
import torch
from golden import W1, W2, H, K, Y

from pipeline.metrics import dnc1, layer_metrics, undefined_reasons
from pipeline.metrics.agop import agop, root

OPEN = (H @ W1.T > 0).double()
GRADIENTS = torch.einsum("na,ka,nb,kb->ab", OPEN, W2, OPEN, W2) / len(H)


def test_golden_agop_is_that_of_autograd() -> None:
    found = agop(GRADIENTS, W1)
    jacobians = [torch.autograd.functional.jacobian(lambda x: W2 @ torch.relu(W1 @ x), row) for row in H]
    torch.testing.assert_close(found, sum(j.T @ j for j in jacobians) / len(H))
    golden = [11.610299989681, 8.338075241887, 2.640176160321, 1.462751943229]
    assert [float(it) for it in (found.trace(), found.norm(), found[0, 0], found[0, 1])] == pytest.approx(
        golden, rel=1e-9
    )


def test_golden_correlations() -> None:
    found = layer_metrics(H, Y, K, W1, families=("agop",), gradients=GRADIENTS)
    expected = {"nfa": 0.995462036949, "nfa_full": 0.982118600231, "nfa_cosine": 0.985965842279}
    assert {name: float(found[name]) for name in expected} == pytest.approx(expected, rel=1e-9)
    full = agop(GRADIENTS, W1)
    cosine = torch.nn.functional.cosine_similarity((W1.T @ W1).flatten(), full.flatten(), dim=0)
    assert float(cosine) == pytest.approx(0.983598022159, rel=1e-9)
    assert float(found["dnc1_svt"]) == pytest.approx(float(dnc1(H @ W1.T, Y, K)), rel=1e-12)
    singular = torch.linalg.svd(W1, full_matrices=False)
    right = H @ singular.Vh.T * singular.S
    assert float(found["dnc1_svt"]) == pytest.approx(float(dnc1(right, Y, K)), rel=1e-12)


def test_two_balanced_linear_layers_have_the_root_of_the_agop() -> None:
    product = torch.linalg.svd(W2 @ W1)
    first = product.S.sqrt()[:, None] * product.Vh[:3]
    second = product.U * product.S.sqrt()
    torch.testing.assert_close(root(agop(second.T @ second, first)), first.T @ first)
    found = layer_metrics(H, Y, K, first, families=("agop",), gradients=second.T @ second)
    assert float(found["nfa"]) == pytest.approx(1)


def test_what_is_undefined_says_why() -> None:
    asked = {"families": ("agop",)}
    told = undefined_reasons(H, Y, K, W1, gradients=0 * GRADIENTS, **asked)
    assert told["nfa"] == "the outputs do not depend on what the weight gives" and "dnc1_svt" not in told
    told = undefined_reasons(H, Y, K, torch.zeros_like(W1), gradients=GRADIENTS, **asked)
    assert told["dnc1_svt"] == told["nfa_cosine"] == "the weight is zero"
    with pytest.raises(ValueError, match=r"gradients need shape \(5, 5\), got \(2, 2\)"):
        layer_metrics(H, Y, K, W1, gradients=GRADIENTS[:2, :2], **asked)
