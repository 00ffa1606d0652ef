"""Fully connected residual networks: normalised ones (arXiv 2505.15239) and leaky ones (arXiv 2405.17573)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.networks.pieces import ACTIVATION_NAMES, ACTIVATIONS, NORMS, FixedNorm
from pipeline.networks.registry import architecture
from pipeline.runtime.settings import knob

STEPS = ("equal", "irregular", "adaptive")
ADAPT_EVERY = 10
"""Training passes between two changes of adaptive steps (our choice: "every few training steps")."""


@dataclass(frozen=True)
class Settings:
    """Of residual MLPs."""

    depth: int = knob(5, "L, number of blocks, or of layers", ge=1, le=1000)
    width: int = knob(64, "width of the blocks, or of the layers", ge=1)
    leak: float = knob(0.0, "effective depth: A <- (1 - rho leak) A + rho W act(A); 0: A <- A + W act(A)", ge=0)
    block_layers: int = knob(1, "weight matrices in a block: W act(x), or W act(U x)", ge=1, le=2)
    norm: str = knob("none", "what normalises after each activation, or block", choices=NORMS)
    skip: bool = knob(True, "whether a block adds to what enters it")
    bias: bool = knob(True, "whether its layers have biases")
    activation: str = knob("relu", "activation", choices=ACTIVATION_NAMES)
    init_scale: float = knob(1.0, "its weights and biases, and the classifier's, start as this times the usual", gt=0)
    steps: str = knob("equal", "step sizes rho of a leaky network", choices=STEPS)
    irregularity: float = knob(0.5, "a of irregular steps, proportional to 1 + a (1/4 - |l/L - 1/2|)", ge=0, lt=1)


def check(settings: Settings) -> None:
    """Raise ValueError for a norm of other networks, and for steps that would overshoot."""
    if settings.norm == "batch":
        raise ValueError("backbone.norm=batch does not go with backbone=residual_mlp; allowed: none, layer, rms.")
    if settings.leak and not settings.skip:
        raise ValueError(
            f"backbone.leak={settings.leak:g} does not go with backbone.skip=false, without which nothing leaks; "
            "allowed: backbone.leak=0, or backbone.skip=true."
        )
    if settings.steps != "equal" and not settings.leak:
        raise ValueError(f"backbone.steps={settings.steps} needs a leak; allowed: backbone.leak > 0, or equal.")
    largest = float(initial_steps(settings).max()) * settings.leak
    if largest >= 1:
        raise ValueError(
            f"backbone.leak={settings.leak:g} with backbone.depth={settings.depth} makes rho leak = {largest:.3g}; "
            f"allowed: below 1, i.e. backbone.depth > {largest * settings.depth:.3g}."
        )


def initial_steps(settings: Settings) -> Tensor:
    """rho_1 .. rho_L, which add up to 1, float64; adaptive ones start equal (arXiv 2405.17573)."""
    place = torch.arange(1, settings.depth + 1, dtype=torch.float64) / settings.depth
    bend = settings.irregularity if settings.steps == "irregular" else 0.0
    steps = 1 + bend * (0.25 - (place - 0.5).abs())
    return steps / steps.sum()


class ResidualBlock(nn.Module):
    """x <- norm(x + W act(x)), or W act(U x) in place of it; leaky: x <- (1 - rho leak) x + rho W act(x)."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.skip, self.leak = settings.skip, settings.leak
        # Of N(0, 1/(d L)) without a leak; a leak has the 1/L in its steps.
        spread = settings.init_scale / math.sqrt(settings.width * (1 if settings.leak else settings.depth))
        self.inner = _linear(settings.width, settings.bias, spread) if settings.block_layers == 2 else None
        self.activation = ACTIVATIONS[settings.activation]()
        self.outer = _linear(settings.width, settings.bias, spread)
        self.norm = nn.Identity() if settings.norm == "none" else FixedNorm(settings.norm)

    def forward(self, rows: Tensor, step: Tensor) -> Tensor:
        """Rows ``(n, d)``; ``step``: rho of this block."""
        change = self._change(rows)
        if not self.skip:
            return self.norm(change)
        return self.norm((1 - step * self.leak) * rows + step * change if self.leak else rows + change)

    def residual_branch(self, rows: Tensor, step: Tensor) -> Tensor:
        """What is added to the rows before the norm: Jacobians of the block (`pipeline.measure.blocks`) are of it."""
        change = self._change(rows)
        return step * (change - self.leak * rows) if self.leak else change

    def _change(self, rows: Tensor) -> Tensor:
        return self.outer(self.activation(rows if self.inner is None else self.inner(rows)))


def _linear(width: int, bias: bool, spread: float) -> nn.Linear:
    layer = nn.Linear(width, width, bias=bias)
    nn.init.normal_(layer.weight, std=spread)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class ResidualMLP(nn.Module):
    """Flatten, a linear map to the width where that differs, the norm without parameters, blocks.

    Attributes:
        rho: step sizes ``(L,)`` of the blocks, float64, which add up to 1; all 1 without a leak.
    """

    def __init__(self, num_inputs: int, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.first = nn.Identity() if settings.norm == "none" else FixedNorm(settings.norm)
        self.embedding = None
        if num_inputs != settings.width:
            self.embedding = nn.Linear(num_inputs, settings.width, bias=False)
            nn.init.normal_(self.embedding.weight, std=settings.init_scale / math.sqrt(num_inputs))
        self.blocks = nn.ModuleList(ResidualBlock(settings) for _ in range(settings.depth))
        steps = initial_steps(settings) if settings.leak else torch.ones(settings.depth, dtype=torch.float64)
        self.register_buffer("rho", steps)
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(N, d)``."""
        rows = self.first(images.flatten(1))
        if self.embedding is not None:
            rows = self.first(self.embedding(rows))
        moved = []
        # Steps of this pass: adaptive ones change in place before its gradient is taken.
        for block, step in zip(self.blocks, self.rho.clone(), strict=True):
            before, rows = rows, block(rows, step)
            if self.training and self.settings.steps == "adaptive":
                moved.append(_relative_move(before.detach(), rows.detach()))
        if moved:
            self._adapt(torch.stack(moved))
        return rows

    def _adapt(self, moved: Tensor) -> None:
        """rho_l <- 1/c_l over their sum, with c_l = ||A_l - A_{l-1}|| / (rho_l ||A_l||) of the batch."""
        self.passes += 1
        if self.passes % ADAPT_EVERY == 0:
            speed = (moved.to(self.rho) / self.rho).clamp(min=torch.finfo(self.rho.dtype).tiny)
            self.rho.copy_(_below(1 / speed / (1 / speed).sum(), 0.99 / self.settings.leak))

    def penalty_shares(self) -> dict[str, float]:
        """rho_l / leak for the parameters of every block, by name: the weights of the penalty of a leaky network."""
        if not self.settings.leak:
            return {}
        shares = (self.rho / self.settings.leak).tolist()
        blocks = zip(self.blocks, shares, strict=True)
        return {
            f"blocks.{number}.{name}": share
            for number, (block, share) in enumerate(blocks)
            for name, _ in block.named_parameters()
        }


def _relative_move(before: Tensor, after: Tensor) -> Tensor:
    return torch.linalg.vector_norm(after - before) / torch.linalg.vector_norm(after)


def _below(steps: Tensor, largest: float) -> Tensor:
    """Steps that add up to 1, none above ``largest``: what is cut off goes to the others in proportion (ours; the paper
    asks for rho leak < 1 and does not say how)."""
    for _ in range(len(steps)):
        over = steps >= largest
        rest = 1 - largest * over.sum()
        if not over.any() or over.all():
            break
        steps = torch.where(over, torch.full_like(steps, largest), steps * rest / steps[~over].sum())
        if not (steps > largest * (1 + 1e-6)).any():
            break
    return steps


@architecture(settings=Settings, check=check)
def residual_mlp(image_shape: Sequence[int], settings: Settings) -> nn.Module:
    """Blocks x <- norm(x + W act(x)) of one width; entries of W start as N(0, 1/(d L)), biases as 0.

    The place of the norm, and that the input is normalised the same way first, are our choice: the paper's were not
    available. Inputs of another width pass through a linear map without bias.
    """
    return ResidualMLP(math.prod(image_shape), settings)
