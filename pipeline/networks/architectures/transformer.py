"""A small causal transformer: what a language model of arXiv 2405.17767 is at its smallest."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.networks.pieces import ACTIVATION_NAMES, ACTIVATIONS
from pipeline.networks.registry import architecture
from pipeline.runtime.settings import knob

SPREAD = 0.02
"""Standard deviation of weights and embeddings at the start (our choice, as in GPT-2)."""


@dataclass(frozen=True)
class Settings:
    """Of transformers."""

    depth: int = knob(5, "L, number of blocks, or of layers", ge=1, le=1000)
    width: int = knob(64, "width of the blocks, or of the layers", ge=1)
    heads: int = knob(4, "heads of its attention, which divide the width", ge=1)
    activation: str = knob("relu", "activation", choices=ACTIVATION_NAMES)
    init_scale: float = knob(1.0, "its weights and biases, and the classifier's, start as this times the usual", gt=0)


def check(settings: Settings) -> None:
    """Raise ValueError unless the heads divide the width."""
    if settings.width % settings.heads:
        raise ValueError(
            f"backbone.heads={settings.heads} does not divide backbone.width={settings.width}; allowed: a divisor."
        )


class CausalAttention(nn.Module):
    """softmax(q k^T / sqrt(d/h)) v with every position looking at itself and at those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, rows: Tensor) -> Tensor:
        """``(n, T, d)``."""
        count, length, width = rows.shape
        parts = self.inputs(rows).view(count, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        later = torch.ones(length, length, dtype=torch.bool, device=rows.device).triu(1)
        scores = (query @ key.mT / math.sqrt(query.shape[-1])).masked_fill(later, -torch.inf)
        return self.output((scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(count, length, width))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), four times as wide inside."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width = settings.width
        self.norm1, self.attention = nn.LayerNorm(width), CausalAttention(width, settings.heads)
        self.norm2 = nn.LayerNorm(width)
        act = ACTIVATIONS[settings.activation]()
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(width, 4 * width))
        self.mlp.add_module("act", act)
        self.mlp.add_module("fc2", nn.Linear(4 * width, width))

    def forward(self, rows: Tensor) -> Tensor:
        rows = rows + self.attention(self.norm1(rows))
        return rows + self.mlp(self.norm2(rows))


class Transformer(nn.Module):
    """Embeddings of tokens and positions, pre-norm blocks, a last norm, whose output enters the classifier."""

    def __init__(self, length: int, num_tokens: int, settings: Settings) -> None:
        super().__init__()
        self.tokens = nn.Embedding(num_tokens, settings.width)
        self.positions = nn.Embedding(length, settings.width)
        self.blocks = nn.ModuleList(TransformerBlock(settings) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(settings.width)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=SPREAD * settings.init_scale)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(n, T, d)`` of tokens ``(n, T)``."""
        rows = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            rows = block(rows)
        return self.norm(rows)


@architecture(settings=Settings, check=check, takes=("text",))
def transformer(image_shape: Sequence[int], settings: Settings) -> nn.Module:
    """Causal, pre-norm, with an MLP four times as wide, for windows of T of V tokens (``image_shape`` is (T, V))."""
    length, num_tokens = image_shape
    return Transformer(length, num_tokens, settings)
