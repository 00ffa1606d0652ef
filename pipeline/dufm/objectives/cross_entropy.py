"""Cross-entropy of the softmax, as classifiers are trained with it."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from pipeline import theory
from pipeline.dufm.objectives import Objective, Promise
from pipeline.theory import DufmProblem, Problem, Reference


def _simplex_means(layer: int, tap: str, depth: int) -> bool:
    return depth == 1 or layer >= 3 or (layer == 2 and tap == "post")


def _last_weight(layer: int, tap: str, depth: int) -> bool:
    return layer == depth and (layer == 1 or tap == "post")


class CrossEntropy(Objective):
    """1/N sum_i (log sum_k exp z_ik - z_i,y_i).

    Outputs that differ by a constant cost the same, so only centred means matter: in the collapsed state they form a
    simplex (nc2_simplex = 0), and the rows of W_L are proportional to those that enter it (nc3_duality = 0). The
    uncentred metrics of mean squared error do not speak of it: means that are a simplex themselves, as in linear heads,
    are dependent (dnc2 infinite), and rows of W_L lie between the means (dnc3 is 0.707, 0.316, 0.1 for K = 2, 10, 100
    where these are orthogonal). For K = 2 any two means are a simplex, so nc2_simplex is 0 and dnc1 and nc3_duality
    decide.

    Hidden means are a simplex in linear heads and orthogonal in ReLU heads, where centring makes them one (arXiv
    2410.23169). As for mean squared error nothing is promised of H_1 and of H_2 before the ReLU, which are not unique.
    For L = 1 every global optimum is the collapsed state; for deeper heads other states can cost less.
    """

    title = "cross-entropy"
    collapse = (
        Promise("dnc1", lambda layer, tap, depth: True),
        Promise("nc2_simplex", _simplex_means, threshold=0.1),
        Promise("nc3_duality", _last_weight, threshold=0.1),
    )
    kernel = "cross_entropy"

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return -(targets * outputs.log_softmax(dim=-1)).sum(dim=(-2, -1)) / targets.shape[0]

    def refuses_targets(self, targets: Tensor) -> str | None:
        probabilities = targets.min() >= 0 and (targets.sum(dim=-1) - 1).abs().max() <= 1e-6
        return None if probabilities else "are no probabilities; allowed for cross-entropy: rows >= 0 that sum to 1"

    def gradient_(self, outputs: Tensor, targets: Tensor) -> None:
        outputs.sub_(outputs.amax(dim=-1, keepdim=True)).exp_()
        outputs.div_(outputs.sum(dim=-1, keepdim=True)).sub_(targets).div_(targets.shape[0])

    def on_batch(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs, labels)  # one kernel instead of five

    def references(self, problem: Problem | DufmProblem, widths: Sequence[int] | None = None) -> tuple[Reference, ...]:
        return () if isinstance(problem, DufmProblem) else theory.references(problem, widths)

    def not_covered(self, num_classes: int, depth: int, activation: str) -> str | None:
        return None if depth == 1 else "for cross-entropy the theorem is about depth 1"

    def unreachable(self, num_classes: int) -> str | None:
        sine = 1 / num_classes**0.5
        return (
            f"under cross-entropy, perfect collapse has DNC3 {sine:.3g} (1/sqrt(K), K = {num_classes}) where class "
            "means are orthogonal, and infinite DNC2 where they are a centred simplex: nc2_simplex and nc3_duality "
            "tell it"
        )


OBJECTIVE = CrossEntropy()
