"""What an objective gives: its value and gradient, what theory knows of it, and what its collapse is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from pipeline.theory import DufmProblem, Problem, Reference


@dataclass(frozen=True)
class Promise:
    """A property of collapse: which metric is at its ideal value in the collapsed state, and where.

    metric: name of a registered metric; the property holds where its value is at most the threshold.
    where: (layer, tap, depth) -> whether the collapsed state has the property there. Layers count from 1; the taps are
        "pre" and, from layer 2 on, "post".
    threshold: by default. None for a metric that has a key of its own in the configuration (``verdict.dnc1`` ...).
    """

    metric: str
    where: Callable[[int, str, int], bool]
    threshold: float | None = None


class Objective(ABC):
    """The first term of what a head minimises, fit(Z, Y), and what follows from it. The penalties are always the same.

    One definition serves full-batch descent (`value`, `gradient_`), training by mini-batches (`on_batch`), the record
    and the verdict.

    Attributes:
        title: what sentences call it.
        collapse: the properties of its collapsed state, in the order in which they are told.
        classifies: whether the largest output is the decision; otherwise there is no accuracy.
        needs_labels: whether targets have to be labels of classes; otherwise `refuses_targets` says which matrices do.
        smallest_class: samples that a class needs at least.
        takes_bias: whether the last layer may have a bias.
        kernel: the name by which the C++ kernel knows it; None: descent takes its steps in PyTorch. Not inherited,
            since a subclass may compute something else.
    """

    title: ClassVar[str]
    collapse: ClassVar[tuple[Promise, ...]]
    classifies: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    smallest_class: ClassVar[int] = 1
    takes_bias: ClassVar[bool] = True
    kernel: ClassVar[str | None] = None

    def __init_subclass__(cls) -> None:
        if "kernel" not in vars(cls):
            cls.kernel = None

    def configured(self, head: Any) -> "Objective":
        """This objective under the settings of a head (the section ``head`` of the configuration)."""
        return self

    def refuses_targets(self, targets: Tensor) -> str | None:
        """Why a matrix `(N, K)` cannot stand in for one-hot labels, and what is allowed; None if it can."""
        return None

    @abstractmethod
    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Fit of every member, `(S,)`.

        Args:
            outputs: `(S, N, K)`.
            targets: the one-hot labels `(N, K)`, or another matrix that `refuses_targets` lets pass, of the same
                dtype. What works on pairs of labels, such as the supervised contrastive loss, finds them in
                `targets @ targets.T`.
        """

    @abstractmethod
    def gradient_(self, outputs: Tensor, targets: Tensor) -> None:
        """Overwrite `outputs` with the gradient of `value` with respect to them (member by member).

        It is called in every step of a descent: what it allocates, it allocates each time. `outputs` need not be
        contiguous.
        """

    def on_batch(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Fit on a mini-batch, a scalar that autograd can differentiate.

        The same number as `value` on the same samples; to be overridden where another way to compute it is faster.

        Args:
            outputs: `(B, K)`.
            labels: int64 `(B,)`.
        """
        targets = F.one_hot(labels, outputs.shape[1]).to(outputs.dtype)
        return self.value(outputs[None], targets)[0]

    def references(self, problem: Problem | DufmProblem, widths: Sequence[int] | None = None) -> tuple[Reference, ...]:
        """What theory knows of the problem with this objective; () where it knows nothing.

        Args:
            problem: whole, or as K equal classes with plain features (`DufmProblem`), which states no loss.
            widths: d_1..d_L of the layers; points that they cannot hold are left out.
        """
        return ()

    def not_covered(self, num_classes: int, depth: int, activation: str) -> str | None:
        """Why no theorem promises collapse to the global optima of such a head with free features; None if one does."""
        return f"no theorem is known for {self.title}"

    def unreachable(self, num_classes: int) -> str | None:
        """Which metrics of the verdict are not at their ideal values at perfect collapse, and what tells it instead;
        None if all are."""
        return None
