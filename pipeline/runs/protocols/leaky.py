"""A leaky residual network fitted to the outputs of a teacher with a bottleneck, and the path through it measured.

Source: Jacot & Kaiser, arXiv 2405.17573. The objective is 1/N ||f* - f||^2 + lambda/(2 Lt) sum_l rho_l ||W_l||^2 with
lambda = ``optimizer.weight_decay``. Rows are embedded by zeros and the first K units are the outputs (ours; the source
has linear maps). All rows at once, float64: ``backbone.epochs`` steps of Adam with a cosine, then L-BFGS with at most
``optimizer.iterations`` iterations, because H means something near stationary points only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.data import Request
from pipeline.data.sets import teacher
from pipeline.measure.flows import CHUNK, Fitting, is_leaky
from pipeline.measure.layers import measure_backbone
from pipeline.runs.inputs import Inputs
from pipeline.runs.outcome import Outcome
from pipeline.runs.protocols import Stage, protocol
from pipeline.runs.recording import record_layers
from pipeline.runs.run import Run
from pipeline.runs.sections import NetworkSection
from pipeline.runtime.errors import ConfigError, RunError


def check(config: Config) -> None:
    """Raise ConfigError for other data than the teacher's, and where paths are not measured."""
    if config.data.name != "teacher":
        raise ConfigError(
            f"data={config.data.name} does not go with protocol=leaky, which fits a teacher's outputs; allowed: "
            "data=teacher."
        )
    if config.data.num_classes > config.backbone.width or config.data.dim > config.backbone.width:
        raise ConfigError(
            f"backbone.width={config.backbone.width} is less than data.dim={config.data.dim} or "
            f"data.num_classes={config.data.num_classes}; allowed with protocol=leaky: at least both."
        )
    if config.data.samples > CHUNK:
        allowed = f"allowed with protocol=leaky: 1..{CHUNK}"
        raise ConfigError(f"data.samples={config.data.samples} is out of range; {allowed}.")


def check_inputs(config: Config, inputs: Inputs) -> None:
    """Raise ConfigError for a network that is not the paper's, in another precision or without decay."""
    if not is_leaky(inputs.backbone) or config.trainer.precision != "float64" or not config.optimizer.weight_decay:
        raise ConfigError(
            "protocol=leaky needs a leaky network of one ReLU layer per block; allowed: backbone=residual_mlp with "
            "backbone.leak > 0, backbone.norm=none, backbone.block_layers=1, backbone.activation=relu, "
            "trainer.precision=float64 and optimizer.weight_decay > 0."
        )


@dataclass(frozen=True)
class Problem:
    """Rows and targets of both splits, `(N, d, 1, 1)` and `(N, K)`, and the objective of a network on them."""

    network: torch.nn.Module
    rows: dict[str, Tensor]
    targets: dict[str, Tensor]
    decay: float

    def fit(self, split: str = "train") -> Tensor:
        """1/N ||f* - f||^2."""
        return self.fit_of(self.network(self.rows[split]), split)

    def fit_of(self, features: Tensor, split: str = "train") -> Tensor:
        """The same of features `(N, w)`, whose first K units are the outputs."""
        targets = self.targets[split]
        return (features[:, : targets.shape[1]] - targets).square().sum(1).mean()

    def penalty(self) -> Tensor:
        """lambda/(2 Lt) sum_l rho_l ||W_l||^2."""
        shares, named = self.network.penalty_shares(), dict(self.network.named_parameters())
        return self.decay / 2 * sum(share * named[name].square().sum() for name, share in shares.items())

    def objective(self) -> Tensor:
        """Fit and penalty."""
        return self.fit() + self.penalty()


@protocol(
    images=True,
    network=True,
    stages={"backbone": Stage("Leaky network", unit="step")},
    check=check,
    check_inputs=check_inputs,
)
def leaky(run: Run) -> Outcome:
    """Adam, then L-BFGS; the path is measured before, between and after.

    The record has ``objective``, ``fit``, ``penalty`` and ``test_fit`` (of test rows), beside the family "paths".
    """
    config, problem = run.config, _problem(run)
    adam, newton = config.backbone.epochs, config.optimizer.iterations
    run.planned_steps["backbone"] = adam + newton
    _measure(run, problem, 0)
    with run.stopwatch.time("train_backbone"):
        _descend(problem, adam, config.optimizer.lr)
        _measure(run, problem, adam)
        _settle(problem, newton)
    _measure(run, problem, adam + newton)
    return Outcome((NetworkSection(),))


def _problem(run: Run) -> Problem:
    config, images, backbone = run.config, run.inputs.images, run.inputs.backbone
    network = backbone.to(config.device).network
    if network.embedding is not None:
        with torch.no_grad():
            torch.nn.init.eye_(network.embedding.weight)
        network.embedding.requires_grad_(False)
    asked = config.data.request
    own = teacher.Settings(**{it.name: asked[it.name] for it in fields(teacher.Settings) if it.name in asked})
    request = Request(seed=config.seed, settings=own)
    rows = {
        name: images.standardise(split.images.to(config.device)).double()
        for name, split in (("train", images.train), ("test", images.test))
    }
    outputs = {name: teacher.teacher_outputs(request, part.flatten(1).cpu()).to(part) for name, part in rows.items()}
    mean, spread = outputs["train"].mean(0), outputs["train"].std(correction=0)
    targets = {name: (part - mean) / spread for name, part in outputs.items()}
    return Problem(network, rows, targets, config.optimizer.weight_decay)


def _measure(run: Run, problem: Problem, step: int) -> None:
    config, seeds = run.config, [run.config.seed]
    fitting = Fitting(lambda features, _: problem.fit_of(features), problem.decay)
    measured = measure_backbone(
        run.inputs.backbone, run.inputs.images, settings=config.measure.settings, fitting=fitting
    )
    record_layers(run, "backbone", step, seeds, measured.layers)
    problem.network.eval()
    with torch.no_grad():
        fit, penalty, test = problem.fit(), problem.penalty(), problem.fit("test")
    numbers = {"objective": fit + penalty, "fit": fit, "penalty": penalty, "test_fit": test}
    if not bool(torch.stack(list(numbers.values())).isfinite().all()):
        rate = f"optimizer.lr (now {config.optimizer.lr:g})"
        raise RunError(f"the fit diverged before step {step}; a smaller {rate} usually helps.")
    run.record.add("backbone", step, seeds, {name: [value.item()] for name, value in numbers.items()})


def _descend(problem: Problem, steps: int, rate: float) -> None:
    """Adam, its rate falling like a cosine; adaptive steps move on the way."""
    problem.network.train()
    optimizer = torch.optim.Adam(_trained(problem), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    for _ in range(steps):
        _backward(problem, optimizer)()
        optimizer.step()
        schedule.step()


def _settle(problem: Problem, iterations: int) -> None:
    """L-BFGS with line search; steps stay as they are."""
    problem.network.eval()
    optimizer = torch.optim.LBFGS(
        _trained(problem),
        max_iter=iterations,
        max_eval=2 * iterations,
        tolerance_grad=1e-10,
        tolerance_change=0.0,
        history_size=50,
        line_search_fn="strong_wolfe",
    )
    optimizer.step(_backward(problem, optimizer))


def _backward(problem: Problem, optimizer: torch.optim.Optimizer) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        optimizer.zero_grad()
        value = problem.objective()
        value.backward()
        return value

    return closure


def _trained(problem: Problem) -> list[torch.nn.Parameter]:
    return [parameter for parameter in problem.network.parameters() if parameter.requires_grad]
