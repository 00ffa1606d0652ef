"""A transformer on the patches of images with one linear layer to a part, for arXiv 2505.15239."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.networks.pieces import ACTIVATION_NAMES, ACTIVATIONS, FixedNorm
from pipeline.networks.registry import architecture
from pipeline.runtime.settings import knob


@dataclass(frozen=True)
class Settings:
    """Of transformers on patches."""

    depth: int = knob(5, "L, number of blocks, or of layers", ge=1, le=1000)
    width: int = knob(64, "width of the blocks, or of the layers", ge=1)
    patch: int = knob(4, "pixels of a side of its patches, which divides the sides of images", ge=1)
    activation: str = knob("relu", "activation", choices=ACTIVATION_NAMES)
    init_scale: float = knob(1.0, "its weights and biases, and the classifier's, start as this times the usual", gt=0)


class PatchBlock(nn.Module):
    """x <- norm(x + A V x), A_ts the softmax over s of x_t^T B x_s / sqrt(d), then x <- norm(x + W act(x)).

    B, V and W are d x d, without biases, and start as N(0, 1/(d L)).
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        spread = settings.init_scale / math.sqrt(settings.width * settings.depth)
        self.scores, self.values, self.outer = (_linear(settings.width, settings.width, spread) for _ in range(3))
        self.activation, self.norm = ACTIVATIONS[settings.activation](), FixedNorm("layer")

    def forward(self, rows: Tensor) -> Tensor:
        """Tokens ``(n, T, d)``."""
        scores = rows @ self.scores(rows).mT / math.sqrt(rows.shape[-1])
        rows = self.norm(rows + scores.softmax(dim=-1) @ self.values(rows))
        return self.norm(rows + self.outer(self.activation(rows)))


class PatchTransformer(nn.Module):
    """Patches through a linear map, positions added, the norm, blocks; the mean of all tokens, and its norm."""

    def __init__(self, image_shape: Sequence[int], settings: Settings) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.patch = settings.patch
        entries, tokens = channels * self.patch**2, (height // self.patch) * (width // self.patch)
        self.embedding = _linear(entries, settings.width, settings.init_scale / math.sqrt(entries))
        self.positions = nn.Parameter(settings.init_scale * torch.randn(tokens, settings.width))
        self.blocks, self.norm = nn.ModuleList(PatchBlock(settings) for _ in range(settings.depth)), FixedNorm("layer")

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(n, d)``, of length sqrt(d)."""
        rows = self.norm(self.embedding(self._patches(images)) + self.positions)
        for block in self.blocks:
            rows = block(rows)
        return self.norm(rows.mean(1))

    def _patches(self, images: Tensor) -> Tensor:
        """``(n, T, C p p)``, row by row."""
        cut = images.unfold(2, self.patch, self.patch).unfold(3, self.patch, self.patch)
        return cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def _linear(inputs: int, outputs: int, spread: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=spread)
    return layer


@architecture(settings=Settings, takes=("images",))
def patch_transformer(image_shape: Sequence[int], settings: Settings) -> nn.Module:
    """One head; attention with one matrix in its scores and one behind them, an MLP of one layer; no biases.

    What a paper calls one linear layer in a block is read in a summary; the product of keys and queries as one matrix,
    the place of the norm (as in residual MLPs), the start and the mean over tokens are our choice.

    Raises:
        ValueError: the patch does not divide the images.
    """
    _, height, width = image_shape
    if height % settings.patch or width % settings.patch:
        raise ValueError(
            f"backbone.patch={settings.patch} does not divide images of {height} x {width} pixels; allowed: a divisor "
            f"of {math.gcd(height, width)}."
        )
    return PatchTransformer(image_shape, settings)
