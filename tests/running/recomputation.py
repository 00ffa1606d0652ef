"""Runs as real processes, and their numbers recomputed with numpy from what they leave."""

import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from commands import dnc
from safetensors.numpy import load_file

from pipeline.metrics.registry import metrics

GROUPS = ("data", "backbone", "optimizer", "head", "descent", "protocol", "trainer", "logger")


def sweep(jobs: Mapping[str, Sequence[str]], *common: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run jobs of ``key=value`` and ``group=choice`` one after another in one process, in ``cwd/<name>`` each.

    Each is an experiment file of the user's own (``--config-dir``). A job that fails does not keep the others from
    running: whether one completed stands in its summary.
    """
    folder = cwd / "my conf" / "experiment"
    folder.mkdir(parents=True)
    for name, job in jobs.items():
        defaults, settings = [], {}
        for key, _, value in (argument.partition("=") for argument in job):
            if key in GROUPS:
                defaults.append({f"override /{key}": value})
                continue
            *parents, last = key.split(".")
            node = settings
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = yaml.safe_load(value)
        content = yaml.safe_dump({"defaults": defaults, **settings}, sort_keys=False)
        (folder / f"{name}.yaml").write_text(f"# @package _global_\n{content}")
    return dnc(
        *["--config-dir", str(folder.parent), "--multirun", f"experiment={','.join(jobs)}", *common],
        *["hydra.sweep.dir=.", "hydra.sweep.subdir=${hydra:runtime.choices.experiment}"],
        cwd=cwd,
        check=False,
    )


def summary_of(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def record_of(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "record.csv", dtype={"layer": str}, keep_default_na=False, na_values={"value": ["nan"]})


def assert_same_course(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """Two records have the same rows, and losses and metrics of collapse that float32 has not parted too far.

    Gradients are float32 sums in another order, and everything after them is float64: before training to 1e-10,
    afterwards to a thousandth. How near to each other such trainings have to be, test_ranks_agree.py says.
    """
    where = ["stage", "step", "seed", "layer", "tap", "metric"]
    assert ours[where].equals(theirs[where])
    collapse = {metric.name for metric in metrics().values() if metric.panel}
    shown = theirs.metric.isin({"train_loss", "loss", "fit"} | collapse)
    untrained = shown & (theirs.stage == "backbone") & (theirs.step == 0)
    assert untrained.any()
    np.testing.assert_allclose(ours.value[untrained], theirs.value[untrained], rtol=1e-10)
    np.testing.assert_allclose(ours.value[shown], theirs.value[shown], rtol=1e-3)


def assert_same_features(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal up to float32 rounding, which is relative to the terms of a sum: to the largest feature, not to each."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def layers_of(weights: Mapping[str, np.ndarray], features: np.ndarray, depth: int, seed: int = 0) -> dict:
    """What enters every weight matrix: (layer, tap) -> (N, d)."""
    hidden = features[seed] if features.ndim == 3 else features
    layers = {(1, "pre"): hidden}
    for layer in range(2, depth + 1):
        hidden = hidden @ weights[f"weights/{layer - 1}"][seed].T
        layers[layer, "pre"] = hidden
        hidden = np.maximum(hidden, 0)
        layers[layer, "post"] = hidden
    return layers


def class_means(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([features[labels == label].mean(axis=0) for label in np.unique(labels)])


def brute_force(features: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """dnc1 and dnc2 from their definitions, in loops."""
    means = class_means(features, labels)
    within = sum(np.sum((z - means[c]) ** 2) for z, c in zip(features, labels, strict=True)) / len(labels)
    between = sum(np.sum((mean - features.mean(axis=0)) ** 2) for mean in means) / len(means)
    singular = np.linalg.svd(means.T, compute_uv=False)
    return within / between, singular[0] / singular[len(means) - 1]


def sines(weight: np.ndarray, features: np.ndarray, labels: np.ndarray) -> float:
    """dnc3 from its definition."""
    means = class_means(features, labels)
    total = 0.0
    for row in weight:
        if np.any(row):
            cosines = [abs(row @ m) / np.linalg.norm(row) / np.linalg.norm(m) for m in means if np.any(m)]
            total += row @ row * math.sqrt(max(0.0, 1 - max(cosines) ** 2))
    return total / np.sum(weight**2)


def nearest_mean_accuracy(
    features: np.ndarray, labels: np.ndarray, train_features: np.ndarray, train_labels: np.ndarray
) -> float:
    """ncm_accuracy from its definition: the means are those of the training split."""
    means = class_means(train_features, train_labels)
    distances = np.linalg.norm(features[:, None] - means[None], axis=2)
    return float(np.mean(distances.argmin(axis=1) == labels))


def collapsed_value(num_classes: int, samples: int, weight_decays: Sequence[float], feature_decay: float) -> float:
    """Loss of the DUFM's collapsed solution from its defining equation, by bisection: (1-q) q^((L-1)/(L+1)) = K c."""
    depth = len(weight_decays)
    c = (samples * feature_decay * math.prod(weight_decays)) ** (1 / (depth + 1))
    low, high = (depth - 1) / (2 * depth), 1.0  # the left side falls from its maximum to 0
    for _ in range(200):
        q = (low + high) / 2
        low, high = (q, high) if (1 - q) * q ** ((depth - 1) / (depth + 1)) > num_classes * c else (low, q)
    return (1 - q) ** 2 / 2 + num_classes * (depth + 1) / 2 * c * q ** (2 / (depth + 1))


def assert_summary_is_recomputed_from_tensors(run: Path) -> None:
    summary, tensors = summary_of(run), load_file(run / "tensors.safetensors")
    labels, depth = tensors["labels"], summary["problem"]["depth"]
    for seed in range(len(summary["seeds"])):
        layers = layers_of(tensors, tensors["features/1"], depth, seed)
        assert {(row["layer"], row["tap"]) for row in summary["layers"]} == set(layers)
        for row in summary["layers"]:
            features = layers[row["layer"], row["tap"]]
            dnc1, dnc2 = brute_force(features, labels)
            assert row["dnc1"][seed] == pytest.approx(dnc1, rel=1e-9)
            assert row["dnc2"][seed] == pytest.approx(dnc2, rel=1e-9)
            accuracy = nearest_mean_accuracy(features, labels, features, labels)
            assert row["ncm_accuracy"][seed] == pytest.approx(
                accuracy, abs=1.01 / len(labels)
            )  # a tie may go both ways
            if row["layer"] == 1 or row["tap"] == "post":
                expected = sines(tensors[f"weights/{row['layer']}"][seed], features, labels)
                # A sine from its cosine is known to the root of the rounding.
                assert row["dnc3"][seed] == pytest.approx(expected, rel=1e-6, abs=1e-7)
            else:
                assert row["dnc3"] is None
        *_, last = layers.values()
        outputs = last @ tensors[f"weights/{depth}"][seed].T
        fit = np.sum((outputs - np.eye(outputs.shape[1])[labels]) ** 2) / (2 * len(labels))
        decays = summary["problem"]["weight_decay"]
        total = fit + sum(
            decay / 2 * np.sum(tensors[f"weights/{layer}"][seed] ** 2) for layer, decay in enumerate(decays, start=1)
        )
        if summary["problem"]["feature_decay"] is not None:
            total += summary["problem"]["feature_decay"] / 2 * np.sum(layers[1, "pre"] ** 2)
        assert summary["loss"]["fit"][seed] == pytest.approx(fit, rel=1e-9)
        assert summary["loss"]["total"][seed] == pytest.approx(total, rel=1e-9)
        assert summary["accuracy"]["train"][seed] == np.mean(outputs.argmax(axis=1) == labels)
