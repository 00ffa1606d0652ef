"""Batched gradient descent: its steps, its independence of batches and blocks, its divergence and its resume."""

import pytest
import torch
from torch import Tensor

from pipeline import dufm
from pipeline.dufm import balanced_features, descent_native, initial_features, initial_weights, objective
from pipeline.dufm.descent import Descent, descend, log_schedule
from pipeline.dufm.objectives.cross_entropy import CrossEntropy
from pipeline.dufm.objectives.mse import MeanSquaredError
from pipeline.dufm.objectives.supervised_contrastive import SupervisedContrastive
from pipeline.runtime.randomness import generator

needs_compiler = pytest.mark.skipif(descent_native.library() is None, reason="no working C++ compiler")
BACKENDS = ["torch", pytest.param("native", marks=needs_compiler)]

MEMBERS, SAMPLES, WIDTHS, NUM_CLASSES = 3, 23, (7, 20, 13), 3
LABELS = torch.tensor([0] * 12 + [1] * 3 + [2] * 8)
LRS = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)


def start(seeds=range(MEMBERS), widths=WIDTHS, samples=SAMPLES, dtype=torch.float64) -> tuple[Tensor, list[Tensor]]:
    features = initial_features(samples, widths[0], [generator(seed, "features") for seed in seeds], dtype=dtype)
    weights = initial_weights(widths, NUM_CLASSES, [generator(seed, "weights") for seed in seeds], dtype=dtype)
    return features, weights


def make(features, weights, **changes) -> Descent:
    settings = {"num_classes": NUM_CLASSES, "lr": 0.2, "weight_decay": 1e-3, "feature_decay": 2e-3}
    return Descent(features, weights, LABELS, **(settings | changes))


def sgd(features, weights, steps, *, lr, weight_decay, feature_decay, momentum, activation, loss=None, project=None):
    """The same descent, one member at a time: torch.optim.SGD on autograd gradients of the objective."""
    weight_decay = dufm.weight_decay_table(weight_decay, MEMBERS, len(weights))
    finals = []
    for member in range(MEMBERS):
        inputs = (
            (features if features.dim() == 2 else features[member]).clone().requires_grad_(feature_decay is not None)
        )
        factors = [weight[member].clone().requires_grad_() for weight in weights]
        decay = (
            None
            if feature_decay is None
            else torch.as_tensor(feature_decay, dtype=torch.float64).expand(MEMBERS)[member]
        )
        free = [] if decay is None else [inputs]
        optimizer = torch.optim.SGD([*factors, *free], lr=float(lr[member]), momentum=momentum)
        for _ in range(steps):
            optimizer.zero_grad()
            objective(inputs, factors, LABELS, weight_decay[member], decay, activation, loss).total.sum().backward()
            optimizer.step()
            if project is not None:
                with torch.no_grad():
                    project(inputs)
        finals.append([inputs.detach(), *(factor.detach() for factor in factors)])
    return [torch.stack(tensors) for tensors in zip(*finals, strict=True)]


def assert_at(descent: Descent, expected: list[Tensor], atol: float = 1e-12) -> None:
    everywhere = descent.features.expand(MEMBERS, -1, -1)
    for found, wanted in zip([everywhere, *descent.weights], expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", ["relu", "linear"])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("inputs", ["free", "frozen", "shared"])
@pytest.mark.parametrize("decays", ["one", "per layer", "per member"])
def test_steps_are_those_of_sgd_on_autograd_gradients(backend, activation, momentum, inputs, decays):
    features, weights = start()
    weight_decay = {
        "one": 1e-3,
        "per layer": torch.tensor([1e-3, 0.0, 3e-3], dtype=torch.float64),
        "per member": torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=torch.float64) * 1e-3,
    }[decays]
    feature_decay = torch.tensor([1e-3, 2e-3, 0.0], dtype=torch.float64) if decays == "per member" else 2e-3
    settings = {
        "lr": LRS,
        "weight_decay": weight_decay,
        "feature_decay": feature_decay if inputs == "free" else None,
        "momentum": momentum,
        "activation": activation,
    }
    given = features[0] if inputs == "shared" else features
    descent = make(given, weights, backend=backend, **settings)
    descent.advance(30)
    assert_at(descent, sgd(given, weights, 30, **settings))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("widths", "samples"), [((5,), 23), ((1, 1), 23), ((70, 33, 2), 23), ((9, 8), 300)])
def test_steps_are_right_at_odd_sizes(backend, widths, samples):
    features, weights = start(widths=widths, samples=samples)
    labels = torch.arange(samples) % NUM_CLASSES
    descent = Descent(
        features, weights, labels, num_classes=3, lr=0.2, weight_decay=1e-3, feature_decay=2e-3, backend=backend
    )
    descent.advance(10)
    moving = [tensor.clone().requires_grad_() for tensor in (features, *weights)]
    for _ in range(10):
        total = objective(moving[0], moving[1:], labels, 1e-3, 2e-3).total.sum()
        with torch.no_grad():
            for tensor, gradient in zip(moving, torch.autograd.grad(total, moving), strict=True):
                tensor -= 0.2 * gradient
    assert_at(descent, [tensor.detach() for tensor in moving])


@pytest.mark.parametrize("backend", BACKENDS)
def test_arguments_are_not_modified(backend):
    features, weights = start()
    copies = [tensor.clone() for tensor in (features, *weights)]
    descent = make(features, weights, backend=backend)
    descent.features.zero_()
    descent.weights[0].zero_()
    descent.advance(3)
    assert all(torch.equal(a, b) for a, b in zip(copies, (features, *weights), strict=True))
    assert not torch.equal(descent.weights[0], weights[0])
    assert descent.objective().total.isfinite().all() and descent.weights[0].count_nonzero() > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_settings_alone_can_span_the_members(backend):
    features, weights = start([0])
    grid = make(features[0], [weight[0] for weight in weights], lr=LRS, backend=backend)
    alone = make(features, weights, lr=0.2, backend=backend)
    grid.advance(50)
    alone.advance(50)
    assert grid.num_members == 3
    torch.testing.assert_close(grid.weights[1][1], alone.weights[1][0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_member_does_not_depend_on_its_batch(backend):
    batch = make(*start(), lr=LRS, momentum=0.5, backend=backend)
    batch.advance(300)
    for seed in range(MEMBERS):
        alone = make(*start([seed]), lr=float(LRS[seed]), momentum=0.5, backend=backend)
        alone.advance(300)
        for together, single in zip([batch.features, *batch.weights], [alone.features, *alone.weights], strict=True):
            torch.testing.assert_close(together[seed], single[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_blocks_do_not_change_a_bit(backend):
    at_once, in_blocks = (make(*start(), momentum=0.5, backend=backend) for _ in range(2))
    at_once.advance(620)
    for steps in (0, 1, 7, 500, 112):
        in_blocks.advance(steps)
    assert at_once.step == in_blocks.step == 620
    for a, b in zip([at_once.features, *at_once.weights], [in_blocks.features, *in_blocks.weights], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("feature_decay", [2e-3, None])
def test_resume_from_a_file_is_bit_identical(backend, feature_decay, tmp_path):
    settings = {
        "lr": torch.tensor([0.2, 1e4, 0.1], dtype=torch.float64),  # the second member diverges before the checkpoint
        "momentum": 0.5,
        "feature_decay": feature_decay,
        "backend": backend,
    }
    straight = make(*start(), **settings)
    straight.advance(40)
    torch.save(straight.state_dict(), tmp_path / "state.pt")
    straight.advance(37)
    resumed = make(*start(), **settings)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.step == 40
    resumed.advance(37)
    assert resumed.diverged == straight.diverged == {1: 40}
    for a, b in zip([straight.features, *straight.weights], [resumed.features, *resumed.weights], strict=True):
        assert torch.equal(a[::2], b[::2])


def test_a_state_of_another_problem_is_refused():
    features, weights = start()
    other = make(features[:, :, :5], [weights[0][:, :, :5], *weights[1:]])
    with pytest.raises(ValueError, match="state must hold tensors of shapes"):
        make(features, weights).load_state_dict(other.state_dict())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_diverging_member_is_taken_out_and_the_others_go_on(backend):
    features, weights = start()
    descent = make(features, weights, lr=torch.tensor([0.2, 1e3, 0.2], dtype=torch.float64), backend=backend)
    healthy = make(features, weights, lr=0.2, backend=backend)
    for steps in (100, 500):
        descent.advance(steps)
        healthy.advance(steps)
    assert descent.diverged == {1: 100}
    assert descent.step == 600
    total = descent.objective().total
    assert total.isnan().tolist() == [False, True, False]
    for found, wanted in zip([descent.features, *descent.weights], [healthy.features, *healthy.weights], strict=True):
        assert found[1].isnan().all()
        torch.testing.assert_close(found[::2], wanted[::2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_after_everyone_diverged_are_skipped(backend):
    descent = make(*start(), lr=1e3, backend=backend)
    descent.advance(10**9)
    assert descent.step == 10**9
    assert set(descent.diverged) == {0, 1, 2} and max(descent.diverged.values()) <= 500
    assert descent.objective().total.isnan().all()
    assert list(descend(descent, [10**9, 2 * 10**9])) == [10**9, 2 * 10**9]


@pytest.mark.parametrize("backend", BACKENDS)
def test_factors_decay_to_zero_without_subnormal_stumbling(backend):
    """Beyond the critical decay everything shrinks by a constant factor per step, to zero and no further."""
    descent = make(*start(), weight_decay=2.0, feature_decay=2.0, lr=0.25, backend=backend)
    descent.advance(3000)
    assert not descent.diverged
    torch.testing.assert_close(descent.objective().total, torch.full((3,), 0.5, dtype=torch.float64))
    assert max(weight.abs().max() for weight in descent.weights) < 1e-300


def test_float32_follows_float64():
    double, single = make(*start()), make(*start(dtype=torch.float32))
    double.advance(200)
    single.advance(200)
    assert single.weights[0].dtype == torch.float32
    torch.testing.assert_close(single.objective().total.double(), double.objective().total, rtol=1e-4, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_flow_conserves_the_balance_of_the_first_layer(backend):
    """H_1 H_1^T - W_1^T W_1 stays zero under the flow; a step of size lr breaks it by O(lr^2), a unit time by O(lr)."""
    weights = initial_weights((6, 8, 7), NUM_CLASSES, [generator(seed, "weights") for seed in range(MEMBERS)])
    sources = [generator(seed, "features") for seed in range(MEMBERS)]
    features, weights[0] = balanced_features(weights[0], SAMPLES, 1e-2, 1e-2, sources)

    def imbalance(lr: float) -> float:
        descent = make(features, weights, lr=lr, weight_decay=1e-2, feature_decay=1e-2, backend=backend)
        descent.advance(round(2 / lr))
        weight = descent.weights[0]
        moved = (weight - weights[0]).abs().max()
        assert moved > 1e-2
        return float((descent.features.mT @ descent.features - weight.mT @ weight).abs().max())

    assert imbalance(1e-3) < 1e-3
    assert imbalance(2e-3) / imbalance(1e-3) == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_another_loss_and_a_constraint_plug_in(momentum):
    features, weights = start()
    settings = {"lr": LRS, "weight_decay": 1e-3, "feature_decay": 2e-3, "momentum": momentum, "activation": "relu"}

    def clamp(features: Tensor) -> None:
        features.clamp_(min=0)

    loss = CrossEntropy()
    descent = make(features, weights, loss=loss, constraint=clamp, **settings)
    assert descent.backend == "torch"
    descent.advance(60)
    assert_at(descent, sgd(features.clamp(min=0), weights, 60, loss=loss, project=clamp, **settings))
    assert descent.features.min() == 0
    torch.testing.assert_close(
        descent.objective().fit, loss.value(dufm.forward(descent.features, descent.weights)[-1], torch.eye(3)[LABELS])
    )


@needs_compiler
def test_the_native_backend_is_chosen_exactly_where_it_applies():
    features, weights = start()
    assert make(features, weights).backend == "native"
    assert make(features, weights, backend="torch").backend == "torch"
    contrastive = SupervisedContrastive()
    assert make(features, weights, loss=contrastive).backend == "torch"
    with pytest.raises(ValueError, match="cannot take these steps: the kernel does not know the supervised contrast"):
        make(features, weights, loss=contrastive, backend="native")


@pytest.mark.parametrize("compiler", ["/does/not/exist", "/bin/false"])
def test_without_a_working_compiler_the_steps_are_taken_in_pytorch(compiler, monkeypatch):
    monkeypatch.setenv("CXX", compiler)
    descent_native.library.cache_clear()
    try:
        assert make(*start()).backend == "torch"
    finally:
        descent_native.library.cache_clear()


@pytest.mark.parametrize("steps", [0, 1, 2, 9, 10, 1000, 99_999, 100_000])
def test_schedule_is_increasing_from_zero_to_the_last_step(steps):
    schedule = log_schedule(steps)
    assert schedule == sorted(set(schedule))
    assert schedule[0] == 0 and schedule[-1] == steps


def test_schedule_is_evenly_spaced_in_the_logarithm():
    stops = torch.tensor([stop for stop in log_schedule(10**6, per_decade=4) if stop >= 100], dtype=torch.float64)
    torch.testing.assert_close(stops.log10().diff(), torch.full((16,), 0.25, dtype=torch.float64), atol=2e-3, rtol=0)


def test_descend_stops_on_schedule_and_calls_back_in_between():
    descent, reference = make(*start()), make(*start())
    seen, blocks = [], []
    for step in descend(descent, [0, 3, 300], on_block=blocks.append, seconds_per_block=0.0):
        assert descent.step == step
        seen.append(step)
    assert seen == [0, 3, 300]
    assert blocks == [1, 2, *range(4, 300)]
    reference.advance(300)
    assert torch.equal(descent.weights[0], reference.weights[0])


def test_descend_passes_over_stops_behind_a_resumed_descent():
    descent = make(*start())
    descent.advance(5)
    assert list(descend(descent, [0, 3, 5, 9])) == [5, 9]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "lr must be finite and > 0, got 0.0"),
        ({"lr": torch.tensor([0.1, 0.2])}, "number of members"),
        ({"weight_decay": -1.0}, "weight_decay must be finite and >= 0, got -1.0"),
        ({"feature_decay": float("nan")}, "feature_decay must be finite and >= 0, got nan"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        ({"activation": "gelu"}, "activation must be one of"),
        ({"num_classes": 4}, "num_classes must be what the last weight puts out, 3, got 4"),
        ({"tf32": True}, "tf32 must be off unless the tensors are float32"),
        ({"backend": "fortran"}, "backend must be one of"),
        ({"feature_decay": None, "constraint": torch.relu_}, "constraint must be None for frozen features"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        make(*start(), **change)


def test_bad_tensors_are_named():
    features, weights = start()
    with pytest.raises(ValueError, match=r"weights\[0\] must be of the features' dtype"):
        make(features, [weights[0].float(), *weights[1:]])
    with pytest.raises(ValueError, match="features must be finite"):
        make(features * torch.nan, weights)
    with pytest.raises(ValueError, match="labels must be one per sample"):
        make(features[:, :20], weights)
    with pytest.raises(ValueError, match="features must be float32 or float64"):
        make(features.half(), [weight.half() for weight in weights])
    with pytest.raises(ValueError, match="steps must be at least 0"):
        make(features, weights).advance(-1)
    with pytest.raises(ValueError, match="steps must be at least 0"):
        log_schedule(-1)


@pytest.mark.gpu
@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("feature_decay", [2e-3, None])
def test_gpu_graphs_agree_with_the_cpu(momentum, feature_decay):
    features, weights = start()
    settings = {"lr": LRS, "momentum": momentum, "feature_decay": feature_decay}
    cpu = make(features, weights, **settings)
    gpu = make(features.cuda(), [weight.cuda() for weight in weights], **settings)
    cpu.advance(163)  # three graphs and thirteen single steps
    gpu.advance(163)
    for found, wanted in zip([gpu.features, *gpu.weights], [cpu.features, *cpu.weights], strict=True):
        torch.testing.assert_close(found.cpu(), wanted, rtol=0, atol=1e-11)


@pytest.mark.gpu
def test_gpu_blocks_do_not_change_a_bit():
    features, weights = start()
    at_once, in_blocks = (make(features.cuda(), [weight.cuda() for weight in weights]) for _ in range(2))
    at_once.advance(200)
    for steps in (13, 100, 87):
        in_blocks.advance(steps)
    assert all(torch.equal(a, b) for a, b in zip(at_once.weights, in_blocks.weights, strict=True))


@pytest.mark.gpu
def test_a_loss_that_talks_to_the_host_runs_without_graphs():
    class Talkative(MeanSquaredError):
        def gradient_(self, outputs: Tensor, targets: Tensor) -> None:
            if float(outputs.sum()) == float(outputs.sum()):
                super().gradient_(outputs, targets)

    features, weights = start()
    gpu = make(features.cuda(), [weight.cuda() for weight in weights], loss=Talkative())
    cpu = make(features, weights)
    gpu.advance(120)
    cpu.advance(120)
    torch.testing.assert_close(gpu.weights[0].cpu(), cpu.weights[0], rtol=0, atol=1e-11)


@pytest.mark.gpu
def test_tf32_is_close_to_float32_and_leaves_the_global_setting_alone():
    features, weights = start(dtype=torch.float32)
    before = torch.backends.cuda.matmul.fp32_precision
    exact, fast = (make(features.cuda(), [weight.cuda() for weight in weights], tf32=tf32) for tf32 in (False, True))
    exact.advance(100)
    fast.advance(100)
    assert torch.backends.cuda.matmul.fp32_precision == before
    torch.testing.assert_close(fast.objective().total, exact.objective().total, rtol=2e-2, atol=0)


@pytest.mark.gpu
def test_decays_may_lie_on_the_gpu():
    features, weights = (start()[0].cuda(), [weight.cuda() for weight in start()[1]])
    decay = torch.full((len(weights),), 1e-3, dtype=torch.float64)
    here, there = (make(features, weights, weight_decay=value) for value in (decay, decay.cuda()))
    here.advance(3)
    there.advance(3)
    assert torch.equal(here.weights[0], there.weights[0])
