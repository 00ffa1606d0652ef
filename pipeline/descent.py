"""Full-batch gradient descent on many DUFMs at once.

Seeds x learning rates x decays of one shape are members of one batch. A step allocates nothing: matrices live in
columns, as in the paper (`H_l` is `(S, d_l, N)`), so that every product is one batched GEMM into a buffer and inputs
shared by all members need no copies; the learning rate rides in the gradient of the outputs, so that the update of
a factor is the beta and alpha of the GEMM that computes its gradient.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline import dufm
from pipeline.dufm import Objective
from pipeline.losses import Loss, MeanSquaredError

Constraint = Callable[[Tensor], Any]

CHECK_EVERY = 500
"""Steps between two looks for diverged members."""
DIVERGENCE_FACTOR = 1e6
"""A member has diverged once its objective exceeds this many times 1 + its initial value, or is not finite."""
GRAPH_STEPS = 50
"""Steps captured in one CUDA graph."""


class Descent:
    """S members descending together, each as if it were alone.

    A step is that of `torch.optim.SGD(lr, momentum)` on the gradient of `dufm.objective`, decays included.

    Args:
        features: H_1, `(N, d_1)` shared by all members or `(S, N, d_1)`. Frozen unless `feature_decay` is given.
        weights: W_1..W_L at the start, each `(out, in)` or `(S, out, in)`, of the features' dtype and device.
        labels: int64 `(N,)`, classes of any size.
        num_classes: K, the last weight's `out`.
        lr: step size, a float or `(S,)`.
        weight_decay: lambda_W, a float, one per layer `(L,)`, or `(S, L)`.
        feature_decay: lambda_{H_1}, a float or `(S,)`; None freezes the features.
        momentum: in [0, 1).
        activation: "relu" or "linear".
        loss: the fit; `MeanSquaredError()` if None.
        constraint: projects the free features, `(S, N, d_1)`, in place after every step.
        tf32: let a GPU multiply float32 in TensorFloat-32.

    Attributes:
        step: steps taken.
        diverged: member -> step at which its divergence was noticed. Such members read as NaN from then on.

    Raises:
        ValueError: on any argument out of range or shapes that do not fit together.
    """

    def __init__(
        self,
        features: Tensor,
        weights: Sequence[Tensor],
        labels: Tensor,
        *,
        num_classes: int,
        lr: float | Tensor,
        weight_decay: float | Tensor,
        feature_decay: float | Tensor | None = None,
        momentum: float = 0.0,
        activation: str = "relu",
        loss: Loss | None = None,
        constraint: Constraint | None = None,
        tf32: bool = False,
    ) -> None:
        dufm.check_shapes(features, weights)
        dufm.check_activation(activation)
        lr_t = torch.as_tensor(lr, dtype=torch.float64)
        feature_decay_t = None if feature_decay is None else torch.as_tensor(feature_decay, dtype=torch.float64)
        weight_decay_t = torch.as_tensor(weight_decay, dtype=torch.float64)
        S = max(
            dufm.num_members(features, weights),
            lr_t.numel(),
            weight_decay_t.shape[0] if weight_decay_t.dim() == 2 else 1,
            1 if feature_decay_t is None else feature_decay_t.numel(),
        )
        L = len(weights)
        self.num_members = S
        self.step = 0
        self.diverged: dict[int, int] = {}
        self.loss = loss or MeanSquaredError()
        self.constraint = constraint
        self.activation = activation
        self.momentum = momentum
        self._labels = labels
        self._targets = dufm.one_hot(labels, num_classes, features.dtype).to(features.device)
        self._lr = lr_t.expand(S)
        self._wd = dufm.weight_decay_table(weight_decay, S, L)
        self._hd = None if feature_decay_t is None else feature_decay_t.expand(S)
        self._members = list(range(S))
        self._weights = [w.expand(S, *w.shape[-2:]).clone() for w in weights]
        self._features = (
            features.mT.contiguous()
            if self._hd is None
            else features.mT.expand(S, *features.mT.shape[-2:]).clone(memory_format=torch.contiguous_format)
        )
        self._allocate()

    def _allocate(self):
        S = len(self._members)
        N = self._features.shape[-1]
        e = lambda r: torch.empty(S, r, N, dtype=self._features.dtype, device=self._features.device)
        self._hidden = [self._features] + [e(w.shape[1]) for w in self._weights]
        width = max(w.shape[2] for w in self._weights)
        sc = [e(width), e(width)]
        self._below = [
            sc[l % 2].flatten()[: S * w.shape[2] * N].view(S, w.shape[2], N) for l, w in enumerate(self._weights)
        ]
        lr = self._lr[self._members]
        self._keep = [_c(1 - lr * self._wd[self._members, l], self._features) for l in range(len(self._weights))]
        self._keep_h = None if self._hd is None else _c(1 - lr * self._hd[self._members], self._features)
        self._mlr = _c(-lr, self._features)

    def _step(self):
        h, ws = self._hidden, self._weights
        relu = self.activation == "relu"
        for l, w in enumerate(ws):
            torch.bmm(w, h[l].expand(w.shape[0], -1, -1), out=h[l + 1])
            if relu and l < len(ws) - 1:
                h[l + 1].relu_()
        g = h[-1]
        self.loss.gradient_(g.mT, self._targets)
        g.mul_(self._mlr)
        for l in reversed(range(len(ws))):
            w = ws[l]
            if l or self._hd is not None:
                below = torch.bmm(w.mT, g, out=self._below[l])
                if relu and l:
                    torch.ops.aten.threshold_backward.grad_input(below, h[l], 0, grad_input=below)
            if isinstance(self._keep[l], float):
                w.baddbmm_(g, h[l].mT, beta=self._keep[l])
            else:
                w.mul_(self._keep[l]).baddbmm_(g, h[l].mT)
            g = below
        if self._hd is not None:
            torch.add(below, h[0], alpha=self._keep_h, out=h[0])

    def advance(self, steps):
        for _ in range(steps):
            self._step()
        self.step += steps

    @property
    def features(self):
        return self._features.mT.contiguous() if self._hd is not None else self._features.mT

    @property
    def weights(self):
        return [w.clone() for w in self._weights]

    def objective(self):
        return dufm.objective(
            self.features, self._weights, self._labels, self._wd, self._hd, self.activation, self.loss
        )


def _c(values, like):
    if bool((values == values[0]).all()):
        return float(values[0])
    return values.to(like).reshape(-1, 1, 1)
