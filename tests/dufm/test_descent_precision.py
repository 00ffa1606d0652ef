"""Products in float32 until their rounding shows: then in float64, to where float64 goes, whatever comes between."""

import pytest
import torch

from pipeline.dufm import descent_native, initial_features, initial_weights
from pipeline.dufm.descent import Descent
from pipeline.dufm.descent_precision import too_coarse
from pipeline.dufm.descent_states import joined_states, part_of_state
from pipeline.dufm.objectives.cross_entropy import CrossEntropy
from pipeline.dufm.objectives.mse import MeanSquaredError
from pipeline.runtime.randomness import generator

pytestmark = pytest.mark.skipif(descent_native.library() is None, reason="no working C++ compiler")

LOSSES = (MeanSquaredError, CrossEntropy)
LRS = torch.tensor([0.5, 0.1, 0.02], dtype=torch.float64)


def descent(
    mixed: bool = True, widths=(6, 8), classes: int = 3, samples: int = 60, members=range(3), **more
) -> Descent:
    features = initial_features(samples, widths[0], [generator(0, "features")])[0].float().double()
    weights = initial_weights(widths, classes, [generator(member, "weights") for member in members])
    settings = {"num_classes": classes, "lr": LRS[list(members)], "weight_decay": 0.02, "mixed": mixed} | more
    return Descent(features, weights, torch.arange(samples) % classes, **settings)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("widths", "samples"), [((6, 8), 60), ((5,), 9), ((33, 17, 2), 300), ((1, 1), 128)])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_with_products_in_float32_are_those_of_float64_but_for_rounding(loss, widths, samples, momentum):
    problem = {"widths": widths, "samples": samples, "momentum": momentum, "loss": loss()}
    mixed, double = descent(**problem), descent(mixed=False, **problem)
    for each in (mixed, double):
        each.advance(20)
    start = descent(**problem).weights
    for found, wanted, begin in zip(mixed.weights, double.weights, start, strict=True):
        assert found.dtype == torch.float64
        assert (found - wanted).norm() < 1e-5 * (wanted - begin).norm()
    assert mixed.switched == {}
    assert not torch.equal(mixed.weights[0], double.weights[0])


def end(found: Descent, steps: int = 3000) -> Descent:
    found.advance(steps - found.step)
    return found


def test_near_its_floor_a_member_goes_on_in_float64_and_ends_where_float64_does():
    """In linear layers; members near their floor at another step each, the slowest not at all."""
    problem = {
        "loss": CrossEntropy(),
        "activation": "linear",
        "lr": torch.tensor([0.5, 0.3, 0.02], dtype=torch.float64),
    }
    mixed, double = end(descent(**problem)), end(descent(mixed=False, **problem))
    assert 0 < mixed.switched[0] < mixed.switched[1] and 2 not in mixed.switched
    assert all(step % 500 == 0 for step in mixed.switched.values())
    torch.testing.assert_close(mixed.objective().total, double.objective().total, rtol=1e-8, atol=0)
    for found, wanted in zip(mixed.weights, double.weights, strict=True):
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_relu_layers_end_as_near_as_two_kinds_of_float64_do(loss):
    """On kinks rounding decides; PyTorch's float64 comes as far off."""
    mixed, double = end(descent(loss=loss())), end(descent(mixed=False, loss=loss()))
    torch.testing.assert_close(mixed.objective().total, double.objective().total, rtol=1e-4, atol=0)


def test_what_is_lost_by_rounding_the_features_shows_at_once():
    features = 1000 + torch.randn(40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 1e4
    weights = [torch.zeros(2, 4, dtype=torch.float64)]
    settings = {"num_classes": 2, "lr": 1e-9, "weight_decay": 0.0, "activation": "linear"}
    labels = torch.arange(40) % 2
    alike = Descent(features, weights, labels, **settings, mixed=True)
    assert too_coarse(alike._live, alike._rule) == [False]
    targets = torch.ones(40, 2, dtype=torch.float64)
    targets[::2] = -1  # the mean drops out, and with it what features have in common
    away = Descent(features, weights, labels, targets=targets, **settings, mixed=True)
    away.advance(1)
    assert away.switched == {0: 0}


def test_interrupted_before_and_after_it_switches_it_ends_with_the_same_bytes():
    problem = {"activation": "linear", "momentum": 0.5, "loss": CrossEntropy()}
    whole = end(descent(**problem), 2100)
    first = whole.switched[0]
    assert 500 <= first <= 1500 and 2 not in whole.switched
    for stop in (1, first, first + 1, 2000):
        before = descent(**problem)
        before.advance(stop)
        state = joined_states(
            [part_of_state(before.state_dict(), range(2)), part_of_state(before.state_dict(), range(2, 3))]
        )
        after = descent(**problem)
        after.load_state_dict(state)
        end(after, 2100)
        assert after.switched == whole.switched
        assert all(torch.equal(one, other) for one, other in zip(after.weights, whole.weights, strict=True))


def test_a_member_switches_alone_as_in_its_batch_and_diverged_ones_are_taken_out():
    lr = torch.tensor([0.5, 1e6, 0.02], dtype=torch.float64)
    together = end(descent(activation="linear", loss=CrossEntropy(), lr=lr))
    assert together.diverged and together.switched.keys() & {0, 2} == {0}
    alone = end(descent(activation="linear", loss=CrossEntropy(), members=[0], lr=0.5))
    assert alone.switched[0] == together.switched[0]
    assert torch.equal(alone.weights[1][0], together.weights[1][0])


def test_without_the_kernel_all_is_float64_from_the_start():
    found, double = (end(descent(mixed=mixed, backend="torch"), 30) for mixed in (True, False))
    assert found.switched == {0: 0, 1: 0, 2: 0}
    assert all(torch.equal(one, other) for one, other in zip(found.weights, double.weights, strict=True))


@pytest.mark.parametrize("change", [{"feature_decay": 1e-3}, {"dtype": torch.float32}])
def test_it_is_refused_for_free_features_and_float32(change):
    dtype = change.pop("dtype", torch.float64)
    tensors = torch.ones(4, 3, dtype=dtype), [torch.ones(2, 3, dtype=dtype)]
    settings = {"num_classes": 2, "lr": 0.1, "weight_decay": 0.0} | change
    with pytest.raises(ValueError, match="mixed must be off unless"):
        Descent(*tensors, torch.tensor([0, 0, 1, 1]), **settings, mixed=True)
