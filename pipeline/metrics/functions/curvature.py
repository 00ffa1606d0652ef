"""Spectra of a head's layers at a point: Hessian of the data term, gradient, weights, and the pairs of class means.

Source: Garrod & Keating, arXiv 2404.06106. For the matrix W_l of a network whose outputs are piecewise linear the
Hessian of the data term is exactly sum_k v_k v_k^T, v_k = a_k (x) x_k: x_k what enters W_l, a_k a row of the masked
map from what leaves W_l to the outputs, times the root of the loss's Hessian there. For linear layers and squared error
it is A^T A (x) X X^T / N. It acts as vec(M) -> P M Q or sum_k a_k (a_k^T M x_k) x_k^T, and is never formed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.metrics.engine.checks import check_matrix
from pipeline.runtime.devices import where_float64_is

LOSSES = ("mse", "cross_entropy")
ACTIVATIONS = ("relu", "linear")
GRAM_LIMIT = 4096
"""Vectors v_k up to which their Gram matrix is decomposed; beyond it the leading eigenvalues are found by Lanczos."""


class PairAlignment(NamedTuple):
    """Of v_cc' = mu_c^{(l+1)} (x) mu_c'^{(l)}, `(K, K)` each, 1 (0) where v_cc' is (is orthogonal to) the direction.

    Attributes:
        hessian: f_cc' = (v^T Hess v)^2 / (||v||^2 ||Hess v||^2): 1 for all at linear collapse.
        gradient: (v^T g)^2 / (||v||^2 ||g||^2), g the gradient of the data term: 1/K on the diagonal, 0 off it.
    """

    hessian: Tensor
    gradient: Tensor


class CurvatureSummary(NamedTuple):
    """A layer's spectrum in numbers, `()` each.

    Attributes:
        largest: eigenvalue; lambda_l q/p at linear collapse.
        ratio: largest over K^2-th eigenvalue; 1 at linear collapse.
        gap: (K^2 + 1)-th over largest eigenvalue; 0 at linear collapse.
        hessian: mean of f_cc' over all pairs; 1 at linear collapse.
        gradient: share of the squared gradient that lies in the span of the pairs c = c', from 0 to 1; 1 at linear
            collapse. (The sum of `PairAlignment.gradient` over them exceeds it where they are not orthogonal.)
    """

    largest: Tensor
    ratio: Tensor
    gap: Tensor
    hessian: Tensor
    gradient: Tensor


class HessianParts(NamedTuple):
    """Eigenvalues of sum_k v_k v_k^T = G_class + G_cross + G_within, largest first.

    With v_icc' the vector of sample i of class c and output c', v_cc' its mean over i and v_c that over i and c', for
    classes of one size: G_class = sum_c v_c v_c^T (`(K,)`; the factor 1 in front is this convention), G_cross = (1/K)
    sum_cc' (v_cc' - v_c)(v_cc' - v_c)^T (`(K^2,)`), and G_within what is left.
    """

    of_class: Tensor
    cross: Tensor
    within: Tensor


class LayerCurvature:
    """The Hessian of the data term in one weight matrix of a head.

    Args:
        features: what enters the head, `(N, d_1)`: free features, or those of a frozen network.
        weights: W_1 .. W_L, `(d_{l+1}, d_l)` each; no activation on the features, none on the outputs.
        layer: l, from 1.
        labels: int64 `(N,)`.
        activation: "relu" or "linear", between the layers.
        loss: "mse", 1/(2N) ||Z - Y||^2, or "cross_entropy", its mean.

    Raises:
        ValueError: for an unknown activation or loss, a layer that is not there, shapes that do not chain.
    """

    @where_float64_is
    def __init__(
        self,
        features: Tensor,
        weights: Sequence[Tensor],
        layer: int,
        labels: Tensor,
        activation: str = "relu",
        loss: str = "mse",
    ) -> None:
        _check(features, weights, layer, labels, activation, loss)
        self.labels, self.num_classes = labels, weights[-1].shape[0]
        weights = [weight.detach().double() for weight in weights]
        self.weight, self._linear = weights[layer - 1], activation == "linear" and loss == "mse"
        masks, entering = [], features.detach().double()
        for number, weight in enumerate(weights, start=1):
            if number == layer:
                self.entering = entering
            left = entering @ weight.mT
            last = number == len(weights)
            masks.append(torch.ones_like(left) if last or activation == "linear" else (left > 0).double())
            entering = left * masks[-1]
            if number == layer:
                self.leaving = entering
        self._outputs, self._loss = entering, loss
        back = torch.eye(self.num_classes, dtype=torch.float64, device=entering.device).expand(len(labels), -1, -1)
        for number in range(len(weights), layer, -1):  # (N, K, d): rows of the map from what leaves W_l to the outputs
            back = (back @ weights[number - 1]) * masks[number - 2][:, None]
        self._back = back

    @cached_property
    def _output_slope(self) -> Tensor:
        """Gradient of the loss in the outputs, `(N, K)`, with its 1/N."""
        targets = torch.nn.functional.one_hot(self.labels, self.num_classes).double()
        outputs = self._outputs if self._loss == "mse" else self._outputs.softmax(-1)
        return (outputs - targets) / len(targets)

    @cached_property
    def _rows(self) -> Tensor:
        """a_k, `(N, K, d_{l+1})`, with the root of the loss's Hessian and of 1/N."""
        scaled = self._back / math.sqrt(len(self.labels))
        if self._loss == "mse":
            return scaled
        shares = self._outputs.softmax(-1)
        # diag(p) - p p^T = R R^T, R = (I - p 1^T) diag(sqrt p).
        return shares.sqrt()[..., None] * (scaled - (shares[:, None] @ scaled))

    @cached_property
    def gradient(self) -> Tensor:
        """Gradient of the data term in W_l, `(d_{l+1}, d_l)`."""
        return torch.einsum("nk,nko,ni->oi", self._output_slope, self._back, self.entering)

    def apply(self, matrix: Tensor) -> Tensor:
        """The Hessian times a direction in the space of W_l, `(..., d_{l+1}, d_l)`."""
        if self._linear:  # all samples share their rows: P M Q
            rows = self._rows[0]
            return (rows.mT @ rows) @ matrix @ (self.entering.mT @ self.entering)
        seen = torch.einsum("nko,...oi,ni->...nk", self._rows, matrix, self.entering)
        return torch.einsum("...nk,nko,ni->...oi", seen, self._rows, self.entering)

    def eigenvalues(self, count: int | None = None) -> Tensor:
        """The `count` largest eigenvalues of the Hessian, largest first; by default K^2 + 1: one beyond the outliers.

        Zeros fill up where there are fewer.
        """
        count = self.num_classes**2 + 1 if count is None else count
        rows, columns = self.weight.shape
        if self._linear:
            values = self._kronecker()
        elif self._rows.shape[0] * self._rows.shape[1] <= GRAM_LIMIT:
            values = torch.linalg.eigvalsh(self._gram)
        else:
            values = self._lanczos(min(count, rows * columns - 1))
        values = values.clamp(min=0).sort(descending=True).values[:count]
        return torch.nn.functional.pad(values, (0, count - len(values)))

    def _kronecker(self) -> Tensor:
        """Products of the eigenvalues of both factors."""
        rows = torch.linalg.svdvals(self._rows[0]).square()
        columns = torch.linalg.svdvals(self.entering).square()
        return (rows[:, None] * columns).flatten()

    @cached_property
    def _gram(self) -> Tensor:
        """<v_k, v_m> = <a_k, a_m> <x_k, x_m>, `(N K, N K)`, sample by sample."""
        rows = self._rows.flatten(0, 1)
        inner = (self.entering @ self.entering.mT).repeat_interleave(self.num_classes, 0)
        return (rows @ rows.mT) * inner.repeat_interleave(self.num_classes, 1)

    def _lanczos(self, count: int) -> Tensor:
        rows, columns = self.weight.shape
        product = lambda vector: self.apply(torch.from_numpy(vector).view(rows, columns)).reshape(-1).numpy()  # noqa: E731
        from scipy.sparse.linalg import LinearOperator, eigsh  # here: runs that do not ask for it need no scipy

        operator = LinearOperator((rows * columns,) * 2, matvec=product, dtype="float64")
        start = self.gradient.reshape(-1) + 1e-3 * torch.sin(torch.arange(rows * columns, dtype=torch.float64))
        return torch.from_numpy(eigsh(operator, count, return_eigenvectors=False, v0=start.numpy()).copy())

    def _class_means(self) -> tuple[Tensor, Tensor]:
        """Of what leaves W_l and of what enters it, `(K, d_{l+1})` and `(K, d_l)`."""
        member = torch.nn.functional.one_hot(self.labels, self.num_classes).double()
        left, entered = (member.mT @ rows / member.sum(0)[:, None] for rows in (self.leaving, self.entering))
        return left, entered

    def _share_of_gradient(self) -> Tensor:
        """||P g||^2 / ||g||^2, P the projection onto the span of mu_c^{(l+1)} (x) mu_c^{(l)}."""
        left, entered = self._class_means()
        # Pairs of unit length: their Gram matrix is that of the directions, entry by entry.
        left, entered = (
            torch.nn.functional.normalize(means, dim=-1, eps=0.0).nan_to_num() for means in (left, entered)
        )
        along = ((left @ self.gradient) * entered).sum(-1)
        gram = (left @ left.mT) * (entered @ entered.mT)
        inside = along @ torch.linalg.pinv(gram, hermitian=True, rtol=1e-10) @ along
        return inside / self.gradient.square().sum()

    def alignment(self) -> PairAlignment:
        """How far the pairs of class means are eigenvectors of the Hessian and make up the gradient."""
        means = self._class_means()
        pairs = means[0][:, None, :, None] * means[1][None, :, None, :]  # (K, K, d_{l+1}, d_l)
        curved = self.apply(pairs)
        size = pairs.square().sum((-2, -1))
        along = (pairs * curved).sum((-2, -1)).square() / (size * curved.square().sum((-2, -1)))
        slope = (pairs * self.gradient).sum((-2, -1)).square() / (size * self.gradient.square().sum())
        return PairAlignment(along, slope)

    def summary(self) -> CurvatureSummary:
        """The outliers in five numbers."""
        outliers = self.num_classes**2
        values, pairs = self.eigenvalues(outliers + 1), self.alignment()
        return CurvatureSummary(
            largest=values[0],
            ratio=values[0] / values[outliers - 1],
            gap=values[outliers] / values[0],
            hessian=pairs.hessian.mean(),
            gradient=self._share_of_gradient(),
        )

    def weight_eigenvalues(self) -> Tensor:
        """Those of W_l^T W_l, largest first, `(min(d_{l+1}, d_l),)`."""
        return torch.linalg.svdvals(self.weight).square()

    def parts(self) -> HessianParts:
        """The Hessian split into a part of classes, one of pairs of classes, and one within classes.

        Raises:
            ValueError: for classes of different sizes, and more than 4096 vectors v_k.
        """
        sizes = torch.bincount(self.labels, minlength=self.num_classes)
        if len(set(sizes.tolist())) > 1:
            raise ValueError(f"labels must have as many samples of each class, got {sizes.tolist()}.")
        if len(self.labels) * self.num_classes > GRAM_LIMIT:
            raise ValueError(f"N K must be at most {GRAM_LIMIT}, got {len(self.labels) * self.num_classes}.")
        # v_k scaled by sqrt N are the v_icc'; combinations V C of them have Gram matrix C^T (V^T V) C.
        classes, count = self.num_classes, len(self.labels)
        gram = self._gram * count
        member = torch.nn.functional.one_hot(self.labels, classes).double()
        eye = torch.eye(classes, dtype=torch.float64)
        of_pair = torch.kron(member / sizes[0], eye)  # (N K, K^2): v_cc'
        of_class = of_pair @ torch.kron(eye, torch.full((classes, 1), 1 / classes, dtype=torch.float64))
        cross = (of_pair - of_class.repeat_interleave(classes, 1)) / math.sqrt(classes)
        within = torch.eye(count * classes, dtype=torch.float64) - of_pair @ torch.kron(member, eye).mT
        parts = (of_class, cross, within / math.sqrt(count))
        values = (torch.linalg.eigvalsh(part.mT @ gram @ part).clamp(min=0).flip(0) for part in parts)
        return HessianParts(*values)


def _check(features: Tensor, weights: Sequence[Tensor], layer: int, labels: Tensor, activation: str, loss: str) -> None:
    for name, value, allowed in (("activation", activation, ACTIVATIONS), ("loss", loss, LOSSES)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")
    check_matrix("features", features, "(N, d_1)")
    if not 1 <= layer <= len(weights):
        raise ValueError(f"layer must be in 1..{len(weights)}, got {layer}.")
    width = features.shape[-1]
    for number, weight in enumerate(weights, start=1):
        if weight.ndim != 2 or weight.shape[1] != width:
            raise ValueError(f"W_{number} must have shape (out, {width}), got {tuple(weight.shape)}.")
        width = weight.shape[0]
    if features.ndim != 2 or labels.shape != features.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64 of shape ({len(features)},), got {labels.dtype} {tuple(labels.shape)}.")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < width:
        raise ValueError(f"labels must lie in 0..{width - 1}, the outputs of the last weight.")
