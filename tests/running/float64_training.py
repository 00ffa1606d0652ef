"""A network trained in float64, by a plain loop: what trainings in float32 come near to, on whatever machine."""

import math

import torch
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.data import ImageData, ResidentLoader
from pipeline.runs.training.learners import Classifier

FACTOR = 10.0
"""How much farther from float64 one float32 training may be than another of the same network, or than rounding."""


def smoothed(network: nn.Module) -> nn.Module:
    """A network whose ReLUs have become GELUs, in place.

    A unit of a ReLU that is at zero up to rounding is on one side of the kink in one order of summing and on the other
    in another: the gradient then jumps by what that unit contributes, a hundred times the rounding, and on which
    machines there is such a unit is chance.
    """
    for part in list(network.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.ReLU):
                setattr(part, name, nn.GELU())
    return network


def assert_as_near(found: dict[str, Tensor], other: dict[str, Tensor], exact: dict[str, Tensor]) -> None:
    """Fail unless every tensor is as near to float64 as that of another float32 training, up to `FACTOR`.

    Neither of the two is right: both are rounded, in other orders. Of a tensor of few numbers that the other happens
    to meet, the rounding of what it holds is allowed all the same.
    """
    assert found.keys() == exact.keys()
    for name, value in exact.items():
        error, usual = (float((tensors[name].double() - value.double()).norm()) for tensors in (found, other))
        rounding = torch.finfo(torch.float32).eps * float(value.double().norm())
        assert error <= FACTOR * max(usual, rounding), f"{name}: {error:.2e} from float64, the other {usual:.2e}"


def trained_in_float64(
    config: Config, images: ImageData, network: nn.Module, *, start_norms: bool = True
) -> dict[str, Tensor]:
    """Weights of the network after a run has trained it, and the loss before and after every epoch (``losses``).

    Batches, starting weights and the optimizer are those of the run; the sums, in float64 and in one process, are as
    they are written here.

    Args:
        start_norms: as `frozen_features` does before it trains.
    """
    backbone, optimizer = config.backbone, config.optimizer
    classifier = Classifier(network, images.num_classes, backbone.loss, optimizer, backbone.epochs, config.seed)
    network, head = network.double(), classifier.head.double()

    def batches(epoch: int, **options: object) -> ResidentLoader:
        loader = ResidentLoader(
            images.train, backbone.batch_size, seed=config.seed, standardise=images.standardise, **options
        )
        loader.set_epoch(epoch)
        return loader

    def loss(shown: Tensor, labels: Tensor) -> Tensor:
        targets = torch.eye(images.num_classes, dtype=torch.float64)[labels]
        return (head(network(shown.double())) - targets).square().sum(dim=1).mean() / 2

    @torch.no_grad()
    def whole() -> float:
        network.eval()
        value = loss(images.standardise(images.train.images), images.train.labels).item()
        network.train()
        return value

    if start_norms:
        _start_norms(network, [shown.double() for shown, _ in batches(0, drop_last=True)])
    assert (optimizer.name, optimizer.schedule, backbone.loss) == ("sgd", "cosine", "mse")
    step = torch.optim.SGD(
        [*network.parameters(), *head.parameters()],
        optimizer.lr,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
    )
    losses = [whole()]
    for epoch in range(backbone.epochs):
        step.param_groups[0]["lr"] = optimizer.lr * (1 + math.cos(math.pi * epoch / backbone.epochs)) / 2
        for shown, labels in batches(epoch, shuffle=True):
            step.zero_grad()
            loss(shown, labels).backward()
            step.step()
        losses.append(whole())
    return {name: value.clone() for name, value in network.state_dict().items()} | {"losses": torch.tensor(losses)}


@torch.no_grad()
def _start_norms(network: nn.Module, batches: list[Tensor]) -> None:
    """Running statistics start as the plain average over the batches, with all else in evaluation mode."""
    network.eval()
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for shown in batches:
        network(shown)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train()
