"""What theory knows of a network that is trained as it stands: a value below which its objective cannot come.

Some networks end in features of fixed length, so that only their last layers matter to it: an MLP whose last layer is
normalised by a batch norm without a shift, a residual MLP with a norm after each block, a transformer on patches.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.config.schema import CENTRES
from pipeline.data import ImageData
from pipeline.dufm.objectives import load_objective
from pipeline.networks import Backbone
from pipeline.theory import bn_optimum, gufm_optimum

if TYPE_CHECKING:
    from pipeline.runs.training.learners import Learner


@dataclass(frozen=True)
class NetworkReference:
    """A bound of the objective of a network, and the part of the objective that it bounds.

    Attributes:
        name: of the problem whose optimum it is.
        value: of that optimum; no network that meets `reference_of` comes below it.
        decay: lambda, of the classifier.
        gain: the batch norm whose gain the optimum decays, too; None where all weights of the network are counted.
    """

    name: str
    value: float
    decay: float
    gain: nn.BatchNorm1d | None = None

    @torch.no_grad()
    def total(self, learner: "Learner", features: Tensor, labels: Tensor) -> float:
        """The objective on all training features ``(N, d)``, those of a batch norm normalised by themselves."""
        weight = learner.head.weight
        if self.gain is None:
            penalty = sum(value.double().square().sum() for value in learner.parameters() if value.requires_grad)
        else:
            features = exactly_normalised(features, self.gain.weight)
            penalty = weight.double().square().sum() + self.gain.weight.double().square().sum()
        fit = learner.loss.on_batch(features.double() @ weight.double().mT, labels)
        return float(fit + self.decay / 2 * penalty)


def exactly_normalised(features: Tensor, gain: Tensor) -> Tensor:
    """Outputs ``(N, d)`` of a batch norm without a shift as if all N rows were one batch, and without its epsilon:
    mean 0 and population standard deviation |gain| in every column, or 0 in one that is constant."""
    centred = features.double() - features.double().mean(dim=0)
    spread = centred.square().mean(dim=0).sqrt()
    constant = spread <= 1e-12 * features.double().abs().amax(dim=0)
    return torch.where(constant, 0.0, centred / torch.where(constant, 1.0, spread)) * gain.double().abs()


def reference_of(config: Config, backbone: Backbone, images: ImageData) -> tuple[NetworkReference | None, str | None]:
    """What is known of this training, or None and the reason why nothing is."""
    settings, optimizer = config.backbone, config.optimizer
    counts = list(images.class_counts("train").values())
    penalised = config.protocol.regularization == "objective"
    over_depth = penalised and config.protocol.penalty_weights == "depth"
    decay = optimizer.weight_decay / (len(backbone.blocks) if over_depth else 1)
    if images.kind == "text" or len(set(counts)) != 1:
        return None, "the classes differ in size"
    if settings.loss == CENTRES:
        return None, "fixed centres stand in for the classifier"
    if settings.classifier_bias:
        return None, "the classifier has a bias"
    if decay == 0:
        return None, "nothing is decayed"
    if not penalised and optimizer.name == "adamw":
        return None, "the decay of AdamW is no term of the loss"
    if penalised and config.protocol.penalty_weights == "steps":
        return None, "the weights of the penalty differ"
    if settings.name == "mlp":
        return _of_mlp(config, backbone, images.num_classes, decay)
    if settings.name == "patch_transformer" or (settings.name == "residual_mlp" and settings.norm != "none"):
        return _behind_fixed_norm(config, backbone, images.num_classes, decay)
    return None, "the features are not of fixed length: no norm without a shift ends the network"


def _of_mlp(
    config: Config, backbone: Backbone, classes: int, decay: float
) -> tuple[NetworkReference | None, str | None]:
    settings = config.backbone
    if settings.norm != "batch" or settings.norm_bias or settings.linear_tail:
        return None, "the features are not of fixed length: no batch norm without a shift ends the network"
    if settings.loss != "cross_entropy":
        return None, f"none is known for {load_objective(settings.loss).title} behind a batch norm"
    if backbone.num_features < classes - 1:
        return None, f"{backbone.num_features} features are too few for a simplex of {classes} classes"
    norm = backbone.get_submodule(backbone.blocks[-1])[-1]
    value = bn_optimum(classes, decay).loss
    return NetworkReference("batch norm before a linear classifier", value, decay, norm), None


def _behind_fixed_norm(
    config: Config, backbone: Backbone, classes: int, decay: float
) -> tuple[NetworkReference | None, str | None]:
    settings = config.backbone
    if settings.loss not in ("cross_entropy", "mse"):
        return None, f"none is known for {load_objective(settings.loss).title} behind a norm"
    if backbone.num_features < classes:
        return None, f"{backbone.num_features} features are fewer than {classes} classes"
    value = gufm_optimum(classes, decay, backbone.num_features, settings.loss).loss
    return NetworkReference("generalised UFM, features of norm sqrt(d)", value, decay), None


def gap(total: float, value: float) -> float:
    """How far above a positive value, relative to it."""
    return total / value - 1 if value > 0 else math.nan
