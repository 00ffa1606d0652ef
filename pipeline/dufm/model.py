"""The deep unconstrained features model: layers and starting points, many members at once.

Rows are samples: the paper's H_1 (d_1 x N, columns are samples) is `features.mT` here. Shapes in this file:
S members, N samples, K classes, L weight matrices; d_l is the width of what enters W_l.

    H_2 = H_1 W_1^T,   H_{l+1} = sigma(H_l) W_l^T for l >= 2,   Z = H_{L+1}

No activation on the features, and no biases (Súkeník et al. 2023, arXiv 2305.13165, section 3) unless the last layer
is given one. What is minimised stands in `pipeline.dufm.cost`.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "linear": lambda tensor: tensor}


def forward(
    features: Tensor, weights: Sequence[Tensor], activation: str = "relu", bias: Tensor | None = None
) -> list[Tensor]:
    """Pre-activations `[H_1, ..., H_L, Z]`, each `(S, N, d)`; without weights `[H_1]` alone, which is Z.

    Args:
        features: `(N, d_1)`, `(1, N, d_1)` or `(S, N, d_1)`.
        weights: W_1..W_L, each `(S, out, in)` or `(out, in)`.
        activation: "relu" or "linear".
        bias: of the last layer, `(S, K)` or `(K,)`.

    Raises:
        ValueError: on an unknown activation or shapes that do not chain.
    """
    pre_activations, entering = [], features
    for _, tap, entering in layer_taps(features, weights, activation):
        if tap == "pre":
            pre_activations.append(entering)
    members = num_members(features, weights)
    if weights:
        outputs = entering @ weights[-1].mT
        pre_activations.append(outputs if bias is None else outputs + bias.unsqueeze(-2))
    return [tensor.expand(members, -1, -1) for tensor in pre_activations]


def layer_taps(
    features: Tensor, weights: Sequence[Tensor], activation: str = "relu"
) -> Iterator[tuple[int, str, Tensor]]:
    """What enters W_l, layer by layer, as `(l, tap, tensor)`; only one layer is alive at a time.

    Layer 1 has the tap "pre" only (there is no activation on the features), layers 2..L have "pre" (H_l) and "post"
    (sigma(H_l)). Tensors are `(S, N, d_l)`, without the member dimension where neither input has one.
    """
    check_activation(activation)
    check_shapes(features, weights)
    hidden = features
    yield 1, "pre", hidden
    for layer, weight in enumerate(weights[:-1], start=2):
        hidden = hidden @ weight.mT
        yield layer, "pre", hidden
        hidden = activate(hidden, activation)
        yield layer, "post", hidden


def initial_weights(
    widths: Sequence[int],
    num_classes: int,
    generators: Sequence[torch.Generator],
    scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:
    """W_1..W_L, `(S, d_{l+1}, d_l)` with d_{L+1} = K and entries N(0, scale^2 / d_l), one generator per member.

    Drawn in float64 and then cast, so a float32 run starts where the float64 run does.

    Args:
        widths: d_1..d_L.
    """
    sizes = [*widths, num_classes]
    if min(sizes) < 1 or len(sizes) < 2:
        raise ValueError(f"widths and num_classes must be at least 1, got widths={list(widths)}, {num_classes=}")
    members = [
        [
            torch.randn(fan_out, fan_in, generator=source, dtype=torch.float64) * (scale / fan_in**0.5)
            for fan_in, fan_out in pairwise(sizes)
        ]
        for source in generators
    ]
    return [torch.stack(layer).to(dtype) for layer in zip(*members, strict=True)]


def initial_features(
    num_samples: int,
    dim: int,
    generators: Sequence[torch.Generator],
    scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Random H_1, `(S, N, d_1)` with entries N(0, scale^2 / d_1) (unit rows at scale 1), one generator per member."""
    if num_samples < 1 or dim < 1:
        raise ValueError(f"num_samples and dim must be at least 1, got {num_samples=}, {dim=}")
    draws = [torch.randn(num_samples, dim, generator=source, dtype=torch.float64) for source in generators]
    return (torch.stack(draws) * (scale / dim**0.5)).to(dtype)


def balanced_features(
    first_weight: Tensor,
    num_samples: int,
    weight_decay: float | Tensor,
    feature_decay: float | Tensor,
    generators: Sequence[torch.Generator],
) -> tuple[Tensor, Tensor]:
    """Features H_1 balanced against W_1: lambda_{H_1} H_1 H_1^T = lambda_{W_1} W_1^T W_1 (columns as in the paper).

    Every stationary point of the objective is balanced like this (multiply its gradients by H_1^T and W_1^T). With
    equal decays gradient flow keeps H_1 H_1^T - W_1^T W_1 at zero once it is, so a balanced start stays balanced.
    With W_1 = U S V^T this is H_1 = sqrt(lambda_{W_1} / lambda_{H_1}) V S Q for any Q with orthonormal rows; Q is drawn
    uniformly. If N < rank W_1 no such H_1 exists, so W_1 is cut to its N largest singular values.

    Args:
        first_weight: W_1, `(S, d_2, d_1)`.
        weight_decay: lambda_{W_1}, a float or `(S,)`, positive.
        feature_decay: lambda_{H_1}, a float or `(S,)`, positive.
        generators: one per member.

    Returns:
        H_1 `(S, N, d_1)`, and W_1 `(S, d_2, d_1)`: as given unless it had to be cut.
    """
    ratio = torch.as_tensor(weight_decay, dtype=torch.float64) / torch.as_tensor(feature_decay, dtype=torch.float64)
    if not bool((torch.isfinite(ratio) & (ratio > 0)).all()):
        raise ValueError(f"weight_decay and feature_decay must be positive, got {weight_decay=}, {feature_decay=}")
    left, singular, right = torch.linalg.svd(first_weight.to(torch.float64), full_matrices=False)
    rank = min(num_samples, singular.shape[-1])
    draws = [torch.randn(num_samples, rank, generator=source, dtype=torch.float64) for source in generators]
    orthonormal = torch.linalg.qr(torch.stack(draws)).Q.to(singular.device)
    scaled_right = singular[:, :rank, None] * right[:, :rank]
    features = ratio.sqrt().reshape(-1, 1, 1).to(singular.device) * (orthonormal @ scaled_right)
    weight = first_weight if rank == singular.shape[-1] else left[..., :rank] @ scaled_right
    return features.to(first_weight.dtype), weight.to(first_weight.dtype)


class DufmHead(nn.Sequential):
    """One member as a module, features `(N, d_1)` to outputs `(N, K)`.

    Its modules are named as the paper counts: `linear_1` puts out H_2, `activation_2` sigma(H_2), and so on. Without
    weights the outputs are the features; `bias` `(K,)` is the last layer's.
    """

    def __init__(self, weights: Sequence[Tensor], activation: str = "relu", bias: Tensor | None = None) -> None:
        check_activation(activation)
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        for layer, weight in enumerate(weights, start=1):
            if layer > 1:
                modules[f"activation_{layer}"] = nn.ReLU() if activation == "relu" else nn.Identity()
            own = bias if layer == len(weights) else None
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=own is not None, device="meta")
            linear.weight = nn.Parameter(weight.detach().clone())
            if own is not None:
                linear.bias = nn.Parameter(own.detach().clone())
            modules[f"linear_{layer}"] = linear
        super().__init__(modules)


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Y as rows, `(N, K)`."""
    if labels.dim() != 1 or labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64 of shape (N,), got {labels.dtype} of shape {tuple(labels.shape)}")
    if labels.numel() == 0 or int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise ValueError(f"labels must lie in 0..{num_classes - 1} and not be empty, got {labels.unique().tolist()}")
    return nn.functional.one_hot(labels, num_classes).to(dtype)


def squared_norm(tensor: Tensor) -> Tensor:
    """||.||_F^2 of the last two dimensions, `(S,)` or a scalar."""
    return tensor.square().sum(dim=(-2, -1))


def activate(hidden: Tensor, activation: str) -> Tensor:
    """sigma(H)."""
    return ACTIVATIONS[activation](hidden)


def weight_decay_table(weight_decay: float | Tensor, members: int, depth: int) -> Tensor:
    """Weight decay of every member and layer, float64 `(S, L)` on the CPU, from a float, `(L,)` or `(S, L)`."""
    decay = torch.as_tensor(weight_decay, dtype=torch.float64).cpu()
    if decay.dim() > 2 or (decay.dim() and decay.shape not in {(depth,), (members, depth), (1, depth)}):
        allowed = f"a number, ({depth},) or ({members}, {depth})"
        raise ValueError(f"weight_decay must be {allowed}, got shape {tuple(decay.shape)}")
    if not bool((torch.isfinite(decay) & (decay >= 0)).all()):
        raise ValueError(f"weight_decay must be finite and >= 0, got {decay.tolist()}")
    return decay.expand(members, depth)


def num_members(features: Tensor, weights: Sequence[Tensor]) -> int:
    """S: the common member count of features and weights (1 where neither has a member dimension)."""
    counts = [len(tensor) if tensor.dim() == 3 else 1 for tensor in (features, *weights)]
    several = set(counts) - {1}
    if len(several) > 1:
        raise ValueError(f"features and weights must agree on the number of members, got {counts}")
    return several.pop() if several else 1


def check_activation(activation: str) -> None:
    """Raise ValueError unless the activation is one we know."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {activation!r}")


def check_shapes(features: Tensor, weights: Sequence[Tensor]) -> None:
    """Raise ValueError unless features and weights chain."""
    for name, tensor in [("features", features), *((f"weights[{i}]", weight) for i, weight in enumerate(weights))]:
        if tensor.dim() not in (2, 3):
            raise ValueError(f"{name} must have 2 or 3 dimensions, got shape {tuple(tensor.shape)}")
    width = features.shape[-1]
    for index, weight in enumerate(weights):
        if weight.shape[-1] != width:
            raise ValueError(f"weights[{index}] must take inputs of width {width}, got shape {tuple(weight.shape)}")
        width = weight.shape[-2]
    num_members(features, weights)
