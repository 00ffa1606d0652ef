"""The gradient look: how the outputs of a network depend on what its linear layers give."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.data import ImageData, ResidentLoader, Split
from pipeline.measure.extraction import Place
from pipeline.measure.joining import joined_sums
from pipeline.networks import Backbone
from pipeline.runtime import ranks
from pipeline.runtime.modes import evaluating

BATCH = 256
"""Images that go through the network at once; each output is a backward pass of them."""


class GradientLook:
    """S = (1/N) sum_ik g_ik g_ik^T `(out, out)`, float64, of linear layers, from passes that have gradients.

    g_ik is the gradient of output k at sample i by what the layer gives; where that has several positions, S is the
    mean over these. K backward passes for each batch.

    Args:
        layers: by place.
    """

    def __init__(self, layers: Mapping[Place, nn.Linear]) -> None:
        self._layers = layers
        self._given: dict[Place, Tensor] = {}
        self.sums: dict[Place, Tensor] = {}
        self.counts = dict.fromkeys(layers, 0)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside it passes can be added."""

        def watch(place: Place, module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
            self._given[place] = output if output.requires_grad else output.detach().requires_grad_()
            return self._given[place].clone()  # what follows may work in place

        with torch.inference_mode(False), torch.enable_grad(), ExitStack() as hooks:
            for place, module in self._layers.items():
                hooks.callback(module.register_forward_hook(partial(watch, place)).remove)
            yield

    def add(self, outputs: Tensor) -> None:
        """The pass just made, with these outputs `(..., K)`."""
        places = [place for place in self._layers if place in self._given]
        given = [self._given[place] for place in places]
        rows = outputs.flatten(0, -2)
        for output in range(rows.shape[-1] if places else 0):
            found = torch.autograd.grad(rows[:, output].sum(), given, retain_graph=True, allow_unused=True)
            for place, value, gradient in zip(places, given, found, strict=True):
                size = value.shape[-1]
                own = value.new_zeros(1, size) if gradient is None else gradient.reshape(-1, size)
                self.sums[place] = self.sums.get(place, 0) + own.double().T @ own.double()
        for place, value in zip(places, given, strict=True):
            self.counts[place] += value.numel() // value.shape[-1]
        self._given.clear()

    def found(self) -> dict[Place, Tensor]:
        """S of every layer, from the sums of all ranks; collective."""
        own = {
            place: torch.cat([total.detach().cpu().reshape(-1), total.new_tensor([self.counts[place]], device="cpu")])
            for place, total in self.sums.items()
        }
        totals = joined_sums(own)
        found = {}
        for place, module in self._layers.items():
            size = module.weight.shape[0]
            nothing = torch.zeros(size * size + 1, dtype=torch.float64)
            *total, count = totals.get(place, nothing).split([size * size, 1])
            found[place] = (total[0].view(size, size) / count.clamp(min=1)).to(module.weight.device)
        return found


def output_gradients(
    backbone: Backbone,
    images: ImageData,
    decide: Callable[[Tensor], Tensor],
    weights: Mapping[Place, Tensor],
) -> dict[Place, Tensor]:
    """S `(out, out)` of the weights that rows of places enter, on the training images in eval mode.

    A weight that is of no linear layer of the backbone is the classifier's, whose outputs are those of the network: its
    S is the identity.
    """
    layers = {
        place: module
        for place, weight in weights.items()
        for module in backbone.modules()
        if isinstance(module, nn.Linear) and module.weight.data_ptr() == weight.data_ptr()
    }
    look = GradientLook(layers)
    with evaluating(backbone), look.watching():
        for batch in _batches(backbone, images) if layers else ():
            look.add(decide(backbone(batch)))
    found = look.found()
    own = {place: weight for place, weight in weights.items() if place not in layers}
    return found | {place: torch.eye(len(it), dtype=torch.float64, device=it.device) for place, it in own.items()}


def _batches(backbone: Backbone, images: ImageData) -> Iterator[Tensor]:
    """This rank's batches of the training images."""
    split, device = images.train, next(backbone.parameters()).device
    own = ranks.share(-(-len(split) // BATCH))
    mine = slice(own.start * BATCH, own.stop * BATCH)
    part = Split(split.images[mine], split.labels[mine])
    if len(part):
        for batch, _ in ResidentLoader(
            part, BATCH, seed=0, shuffle=False, standardise=images.standardise, device=device
        ):
            yield batch
