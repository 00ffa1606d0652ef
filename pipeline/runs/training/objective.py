"""Weight decay as a term of the loss (`protocol.regularization=objective`), and what such an objective comes to."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline.data import ImageData
from pipeline.networks.token_backbone import counted
from pipeline.runtime.modes import evaluating

if TYPE_CHECKING:
    from pipeline.runs.training.learners import Learner

PENALTY_WEIGHTS = ("equal", "depth", "steps")
CHUNK = 4096
"""Images in a pass of `measured_objective`."""


@dataclass(frozen=True)
class WeightPenalty:
    """lambda/2 sum_p s_p ||p||_F^2 over all parameters that are trained: matrices, their biases as one more column, and
    gains of norms; but what the learner never decays.

    Attributes:
        decay: lambda.
        shares: s_p. "equal": 1; "depth": 1/L, L the number of the backbone's blocks; "steps": rho_l / leak for the
            parameters of block l of a leaky network, which makes it lambda/(2 leak) sum_l rho_l ||W_l||^2 (arXiv
            2405.17573), and 1 for the others.
    """

    decay: float
    shares: str = "equal"

    def of(self, learner: "Learner") -> Tensor:
        """The penalty as it stands, a scalar that autograd can differentiate."""
        own = {f"backbone.network.{name}": share for name, share in self._own_shares(learner.backbone.network).items()}
        common = 1 / len(learner.backbone.blocks) if self.shares == "depth" else 1.0
        spared = {id(value) for value in learner.undecayed}
        trained = [
            (name, value)
            for name, value in learner.named_parameters()
            if value.requires_grad and id(value) not in spared
        ]
        return self.decay / 2 * sum(own.get(name, common) * value.square().sum() for name, value in trained)

    def _own_shares(self, network: nn.Module) -> dict[str, float]:
        return network.penalty_shares() if self.shares == "steps" else {}


def measured_objective(learner: "Learner", images: ImageData) -> dict[str, float]:
    """The objective on all training images, its penalty, and the norm of its gradient, in evaluation mode."""
    parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    split, value = images.train, 0.0
    total = int((split.targets >= 0).sum())
    with evaluating(learner.backbone), torch.enable_grad():
        penalty = learner.penalty_of_weights()
        gradients = _gradients(penalty, parameters)
        for start in range(0, len(split), CHUNK):
            rows, labels = split.images[start : start + CHUNK], split.targets[start : start + CHUNK]
            features = learner.backbone(images.standardise(rows.to(learner.device)))
            features, known = counted(features, labels.to(learner.device))
            features = learner.entering(features)
            fit = len(known) / total * learner.fit(features, learner.head(features), known)
            value += fit.item()
            found = _gradients(fit, parameters)
            gradients = [gradient + more for gradient, more in zip(gradients, found, strict=True)]
    norm = sum(gradient.double().square().sum() for gradient in gradients) ** 0.5
    return {"objective": value + penalty.item(), "penalty": penalty.item(), "gradient_norm": float(norm)}


def _gradients(value: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters, found, strict=True)
    ]
