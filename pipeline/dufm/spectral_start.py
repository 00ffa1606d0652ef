"""Aligned factors of a linear head, whose logits are a circulant matrix: its modes grow each by itself.

Let u_k be the real Fourier modes of K classes without the constant one. W_l = U_{l+1} S U_l^T and H_1 = U_1 S V^T
with orthonormal U_l, U_{L+1} = (u_k), V the modes repeated over the samples of each class, S = diag(s_k) equal for
cosine and sine. The outputs are symmetric and circulant, and softmax keeps them so; hence the gradient has the same
singular vectors, and descent without decay changes S alone (derived here, tested). The paper's own spectral start
(arXiv 2605.23087) was not read: its abstract names one. Equal s_k are the collapsed direction, a simplex.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def fourier_modes(num_classes: int) -> tuple[Tensor, Tensor]:
    """Orthonormal modes ``(K, K-1)`` and the frequency of each, int64 ``(K-1,)``, from 1 on."""
    places = torch.arange(num_classes, dtype=torch.float64)
    modes, numbers = [], []
    for frequency in range(1, num_classes // 2 + 1):
        angle = 2 * torch.pi * frequency * places / num_classes
        waves = [angle.cos()] if 2 * frequency == num_classes else [angle.cos(), angle.sin()]
        modes += [wave / wave.norm() for wave in waves]
        numbers += [frequency] * len(waves)
    return torch.stack(modes, dim=1), torch.tensor(numbers)


def spectral_factors(
    widths: Sequence[int],
    labels: Tensor,
    num_classes: int,
    generators: Sequence[torch.Generator],
    scale: float,
    spread: float = 0.0,
) -> tuple[Tensor, list[Tensor]]:
    """Features ``(S, N, d_1)`` and weights W_l ``(S, d_{l+1}, d_l)``, float64, one generator per member.

    Args:
        widths: d_1..d_L, at least K - 1 each.
        labels: of the samples, each class equally often.
        scale: median of the singular values; spread: s = scale exp(spread z), z normal, one for each frequency.

    Raises:
        ValueError: classes differ in size, or a layer is too narrow.
    """
    counts = labels.bincount(minlength=num_classes)
    if not bool((counts == counts[0]).all()):
        raise ValueError(f"classes have {counts.tolist()} samples, must be equally many")
    if min(widths) < num_classes - 1:
        raise ValueError(f"widths are {list(widths)}, must be at least {num_classes - 1}, one less than classes")
    modes, frequency = fourier_modes(num_classes)
    samples = modes[labels] / counts[0].sqrt()
    members = []
    for source in generators:
        drawn = torch.randn(num_classes // 2, generator=source, dtype=torch.float64)
        values = scale * (spread * drawn).exp()[frequency - 1]
        frames = [_frame(width, num_classes - 1, source) for width in widths]
        ends = [*frames[1:], modes]
        weights = [(end * values) @ begin.T for begin, end in zip(frames, ends, strict=True)]
        members.append([(samples * values) @ frames[0].T, *weights])
    features, *weights = (torch.stack(same) for same in zip(*members, strict=True))
    return features, weights


def _frame(width: int, columns: int, source: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(width, columns, generator=source, dtype=torch.float64)).Q
