"""The metrics' definitions written out once more: numpy, loops over samples, d x d matrices, nothing shared."""

import math
from fractions import Fraction
from itertools import combinations

import numpy as np


def class_means(z: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    means = np.zeros((k, z.shape[1]))
    for c in range(k):
        members = [z[i] for i in range(len(z)) if y[i] == c]
        means[c] = sum(members) / len(members)
    return means


def covariances(z: np.ndarray, y: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    means, overall = class_means(z, y, k), sum(z) / len(z)
    within = sum(np.outer(z[i] - means[y[i]], z[i] - means[y[i]]) for i in range(len(z))) / len(z)
    between = sum(np.outer(means[c] - overall, means[c] - overall) for c in range(k)) / k
    return within, between


def dnc1(z: np.ndarray, y: np.ndarray, k: int) -> float:
    within, between = covariances(z, y, k)
    return np.trace(within) / np.trace(between)


def nc1_pinv(z: np.ndarray, y: np.ndarray, k: int) -> float:
    within, between = covariances(z, y, k)
    values, vectors = np.linalg.eigh(between)
    pseudo_inverse = sum(
        np.outer(vectors[:, -i], vectors[:, -i]) / values[-i] for i in range(1, min(k, len(values) + 1))
    )
    return np.trace(within @ pseudo_inverse) / k


def cdnv(z: np.ndarray, y: np.ndarray, k: int) -> float:
    means = class_means(z, y, k)
    variances = [np.mean([np.sum((z[i] - means[c]) ** 2) for i in range(len(z)) if y[i] == c]) for c in range(k)]
    pairs = list(combinations(range(k), 2))
    return sum((variances[a] + variances[b]) / (2 * np.sum((means[a] - means[b]) ** 2)) for a, b in pairs) / len(pairs)


def dnc2(z: np.ndarray, y: np.ndarray, k: int) -> float:
    values = np.linalg.svd(class_means(z, y, k).T, compute_uv=False)
    return values[0] / values[k - 1]


def nc2_frame(z: np.ndarray, y: np.ndarray, k: int) -> float:
    m = class_means(z, y, k).T
    return np.linalg.norm(m.T @ m / np.linalg.norm(m.T @ m) - np.eye(k) / math.sqrt(k))


def nc2_simplex(z: np.ndarray, y: np.ndarray, k: int) -> float:
    m = class_means(z, y, k).T
    m = m - m.mean(axis=1, keepdims=True)
    return np.linalg.norm(m.T @ m / np.linalg.norm(m.T @ m) - (np.eye(k) - 1 / k) / math.sqrt(k - 1))


def dnc3(w: np.ndarray, z: np.ndarray, y: np.ndarray, k: int) -> float:
    means = class_means(z, y, k)
    total = weights = 0.0
    for row in w:
        cosines = [abs(row @ m) / (np.linalg.norm(row) * np.linalg.norm(m)) for m in means]
        total += row @ row * math.sin(math.acos(min(1.0, max(cosines))))
        weights += row @ row
    return total / weights


def nc3_duality(w: np.ndarray, z: np.ndarray, y: np.ndarray, k: int) -> float:
    centred = class_means(z, y, k)
    centred = centred - centred.mean(0)
    return np.linalg.norm(w / np.linalg.norm(w) - centred / np.linalg.norm(centred))


def nc4(z: np.ndarray, y: np.ndarray, decisions: np.ndarray, k: int) -> float:
    means = class_means(z, y, k)
    nearest = [min(range(k), key=lambda c: np.sum((z[i] - means[c]) ** 2)) for i in range(len(z))]
    return sum(nearest[i] != decisions[i] for i in range(len(z))) / len(z)


def dnc1_balanced(z: np.ndarray, y: np.ndarray, k: int) -> float:
    means = class_means(z, y, k)
    within = sum(sum(np.sum((row - means[c]) ** 2) for row in z[y == c]) / np.sum(y == c) for c in range(k)) / k
    return within / (sum(np.sum((mean - sum(means) / k) ** 2) for mean in means) / k)


def effective_rank(z: np.ndarray, y: np.ndarray, k: int) -> float:
    centred = class_means(z, y, k) - z.mean(0)
    values = np.linalg.svd(centred, compute_uv=False)
    return float(min(k - 1, sum(value > 1e-10 * values[0] for value in values)))


def stable_rank(a: np.ndarray) -> float:
    return np.sum(a**2) / np.linalg.norm(a, 2) ** 2


def rank(a: np.ndarray) -> float:
    values = np.linalg.svd(a, compute_uv=False)
    return float(sum(value > 1e-3 * values[0] for value in values))


def balancedness(w: np.ndarray, following: np.ndarray) -> float:
    return np.linalg.norm(following.T @ following - w @ w.T) / np.linalg.norm(w @ w.T)


def exact_dnc1_and_cdnv(z: np.ndarray, y: np.ndarray, k: int) -> tuple[float, float]:
    """Both in rational arithmetic: no rounding at all until the last step."""
    rows = [[Fraction(float(value)) for value in row] for row in z]
    groups = [[row for row, label in zip(rows, y, strict=True) if label == c] for c in range(k)]
    means = [_mean(group) for group in groups]
    overall = _mean(rows)
    scatters = [sum(_distance(row, mean) for row in group) for group, mean in zip(groups, means, strict=True)]
    within = sum(scatters) / len(rows)
    between = sum(_distance(mean, overall) for mean in means) / k
    variances = [scatter / len(group) for scatter, group in zip(scatters, groups, strict=True)]
    pairs = list(combinations(range(k), 2))
    ratios = sum((variances[a] + variances[b]) / (2 * _distance(means[a], means[b])) for a, b in pairs)
    return float(within / between), float(ratios / len(pairs))


def _mean(rows: list[list[Fraction]]) -> list[Fraction]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def _distance(a: list[Fraction], b: list[Fraction]) -> Fraction:
    return sum(((p - q) ** 2 for p, q in zip(a, b, strict=True)), start=Fraction(0))
