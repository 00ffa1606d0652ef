"""Coupling of the blocks of residual networks: their Jacobians, and how far one block's singular vectors are another's.

Sources: Aubry, Meng, Sugolov & Papyan, arXiv 2407.07810 (coupling, line shape); Li & Papyan, arXiv 2401.09018 (residual
alignment). Definitions of 2407.07810 read; of residual alignment the four statements read, the numbers for them ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.metrics.engine.checks import check_matrix, check_number
from pipeline.metrics.engine.statistics import finite_part
from pipeline.runtime.devices import where_float64_is

# A singular value below this share of the largest leaves its vectors arbitrary.
DEGENERATE = 1e-6


def block_jacobian(
    block: Callable[[Tensor], Tensor],
    rows: Tensor,
    token: int | None = -1,
    source: int | None = None,
    skip: bool = True,
) -> Tensor:
    """Jacobian of a residual block's branch, J_ij = d f(x)_i / d x_j, `(..., d, d)`.

    Call it with the block in `eval()`: dropout and stochastic depth are no function of the input.

    Args:
        block: maps rows of width d to rows of width d.
        rows: `(d,)`, one row; `(T, d)`, the tokens of one sample; `(B, T, d)`, samples of tokens, which give
            `(B, d, d)`.
        token: the token whose output counts, the last one by default; None: every row stands alone, and `(N, d)` give
            `(N, d, d)`.
        source: the token whose input counts; by default the same.
        skip: whether the block adds its input, so that the identity is to be taken off.

    Raises:
        ValueError: for rows of another shape, a token that is not there, and a block that adds its input but gives
            rows of another width.
    """
    fitting = isinstance(rows, Tensor) and rows.is_floating_point() and 1 <= rows.ndim <= 3
    if not fitting or (rows.ndim == 3 and not len(rows)):
        raise ValueError("rows must be a floating-point tensor of shape (d,), (T, d) or (B, T, d), B at least 1.")
    rows = rows.detach()
    if rows.ndim == 3:
        return torch.stack([block_jacobian(block, sample, token, source, skip) for sample in rows])
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no batched backward
        if rows.ndim == 1:
            return _less_identity(jacrev(block)(rows), skip)
        if token is None:
            return _less_identity(vmap(jacrev(lambda row: block(row[None])[0]))(rows), skip)
        source = token if source is None else source
        for name, number in (("token", token), ("source", source)):
            if not isinstance(number, Integral) or not -len(rows) <= number < len(rows):
                raise ValueError(f"{name} must be one of the {len(rows)} tokens, got {number!r}.")
        same = token % len(rows) == source % len(rows)
        return _less_identity(jacrev(lambda row: _output(block, rows, row, token, source))(rows[source]), skip and same)


def _output(block: Callable[[Tensor], Tensor], rows: Tensor, row: Tensor, token: int, source: int) -> Tensor:
    """Output of one token of one sample, `row` standing in for the token `source`; modules take samples of tokens."""
    place = torch.nn.functional.one_hot(torch.tensor(source % len(rows)), len(rows)).to(rows)[:, None]
    return block((rows * (1 - place) + place * row)[None])[0, token]


def _less_identity(jacobian: Tensor, skip: bool) -> Tensor:
    jacobian = jacobian.detach()
    if not skip:
        return jacobian
    if jacobian.ndim < 2 or jacobian.shape[-1] != jacobian.shape[-2]:
        raise ValueError(
            f"block must give rows of the width that it takes, got a Jacobian of shape {tuple(jacobian.shape)}."
        )
    return jacobian - torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=jacobian.device)


@where_float64_is
def coupling(first: Tensor, second: Tensor, k: int, p: float = 2) -> Tensor:
    """m_K(J_1, J_2) = || U_{2,K}^T J_1 V_{2,K} - S_{1,K} ||_F / ||s_{1,K}||_p, `(...)`: 0 coupled, about 1 unrelated.

    U_2, V_2 are the first K singular vectors of the second matrix, s_1 the singular values of the first. Not symmetric;
    the scale of the second does not matter. m(J, -J) = 2: opposed blocks are as far apart as can be.

    NaN where the K-th singular value of the second matrix is below 1e-6 of its largest (then its vectors are
    arbitrary), where the first matrix is zero, and for matrices that are not finite.

    Raises:
        ValueError: for matrices of different shapes, and k outside 1..min(m, n).
    """
    return _coupling(first, second, k, p, absolute=False)


@where_float64_is
def coupling_abs(first: Tensor, second: Tensor, k: int, p: float = 2) -> Tensor:
    """The same with the absolute values of U_{2,K}^T J_1 V_{2,K}, as in public code: m(J, -J) = 0."""
    return _coupling(first, second, k, p, absolute=True)


@where_float64_is
def couplings(jacobians: Tensor, k: int, absolute: bool = False) -> Tensor:
    """m_K(J_i, J_j) of all pairs of L blocks `(L, ..., d, d)`, `(L, L, ...)`, each decomposed once.

    The diagonal is 0 up to rounding. NaN as in `coupling`.

    Raises:
        ValueError: as `coupling`.
    """
    check_matrix("jacobians", jacobians, "(L, ..., d, d)")
    _check_k(k, jacobians)
    blocks = jacobians.detach().double()
    left, values, right = singular_triples(blocks)
    own = values[..., :k]
    found = [_distance(blocks, own, left[j], values[j], right[j], k, 2, absolute) for j in range(len(blocks))]
    return torch.stack(found, 1)


def _coupling(first: Tensor, second: Tensor, k: int, p: float, absolute: bool) -> Tensor:
    check_matrix("first", first)
    check_matrix("second", second)
    alike = first.shape[-2:] == second.shape[-2:]
    if not alike or not _go_together(first.shape[:-2], second.shape[:-2]):
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"first and second must be matrices of one shape, got {shapes}.")
    _check_k(k, first)
    if p != math.inf:
        check_number("p", p)
    first, second = first.detach().double(), second.detach().double()
    return _distance(
        first, torch.linalg.svdvals(finite_part(first))[..., :k], *singular_triples(second), k, p, absolute
    )


def _go_together(members: torch.Size, others: torch.Size) -> bool:
    """Whether dimensions of members can be broadcast."""
    pairs = zip(reversed(members), reversed(others), strict=False)
    return all(one == other or 1 in (one, other) for one, other in pairs)


def _check_k(k: int, matrix: Tensor) -> None:
    largest = min(matrix.shape[-2:])
    if isinstance(k, bool) or not isinstance(k, Integral) or not 1 <= k <= largest:
        raise ValueError(f"k must be an int in 1..{largest}, got {k!r}.")


@where_float64_is
def singular_triples(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, s and V^T; NaN for s where the matrix is not finite."""
    # U and V of one decomposition: those of J^T J and J J^T would have signs of their own.
    left, values, right = torch.linalg.svd(finite_part(matrix), full_matrices=False)
    whole = matrix.isfinite().all(-1).all(-1)[..., None]
    return left, torch.where(whole, values, math.nan), right


def _distance(
    first: Tensor, own: Tensor, left: Tensor, values: Tensor, right: Tensor, k: int, p: float, absolute: bool
) -> Tensor:
    """m_K of a first matrix with its singular values, and the decomposition of a second."""
    onto = left[..., :k].mT @ first @ right[..., :k, :].mT
    off = torch.linalg.matrix_norm((onto.abs() if absolute else onto) - torch.diag_embed(own))
    known = (values[..., k - 1] > DEGENERATE * values[..., 0]) & (own[..., 0] > 0)
    return torch.where(known, off / torch.linalg.vector_norm(own, ord=p, dim=-1), math.nan)


@where_float64_is
def line_shape_score(path: Tensor) -> Tensor:
    """L / ||sum of the unit steps|| of a path x^0 .. x^L `(..., L + 1, d)`, `(...)`: 1 is a straight line, else more.

    NaN for a path with a step of length zero, which has no direction; infinite for one that ends where it began.

    Raises:
        ValueError: for a path of fewer than two points.
    """
    steps = _steps(path)
    lengths = torch.linalg.vector_norm(steps, dim=-1, keepdim=True)
    return steps.shape[-2] / torch.linalg.vector_norm((steps / lengths).sum(-2), dim=-1)


@where_float64_is
def norm_growth_variation(path: Tensor) -> Tensor:
    """Coefficient of variation of log(||x^l|| / ||x^{l-1}||) along a path `(..., L + 1, d)`, `(...)`: 0 where norms
    grow exponentially. Ours, after the "expodistance" of arXiv 2407.07810, whose formula is recalled only [M]."""
    _steps(path)
    growth = torch.linalg.vector_norm(path.detach().double(), dim=-1).log().diff(dim=-1)
    return growth.std(-1, correction=0) / growth.mean(-1).abs()


def _steps(path: Tensor) -> Tensor:
    check_matrix("path", path, "(L + 1, d)")
    if path.shape[-2] < 2:
        raise ValueError(f"path must have at least two points, got shape {tuple(path.shape)}.")
    return path.detach().double().diff(dim=-2)


class ResidualAlignment(NamedTuple):
    """The four statements of arXiv 2401.09018 in numbers (ours), each `(...)` or, where said, `(..., L)`.

    Attributes:
        line: RA1, the line shape score of the path, mean over samples; 1 is a straight line.
        spacing: RA1, coefficient of variation of the lengths of its steps, mean over samples; 0 is equispaced.
        coupling: RA2, mean of `coupling` over ordered pairs of blocks; 0 is aligned.
        left_right: RA2, mean over blocks of the mean |cos| of the k-th left and right singular vectors; 1 is aligned.
        rank: RA3, number of singular values above a thousandth of the largest, `(..., L)`; at most C is aligned.
        beyond: RA3, share of the squared singular values beyond the C-th, `(..., L)`.
        largest: RA4, L s_1, `(..., L)`; alike for all blocks and depths where s_1 goes like 1 / L.
    """

    line: Tensor
    spacing: Tensor
    coupling: Tensor
    left_right: Tensor
    rank: Tensor
    beyond: Tensor
    largest: Tensor


class StackAlignment(NamedTuple):
    """Blocks that follow one another.

    Attributes:
        couplings: m_K(J^l, J^l'), mean over samples where it is a number, `(L, L)`.
        alignment: RA1 to RA4.
        path: the representations, `(N, L + 1, d)`.
    """

    couplings: Tensor
    alignment: ResidualAlignment
    path: Tensor


@where_float64_is
def residual_alignment(path: Tensor, jacobians: Sequence[Tensor] | Tensor, num_classes: int) -> ResidualAlignment:
    """Residual alignment RA1 to RA4 of a stack of L blocks.

    Args:
        path: representations of samples, `(N, L + 1, d)`, or of one, `(L + 1, d)`.
        jacobians: of the branches, `(L, ..., d, d)`, in order.
        num_classes: C; C singular triples count, d at most.

    Raises:
        ValueError: for fewer than two blocks, Jacobians of several shapes, or a path of another length.
    """
    check_matrix("path", path, "(L + 1, d)")
    if not isinstance(jacobians, Tensor | list | tuple):
        raise ValueError(f"jacobians must be L >= 2 matrices of one shape, got {type(jacobians).__name__}.")
    depth, shapes = len(jacobians), {tuple(block.shape) for block in jacobians}
    if depth < 2 or len(shapes) > 1 or len(next(iter(shapes))) < 2 or path.shape[-2] != depth + 1:
        raise ValueError(
            "jacobians must be L >= 2 matrices of one shape and path of L + 1 points, got "
            f"{depth} of shape {' and '.join(map(str, sorted(shapes))) or 'none'}, and {path.shape[-2]}."
        )
    blocks = torch.stack(tuple(jacobians)).detach().double()
    k = min(num_classes, blocks.shape[-1]) if isinstance(num_classes, Integral) else num_classes
    _check_k(k, blocks)
    lengths = torch.linalg.vector_norm(_steps(path), dim=-1)
    left, values, right = singular_triples(blocks)
    squares, unknown = values.square(), values[..., 0].isnan()
    left_right = (left * right.mT).sum(-2).abs()[..., :k].mean(-1)
    rank = (values > 1e-3 * values[..., :1]).sum(-1).double()
    return ResidualAlignment(
        line=line_shape_score(path).mean(),
        spacing=(lengths.std(-1, correction=0) / lengths.mean(-1)).mean(),
        coupling=couplings(blocks, k)[~torch.eye(depth, dtype=torch.bool, device=blocks.device)].mean(0),
        left_right=torch.where(unknown, math.nan, left_right).mean(0),
        rank=torch.where(unknown, math.nan, rank).movedim(0, -1),
        beyond=(squares[..., k:].sum(-1) / squares.sum(-1)).movedim(0, -1),
        largest=(depth * values[..., 0]).movedim(0, -1),
    )


def stack_alignment(
    blocks: Sequence[Callable[[Tensor], Tensor]],
    rows: Tensor,
    k: int,
    token: int | None = -1,
    absolute: bool = False,
) -> StackAlignment:
    """Couplings of all pairs of blocks that follow one another, and what `residual_alignment` says of them.

    Args:
        blocks: each with its skip connection, `(N, d)` to `(N, d)` for `token=None`, else samples of tokens.
        rows: what enters the first, `(N, d)` for `token=None`, else `(B, T, d)`; a Jacobian is of one of them.
        k: singular triples that count.
        absolute: `coupling_abs` in place of `coupling`.

    Raises:
        ValueError: for fewer than two blocks.
    """
    if len(blocks) < 2:
        raise ValueError(f"blocks must be at least two, got {len(blocks)}.")
    path, jacobians = [rows.detach()], []
    for block in blocks:
        jacobians.append(block_jacobian(block, path[-1], token))
        with torch.no_grad():
            path.append(block(path[-1]))
    of_pairs = couplings(torch.stack(jacobians), k, absolute).flatten(2).nanmean(-1)
    points = torch.stack([own if token is None else own[:, token] for own in path], -2)
    return StackAlignment(of_pairs, residual_alignment(points, jacobians, k), points)
