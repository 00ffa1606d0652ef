"""Our metrics beside those of other programs on the same features: a table, and exit code 1 where they disagree.

    python scripts/compare_peers.py [--out FILE]

Peers: `calinski_harabasz_score` of torchmetrics and of scikit-learn, `NearestCentroid` of scikit-learn, and numpy and
scipy after the formulas of Papyan's notebook (2020) and of Zhu et al. (2021), written with d x d matrices and loops.
The neural-collapse library (github.com/rhubarbwu/neural-collapse) is not among them: ``pip download neural-collapse``
finds no version, it is installed from git.

A difference is |ours - peer|, over |peer| where that is above 1e-6. Rows without a tolerance are shown, not judged:
the peer means something else there, and the row says what.

The Calinski-Harabasz index is CH = (N - K) / (K - 1) sum_c n_c b_c / sum_c n_c v_c with b_c = ||mu_c - mu_G||^2, so

    dnc1 = (N - K) / ((K - 1) CH) r,    r = K sum_c (n_c / N) b_c / sum_c b_c,

r = 1 for classes of one size, and 2 p (1 - p) / (p^2 + (1 - p)^2) for two classes with a share p. Repeating the rows of
each class until all have one size makes it dnc1_balanced = (N' - K) / ((K - 1) CH').
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from sklearn.metrics import calinski_harabasz_score as sklearn_index
from sklearn.neighbors import NearestCentroid
from torch import Tensor
from torchmetrics.functional.clustering import calinski_harabasz_score as torchmetrics_index

from pipeline.metrics import layer_metrics

EXACT = 1e-10
"""Both in float64: rounding alone, well above eps times the number of samples."""
SINGLE = 1e-6
"""torchmetrics keeps its two sums in float32 whatever the features are: a few roundings of 6e-8."""
HEADER = ("case", "metric", "ours", "peer", "its value", "difference", "tolerance")


@dataclass(frozen=True)
class Row:
    case: str
    metric: str
    ours: float
    peer: str
    theirs: float
    tolerance: float | None = EXACT

    @property
    def difference(self) -> float:
        gap = 0.0 if self.ours == self.theirs else abs(self.ours - self.theirs)
        return gap / abs(self.theirs) if abs(self.theirs) > 1e-6 else gap

    @property
    def agrees(self) -> bool:
        return self.tolerance is None or self.difference <= self.tolerance  # NaN does not agree

    def cells(self) -> list[str]:
        tolerance = "shown" if self.tolerance is None else f"{self.tolerance:g}"
        numbers = [f"{self.ours:.6g}", self.peer, f"{self.theirs:.6g}", f"{self.difference:.1e}", tolerance]
        return [self.case, f"`{self.metric}`", *numbers]


# --- the peers -------------------------------------------------------------------------------------------------------


def means_of(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([z[y == c].mean(0) for c in np.unique(y)])


def index_to_dnc1(index: float, z: np.ndarray, y: np.ndarray) -> float:
    """The dnc1 that a Calinski-Harabasz index says, by the identity above."""
    counts, between = np.bincount(y), np.square(means_of(z, y) - z.mean(0)).sum(1)
    ratio = len(counts) * (counts @ between) / len(y) / between.sum()
    return (len(y) - len(counts)) / ((len(counts) - 1) * index) * ratio


def repeated(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every class as often as makes all of one size."""
    counts = np.bincount(y)
    times = (math.lcm(*counts.tolist()) // counts)[y]
    return np.repeat(z, times, axis=0), np.repeat(y, times)


def scatters(z: np.ndarray, y: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Within- and between-class covariance, d x d, the latter about `centre`."""
    means = means_of(z, y)
    off = z - means[y]
    return off.T @ off / len(z), (means - centre).T @ (means - centre) / len(means)


def zhu_nc1(z: np.ndarray, y: np.ndarray, rtol: float | None = None) -> float:
    """tr(Sigma_W pinv(Sigma_B)) / K about the mean of all samples."""
    within, between = scatters(z, y, z.mean(0))
    return float(np.trace(within @ scipy.linalg.pinv(between, rtol=rtol)) / len(np.unique(y)))


def papyan_nc1(z: np.ndarray, y: np.ndarray) -> float:
    """tr(Sigma_W Sigma_B^-1) in K - 1 singular directions, about the mean of the class means."""
    within, between = scatters(z, y, means_of(z, y).mean(0))
    left, values, _ = np.linalg.svd(between)
    left = left[:, : len(np.unique(y)) - 1]
    return float(np.trace(within @ (left / values[: left.shape[1]]) @ left.T))


def known_rank_nc1(z: np.ndarray, y: np.ndarray, rank: int) -> float:
    """tr(Sigma_W Sigma_B^+) / K about the mean of all samples, in as many directions as are known to be there."""
    means = means_of(z, y)
    directions = np.linalg.svd(means - z.mean(0), full_matrices=False)
    along = (z - means[y]) @ (directions.Vh[:rank] / directions.S[:rank, None]).T
    return float(np.square(along).sum() / len(z))


def papyan_nc3(weight: np.ndarray, z: np.ndarray, y: np.ndarray) -> float:
    """||W / ||W|| - M / ||M|| ||^2, M about the mean of the class means."""
    means = means_of(z, y)
    means = means - means.mean(0)
    return float(np.linalg.norm(weight / np.linalg.norm(weight) - means / np.linalg.norm(means)) ** 2)


def zhu_nc2(rows: np.ndarray) -> float:
    """Distance of the normalised Gram matrix of K rows to that of a simplex."""
    gram, k = rows @ rows.T, len(rows)
    return float(np.linalg.norm(gram / np.linalg.norm(gram) - (np.eye(k) - np.ones((k, k)) / k) / np.sqrt(k - 1)))


def looped_cdnv(z: np.ndarray, y: np.ndarray) -> float:
    means = means_of(z, y)
    variances = [np.mean([np.sum((row - mean) ** 2) for row in z[y == c]]) for c, mean in enumerate(means)]
    pairs = list(combinations(range(len(means)), 2))
    return float(
        sum((variances[a] + variances[b]) / (2 * np.sum((means[a] - means[b]) ** 2)) for a, b in pairs) / len(pairs)
    )


# --- the cases -------------------------------------------------------------------------------------------------------


def two_gaussians(sizes: Sequence[int], within_over_between: float = 5.70, width: int = 8) -> tuple[Tensor, Tensor]:
    """Two classes whose samples have covariance I and a fixed distance exactly: only the sizes differ."""
    generator = np.random.default_rng(0)
    distance = math.sqrt(4 * width / within_over_between)
    parts = []
    for sign, size in zip((-1, 1), sizes, strict=True):
        rows = generator.standard_normal((size, width))
        rows -= rows.mean(0)
        rows = scipy.linalg.solve_triangular(np.linalg.cholesky(rows.T @ rows / size), rows.T, lower=True).T
        rows[:, 0] += sign * distance / 2
        parts.append(rows)
    return torch.from_numpy(np.concatenate(parts)), torch.arange(2).repeat_interleave(torch.tensor(sizes))


def closed_dnc1(sizes: Sequence[int], balanced: float = 5.70) -> float:
    share = sizes[0] / sum(sizes)
    return balanced / (2 * (share**2 + (1 - share) ** 2))


def simplex(spread: float, classes: int = 10, width: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Features about a simplex off the origin, classes of 20 to 200 samples, and the classifier of the simplex."""
    generator = np.random.default_rng(1)
    basis = np.linalg.qr(generator.standard_normal((width, classes))).Q.T
    corners = basis - basis.mean(0)
    y = np.repeat(np.arange(classes), 20 * np.arange(1, classes + 1))
    z = 3 * corners[y] + 0.5 + spread * generator.standard_normal((len(y), width))
    return torch.from_numpy(z), torch.from_numpy(y), torch.from_numpy(corners)


def logits(classes: int, width: int, dtype: torch.dtype, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    """Outputs of a classifier on `width` features, computed in `dtype`: their means span `width` directions."""
    generator = torch.Generator().manual_seed(classes)
    labels = torch.arange(classes).repeat(20)
    means = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(labels), width, generator=generator, dtype=torch.float64)
    weight = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    return (means[labels] + spread * noise).to(dtype) @ weight.to(dtype).T, labels


# --- the rows --------------------------------------------------------------------------------------------------------


def gaussian_rows() -> Iterator[Row]:
    for sizes in ((2000, 2000), (2000, 200), (2000, 20)):
        case = f"two Gaussians, {sizes[0]}:{sizes[1]}"
        features, labels = two_gaussians(sizes)
        ours = {name: float(value) for name, value in layer_metrics(features, labels, 2, nearest=True).items()}
        z, y = features.numpy(), labels.numpy()
        yield Row(case, "dnc1", ours["dnc1"], "closed form", closed_dnc1(sizes))
        index = float(torchmetrics_index(features, labels))
        theirs = index_to_dnc1(index, z, y)
        yield Row(case, "dnc1", ours["dnc1"], "torchmetrics CH, by the identity, float32", theirs, SINGLE)
        yield Row(
            case, "dnc1", ours["dnc1"], "scikit-learn CH, by the identity", index_to_dnc1(sklearn_index(z, y), z, y)
        )
        again, labels_again = repeated(z, y)
        index = sklearn_index(again, labels_again)
        theirs = (len(again) - 2) / index
        yield Row(case, "dnc1_balanced", ours["dnc1_balanced"], "scikit-learn CH, classes repeated", theirs)
        even = sizes[0] == sizes[1]
        peer = "Papyan's, over K" if even else "Papyan's, over K: about the mean of class means"
        yield Row(case, "nc1_pinv", ours["nc1_pinv"], peer, papyan_nc1(z, y) / 2, EXACT if even else None)
        yield Row(case, "nc1_pinv", ours["nc1_pinv"], "Zhu's formula, scipy pinv", zhu_nc1(z, y))
        if sizes == (2000, 200):
            yield Row(case, "cdnv", ours["cdnv"], "loops", looped_cdnv(z, y))
            accuracy = NearestCentroid().fit(z, y).score(z, y)
            yield Row(case, "ncm_accuracy", ours["ncm_accuracy"], "scikit-learn NearestCentroid", accuracy)


def simplex_rows() -> Iterator[Row]:
    for spread in (0.0, 1.5):
        case = f"simplex, K = 10, sizes 20 to 200, {'spread 1.5' if spread else 'collapsed'}"
        features, labels, weight = simplex(spread)
        decisions = (features @ weight.T).argmax(1)
        found = layer_metrics(features, labels, 10, weight=weight, decisions=decisions, nearest=True)
        ours = {name: float(value) for name, value in found.items()}
        z, y, w = features.numpy(), labels.numpy(), weight.numpy()
        means = means_of(z, y)
        nearest = NearestCentroid().fit(z, y)
        if spread:
            peer = "scikit-learn CH, by the identity"
            yield Row(case, "dnc1", ours["dnc1"], peer, index_to_dnc1(sklearn_index(z, y), z, y))
        # About equal rows scipy's pinv would take rounding for directions: nine are known to be there.
        yield Row(case, "nc1_pinv", ours["nc1_pinv"], "Zhu's formula, scipy pinv", zhu_nc1(z, y, 1e-10))
        yield Row(case, "cdnv", ours["cdnv"], "loops", looped_cdnv(z, y))
        yield Row(
            case, "nc2_simplex", ours["nc2_simplex"], "Zhu's formula, of the means", zhu_nc2(means - means.mean(0))
        )
        yield Row(
            case, "nc3_duality", ours["nc3_duality"] ** 2, "Papyan's, the square: ours squared", papyan_nc3(w, z, y)
        )
        agreed = nearest.score(z, y)
        yield Row(case, "ncm_accuracy", ours["ncm_accuracy"], "scikit-learn NearestCentroid", agreed)
        missed = float(np.mean(nearest.predict(z) != decisions.numpy()))
        yield Row(case, "nc4", ours["nc4"], "scikit-learn NearestCentroid", missed)


def logit_rows() -> Iterator[Row]:
    for classes, width in ((100, 8), (10, 4)):
        exact = logits(classes, width, torch.float64)[0].numpy()
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.02)):
            case = f"logits, K = {classes}, d = {width}, {str(dtype).removeprefix('torch.')}"
            features, labels = logits(classes, width, dtype)
            ours = {name: float(value) for name, value in layer_metrics(features, labels, classes).items()}
            z, y = features.double().numpy(), labels.numpy()
            value = ours["nc1_pinv"]
            yield Row(case, "nc1_pinv", value, f"numpy SVD, {width} directions", known_rank_nc1(z, y, width))
            peer = "Zhu's formula, scipy pinv, logits in float64"
            yield Row(case, "nc1_pinv", value, peer, zhu_nc1(exact, y, 1e-12), tolerance)
            peer = f"numpy SVD, {classes - 1} directions: rounding taken for directions"
            yield Row(case, "nc1_pinv", value, peer, known_rank_nc1(z, y, classes - 1), None)
            rank = np.linalg.matrix_rank(means_of(exact, y) - exact.mean(0), rtol=1e-10)
            yield Row(case, "effective_rank", ours["effective_rank"], "numpy matrix_rank, logits in float64", rank, 0.0)
            peer = "numpy cond: rounding taken for directions"
            yield Row(case, "dnc2", ours["dnc2"], peer, np.linalg.cond(means_of(z, y)), None)


def table(rows: Sequence[Row]) -> str:
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the table to this markdown file")
    options = parser.parse_args(arguments)
    rows = [*gaussian_rows(), *simplex_rows(), *logit_rows()]
    text = table(rows)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    wrong = [row for row in rows if not row.agrees]
    for row in wrong:
        print(f"{row.case}: {row.metric} is {row.ours:g}, {row.peer} says {row.theirs:g}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
