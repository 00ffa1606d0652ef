"""Cross-entropy: its formula, published trajectories, and what its collapse is."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline import dufm
from pipeline.config import Config
from pipeline.dufm.descent import Descent
from pipeline.dufm.objectives import load_objective
from pipeline.dufm.verdict import judge
from pipeline.measure.heads import measure_head
from pipeline.metrics import layer_metrics

CROSS_ENTROPY = load_objective("cross_entropy")


def test_it_is_the_mean_negative_log_probability_of_the_label():
    outputs = 5 * torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 0, 2])
    expected = torch.stack([F.cross_entropy(rows, labels) for rows in outputs])
    torch.testing.assert_close(CROSS_ENTROPY.value(outputs, F.one_hot(labels).double()), expected, rtol=1e-14, atol=0)


def engine_start(widths: list[int], counts: list[int]) -> tuple[Tensor, list[Tensor], Tensor]:
    """H[i,a] = .5 sin(1.3 i + .7 a + .1), W_l[o,a] = .4 cos(.9 o + 1.1 a + l), samples by class."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))

    def grid(rows: int, columns: int) -> tuple[Tensor, Tensor]:
        axes = (torch.arange(size, dtype=torch.float64) for size in (rows, columns))
        return torch.meshgrid(*axes, indexing="ij")

    i, a = grid(len(labels), widths[0])
    features = 0.5 * torch.sin(1.3 * i + 0.7 * a + 0.1)
    weights = []
    for layer, (fan_in, fan_out) in enumerate(zip(widths, [*widths[1:], len(counts)], strict=True), start=1):
        o, a = grid(fan_out, fan_in)
        weights.append(0.4 * torch.cos(0.9 * o + 1.1 * a + layer))
    return features[None], weights, labels


@pytest.mark.parametrize(
    ("widths", "activation", "decays", "nonnegative", "values"),
    [
        ([5, 5], "linear", (1e-3, 2e-3), False, [1.04562294069, 1.03055943549, 0.020888808445, 0.0193541676096]),
        ([5, 6, 5], "relu", (1e-3, 2e-3, 3e-3), False, [1.12135695295, 1.11824391742, 0.384351231164, 0.275480047871]),
        ([5], "relu", (1e-3,), True, [1.11466113354, 1.09876103318, 0.267861163558, 0.261823462253]),
    ],
)
def test_descent_follows_the_known_trajectories(widths, activation, decays, nonnegative, values):
    features, weights, labels = engine_start(widths, [4, 3, 2])
    constraint = (lambda rows: rows.clamp_(min=0)) if nonnegative else None
    if nonnegative:
        features = features.clamp(min=0)
    descent = Descent(
        features,
        weights,
        labels,
        num_classes=3,
        lr=0.5,
        weight_decay=torch.tensor(decays, dtype=torch.float64),
        feature_decay=5e-4,
        activation=activation,
        loss=CROSS_ENTROPY,
        constraint=constraint,
    )
    found = []
    for stop in (0, 1, 100, 300):
        descent.advance(stop - descent.step)
        found.append(descent.objective().total.item())
    assert found == pytest.approx(values, rel=1e-9)


def simplex(num_classes: int) -> Tensor:
    return torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes


def collapsed_head(num_classes: int, depth: int, activation: str) -> tuple[Tensor, list[Tensor], Tensor]:
    """A collapsed state: a simplex in every layer of a linear head, orthogonal hidden means under ReLU."""
    labels = torch.arange(num_classes).repeat(3)
    eye = torch.eye(num_classes, dtype=torch.float64)
    hidden = simplex(num_classes) if activation == "linear" or depth == 1 else eye
    return hidden[labels], [hidden[None]] * (depth - 1) + [7 * simplex(num_classes)[None]], labels


def judged(head: tuple[Tensor, list[Tensor], Tensor], activation: str) -> dict:
    features, weights, labels = head
    layers = [
        {"layer": int(at.layer), "tap": at.tap} | {name: value.tolist() for name, value in at.values.items()}
        for at in measure_head(features, weights, labels, weights[-1].shape[-2], activation)
    ]
    return judge(CROSS_ENTROPY, layers, [], Config().thresholds_of(CROSS_ENTROPY), None)


@pytest.mark.parametrize("activation", ["relu", "linear"])
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("num_classes", [2, 4, 10])
def test_simplex_means_and_a_last_weight_dual_to_them_are_collapse_and_frames_are_not_asked_for(
    num_classes, depth, activation
):
    verdict = judged(collapsed_head(num_classes, depth, activation), activation)
    assert verdict["collapsed"] and set(verdict["holds_from_layer"]) == {"dnc1", "nc2_simplex", "nc3_duality"}
    last = verdict["layers"][-1]
    assert last["nc2_simplex"]["value"] < 1e-12 and last["nc3_duality"]["value"] < 1e-12
    assert not any(
        place[metric] and place[metric]["theorem"] for place in verdict["layers"] for metric in ("dnc2", "dnc3")
    )
    if activation == "linear" or depth == 1:
        assert not last["dnc2"]["collapsed"]  # dependent means


def test_a_last_weight_that_is_not_dual_to_the_means_is_no_collapse():
    features, weights, labels = collapsed_head(4, 2, "relu")
    verdict = judged((features, [weights[0], weights[1].flip(-1)], labels), "relu")
    assert verdict["collapsed_from_layer"] is None
    assert "NC3_DUALITY nowhere" in verdict["text"]


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_at_perfect_collapse_rows_of_the_last_weight_lie_between_orthogonal_means(num_classes):
    features, weights, labels = collapsed_head(num_classes, 2, "relu")
    found = layer_metrics(features, labels, num_classes, weights[-1][0])["dnc3"].item()
    assert found == pytest.approx(math.sqrt(1 / num_classes), rel=1e-9)  # 0.707, 0.316, 0.1


def test_descent_of_a_single_layer_ends_at_the_collapsed_state():
    sources = [torch.Generator().manual_seed(seed) for seed in range(2)]
    features, weights = dufm.initial_features(20, 6, sources), dufm.initial_weights([6], 4, sources)
    labels = torch.arange(4).repeat(5)
    descent = Descent(
        features, weights, labels, num_classes=4, lr=2.0, weight_decay=2e-2, feature_decay=2e-3, loss=CROSS_ENTROPY
    )
    descent.advance(20_000)
    verdict = judged((descent.features, descent.weights, labels), "relu")
    assert verdict["collapsed"]
    assert max(verdict["layers"][0][name]["value"] for name in ("dnc1", "nc2_simplex", "nc3_duality")) < 1e-3
    # (S) of one layer: log(1 + (K-1) e^-alpha) + (K-1) alpha sqrt(n lambda_W lambda_H), at its smallest.
    scale = torch.linspace(0, 20, 200_001, dtype=torch.float64)
    cheapest = (torch.log1p(3 * torch.exp(-scale)) + 3 * scale * math.sqrt(5 * 2e-2 * 2e-3)).min().item()
    assert descent.objective().total.tolist() == pytest.approx([cheapest] * 2, rel=1e-6)


TINY = ["logger=none", "record.figures=false", "trainer.accelerator=cpu", "trainer.threads=1", "descent.seeds=2"]


def test_a_fixed_head_needs_a_closed_form(run_here):
    code, error, left = run_here(*TINY, "protocol=fixed_head", "head.loss=cross_entropy")
    assert code == 2 and left == []
    assert "head.loss=cross_entropy has no closed form" in error and error.strip().endswith("allowed: mse.")


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        ("{nc2_simplx: 0.2}", "did you mean nc2_simplex"),
        ("{dnc1: 0.2}", "allowed: verdict.dnc1"),
        ("{nc2_simplex: 0}", "allowed: a finite number > 0"),
        ("{nc2_simplex: wide}", "allowed: a finite number > 0"),
        ("3", "allowed: {metric: number, ...}, or null"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused_in_a_sentence(run_here, thresholds, words):
    code, error, left = run_here(*TINY, "protocol=dufm", f"verdict.thresholds={thresholds}")
    assert code == 2 and left == [] and words in error
