"""Coupling of residual blocks: do their Jacobians align while classes collapse, and does that go with accuracy?

Paper: arXiv 2407.07810 (transformer block coupling), 2401.09018 (residual alignment).
Shows: m_K of all pairs of blocks before and after training; coupling, line shape and NC1 against the epoch; coupling
    against depth and decay; test accuracy against minus coupling.
Expects: m falls in training, with decay and with depth, next to NC1; without skip connections it stays near 1.
Evidence: docs/reproduction/beyond.md and coupling*.csv there.
    Command: scripts/reproduce coupling --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32.
    Date: 2026-11-27. Commit of the code: the one that brought this file.
Provenance: claims of both papers read in a digest; the small networks (digits, width 64, full batch, Adam 5e-3 with
    cosine, 600 steps, decay in the objective) and the trend with decay ours. m is the mean over ordered pairs of blocks
    at most 3 apart, K = 5; J is that of the branch W relu(x), without the norm after it. "Seen before" are numbers of
    the specification's own runs.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from pipeline.studies._coupling import (
    DEEP,
    GRID,
    LARGE,
    OTHERS,
    STRONG,
    VIT,
    VIT_DECAY,
    by_depth,
    last_of,
    matrix,
    mean_of,
    named,
    near,
    of_depths,
    rank_correlation,
    scattered,
)
from pipeline.studies._coupling_drawing import draw
from pipeline.studies._family import every
from pipeline.studies._measured import COMMON, end, numbers, places, start
from pipeline.studies.engine.claims import CONTROL, OURS, READ, Claim, Measurement, owned, reasoned
from pipeline.studies.engine.results import Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk

SEEN = {2: 0.53, 5: 0.44, 13: 0.23, 21: 0.19}
"""m of the strongest decay by depth, as the specification saw it; 0.59 and 0.75 (L = 5) with the others."""
NOT_ON_CPU = ("L21", "L13-decay_0.0005", "noise_0.2", "seed_2")
CPU_POINTS = tuple(
    point for point in (*DEEP, *OTHERS, *VIT, *VIT_DECAY, *GRID) if not any(part in point.name for part in NOT_ON_CPU)
)
QUICK_POINTS = shrunk(
    (*DEEP, *OTHERS),
    ["L5-decay_0", "L5-decay_0.005", "L13-decay_0.005", "L5-decay_0.005-no_skip"],
    ("backbone.epochs=300", *COMMON),
)

REASONS: dict[str, str] = {}
"""Why claims do not hold, by a part of their text."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """Coupling over training, decay and depth, beside NC1 and accuracy; residual alignment; the controls."""
    return reasoned([*_in_training(results), *_trends(results), *_alignment(results), *_accuracy(results)], REASONS)


def _in_training(results: Sequence[Result]) -> list[Claim]:
    made, deep = [], of_depths(results)
    if not deep:
        return made
    first, last = ([near(matrix(result, at)) for result in deep] for at in (0, -1))
    made += owned(
        OURS,
        every(
            "residual MLPs: before training m is that of unrelated blocks, within .1 of 1.02",
            [abs(value - 1.02) <= 0.1 for value in first],
            numbers(first),
        ),
    )
    falls = [after < before for before, after in zip(first, last, strict=True)]
    made += owned(READ, every("residual MLPs: coupling grows in training (m falls)", falls, numbers(last)))
    scores = [(start(r, last_of(r), "line_shape_score"), end(r, last_of(r), "line_shape_score")) for r in deep]
    text = "residual MLPs: the line shape score falls in training"
    made += owned(READ, every(text, [after < before for before, after in scores], numbers([it[1] for it in scores])))
    if vits := named(results, "vit"):
        values = [(near(matrix(result, 0)), near(matrix(result))) for result in vits]
        text = "transformers: coupling grows in training (m falls)"
        made += owned(READ, every(text, [after < before for before, after in values], _ends(values)))
        scores = [(start(r, last_of(r), "line_shape_score"), end(r, last_of(r), "line_shape_score")) for r in vits]
        text = "transformers: the line shape score falls in training"
        made += owned(READ, every(text, [after < before for before, after in scores], _ends(scores)))
    for result in named(results, "no_skip"):
        value = near(matrix(result))
        made += owned(CONTROL, Claim("without skips blocks stay unrelated: m", ">= 0.9", f"{value:.3g}", value >= 0.9))
    return made


def _trends(results: Sequence[Result]) -> list[Claim]:
    made, table = [], by_depth(results)
    for depth, own in table.items():
        if len(own) > 1:
            values = [near(matrix(own[decay])) for decay in sorted(own)]
            text = f"L = {depth}: m falls with decay ({', '.join(f'{decay:g}' for decay in sorted(own))})"
            made += owned(OURS, Claim(text, "falling", numbers(values), _falling(values)))
    strong = {depth: near(matrix(own[STRONG])) for depth, own in table.items() if STRONG in own}
    if len(strong) > 1:
        text = f"decay {STRONG:g}: m falls with depth ({', '.join(map(str, strong))})"
        values = list(strong.values())
        made += owned(OURS, Claim(text, "falling", numbers(values), _falling(values)))
    if len(vits := named(results, "vit-n10-decay")) > 1:
        values = [near(matrix(result)) for result in sorted(vits, key=lambda it: it.config.optimizer.weight_decay)]
        text = f"transformers: m falls with decay in the objective (0, {STRONG:g})"
        made += owned(OURS, Claim(text, "falling", numbers(values), _falling(values)))
    if len(deep := of_depths(results)) > 4:
        pairs = [(near(matrix(result)), end(result, last_of(result), "dnc1")) for result in deep]
        value, low, high = rank_correlation(*zip(*pairs, strict=True))
        text = "residual MLPs: networks that couple more collapse more (Spearman of m and NC1 of the last block)"
        made += owned(OURS, Claim(text, "> 0", f"{value:.2f} ({low:.2f} to {high:.2f})", value > 0))
    return made


def _alignment(results: Sequence[Result]) -> list[Claim]:
    strong = [own[STRONG] for own in by_depth(results).values() if STRONG in own]
    if not strong:
        return []
    beyond = [max(end(result, place, "ra3_beyond") for place in places(result)) for result in strong]
    sides = [_mean(result, "ra2_left_right") for result in strong]
    spread = [_spread([end(result, place, "ra4_largest") for place in places(result)]) for result in strong]
    steps = [end(result, last_of(result), "ra1_spacing") for result in strong]
    said = f"decay {STRONG:g}, every depth"
    return [
        *owned(
            READ,
            every(f"{said}: RA1, steps equispaced, variation <= .5", [value <= 0.5 for value in steps], numbers(steps)),
            every(
                f"{said}: RA2, left and right vectors align more than before training",
                [after > before for before, after in sides],
                _ends(sides),
            ),
            every(
                f"{said}: RA3, share of J beyond rank C <= .05", [value <= 0.05 for value in beyond], numbers(beyond)
            ),
            every(
                f"{said}: RA4, L s_1 alike in all blocks, largest over smallest <= 2",
                [value <= 2 for value in spread],
                numbers(spread),
            ),
        )
    ]


def _accuracy(results: Sequence[Result]) -> list[Claim]:
    found = scattered(results)
    if len(found) < 5:
        return []
    value, low, high = rank_correlation([-m for m, *_ in found], [accuracy for _, accuracy, _ in found])
    text = f"test accuracy and -m go together (Spearman, {len(found)} residual MLPs)"
    claims = owned(READ, Claim(text, "> 0", f"{value:.2f} ({low:.2f} to {high:.2f})", value > 0))
    for noise in sorted({noise for *_, noise in found}):
        own = [(-m, accuracy) for m, accuracy, other in found if other == noise]
        value, low, high = rank_correlation(*zip(*own, strict=True))
        text = f"test accuracy and -m at {noise:.0%} wrong labels alone ({len(own)} of them)"
        claims += owned(OURS, Claim(text, "> 0", f"{value:.2f} ({low:.2f} to {high:.2f})", value > 0))
    return claims


def measurements(results: Sequence[Result]) -> list[Measurement]:
    """m beside what small runs showed before."""
    made = []
    for result in of_depths(results):
        if result.config.optimizer.weight_decay == STRONG:
            depth = result.config.backbone.depth
            note = f"seen before: {SEEN[depth]:g}"
            made.append(Measurement(f"m of L = {depth}, decay {STRONG:g}", f"{near(matrix(result)):.3g}", note))
        elif result.config.backbone.depth == 5:
            decay = result.config.optimizer.weight_decay
            note = f"seen before: {0.59 if decay else 0.75:g}"
            made.append(Measurement(f"m of L = 5, decay {decay:g}", f"{near(matrix(result)):.3g}", note))
    for result in named(results, "two_layers"):
        value = near(matrix(result))
        made.append(Measurement(f"m of L = 5, two layers, decay {STRONG:g}", f"{value:.3g}", "seen before: 0.40"))
    for result in named(results, "vit-"):
        seen = "; seen before: 1.02 to .984-.996" if result.config.optimizer.name == "adamw" else ""
        accuracy = end(result, None, "test_accuracy")
        measured = f"{mean_of(matrix(result, 0)):.3g} to {mean_of(matrix(result)):.3g}, test accuracy {accuracy:.2f}"
        score = f", line shape {start(result, last_of(result), 'line_shape_score'):.3g}"
        score += f" to {end(result, last_of(result), 'line_shape_score'):.3g}"
        measured += score + (" (seen before: 2.5 to 1.9)" if seen else "")
        note = f"all pairs of blocks{seen}"
        made.append(Measurement(f"m of a transformer, {result.point.name}, before and after training", measured, note))
    return made


def _mean(result: Result, metric: str) -> tuple[float, float]:
    """Before and after training, over blocks."""
    found = [(start(result, place, metric), end(result, place, metric)) for place in places(result)]
    return tuple(float(np.mean(values)) for values in zip(*found, strict=True))


def _spread(values: Sequence[float]) -> float:
    return max(values) / min(values)


def _falling(values: Sequence[float]) -> bool:
    return all(after < before for before, after in pairwise(values))


def _ends(values: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{before:.3g} to {after:.3g}" for before, after in values)


def tables(results: Sequence[Result]) -> dict[str, pd.DataFrame]:
    """A row for each network."""
    rows = []
    for result in results:
        rows.append(
            {
                "point": result.point.name,
                "seed": result.config.seed,
                "m_first": near(matrix(result, 0)),
                "m_last": near(matrix(result)),
                "line_shape_first": start(result, last_of(result), "line_shape_score"),
                "line_shape_last": end(result, last_of(result), "line_shape_score"),
                "left_right": _mean(result, "ra2_left_right")[1],
                "beyond": _mean(result, "ra3_beyond")[1],
                "dnc1_last": end(result, last_of(result), "dnc1"),
                "train_accuracy": end(result, None, "train_accuracy"),
                "test_accuracy": end(result, None, "test_accuracy"),
            }
        )
    return {"coupling": pd.DataFrame(rows)}


STUDY = Study(
    name="coupling",
    group="beyond",
    title="Jacobians of residual blocks: coupling, alignment, accuracy",
    versions={FULL: (*DEEP, *OTHERS, *GRID, *VIT, *VIT_DECAY, *LARGE), CPU: CPU_POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    measurements=measurements,
    tables=tables,
)
