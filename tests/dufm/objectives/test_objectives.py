"""Every registered objective keeps what `Objective` promises; nothing here names one."""

import pytest
import torch
from torch import Tensor

from pipeline import dufm
from pipeline.config import Config, OptimizerConfig, VerdictConfig
from pipeline.dufm import descent_native, initial_features, initial_weights
from pipeline.dufm.descent import Descent
from pipeline.dufm.objectives import Objective, known_objectives, load_objective
from pipeline.dufm.verdict import judge, promises
from pipeline.measure.heads import measure_head
from pipeline.networks import build_backbone
from pipeline.runs.training.learners import Classifier, DufmNetwork, DufmPenalty
from pipeline.runtime.randomness import generator
from pipeline.theory import DufmProblem

MEMBERS, SAMPLES, NUM_CLASSES = 3, 14, 4
LABELS = torch.tensor([0, 1, 2, 3, 0, 0, 1, 2, 3, 3, 1, 0, 2, 2])
SGD = OptimizerConfig(name="sgd")
PROBLEMS = [
    DufmProblem(2, 5, 1, 1e-2, 1e-2),
    DufmProblem(2, 3, 3, (1e-3, 2e-3, 3e-3), 5e-3),
    DufmProblem(3, 4, 2, 3e-3, 1e-2),
    DufmProblem(5, 1, 4, 1e-3, 1e-3),
    DufmProblem(2, 50, 3, 0.055, 0.055),  # between threshold and fold
    DufmProblem(3, 1, 2, 1.0, 1.0),  # far beyond
]


@pytest.fixture(params=known_objectives())
def objective(request) -> Objective:
    return load_objective(request.param)


@pytest.fixture
def outputs() -> Tensor:
    return 3 * torch.randn(MEMBERS, SAMPLES, NUM_CLASSES, generator=generator(0, "outputs"), dtype=torch.float64)


def targets_of(labels: Tensor = LABELS) -> Tensor:
    return dufm.one_hot(labels, NUM_CLASSES, torch.float64)


def test_the_gradient_in_place_is_that_of_the_value(objective, outputs):
    outputs.requires_grad_()
    (expected,) = torch.autograd.grad(objective.value(outputs, targets_of()).sum(), outputs)
    found = outputs.detach().mT.contiguous().mT  # as descent passes it: rows are not contiguous
    objective.gradient_(found, targets_of())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_the_value_on_a_batch_of_all_samples_is_the_value_and_so_is_its_gradient(objective, outputs):
    whole = objective.value(outputs, targets_of())
    assert whole.shape == (MEMBERS,)
    for member, rows in enumerate(outputs):
        leaf = rows.clone().requires_grad_()
        value = objective.on_batch(leaf, LABELS)
        torch.testing.assert_close(value.detach(), whole[member], rtol=1e-12, atol=0)
        (gradient,) = torch.autograd.grad(value, leaf)
        expected = rows[None].clone()
        objective.gradient_(expected, targets_of())
        torch.testing.assert_close(gradient, expected[0], rtol=1e-12, atol=1e-15)


def test_the_order_of_samples_and_of_classes_does_not_matter(objective, outputs):
    value = objective.value(outputs, targets_of())
    samples, classes = (torch.randperm(size, generator=generator(1, "order")) for size in (SAMPLES, NUM_CLASSES))
    torch.testing.assert_close(objective.value(outputs[:, samples], targets_of()[samples]), value)
    torch.testing.assert_close(objective.value(outputs[..., classes], targets_of()[:, classes]), value)


def test_a_member_is_as_if_it_were_alone(objective, outputs):
    together, gradients = objective.value(outputs, targets_of()), outputs.clone()
    objective.gradient_(gradients, targets_of())
    for member in range(MEMBERS):
        alone = outputs[member : member + 1].clone()
        torch.testing.assert_close(objective.value(alone, targets_of())[0], together[member], rtol=1e-14, atol=0)
        objective.gradient_(alone, targets_of())
        torch.testing.assert_close(alone[0], gradients[member], rtol=1e-14, atol=1e-16)


def test_large_outputs_and_single_precision_stay_finite(objective):
    outputs = 1e3 * torch.randn(2, SAMPLES, NUM_CLASSES, generator=generator(2, "large"))
    targets = targets_of().float()
    assert objective.value(outputs, targets).isfinite().all() and objective.on_batch(outputs[0], LABELS).isfinite()
    objective.gradient_(outputs, targets)
    assert outputs.dtype == torch.float32 and outputs.isfinite().all()


def start(depth: int = 3) -> tuple[Tensor, list[Tensor]]:
    sources = [generator(seed, "start") for seed in range(MEMBERS)]
    widths = [6] * depth
    return initial_features(SAMPLES, 6, sources), initial_weights(widths, NUM_CLASSES, sources)


def test_descent_follows_autograd_of_the_objective(objective):
    features, weights = start()
    settings = {"num_classes": NUM_CLASSES, "lr": 0.1, "weight_decay": 1e-3, "feature_decay": 2e-3}
    descent = Descent(features, weights, LABELS, **settings, loss=objective)
    descent.advance(20)
    moving = [tensor.clone().requires_grad_() for tensor in (features, *weights)]
    for _ in range(20):
        total = dufm.objective(moving[0], moving[1:], LABELS, 1e-3, 2e-3, loss=objective).total.sum()
        with torch.no_grad():
            for tensor, gradient in zip(moving, torch.autograd.grad(total, moving), strict=True):
                tensor -= 0.1 * gradient
    for found, expected in zip((descent.features, *descent.weights), moving, strict=True):
        torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-12)


@pytest.mark.skipif(descent_native.library() is None, reason="no working C++ compiler")
def test_the_kernel_takes_what_it_knows_and_refuses_the_rest_by_its_title(objective):
    features, weights = start()
    settings = {"num_classes": NUM_CLASSES, "lr": 0.1, "weight_decay": 1e-3, "feature_decay": 2e-3, "loss": objective}
    descent = Descent(features, weights, LABELS, **settings)
    knows = objective.kernel in descent_native.OBJECTIVES
    assert objective.kernel is None or knows
    assert descent.backend == ("native" if knows else "torch")
    if not knows:
        assert objective.title in descent.why_not_native
        with pytest.raises(ValueError, match=objective.title):
            Descent(features, weights, LABELS, **settings, backend="native")


def test_a_subclass_is_not_taken_for_what_the_kernel_knows(objective):
    changed = type("Changed", (type(objective),), {})
    assert changed().kernel is None


def test_joint_training_and_descent_minimise_the_same_number(objective):
    weights = initial_weights([6, 5], NUM_CLASSES, [generator(0, "joint")])
    penalty = DufmPenalty((1e-2, 3e-2), 1e-3, num_samples=SAMPLES)
    backbone = build_backbone("mlp", (1, 4, 4), hidden=[6])
    learner = DufmNetwork(backbone, [weight[0] for weight in weights], "relu", objective, penalty, SGD, 1).double()
    with torch.no_grad():
        images = torch.randn(SAMPLES, 1, 4, 4, generator=generator(1, "joint"), dtype=torch.float64)
        features, found = backbone(images), learner(images, LABELS)
        decays = torch.tensor(penalty.weight_decays, dtype=torch.float64)
        expected = dufm.objective(features, learner.weights, LABELS, decays, 1e-3, "relu", objective).total
    torch.testing.assert_close(found, expected[0], rtol=1e-12, atol=0)


def test_a_classifier_is_trained_with_the_same_definition(objective, outputs):
    learner = Classifier(build_backbone("mlp", (1, 4, 4), hidden=[6]), NUM_CLASSES, objective, SGD, 1, 0)
    found = learner.objective(torch.empty(SAMPLES, 6), outputs[0], LABELS)
    torch.testing.assert_close(found, objective.value(outputs[:1], targets_of())[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("nonnegative", [False, True])
def test_the_point_of_every_reference_has_its_value_and_its_ranks(objective, problem, nonnegative):
    for reference in objective.references(problem):
        if reference.construct is None:
            continue
        widths = [problem.num_classes + 2 + layer for layer in range(problem.depth)]
        point = reference.construct(widths, generator(0, "point"), nonnegative_features=nonnegative)
        decays = torch.tensor(problem.weight_decays, dtype=torch.float64)
        value = dufm.objective(*_arguments(point), decays, problem.feature_decay, "relu", objective).total
        assert value.item() == pytest.approx(reference.value, rel=1e-12, abs=0)
        places = dufm.layer_taps(point.features, point.weights)
        ranks = [int(torch.linalg.matrix_rank(rows)) for _, _, rows in places]
        assert tuple(ranks) == reference.ranks and reference.is_zero == (not any(ranks))
        assert not nonnegative or point.features.min() >= 0


def _arguments(point) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    return point.features, point.weights, point.labels


@pytest.mark.parametrize("activation", list(dufm.ACTIVATIONS))
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_collapse_is_made_of_metrics_that_are_recorded_wherever_they_are_promised(objective, depth, activation):
    features, weights = start(depth)
    promised = set()
    for at in measure_head(features, weights, LABELS, NUM_CLASSES, activation):
        for promise in objective.collapse:
            if promises(objective, int(at.layer), at.tap, promise.metric, depth):
                assert promise.metric in at.values
                promised.add(promise.metric)
    assert promised or depth == 1


def test_every_metric_of_collapse_has_a_threshold(objective):
    keys = {name for name in vars(VerdictConfig()) if name != "thresholds"}
    thresholds = Config().thresholds_of(objective)
    assert keys <= set(thresholds)
    for promise in objective.collapse:
        assert (promise.metric in keys) == (promise.threshold is None)
        assert thresholds[promise.metric] > 0
    changed = Config(verdict=VerdictConfig(thresholds={"cdnv": 0.3})).thresholds_of(objective)
    assert changed == thresholds | {"cdnv": 0.3}


def test_what_is_not_covered_is_said_in_words(objective):
    reasons = [objective.not_covered(k, depth, "relu") for k in (2, 3) for depth in (1, 2)]
    assert all(reason is None or reason.strip() for reason in reasons)
    assert objective.title and objective.collapse


def test_optima_that_theory_constructs_are_judged_collapsed(objective):
    for problem in PROBLEMS:
        for reference in objective.references(problem):
            if reference.kind != "optimum" or reference.is_zero:
                continue
            point = reference.construct([problem.num_classes + 1] * problem.depth, generator(0, "optimum"))
            weights = [weight[None] for weight in point.weights]
            layers = [
                {"layer": int(at.layer), "tap": at.tap} | {name: value.tolist() for name, value in at.values.items()}
                for at in measure_head(point.features, weights, point.labels, problem.num_classes, "relu")
            ]
            verdict = judge(objective, layers, [], Config().thresholds_of(objective), None)
            assert verdict["collapsed"], (problem, verdict["text"])


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=f"objective='mean' is not known; allowed: {', '.join(known_objectives())}"):
        load_objective("mean")
