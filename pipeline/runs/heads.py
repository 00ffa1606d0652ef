"""What protocols make of a head: its random start, and the stage that solves it."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.dufm import initial_weights
from pipeline.runs.polishing import polish_of, polish_rows
from pipeline.runs.run import HEAD, Run
from pipeline.runs.solutions import PLAIN, Features, HeadSolution, Terms
from pipeline.runs.solving import HeadProblem, solve
from pipeline.runtime.randomness import generator
from pipeline.storage.stages import STAGES

NEVER = -1
"""Stands, in a kept stage, for the step at which a member's products did not switch to float64."""


def initial_head(run: Run, num_features: int, num_classes: int, seeds: Sequence[int] | None = None) -> list[Tensor]:
    """Random W_1 .. W_L, one member per seed (by default of the descent), each from its own seed; [] at depth 0."""
    head = run.config.head
    if not head.depth:
        return []
    widths = [num_features] + [head.width] * (head.depth - 1)
    sources = [generator(seed, "head weights") for seed in (run.head_seeds if seeds is None else seeds)]
    return initial_weights(widths, num_classes, sources, head.init_scale)


def solve_head(
    run: Run,
    features: Tensor,
    weights: Sequence[Tensor],
    labels: Tensor,
    feature_decay: float | None,
    *,
    stage: str = "head",
    test: Features | None = None,
    terms: Terms = PLAIN,
) -> HeadSolution:
    """Descend from the given start, recording losses and every layer's metrics on a log-spaced schedule.

    Args:
        features: ``(N, d_1)`` frozen (``feature_decay`` None), or the free start ``(S, N, d_1)``.
        weights: W_l ``(S, d_{l+1}, d_l)``.
        labels: ``(N,)``.
        stage: what the record calls it.
        test: features whose test split is measured too; they say whether all are those of this rank's images alone.
        terms: what the problem has beside them; ``head.bias`` begins at 0.

    Raises:
        RunError: every member diverged.
        Interrupted: a signal asked the run to end.
    """
    bias = None
    if run.config.head.bias == "last":
        bias = torch.zeros(weights[-1].shape[:2], dtype=torch.float64)
    shard = None if test is None else test.shard
    return solve_problem(run, HeadProblem(features, weights, labels, feature_decay, test, bias, terms, shard), stage)


def solve_problem(run: Run, problem: HeadProblem, stage: str = "head", given: str = "") -> HeadSolution:
    """As `solve_head`; ``given`` stands for the content of files that the problem came from."""
    key, limit = run.key(*run.feature_sections, *HEAD, "stop_when_collapsed"), run.config.record.max_tensor_mb
    if given:
        key = hashlib.sha256(f"{key}/{given}".encode()).hexdigest()
    run.planned_steps[stage] = run.config.descent.steps

    def make() -> dict[str, Tensor]:
        solution = solve(run, stage, problem, run.stage_cache.partial(f"{STAGES}/{stage}.half.safetensors", key))
        kept = {f"weights/{layer}": weight for layer, weight in enumerate(solution.weights, start=1)}
        if problem.inputs == "free":
            kept["features"] = solution.features
        if solution.bias is not None:
            kept["bias"] = solution.bias
        kept["without_direction"] = torch.tensor(solution.without_direction)
        if solution.polish is not None:
            kept["polish"] = polish_rows(solution.polish)
        if solution.switched is not None:
            steps = [solution.switched.get(member, NEVER) for member in range(problem.num_members)]
            kept["switched"] = torch.tensor(steps)
        return kept | {f"diverged/{member}": torch.tensor(step) for member, step in solution.diverged.items()}

    with run.stopwatch.time("solve_head" if stage == "head" else f"solve_{stage}"):
        kept = run.stage_cache.load_or_run(f"{STAGES}/{stage}.safetensors", key, make, limit)
    device = run.config.device
    diverged = {int(name.removeprefix("diverged/")): int(step) for name, step in kept.items() if "diverged" in name}
    final = [kept[f"weights/{layer}"].to(device) for layer in range(1, len(problem.weights) + 1)]
    inputs = kept.get("features", problem.features).to(device)
    return problem.solution(
        run.config,
        inputs.to(final[0].dtype) if final else inputs,
        final,
        bias=kept["bias"].to(device) if "bias" in kept else None,
        diverged=diverged,
        without_direction=int(kept["without_direction"]),
        polish=polish_of(kept["polish"]) if "polish" in kept else None,
        switched={m: step for m, step in enumerate(kept["switched"].tolist()) if step != NEVER}
        if "switched" in kept
        else None,
    )
