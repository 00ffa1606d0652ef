"""How the studies of real networks judge: per claim, over all settings (images x backbone x depth of the head).

Judged by the median over seeds. A setting whose networks do not fit their training images (median accuracy below
TERMINAL) has not reached the terminal phase of training, which all of these claims are about, so it decides nothing.
What a metric tends to is decided only where training lasted at least DECAY_TIMES times the time constant of weight
decay, 1 / (learning rate x decay), which is how long the weights remember where they began; a value that is there
before is there. A claim holds if it does in every setting that decides. The constants were fixed before the runs and
stay.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median

from pipeline.studies._networks import accuracy, chain, entered, groups, images, median_at
from pipeline.studies.engine.claims import CONTROL, OURS, RECALLED, Claim
from pipeline.studies.engine.results import Result

TERMINAL = 0.995
"""Training accuracy from which on a network is in the terminal phase."""
DECAY_TIMES = 3.0
"""How many time constants of weight decay a training must last before it decides about a limit."""
SLACK = 1.1
"""A layer may exceed its predecessor by this factor and still count as "not larger"."""
SHRINKS = 0.1
"""Over training a metric must fall to at most this share of what it was before."""
NEAR = 0.1
"""Largest relative gap to the DUFM's optimum that counts as near-optimal."""
NOT_IN_THE_PAPER = "(not in the paper)"

Judgement = tuple[bool | None, float]
"""Whether a claim holds in a setting (None: not decided), and the number it was judged by."""


def over_settings(
    text: str, paper: str, results: Sequence[Result], judge: Callable[[Sequence[Result]], Judgement]
) -> Claim:
    """Judge every setting that decides, and say how many hold, which do not, and the range of the numbers.

    Args:
        paper: what it says, as it is remembered; or `NOT_IN_THE_PAPER`, of a claim of ours.
    """
    held, decided, measured = _judged(results, judge)
    owner = OURS if paper == NOT_IN_THE_PAPER else RECALLED
    return Claim(text, paper, measured, None if not decided else held == decided, owner)


def in_no_setting(text: str, results: Sequence[Result], judge: Callable[[Sequence[Result]], Judgement]) -> Claim:
    """The same of a control, where it must not come about in any setting that decides."""
    held, decided, measured = _judged(results, judge)
    return Claim(text, "in no setting", measured, None if not decided else not held, CONTROL)


def _judged(results: Sequence[Result], judge: Callable[[Sequence[Result]], Judgement]) -> tuple[int, int, str]:
    """In how many settings it is so, how many decide, and that in words."""
    held, failed, numbers, undecided, short = 0, [], [], 0, 0
    for group in groups(results).values():
        fitted = [accuracy(result, "train") for result in completed(group)]
        if not fitted or median(fitted) < TERMINAL:
            undecided += 1
            continue
        holds, number = judge(completed(group))
        if holds is None:
            short += 1
            continue
        numbers.append(number)
        held += holds
        if not holds:
            failed.append(f"{_difference(group[0], results)} ({number:.4g})")
    measured = f"{held} of {held + len(failed)} settings"
    if numbers:
        measured += f", {_range(numbers)}"
    if failed:
        measured += "; not: " + ", ".join(failed[:4]) + (f" and {len(failed) - 4} more" if len(failed) > 4 else "")
    if undecided:
        measured += f"; {undecided} not fitted"
    if short:
        measured += f"; {short} trained too shortly"
    return held, len(numbers), measured


def falls(group: Sequence[Result], metric: str) -> Judgement:
    """Through the head no layer exceeds its predecessor, and the last is below the first; number: first over last."""
    values = chain(group, metric)
    steps = [after <= SLACK * before for before, after in pairwise(values)]
    return all(steps) and values[-1] < values[0], values[0] / values[-1]


def shrinks(metric: str) -> Callable[[Sequence[Result]], Judgement]:
    """Over training the last layer's metric falls; number: before over after."""

    def judge(group: Sequence[Result]) -> Judgement:
        ratios = [ratio for result in group if (ratio := _end_over_start(result, metric)) == ratio]
        ratio = median(ratios) if ratios else math.nan
        return ratio <= SHRINKS, 1 / ratio

    return judge


def at_most(metric: str, bound: float) -> Callable[[Sequence[Result]], Judgement]:
    """The last layer's metric at the end, a limit: missed after too short a training, it is not decided."""

    def judge(group: Sequence[Result]) -> Judgement:
        value = chain(group, metric)[-1]
        short = decay_times(group[0]) < DECAY_TIMES
        return None if short and not value <= bound else value <= bound, value

    return judge


def falls_in_backbone(group: Sequence[Result]) -> Judgement:
    """DNC1 after the first block against that after the last; number: their ratio."""
    blocks = [row["layer"] for row in completed(group)[0].summary["backbone_layers"] if row["tap"] == "post"]
    first, last = (median_at(group, ("backbone", blocks[place], "post"), "dnc1") for place in (0, -1))
    return last < first, first / last


def generalises(group: Sequence[Result]) -> Judgement:
    """DNC1 of the test images through the head; number: features over last layer."""
    values = chain(group, "test_dnc1")
    return values[-1] < values[0], values[0] / values[-1]


def near_optimal(gap_of: Callable[[Result], float]) -> Callable[[Sequence[Result]], Judgement]:
    """Relative gap of the loss to the DUFM's optimum."""

    def judge(group: Sequence[Result]) -> Judgement:
        gaps = [found for result in group if (found := gap_of(result)) == found]
        found = median(gaps) if gaps else math.nan
        return found <= NEAR, found

    return judge


def decay_times(result: Result) -> float:
    """How long the head's weights were trained, in time constants 1 / (lr x decay) of their decay.

    Momentum m makes the learning rate 1 / (1 - m) times larger, a cosine schedule averages one half. A fixed head has
    no such time; only its features are trained.
    """
    config, summary = result.config, result.summary
    if "fixed_head" in summary:
        return math.inf
    if summary["step_units"]["head"] != "epoch":  # by itself, on frozen features
        rate = config.descent.lr / (1 - config.descent.momentum)
        return config.descent.steps * rate * min(config.weight_decays)
    problem, settings = summary["problem"], config.optimizer
    counts = problem["samples_per_class"]
    images = sum(counts) if isinstance(counts, list) else counts * problem["num_classes"]
    steps = config.backbone.epochs * math.ceil(images / config.backbone.batch_of(images))
    rate = settings.lr / (1 - settings.momentum) * (0.5 if settings.schedule == "cosine" else 1.0)
    return steps * rate * min(problem["weight_decay"])


def label(result: Result) -> str:
    """A setting in words."""
    head = result.config.head
    return f"{images(result)} {result.config.backbone.name} L={head.depth}"


def completed(group: Sequence[Result]) -> list[Result]:
    """Those that came to an end."""
    return [result for result in group if result.completed]


def _end_over_start(result: Result, metric: str) -> float:
    record, (stage, layer, tap) = result.record, entered(result.config.head.depth)[-1]
    rows = record[(record.stage == stage) & (record.layer == layer) & (record.tap == tap) & (record.metric == metric)]
    values = rows.sort_values("step").value.tolist()
    return values[-1] / values[0] if len(values) > 1 else math.nan


def _range(numbers: Sequence[float]) -> str:
    known = [number for number in numbers if not math.isnan(number)]
    return f"{min(known):.3g} to {max(known):.3g}" if known else "undefined"


def _difference(result: Result, results: Sequence[Result]) -> str:
    """What tells this setting from the others: the images and the backbone (E3), or the swept setting (E4)."""
    if len(set(map(label, results))) > 1:
        return label(result)
    return result.point.name.rpartition("-")[0] or result.point.name
