"""The path through a leaky residual network: cost of identity, energies, Hamiltonian, stationarity.

Source: arXiv 2405.17573. Of all training rows, and B_l = -(1/lambda) dC/dA_l with C the fit without its penalty. Values
stand with layer l, what leaves it being A_l; A_0 has none, as rows that are embedded by zeros cost 1/gamma. The cost is
the stable one, gamma = 1e-3 ||sigma(A)||_op^2: that of the pseudo-inverse is finite where the truth is not. H means
something from a `stationarity_residual` of about 0.5 down, and nothing above 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.metrics.engine.leaky_path import LayerOfPath, LeakyPath
from pipeline.metrics.engine.undefined import Exceptional
from pipeline.metrics.functions import feature_paths
from pipeline.metrics.registry import metric, optional

optional(__name__)

NOT_FINITE = Exceptional(
    "rows or momenta are not finite", lambda leaky: ~(leaky.after.isfinite().all() & leaky.momenta.isfinite().all())
)
ZERO_ROWS = Exceptional("all rows are zero", lambda leaky: ~(leaky.after.any() & leaky.before.any()))
ZERO_WEIGHT = Exceptional(
    "a weight is zero", lambda trajectory: (torch.linalg.matrix_norm(trajectory.weights) == 0).any()
)
CASES = (NOT_FINITE, ZERO_ROWS)


@metric(*CASES, title="Stable cost of identity")
def cost_of_identity(leaky: LayerOfPath) -> Tensor:
    """||A_l||^2 in the norm of K + gamma I: from above towards the bottleneck rank, where layers are at rest."""
    bias = leaky.path.bias
    return feature_paths.cost_of_identity(leaky.after, bias, feature_paths.stable_gamma(leaky.after, bias)).cost


@metric(*CASES, title="What no weight can map to itself", target=0.0, scale="linear")
def identity_residual(leaky: LayerOfPath) -> Tensor:
    """||A_l - W sigma(A_l)|| / ||A_l|| of the best W: the cost without gamma is infinite unless this is 0."""
    found = feature_paths.cost_of_identity(leaky.after, leaky.path.bias)
    return found.residual / torch.linalg.matrix_norm(leaky.after)


@metric(*CASES, title="Nuclear stable rank")
def nuclear_stable_rank(leaky: LayerOfPath) -> Tensor:
    """||A_l||_*^2 / ||A_l||^2."""
    return feature_paths.nuclear_stable_rank(leaky.after)


@metric(*CASES, title="Kinetic energy")
def kinetic_energy(leaky: LayerOfPath) -> Tensor:
    """1/(2 Lt) ||(A_l - A_{l-1}) / rho_l||^2 in the norm of K + gamma I of what enters layer l."""
    bias, gamma = leaky.path.bias, feature_paths.stable_gamma(leaky.before, leaky.path.bias)
    return feature_paths.kinetic_energy(leaky.velocity, leaky.before, leaky.path.depth, bias, gamma)


@metric(*CASES, title="Potential energy, without its sign")
def potential_energy(leaky: LayerOfPath) -> Tensor:
    """Lt/2 ||A_{l-1}||^2 in the same norm."""
    bias, gamma = leaky.path.bias, feature_paths.stable_gamma(leaky.before, leaky.path.bias)
    return feature_paths.potential_energy(leaky.before, leaky.path.depth, bias, gamma)


@metric(*CASES, title="Stable Hamiltonian", scale="linear")
def stable_hamiltonian(leaky: LayerOfPath) -> Tensor:
    """Kinetic less potential energy, without momenta: only about constant."""
    return kinetic_energy(leaky) - potential_energy(leaky)


@metric(*CASES, title="Hamiltonian", scale="linear")
def hamiltonian(leaky: LayerOfPath) -> Tensor:
    """H = Lt/2 ||B sigma(A)^T||^2 - Lt Tr B A^T of (B_l, A_{l-1}), as at stationary points; constant along the path."""
    return feature_paths.hamiltonian(leaky.before, leaky.momenta, leaky.path.depth, leaky.path.bias)


@metric(*CASES, title="Estimated rank $-2H/L_t$", scale="linear")
def estimated_rank(leaky: LayerOfPath) -> Tensor:
    """-2 H / Lt: from below towards the bottleneck rank."""
    return -2 / leaky.path.depth * hamiltonian(leaky)


@metric(*CASES, title="Estimated rank, mid-point pairing", scale="linear")
def estimated_rank_midpoint(leaky: LayerOfPath) -> Tensor:
    """Mean of -2 H / Lt of (B_l, A_{l-1}) and (B_l, A_l): its distance from the other says how coarse the steps are."""
    at_end = feature_paths.estimated_rank(leaky.after, leaky.momenta, leaky.path.depth, leaky.path.bias)
    return (estimated_rank(leaky) + at_end) / 2


@metric(*CASES, title="Largest singular values of $A_l$")
def path_value(leaky: LayerOfPath) -> Tensor:
    """s_1(A_l); the next ones as ``path_value/k=2``."""
    return leaky.row_values[0]


@metric(*CASES, title="Largest singular values of $W_l$")
def weight_value(leaky: LayerOfPath) -> Tensor:
    """s_1(W_l), its bias as one more column; the next ones as ``weight_value/k=2``."""
    return leaky.weight_values[0]


@metric(ZERO_WEIGHT, title="Stationarity residual", target=0.0)
def stationarity_residual(trajectory: LeakyPath) -> Tensor:
    """max_l ||W_l - Lt B_l sigma(A_{l-1})^T|| / ||W_l||, with the last layer."""
    return feature_paths.stationarity_residual(
        list(trajectory.weights), list(trajectory.momenta), list(trajectory.rows), trajectory.depth, trajectory.bias
    )


@metric(ZERO_WEIGHT, title="Balance of the weights along the path", target=0.0)
def balance_residual(trajectory: LeakyPath) -> Tensor:
    """||W_L||^2 - ||W_1||^2 less 2 Lt sum of rho_l ||b_l||^2, absolute, over the largest ||W_l||^2: exact for flows.

    The source prints Lt in place of 2 Lt; the difference of H along the path gives 2 Lt.
    """
    squares = trajectory.weights.square().sum((-2, -1))
    biases = trajectory.weights[..., -1].square().sum(-1) if trajectory.bias else torch.zeros_like(squares)
    between = (trajectory.steps[1:] * (biases[1:] + biases[:-1]) / 2).sum()
    return (squares[-1] - squares[0] - 2 * trajectory.depth * between).abs() / squares.max()
