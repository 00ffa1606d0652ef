"""The descent of a head as a stage of a run: members shared out over ranks, measured, saved while it goes on."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.dufm.constraints import Constraint
from pipeline.dufm.descent import Descent, descend, log_schedule
from pipeline.dufm.descent_precision import single_steps
from pipeline.dufm.descent_states import MAYBE, STEPS_OF_MEMBERS, joined_states, part_of_state
from pipeline.dufm.polish import MOST_ITERATIONS as POLISH_ITERATIONS
from pipeline.dufm.shards import Shard
from pipeline.runs.polishing import Ending, joined, polished
from pipeline.runs.recording import is_collapsed, joined_members, measure_solution, record_solution
from pipeline.runs.run import Run
from pipeline.runs.solutions import PLAIN, Features, HeadSolution, Terms
from pipeline.runtime import ranks
from pipeline.runtime.checkpoint_timer import CheckpointTimer
from pipeline.runtime.errors import RunError
from pipeline.runtime.interruption import interruption
from pipeline.runtime.progress import Progress
from pipeline.storage.stages import PartialStage

log = logging.getLogger(__name__)

Value = TypeVar("Value")


@dataclass(frozen=True)
class HeadProblem:
    """What a head descends on.

    features: ``(N, d_1)`` frozen (``feature_decay`` None), or the free start ``(S, N, d_1)``.
    weights: W_l at the start ``(S, d_{l+1}, d_l)``; labels: ``(N,)``.
    test: features whose test split is measured too.
    bias: of the last layer at the start ``(S, K)``.
    terms: what the problem has beside labels, decays and a loss.
    shard: features and labels are those of this rank's images alone; then every rank descends with all members.
    """

    features: Tensor
    weights: Sequence[Tensor]
    labels: Tensor
    feature_decay: float | None
    test: Features | None = None
    bias: Tensor | None = None
    terms: Terms = PLAIN
    shard: Shard | None = None

    @property
    def num_members(self) -> int:
        """S."""
        return len(self.weights[0]) if self.weights else len(self.features)

    @property
    def inputs(self) -> str:
        """What the features are, as `HeadSolution` calls it."""
        return "frozen" if self.feature_decay is None else "free"

    def descent(self, config: Config, members: range) -> Descent:
        """The descent of some consecutive members."""
        some, device = slice(members.start, members.stop), config.device
        dtype = torch.float32 if config.descent.precision in ("float32", "tf32") else torch.float64
        features = self.features if self.features.dim() == 2 else self.features[some]
        terms, anchor = self.terms, self.terms.anchor
        if anchor is not None:
            anchor = replace(anchor.select(members), features=anchor.select(members).features.to(device, dtype))
        return Descent(
            features.to(device, dtype),
            [weight[some].to(device, dtype) for weight in self.weights],
            self.labels.to(device),
            num_classes=self.num_outputs,
            lr=config.descent.lr,
            weight_decay=torch.tensor(config.weight_decays, dtype=torch.float64),
            feature_decay=self.feature_decay,
            momentum=config.descent.momentum,
            activation=config.head.activation,
            loss=config.objective,
            constraint=Constraint.named(terms.constraint),
            tf32=config.descent.precision == "tf32",
            bias=None if self.bias is None else self.bias[some].to(device, dtype),
            targets=None if terms.targets is None else terms.targets.to(device, dtype),
            anchor=anchor,
            bias_decay=config.head.bias_decay,
            mixed=config.descent.precision == "auto",
            single=single_steps(config.descent.steps),
            shard=self.shard,
        )

    @property
    def own_members(self) -> range:
        """Those that this rank descends with."""
        members = self.num_members
        return range(members) if self.shard is not None else ranks.share(members, whole=members)

    def of_all(self, own: Value) -> list[Value]:
        """What each part of the members has come to, on every rank; collective."""
        return [own] if self.shard is not None else ranks.gather(own)[: self.num_members]

    @property
    def num_outputs(self) -> int:
        """K; at depth 0, where what comes out are the features, the number of classes that labels are of."""
        if self.weights:
            return self.weights[-1].shape[-2]
        return self.terms.num_classes if self.terms.targets is None else self.terms.targets.shape[1]

    def solution(self, config: Config, features: Tensor, weights: Sequence[Tensor], **more: Any) -> HeadSolution:
        """Members at these features and weights."""
        return HeadSolution.of(
            config,
            features,
            tuple(weights),
            self.labels.to(config.device),
            self.inputs,
            self.feature_decay,
            config.weight_decays,
            terms=self._terms_of(more.get("seeds"), config),
            shard=self.shard,
            **more,
        )

    def _terms_of(self, seeds: Sequence[int] | None, config: Config) -> Terms:
        """The terms, with the anchors of these seeds only where every seed has its own."""
        anchor = self.terms.anchor
        if anchor is None:
            return self.terms
        members = range(self.num_members) if seeds is None else [seed - config.seed for seed in seeds]
        some = anchor.select(members)
        return replace(self.terms, anchor=replace(some, features=some.features.to(config.device)))


def solve(run: Run, stage: str, problem: HeadProblem, partial: PartialStage) -> HeadSolution:
    """Descend, from the latest checkpoint if there is one; every rank descends with its part of the members, or, where
    samples are shared out, of these.

    Raises:
        RunError: every member diverged.
        Interrupted: a signal asked the run to end; a checkpoint was kept.
    """
    config, members = run.config, problem.own_members
    descent = problem.descent(config, members)
    if descent.why_not_native:
        log.info("%s: the steps are taken in plain PyTorch, %s", stage, descent.why_not_native)
    measured = _go_on(descent, members, partial)
    timer, steps = CheckpointTimer(config.trainer.checkpoint_seconds), config.descent.steps

    def save_if_due(progress: Progress, step: int) -> None:
        progress.advance_to(step)
        if timer.due():
            partial.save(*_state(descent, problem, measured))
            timer.restart_or_exit()

    with Progress(stage, steps, "step") as progress, interruption.deferred():
        stops = log_schedule(steps, config.descent.records_per_decade)
        for step in descend(descent, stops, lambda step: save_if_due(progress, step), agree=ranks.largest):
            if step > measured:
                progress.headline(_measure(run, stage, step, problem, members, Ending.of(descent)))
                measured = step
            # Layer 1 of frozen features stays what it is, whatever the head does. A DUFM solved on the way to something
            # else is wanted to the end.
            first_layer = 2 if problem.feature_decay is None else 1
            if step and stage == "head" and is_collapsed(run, stage, run.head_seeds, first_layer):
                log.info("%s: collapsed at step %d, stopped", stage, step)
                break
            save_if_due(progress, step)
    if not config.descent.polish:
        return _joined_solution(run, problem, Ending.of(descent))
    with Progress(f"{stage}, polished", POLISH_ITERATIONS, "iteration") as progress:

        def after(iteration: int) -> None:
            interruption.exit_if_signalled()  # what was polished is done again: it takes seconds
            progress.advance_to(iteration)

        end = polished(descent, problem.terms.constraint, after)
        taken = zip(end.polish.iterations, end.polish.heavy_ball_steps, strict=True)
        known = [iterations + steps for iterations, steps in taken if iterations is not None]
        last = descent.step + int(ranks.largest(float(max(known, default=0))))
        progress.headline(_measure(run, stage, last, problem, members, end))
    return _joined_solution(run, problem, end)


def _measure(run: Run, stage: str, step: int, problem: HeadProblem, members: range, end: Ending) -> str:
    """Measure and record all members where they are; returns the headline."""
    own = problem.solution(
        run.config,
        end.point.features,
        end.point.weights,
        diverged=end.diverged,
        bias=end.point.bias,
        seeds=tuple(run.head_seeds[members.start : members.stop]),
    )
    found = joined_members(problem.of_all(measure_solution(run.config, own, problem.test)), problem.num_members)
    headline = record_solution(run, stage, step, found)
    how = joined(problem.of_all(end.polish))
    if how is not None:
        norms = [math.nan if norm is None else norm for norm in how.gradient_norm]
        run.record.add(stage, step, run.head_seeds, {"gradient_norm": norms})
    return headline


def _go_on(descent: Descent, members: range, partial: PartialStage) -> int:
    """Bring the descent to its latest checkpoint; returns the last step that was measured, -1 for none."""
    kept = partial.load()
    if kept is None:
        return -1
    tensors, facts = kept
    layers = range(1, facts["layers"] + 1)
    state = {
        "step": facts["step"],
        **{name: {int(member): step for member, step in facts.get(name, {}).items()} for name in STEPS_OF_MEMBERS},
        "limit": tensors["limit"],
        "features": tensors.get("features"),
        "weights": [tensors[f"weights/{layer}"] for layer in layers],
        "velocities": [tensors[f"velocities/{index}"] for index in range(1, facts["velocities"] + 1)],
        "bias": tensors.get("bias"),
        "bias_velocity": tensors.get("bias_velocity"),
        "without_direction": facts["without_direction"],
    }
    descent.load_state_dict(part_of_state(state, members))
    return facts["measured"]


def _state(descent: Descent, problem: HeadProblem, measured: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State of all members as tensors and facts; collective."""
    state = joined_states(problem.of_all(_on_cpu(descent.state_dict())))
    tensors = {"limit": state["limit"]} | {name: state[name] for name in MAYBE if state[name] is not None}
    for name in ("weights", "velocities"):
        tensors |= {f"{name}/{index}": tensor for index, tensor in enumerate(state[name], start=1)}
    facts = {"layers": len(state["weights"]), "velocities": len(state["velocities"]), "measured": measured}
    return tensors, facts | {name: state[name] for name in ("step", *STEPS_OF_MEMBERS, "without_direction")}


def _on_cpu(value: Any) -> Any:
    """The same nest of dictionaries and lists with every tensor on the CPU."""
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_on_cpu(item) for item in value]
    return value.cpu() if isinstance(value, Tensor) else value


def _joined_solution(run: Run, problem: HeadProblem, end: Ending) -> HeadSolution:
    """The final state of all members, on every rank."""
    free, device = problem.feature_decay is not None, run.config.device
    own = {
        "weights": list(end.point.weights),
        "features": end.point.features if free else None,
        "bias": end.point.bias,
        "diverged": end.diverged,
        "switched": end.switched,
        "without_direction": end.without_direction,
        "polish": end.polish,
    }
    parts = problem.of_all(_on_cpu(own))
    weights = [torch.cat(same).to(device) for same in zip(*(part["weights"] for part in parts), strict=True)]
    features = torch.cat([part["features"] for part in parts]).to(device) if free else end.point.features
    diverged, switched, offset = {}, None if end.switched is None else {}, 0
    for part in parts:
        diverged |= {offset + member: step for member, step in part["diverged"].items()}
        if switched is not None:
            switched |= {offset + member: step for member, step in part["switched"].items()}
        offset += len(part["weights"][0] if weights else part["features"])
    solution = problem.solution(
        run.config,
        features,
        weights,
        bias=None if end.point.bias is None else torch.cat([part["bias"] for part in parts]).to(device),
        diverged=diverged,
        without_direction=sum(part["without_direction"] for part in parts),
        polish=joined([part["polish"] for part in parts]),
        switched=switched,
    )
    _report_divergence(run, solution)
    if solution.without_direction:
        log.warning(
            "%d times features.constraint=%s met a row without a direction, and put it on its largest entry's axis",
            solution.without_direction,
            problem.terms.constraint,
        )
    return solution


def _report_divergence(run: Run, head: HeadSolution) -> None:
    advice = f"a smaller descent.lr (now {run.config.descent.lr:g}) usually helps."
    for member, step in head.diverged.items():
        log.warning("head seed %d diverged (noticed at step %d); %s", head.seeds[member], step, advice)
    if len(head.diverged) == len(head.seeds):
        raise RunError(f"the head diverged for every seed (by step {max(head.diverged.values())}); {advice}")
