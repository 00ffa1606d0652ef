"""The C++ kernel takes the steps of the PyTorch engine: cross-entropy and features without negative entries too."""

import math

import pytest
import torch
from torch import Tensor

from pipeline.dufm import descent_native, initial_features, initial_weights, pace
from pipeline.dufm.constraints import Constraint
from pipeline.dufm.cost import Anchor
from pipeline.dufm.descent import Descent
from pipeline.dufm.objectives.cross_entropy import CrossEntropy
from pipeline.dufm.objectives.mse import MeanSquaredError
from pipeline.runtime.randomness import generator

pytestmark = pytest.mark.skipif(descent_native.library() is None, reason="no working C++ compiler")

MEMBERS = 3
LOSSES = {"mse": MeanSquaredError, "cross_entropy": CrossEntropy}


def descent(
    backend: str,
    loss: str = "cross_entropy",
    constraint: str = "none",
    widths: tuple[int, ...] = (7, 9),
    classes: int = 4,
    samples: int = 21,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    **more,
) -> Descent:
    sources = [generator(seed + member, "features") for member in range(MEMBERS)]
    features = initial_features(samples, widths[0], sources, dtype=dtype)
    sources = [generator(seed + member, "weights") for member in range(MEMBERS)]
    weights = initial_weights(widths, classes, sources, dtype=dtype)
    labels = torch.arange(samples).square() % classes
    settings = {"lr": torch.tensor([0.05, 0.1, 0.2], dtype=torch.float64), "weight_decay": 1e-3, "feature_decay": 2e-3}
    settings |= {"labels": labels, "num_classes": classes, "loss": LOSSES[loss]()}
    settings |= {"constraint": Constraint.named(constraint), "backend": backend} | more
    return Descent(features, weights, **settings)


def furthest(found: Descent, wanted: Descent) -> float:
    """Largest difference of an entry, relative to the largest entry of its tensor and member."""
    pairs = zip([found.features, *found.weights], [wanted.features, *wanted.weights], strict=True)
    return max(float(((a - b).abs().amax((-2, -1)) / b.abs().amax((-2, -1))).max()) for a, b in pairs)


def assert_same_steps(steps: int = 12, **problem) -> None:
    """Each native step against the PyTorch step from the same place."""
    native, plain = descent("native", **problem), descent("torch", **problem)
    assert furthest(native, plain) == 0
    for _ in range(steps):
        plain.load_state_dict(native.state_dict())
        native.advance(1)
        plain.advance(1)
        assert furthest(native, plain) < 1e-12


SHAPES = [((5,), 1, 9), ((5,), 2, 9), ((3, 4), 3, 130), ((9, 20, 6), 7, 40), ((8, 8), 8, 16), ((17, 2), 9, 150)]
SHAPES += [((6, 5, 4), 10, 30), ((4,), 17, 34), ((33, 16), 26, 52)]


@pytest.mark.parametrize(("widths", "classes", "samples"), SHAPES)
@pytest.mark.parametrize("constraint", ["none", "nonnegative"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_step_is_that_of_pytorch(loss, constraint, widths, classes, samples):
    for seed, momentum, activation in ((0, 0.0, "relu"), (5, 0.9, "relu"), (9, 0.0, "linear")):
        assert_same_steps(
            loss=loss,
            constraint=constraint,
            widths=widths,
            classes=classes,
            samples=samples,
            seed=seed,
            momentum=momentum,
            activation=activation,
        )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_probabilities_and_frozen_features_descend_alike(momentum):
    targets = torch.rand(21, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(dim=-1)
    for activation in ("relu", "linear"):
        assert_same_steps(labels=None, targets=targets, momentum=momentum, activation=activation)
    assert_same_steps(feature_decay=None, momentum=momentum)


def test_features_without_negative_entries_stay_so_and_reach_zero():
    found = descent("native", constraint="nonnegative", momentum=0.9)
    for _ in range(30):
        found.advance(1)
        assert found.features.min() == 0 and found.features.max() > 0
    assert found.without_direction == 0


def probabilities(outputs: list[float], dtype: torch.dtype) -> Tensor:
    """1 / (1 + e^z) as one step of the kernel gives it: minus the second class's weight, which starts at 0."""
    ones, heights = torch.ones(len(outputs), 1, 1, dtype=dtype), torch.tensor(outputs, dtype=dtype)
    weights = torch.stack([heights, torch.zeros_like(heights)], dim=1)[..., None]
    settings = {"num_classes": 2, "lr": 1.0, "weight_decay": 0.0, "loss": CrossEntropy(), "backend": "native"}
    taken = Descent(ones, [weights], torch.tensor([0]), **settings)
    taken.advance(1)
    return -taken.weights[0][:, 1, 0]


@pytest.mark.parametrize(("dtype", "lowest"), [(torch.float64, 708), (torch.float32, 87)])
def test_small_probabilities_keep_all_their_digits(dtype, lowest):
    heights = torch.linspace(0, lowest - 0.01, 4001).to(dtype).double().tolist()
    expected = torch.tensor([math.exp(-z) / (1 + math.exp(-z)) for z in heights], dtype=torch.float64)
    error = (probabilities(heights, dtype).double() / expected - 1).abs().max()
    assert error < 2 * torch.finfo(dtype).eps  # of an exponential, a sum and a quotient
    assert probabilities([lowest + 1.0, 1e5], dtype).tolist() == [0, 0]


@pytest.mark.parametrize("classes", [2, 11])
def test_huge_outputs_give_finite_steps_and_infinite_ones_are_taken_out(classes):
    for largest in (0, classes - 1):
        outputs = torch.linspace(-1e5, -9e4, classes, dtype=torch.float64)
        outputs[largest] = 1e5
        settings = {"num_classes": classes, "lr": 1.0, "weight_decay": 0.0, "loss": CrossEntropy()}
        one = torch.ones(1, 1, dtype=torch.float64)
        found = Descent(one, [outputs[:, None]], torch.tensor([1 - largest % 2]), **settings, backend="native")
        found.advance(1)
        moved = (found.weights[0][0, :, 0] - outputs).tolist()
        expected = [float(k == 1 - largest % 2) - float(k == largest) for k in range(classes)]
        assert moved == expected
    found = descent("native", classes=classes, lr=torch.tensor([0.1, 1e160, 0.1], dtype=torch.float64))
    found.advance(5)
    assert found.diverged == {1: 5}
    assert found.objective().total.isnan().tolist() == [False, True, False]


def test_float32_follows_float64():
    single, double = (descent("native", constraint="nonnegative", dtype=d) for d in (torch.float32, torch.float64))
    for each in (single, double):
        each.advance(100)
    torch.testing.assert_close(single.objective().total.double(), double.objective().total, rtol=1e-5, atol=0)


def test_a_member_has_the_same_bits_alone():
    together = descent("native", constraint="nonnegative", lr=0.3)
    together.advance(50)
    for member in range(MEMBERS):
        alone = descent("native", constraint="nonnegative", lr=0.3, seed=member)
        alone.advance(50)
        assert torch.equal(alone.features[0], together.features[member])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"constraint": "sphere"}, "features.constraint=sphere"),
        ({"constraint": "nonnegative_sphere"}, "features.constraint=nonnegative_sphere"),
        ({"bias": torch.zeros(4, dtype=torch.float64)}, "bias"),
        ({"anchor": Anchor(torch.zeros(21, 7, dtype=torch.float64), 0.1)}, "anchor"),
    ],
)
def test_what_the_kernel_does_not_know_is_left_to_pytorch_and_said(change, reason):
    found = descent("auto", **change)
    assert found.backend == "torch" and reason in found.why_not_native
    with pytest.raises(ValueError, match=reason):
        descent("native", **change)


def test_a_projection_or_an_objective_of_ones_own_is_left_to_pytorch():
    class Sharper(CrossEntropy):
        """Derived, and hence not known to the kernel."""

    features, weights = torch.ones(4, 3, dtype=torch.float64), [torch.ones(2, 3, dtype=torch.float64)]
    settings = {"num_classes": 2, "lr": 0.1, "weight_decay": 0.0, "feature_decay": 0.0}
    labels = torch.tensor([0, 0, 1, 1])
    for own in ({"constraint": torch.relu_}, {"loss": Sharper()}):
        assert Descent(features, weights, labels, **settings, **own).backend == "torch"
    known = {"constraint": Constraint("nonnegative"), "loss": CrossEntropy()}
    assert Descent(features, weights, labels, **settings, **known).backend == "native"


@pytest.mark.parametrize(
    ("widths", "classes", "samples"), [((64, 64, 64), 2, 100), ((33, 17), 30, 700), ((40,), 5, 301)]
)
@pytest.mark.parametrize("inputs", ["free", "frozen", "mixed"])
def test_a_team_of_threads_takes_the_steps_of_one_to_the_bit(inputs, widths, classes, samples, monkeypatch):
    """700 samples are more than a team holds at once, 301 no whole tiles; where inputs are shared, teams share them."""
    features = initial_features(samples, widths[0], [generator(seed, "features") for seed in range(2)]).float().double()
    weights = initial_weights(widths, classes, [generator(seed, "weights") for seed in range(2)])
    settings = {"num_classes": classes, "lr": 0.1, "weight_decay": 1e-3, "momentum": 0.5, "loss": CrossEntropy()}
    settings |= {"feature_decay": 1e-3} if inputs == "free" else {"mixed": inputs == "mixed"}
    before, found = torch.get_num_threads(), {}
    monkeypatch.setattr(pace, "FIRST_LOOK", 1)
    monkeypatch.setattr(pace, "WORTH_TIMING", 0.0)
    for threads in (1, 4, 6):
        torch.set_num_threads(threads)
        taken = Descent(
            features if inputs == "free" else features[0], weights, torch.arange(samples) % classes, **settings
        )
        for _ in range(3):
            taken.advance(4)
        found[threads] = taken
    torch.set_num_threads(before)
    for threads in (4, 6):
        pairs = zip(
            [found[1].features, *found[1].weights], [found[threads].features, *found[threads].weights], strict=True
        )
        assert all(torch.equal(one, other) for one, other in pairs)
