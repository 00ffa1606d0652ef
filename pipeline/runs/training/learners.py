"""What is trained by mini-batches: a backbone with something on top, and the loss of a batch."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from pipeline.config import OptimizerConfig
from pipeline.data import ROUND
from pipeline.dufm import DufmHead, squared_norm
from pipeline.dufm.constraints import mapped
from pipeline.dufm.objectives import Objective
from pipeline.measure.flows import Fitting
from pipeline.networks import Backbone
from pipeline.networks.pieces import started
from pipeline.networks.token_backbone import counted
from pipeline.runs.training.mixup import Mixed, mixed
from pipeline.runs.training.objective import WeightPenalty
from pipeline.runtime.errors import RunError
from pipeline.runtime.randomness import generator

# Steps between checks for a non-finite loss: reading the loss synchronises with the device.
CHECK_EVERY = 20


class Learner(pl.LightningModule):
    """A backbone with a head on top of its features; subclasses state the loss of a batch.

    ``decayed`` decides whether the optimizer decays the weights (``optimizer.weight_decay``); a learner whose objective
    holds its own penalties says no, as one does that is ``penalised``. ``fast_backbone`` is another way to call the
    backbone in training steps, if there is one (`pipeline.runs.training.acceleration`).

    A step of Lightning's is one batch or, of small networks, a round of batches (`pipeline.data.Rounds`), each with an
    optimizer step of its own: what Lightning's hooks cost is then paid once a round (`pipeline.runs.training.pace`).
    """

    batches = 1
    """In an epoch; set before a training."""
    round = ROUND
    """Batches in a step of Lightning's; set before a training."""
    mixup, seed = 0.0, 0
    """Alpha of the mixing of images, 0 for none, and what it is drawn with; set before a training."""
    decayed = True
    penalised: WeightPenalty | None = None

    def __init__(self, backbone: Backbone, head: nn.Module, optimizer: OptimizerConfig, epochs: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.optimizer, self.epochs = optimizer, epochs
        self.fast_backbone: Callable[[Tensor], Tensor] | None = None
        self.automatic_optimization = False

    def forward(self, images: Tensor, labels: Tensor, share: float = 1.0, mixing: Mixed | None = None) -> Tensor:
        """The loss of standardised images ``(B, C, H, W)`` with labels ``(B,)``, scalar.

        Args:
            share: of what is a mean over the batch, see `_share`.
            mixing: how the images were mixed, if they were.
        """
        features, labels = counted((self.fast_backbone or self.backbone)(images), labels)
        # In half precision the backbone ends: a loss of half precise outputs would have a floor of its own.
        with torch.autocast(images.device.type, enabled=False):
            features = self.entering(features)
            outputs = self.head(features)
            fit = self.fit(features, outputs, labels)
            if mixing is not None:
                other = self.fit(features, outputs, labels[mixing.others])
                fit = mixing.share * fit + (1 - mixing.share) * other
            return share * fit + self.penalty_of_weights()

    def entering(self, features: Tensor) -> Tensor:
        """What the head takes, of features ``(B, d)`` of the backbone."""
        return features

    def fit(self, features: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        """What is a mean over the batch, from features ``(B, d)`` and outputs ``(B, K)``."""
        raise NotImplementedError

    def penalty_of_weights(self) -> Tensor | float:
        """What is not."""
        return 0.0 if self.penalised is None else self.penalised.of(self)

    def objective(self, features: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        """Loss of a whole batch."""
        return self.fit(features, outputs, labels) + self.penalty_of_weights()

    def decide(self, features: Tensor) -> Tensor:
        """Outputs ``(N, K)`` on features ``(N, d)`` of the backbone, in the dtype of the head."""
        like = next(self.head.parameters(), None)
        like = next(self.backbone.parameters(), features) if like is None else like
        return self.head(self.entering(features.to(like)))

    @property
    def leaky_fit(self) -> Fitting | None:
        """What is minimised, if that is a fit and the penalty of a leaky network."""
        if self.penalised is None or self.penalised.shares != "steps" or not self.penalised.decay:
            return None

        def fit(features: Tensor, labels: Tensor) -> Tensor:
            features = self.entering(features)
            return self.fit(features, self.head(features), labels)

        return Fitting(fit, self.penalised.decay)

    @torch.inference_mode()
    def score(self, features: Tensor, labels: Tensor) -> tuple[float, float | None]:
        """Loss and accuracy (None where outputs decide nothing) on features ``(N, d)`` of the backbone."""
        features, labels = counted(features, labels)
        outputs = self.decide(features)
        loss = self.objective(self.entering(features.to(outputs)), outputs, labels).item()
        if not self.loss.classifies or labels.is_floating_point():
            return loss, None
        return loss, (outputs.argmax(dim=1) == labels).double().mean().item()

    def training_step(self, batches: Any, batch_idx: int) -> Tensor | None:
        """An optimizer step for a batch, or for each one of a round, the ``batch_idx``-th of its epoch.

        Returns:
            The loss of the batch, for callbacks; None after a round.
        """
        optimizer, schedule, loss = self.optimizers(), self.lr_schedulers(), None
        alone = self.round == 1
        for number, (images, labels) in enumerate([batches] if alone else batches, start=batch_idx * self.round):
            if self.optimizer.name == "lbfgs":
                loss = self._line_search(optimizer, images, labels)
                continue
            # Of several processes each has a wrapper around the learner, which averages gradients over them.
            mixing = self.mixup and mixed(images, self.mixup, self.seed, self.current_epoch, number)
            images = mixing.images if mixing else images
            loss = self.trainer.model(images, labels, self._share(len(labels), number), mixing or None)
            if number % CHECK_EVERY == 0 and not torch.isfinite(loss):
                raise RunError(
                    f"backbone training diverged: the loss is {loss.item()} in epoch {self.current_epoch + 1}, batch "
                    f"{number + 1}; a smaller optimizer.lr (now {self.optimizer.lr:g}) usually helps."
                )
            optimizer.zero_grad()
            with torch.autocast(images.device.type, enabled=False):
                loss.backward()
                optimizer.step()
            if self.optimizer.schedule == "one_cycle":
                schedule.step()
        if schedule is not None and self.optimizer.schedule != "one_cycle" and self.trainer.is_last_batch:
            schedule.step()
        return loss.detach() if alone and loss is not None else None

    def _line_search(self, optimizer: Any, images: Tensor, labels: Tensor) -> Tensor | None:
        """A step of L-BFGS, which asks for the loss and its gradient as often as it likes."""

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self(images, labels)
            loss.backward()
            return loss

        loss = optimizer.step(closure=closure)
        if loss is not None and not torch.isfinite(loss):
            raise RunError(
                f"backbone training diverged: the loss is {loss.item()} in epoch {self.current_epoch + 1}; a smaller "
                f"optimizer.lr (now {self.optimizer.lr:g}) usually helps."
            )
        return loss

    def _share(self, images: int, batch: int) -> float:
        """The part of a batch that this rank has, times the number of ranks: 1 where the parts are equal.

        Gradients are averaged over ranks: weighted so, each rank's part makes up the mean over the batch, also where
        the parts differ in size.
        """
        if self.trainer.world_size == 1:
            return 1.0
        return images * self.trainer.world_size / self.trainer.train_dataloader.batch_length(batch)

    @property
    def rate(self) -> float:
        """The learning rate of the next step, within a training."""
        return self.trainer.optimizers[0].param_groups[0]["lr"]

    @property
    def undecayed(self) -> list[Tensor]:
        """Trained parameters that the optimizer never decays."""
        return []

    def configure_optimizers(self) -> Any:
        settings = self.optimizer
        parameters = trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        decay = settings.weight_decay if self.decayed else 0.0
        if spared := self.undecayed:
            parameters = [it for it in parameters if all(it is not other for other in spared)]
            parameters = [{"params": parameters}, {"params": spared, "weight_decay": 0.0}]
        if settings.name == "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD(
                parameters, settings.lr, momentum=settings.momentum, weight_decay=decay
            )
        elif settings.name == "adam":
            optimizer = torch.optim.Adam(parameters, settings.lr, weight_decay=decay)
        elif settings.name == "lbfgs":
            # No tolerance but what rounding sets, so that it ends where the gradient does.
            exact = {"tolerance_grad": 0.0, "tolerance_change": 0.0, "line_search_fn": "strong_wolfe"}
            optimizer = torch.optim.LBFGS(trained, settings.lr, max_iter=settings.iterations, **exact)
        else:
            optimizer = torch.optim.AdamW(parameters, settings.lr, weight_decay=decay)
        if settings.schedule == "constant":
            return optimizer
        if settings.schedule == "one_cycle":
            steps = self.epochs * self.batches
            return [optimizer], [torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=steps)]
        if settings.schedule == "drop":
            return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [math.ceil(0.8 * self.epochs)], 0.1)]
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.epochs)]


class Classifier(Learner):
    """A backbone and a linear classifier.

    Args:
        bias: whether the classifier has one.
        scale, std: how it starts, see `pipeline.networks.pieces.started`.
        penalty: of all weights, a term of the loss instead of the optimizer's decay; it is told apart from the loss.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        loss: Objective,
        optimizer: OptimizerConfig,
        epochs: int,
        seed: int,
        *,
        bias: bool = True,
        scale: float = 1.0,
        std: float | None = None,
        penalty: WeightPenalty | None = None,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(generator(seed, "classifier").get_state())
            head = started(nn.Linear(backbone.num_features, num_classes, bias=bias), scale, std)
        super().__init__(backbone, head.to(next(backbone.parameters()).dtype), optimizer, epochs)
        self.loss, self.penalised, self.decayed = loss, penalty, penalty is None

    def objective(self, features: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        return self.fit(features, outputs, labels)

    def fit(self, features: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        return self.loss.on_batch(outputs, labels)


@dataclass(frozen=True)
class DufmPenalty:
    """The penalties of the DUFM objective, as they enter the loss of a batch.

    weight_decays: lambda_{W_1} .. lambda_{W_L}; feature_decay: lambda_{H_1}; num_samples: N, all training samples.
    """

    weight_decays: tuple[float, ...]
    feature_decay: float
    num_samples: int

    def of_weights(self, weights: Sequence[Tensor]) -> Tensor:
        """sum_l lambda_{W_l}/2 ||W_l||_F^2."""
        return sum(decay / 2 * squared_norm(weight) for decay, weight in zip(self.weight_decays, weights, strict=True))

    def of_features(self, features: Tensor) -> Tensor:
        """N/B lambda_{H_1}/2 ||H_B||_F^2 for the features ``(B, d)`` of a batch.

        N/B makes the mean over the batches of an epoch the penalty lambda_{H_1}/2 ||H_1||_F^2 of all N samples (to
        within the share of a smaller last batch); on all samples at once, B = N, it is that penalty itself.
        """
        return self.num_samples / len(features) * self.feature_decay / 2 * squared_norm(features)


class DufmNetwork(Learner):
    """A backbone under a DUFM head.

    Args:
        weights: W_1 .. W_L at the start, ``(out, in)`` each.
        loss: of the head, the same that it has in a descent.
        penalty: the DUFM's penalties, which become part of the loss, so that the optimizer decays nothing ("dufm"); or
            None: the optimizer decays all weights ("standard").
        frozen_head: W_1 .. W_L stay as they are.
        bias: the last layer has one, from 0 on; no decay of weights is of it.
        bias_decay: mu; mu/2 ||bias||^2 is a term of the loss, whatever decays the weights.
        decay: of all weights, a term of the loss instead of the optimizer's ("objective").
        constraint: what the features are mapped onto before the head, see `pipeline.dufm.constraints`.
    """

    def __init__(
        self,
        backbone: Backbone,
        weights: Sequence[Tensor],
        activation: str,
        loss: Objective,
        penalty: DufmPenalty | None,
        optimizer: OptimizerConfig,
        epochs: int,
        *,
        frozen_head: bool = False,
        bias: bool = False,
        bias_decay: float = 0.0,
        decay: WeightPenalty | None = None,
        constraint: str = "none",
    ) -> None:
        dtype = next(backbone.parameters()).dtype
        first = torch.zeros(weights[-1].shape[0], dtype=dtype) if bias else None
        head = DufmHead([weight.to(dtype) for weight in weights], activation, first)
        super().__init__(backbone, head.requires_grad_(not frozen_head), optimizer, epochs)
        self.loss, self.penalty, self.penalised = loss, penalty, decay
        self.decayed = penalty is None and decay is None
        self.constraint, self.bias_decay = constraint, bias_decay

    def entering(self, features: Tensor) -> Tensor:
        return mapped(features, self.constraint)

    def fit(self, features: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        if labels.is_floating_point():  # numbers (B, K) that the outputs are fitted to
            error = self.loss.value(outputs[None], labels.to(outputs.dtype))[0]
        else:
            error = self.loss.on_batch(outputs, labels)
        return error if self.penalty is None else error + self.penalty.of_features(features)

    def penalty_of_weights(self) -> Tensor | float:
        of_weights = super().penalty_of_weights() if self.penalty is None else self.penalty.of_weights(self.weights)
        return of_weights + self.bias_decay / 2 * self.bias.square().sum() if self.bias_decay else of_weights

    @property
    def weights(self) -> list[Tensor]:
        """W_1 .. W_L now."""
        return [parameter for name, parameter in self.head.named_parameters() if not name.endswith("bias")]

    @property
    def bias(self) -> Tensor | None:
        """Of the last layer, ``(K,)``."""
        return dict(self.head.named_parameters()).get(f"linear_{len(self.weights)}.bias")

    @property
    def undecayed(self) -> list[Tensor]:
        return [] if self.bias is None else [self.bias]
