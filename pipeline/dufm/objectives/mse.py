"""Mean squared error, the objective of the DUFM (Súkeník et al. 2023, arXiv 2305.13165, eq. 1)."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from pipeline import theory
from pipeline.dufm.objectives import Objective, Promise
from pipeline.theory import DufmProblem, Problem, Reference


def _frame_means(layer: int, tap: str, depth: int) -> bool:
    return layer >= 3 or (layer == 2 and tap == "post")


def _aligned_rows(layer: int, tap: str, depth: int) -> bool:
    return layer >= 2 and tap == "post"


class MeanSquaredError(Objective):
    """1/(2N) ||Z - Y||_F^2 for one-hot Y.

    For K = 2, L >= 2, free inputs and balanced classes every global optimum has (arXiv 2305.13165, main theorem): DNC1
    in all layers before and after the ReLU; DNC2 after the ReLU for layers l >= 2 and before it for l >= 3; DNC3 of W_l
    for l >= 2. It promises nothing else, so nothing else counts against a run. For K >= 3 and L >= 4 no optimum is
    collapsed (`pipeline.theory.small_code_loss`): the same properties tell collapse, and nothing promises it.
    """

    title = "mean squared error"
    collapse = (
        Promise("dnc1", lambda layer, tap, depth: True),
        Promise("dnc2", _frame_means),
        Promise("dnc3", _aligned_rows),
    )
    kernel = "squared_error"

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().sum(dim=(-2, -1)) / (2 * targets.shape[0])

    def gradient_(self, outputs: Tensor, targets: Tensor) -> None:
        outputs.sub_(targets).div_(targets.shape[0])

    def on_batch(self, outputs: Tensor, labels: Tensor) -> Tensor:
        # As `value`, but summed sample by sample: the rounding of all trainings recorded so far.
        targets = F.one_hot(labels, outputs.shape[1]).to(outputs.dtype)
        return (outputs - targets).square().sum(dim=1).mean() / 2

    def references(self, problem: Problem | DufmProblem, widths: Sequence[int] | None = None) -> tuple[Reference, ...]:
        return theory.references(problem, widths)

    def not_covered(self, num_classes: int, depth: int, activation: str) -> str | None:
        if num_classes != 2:
            beaten = ", and from depth 4 on the collapsed solution is not the optimum" if depth >= 4 else ""
            return f"the theorem is about two classes, here are {num_classes}{beaten}"
        if depth < 2:
            return "the theorem is about depth 2 and more"
        if activation != "relu":
            return "the theorem is about ReLU heads"
        return None


OBJECTIVE = MeanSquaredError()
