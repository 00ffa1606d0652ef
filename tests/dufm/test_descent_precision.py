"""Products in float32 until their rounding shows: then in float64, to where float64 goes, whatever comes between."""

import pytest
import torch

from pipeline.dufm import descent_native, forward, initial_features, initial_weights
from pipeline.dufm.descent import Descent, log_schedule
from pipeline.dufm.descent_native import NativeSteps
from pipeline.dufm.descent_precision import drifted, single_steps, until_next_look
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
def descent_on(features: torch.Tensor, labels: torch.Tensor, mixed: bool, depth: int = 2, **settings) -> Descent:
    width = features.shape[1]
    weights = initial_weights((width,) * depth, int(labels.max()) + 1, [generator(0, "weights")])
    settings = {"activation": "linear", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-3} | settings
    return Descent(features, weights, labels, num_classes=weights[-1].shape[-2], mixed=mixed, **settings)


def classes_apart(samples: int, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Four classes on four axes; within them samples differ in eight others alone, which a head need not keep."""
    labels = torch.arange(samples) % 4
    noise = torch.randn(samples, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    noise -= torch.stack([noise[labels == label].mean(0) for label in range(4)])[labels]
    return torch.cat([torch.eye(4, dtype=torch.float64)[labels], spread * noise], dim=1).float().double(), labels


def numbers(found: Descent, labels: torch.Tensor) -> dict[str, float]:
    """Of what enters the last weight: dnc1 and 1 / dnc2; and the loss."""
    hidden = forward(found.features, found.weights, found.cost.activation)[-2][0]
    hidden = hidden.relu() if found.cost.activation == "relu" else hidden
    means = torch.stack([hidden[labels == label].mean(0) for label in labels.unique()])
    within = (hidden - means[labels]).square().sum() / len(labels)
    spectrum = torch.linalg.svdvals(means)
    return {
        "dnc1": float(within / (means - means.mean(0)).square().sum() * len(means)),
        "dnc2": float(spectrum[-1] / spectrum[0]),
        "loss": float(found.objective().total),
    }


def worst(features, labels, steps: int, **settings) -> tuple[float, Descent, list[dict[str, float]]]:
    """How far any number is from float64's at any stop, as a share; and the descent, and float64's numbers."""
    mixed, double = (descent_on(features, labels, kind, single=single_steps(steps), **settings) for kind in (1, 0))
    off, all_wanted = 0.0, []
    for stop in log_schedule(steps, per_decade=5):
        for each in (mixed, double):
            each.advance(stop - each.step)
        found, wanted = (numbers(each, labels) for each in (mixed, double))
        off = max(off, *(abs(found[name] / wanted[name] - 1) for name in wanted))
        all_wanted.append(wanted)
    return off, mixed, all_wanted


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("widths", "samples"), [((6, 8), 60), ((5,), 9), ((33, 17, 2), 300), ((1, 1), 128)])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_with_products_in_float32_are_those_of_float64_but_for_rounding(loss, widths, samples, momentum):
    start = descent(widths=widths, samples=samples, momentum=momentum, loss=loss())
    single, double = (NativeSteps(start._live, start._rule, members) for members in (range(3), ()))
    for each in (single, double):
        each.run(20)
    weights = (single.parameters.weights, double.parameters.weights, start.weights)
    for found, wanted, begin in zip(*weights, strict=True):
        assert found.dtype == torch.float64
        assert (found - wanted).norm() < 1e-5 * (wanted - begin).norm()
    assert not torch.equal(weights[0][0], weights[1][0])


def test_past_its_floor_a_member_stays_in_float32_and_its_last_part_is_float64():
    """Its gradient is rounding from step 2000 on."""
    features = torch.randn(300, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float().double()
    labels = features[:, :3].argmax(dim=1)
    mixed, double = (descent_on(features, labels, kind, 1, single=single_steps(4000)) for kind in (True, False))
    for steps in (2000, 1000, 1000):
        before = mixed.weights[0]
        for each in (mixed, double):
            each.advance(steps)
        torch.testing.assert_close(mixed.objective().total, double.objective().total, rtol=1e-10, atol=0)
        assert (mixed.weights[0] - double.weights[0]).norm() < 1e-5 * double.weights[0].norm()
    assert (mixed.weights[0] - before).norm() < 1e-5 * before.norm()
    assert mixed.switched == {0: 3800} and double.switched == {}


def test_layers_whose_imbalance_decays_to_nothing_go_on_in_float64():
    features = torch.randn(300, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float().double()
    off, mixed, _ = worst(features, features[:, :3].argmax(dim=1), 3000)
    assert off < 1e-6
    assert 500 < mixed.switched[0] < 2850
    double = descent_on(features, features[:, :3].argmax(dim=1), False)
    double.advance(3000)
    found, wanted = (
        (each.weights[1].mT @ each.weights[1] - each.weights[0] @ each.weights[0].mT).norm() for each in (mixed, double)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-14)
    assert wanted < 1e-10


def test_what_only_decays_is_that_of_float64_at_every_stop():
    """The spread within classes falls to nothing, down from where its rounding stays if it goes on in float32."""
    features, labels = classes_apart(120, 0.3)
    off, mixed, wanted = worst(features, labels, 4000, weight_decay=1e-2)
    assert wanted[-1]["dnc1"] < 1e-16
    assert off < 1e-3
    assert 0 < mixed.switched[0] < 2000
    start = descent_on(features, labels, True, weight_decay=1e-2)
    start._steps = NativeSteps(start._live, start._rule, [0])
    start._live = start._steps.parameters
    start._steps.run(4000)
    assert numbers(start, labels)["dnc1"] > 100 * wanted[-1]["dnc1"]


@pytest.mark.parametrize("loss", LOSSES)
def test_numbers_of_relu_layers_are_those_of_float64_at_every_stop(loss):
    features = torch.randn(2000, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float().double()
    off, mixed, _ = worst(features, features[:, :4].argmax(dim=1), 600, activation="relu", depth=3, loss=loss())
    assert mixed.switched == {0: 570}
    assert 0 < off < 5e-3


def test_units_that_rounding_decides_about_count_the_more_the_fewer_samples_there_are():
    looks = []
    for samples in (400, 40_000):
        start = descent_on(*classes_apart(samples, 0.3), True, activation="relu", depth=3)
        found, coarse = drifted(start._live, start._rule, 500, None)
        looks.append((found[0, 1].max(), coarse))
    assert looks[0][0] > 10 * looks[1][0] > 0  # squares
    assert looks[1][1] == [False]
    linear = descent_on(*classes_apart(40, 0.3), True, depth=3)
    assert not drifted(linear._live, linear._rule, 500, None)[0][0, 1].any()


@pytest.mark.parametrize(("step", "until"), [(0, 500), (4500, 500), (5000, 1000), (10_000, 2000), (100_000, 16_000)])
def test_looks_grow_rarer_while_steps_go_on(step, until):
    assert until_next_look(step, 500) == until


def test_what_is_found_at_looks_adds_up_and_decays_as_weights_do():
    start = descent_on(*classes_apart(40, 0.3), True, weight_decay=1e-3, momentum=0.0)
    first, _ = drifted(start._live, start._rule, 1, None)
    keep = 1 - 0.1 * 1e-3
    both, _ = drifted(start._live, start._rule, 2, first)
    torch.testing.assert_close(both[0, 0], first[0, 0] * (keep**2 + 1 + keep), rtol=1e-9, atol=0)

    start.advance(500)
    before = start.state_dict()["drift"]
    expected, _ = drifted(start._live, start._rule, 500, before)
    start.advance(1)
    assert torch.equal(start.state_dict()["drift"], expected) and not torch.equal(before, expected)


def test_parts_of_a_state_know_what_their_members_looks_have_found():
    whole = descent(activation="linear")
    whole.advance(1)
    state, drift = whole.state_dict(), whole.state_dict()["drift"]
    assert torch.equal(part_of_state(state, range(1, 3))["drift"], drift[1:])
    parts = [part_of_state(state, members) for members in (range(2), range(2, 3))]
    assert torch.equal(joined_states(parts)["drift"], drift)
    parts[1].pop("drift")
    assert torch.equal(joined_states(parts)["drift"][:2], drift[:2])
    assert not joined_states(parts)["drift"][2].any()


def end(found: Descent, steps: int = 3000) -> Descent:
    found.advance(steps - found.step)
    return found


def test_what_is_lost_by_rounding_the_features_shows_at_once():
    features = 1000 + torch.randn(40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 1e4
    weights = [torch.zeros(2, 4, dtype=torch.float64)]
    settings = {"num_classes": 2, "lr": 1e-9, "weight_decay": 0.0, "activation": "linear"}
    labels = torch.arange(40) % 2
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
        assert torch.equal(after.state_dict()["drift"], whole.state_dict()["drift"])
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
