"""Jacobians of the blocks of a residual network: their coupling, residual alignment RA1 to RA4, the shape of the way.

Sources: coupling and line shape arXiv 2407.07810, residual alignment arXiv 2401.09018, whose four statements are read;
their numbers are ours. The blocks stand in a row and leave the shape of what enters as it is. J is the Jacobian of a
block's branch, that is less the identity where the block adds its input: of what is read of its output (the class
token, the last token of a text, the mean over tokens or pixels) by a shift of the same positions of its input. For maps
this shift, alike at all positions, is ours. All vanish without skip connections.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.metrics.engine.block_stack import BlockOfStack, BlockStack
from pipeline.metrics.engine.undefined import Exceptional
from pipeline.metrics.functions import block_jacobians
from pipeline.metrics.registry import metric, optional

optional(__name__)

NOT_FINITE = Exceptional(
    "the Jacobians are not finite", lambda block: ~block.stack.jacobians[block.at].isfinite().all()
)
OTHERS_NOT_FINITE = Exceptional(
    "the Jacobian of a block is not finite", lambda block: ~block.stack.jacobians.isfinite().all()
)
DEPENDS_ON_NOTHING = Exceptional(
    "the branch does not depend on what enters it", lambda block: (block.decomposed[1][..., 0] == 0).any()
)
DEGENERATE = Exceptional(
    "no pair of blocks has the singular vectors that are compared (s_K below 1e-6 of s_1, or s_1 = 0)",
    lambda block: block.with_others(block.stack.couplings).isnan(),
)
NO_STEP = Exceptional(
    "a sample does not move in a block", lambda stack: (_lengths(stack.points) == 0).any() | _far(stack)
)
CLOSED = Exceptional(
    "the steps of a sample cancel", lambda stack: block_jacobians.line_shape_score(stack.points).isinf().any()
)
NORMS_DO_NOT_GROW = Exceptional(
    "norms do not grow or shrink, or one is zero",
    lambda stack: ~block_jacobians.norm_growth_variation(stack.points).isfinite().all(),
)
COUPLED = (OTHERS_NOT_FINITE, DEGENERATE)
OWN = (NOT_FINITE, DEPENDS_ON_NOTHING)


def _lengths(points: Tensor) -> Tensor:
    return torch.linalg.vector_norm(points.double().diff(dim=-2), dim=-1)


def _far(stack: BlockStack) -> Tensor:
    return ~stack.points.isfinite().all()


@metric(*COUPLED, title="Coupling $m_K$ with the other blocks", target=0.0, scale="linear")
def coupling(jacobians: BlockOfStack) -> Tensor:
    """m_K(J_l, J_l') of block l, mean over the other blocks l' of its row and over samples: 0 coupled, about 1 not."""
    return jacobians.with_others(jacobians.stack.couplings)


@metric(*COUPLED, title="Coupling of absolute values", target=0.0, scale="linear")
def coupling_abs(jacobians: BlockOfStack) -> Tensor:
    """The same with the absolute values of U_{l',K}^T J_l V_{l',K}, as in public code: 0 for opposed blocks, too."""
    return jacobians.with_others(jacobians.stack.couplings_abs)


@metric(*OWN, title="RA2: left and right singular vectors", target=1.0, scale="linear")
def ra2_left_right(jacobians: BlockOfStack) -> Tensor:
    """Mean over samples and the first C singular triples of |cos| of the left and the right vector of J_l."""
    left, values, right = jacobians.decomposed
    if bool(values.isnan().any()):
        return values.new_tensor(torch.nan)
    return (left * right.mT).sum(-2).abs()[..., : jacobians.stack.num_classes].mean()


@metric(*OWN, title="RA3: rank of $J_l$", scale="linear")
def ra3_rank(jacobians: BlockOfStack) -> Tensor:
    """Number of singular values of J_l above a thousandth of the largest, mean over samples; C at most, says RA3."""
    values = jacobians.decomposed[1]
    if bool(values.isnan().any()):
        return values.new_tensor(torch.nan)
    return (values > 1e-3 * values[..., :1]).sum(-1).double().mean()


@metric(*OWN, title="RA3: $J_l$ beyond rank C", target=0.0)
def ra3_beyond(jacobians: BlockOfStack) -> Tensor:
    """Share of the squared singular values of J_l beyond the C-th, mean over samples."""
    squares = jacobians.decomposed[1].square()
    return (squares[..., jacobians.stack.num_classes :].sum(-1) / squares.sum(-1)).mean()


@metric(NOT_FINITE, title="RA4: $L s_1(J_l)$")
def ra4_largest(jacobians: BlockOfStack) -> Tensor:
    """L s_1(J_l), mean over samples; alike for all blocks and depths where s_1 goes like 1/L."""
    return jacobians.stack.depth * jacobians.decomposed[1][..., 0].mean()


@metric(NO_STEP, CLOSED, title="RA1: line shape score", target=1.0, scale="linear")
def line_shape_score(stack: BlockStack) -> Tensor:
    """L / ||sum of the unit steps|| of the way through the blocks, mean over samples: 1 is a straight line."""
    return block_jacobians.line_shape_score(stack.points).mean()


@metric(NO_STEP, title="RA1: variation of the steps", target=0.0, scale="linear")
def ra1_spacing(stack: BlockStack) -> Tensor:
    """Coefficient of variation of the lengths of the steps, mean over samples: 0 is equispaced."""
    lengths = _lengths(stack.points)
    return (lengths.std(-1, correction=0) / lengths.mean(-1)).mean()


@metric(NORMS_DO_NOT_GROW, title="Variation of the growth of norms", target=0.0, scale="linear")
def norm_growth_variation(stack: BlockStack) -> Tensor:
    """Coefficient of variation of log(||x^l|| / ||x^(l-1)||), mean over samples: 0 where norms grow exponentially."""
    return block_jacobians.norm_growth_variation(stack.points).mean()
