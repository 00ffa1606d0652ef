"""What the head's outputs are fitted to: the first term of the DUFM objective and its gradient."""

from typing import Protocol

from torch import Tensor


class Loss(Protocol):
    """A loss of a full batch of outputs, many members at once.

    `outputs` is `(S, N, K)` and `targets` the one-hot labels `(N, K)` of the same dtype; a loss that works on labels
    pairwise, such as the supervised contrastive one, finds them in `targets @ targets.T`.
    """

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of every member, `(S,)`."""
        ...

    def gradient_(self, outputs: Tensor, targets: Tensor) -> None:
        """Overwrite `outputs` with the gradient of `value` with respect to them (member by member)."""
        ...


class MeanSquaredError:
    """1/(2N) ||Z - Y||_F^2, the loss of the DUFM (Súkeník et al. 2023, arXiv 2305.13165, eq. 1)."""

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().sum(dim=(-2, -1)) / (2 * targets.shape[0])

    def gradient_(self, outputs: Tensor, targets: Tensor) -> None:
        outputs.sub_(targets).div_(targets.shape[0])
