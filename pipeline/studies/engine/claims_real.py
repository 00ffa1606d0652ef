"""What E3 and E4 must show: per claim, over all settings (images x backbone x depth of the head), median over seeds.

A setting whose networks do not fit their training images (median accuracy below TERMINAL) has not reached the terminal
phase of training, which all of these claims are about, so it decides nothing. What a metric tends to is decided only
where training lasted at least DECAY_TIMES times the time constant of weight decay, 1 / (learning rate x decay), which
is how long the weights remember where they began; a value that is there before is there. A claim holds if it does in
every setting that decides. The constants were fixed before the runs and stay.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median

from pipeline.studies.engine.claims import Claim
from pipeline.studies.engine.runs import Result
from pipeline.studies.engine.tables_real import (
    SWEEPS,
    accuracy,
    chain,
    entered,
    gap,
    groups,
    images,
    median_at,
    seen_gap,
    swept,
    variant,
)

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
WIDE = 16
"""From this width on a head must collapse."""
OURS = "(not in the paper)"

Judgement = tuple[bool | None, float]
"""Whether a claim holds in a setting (None: not decided), and the number it was judged by."""


def e3_claims(results: Sequence[Result]) -> list[Claim]:
    """All claims, protocol by protocol."""
    made = []
    for name in dict.fromkeys(map(variant, results)):
        own = [result for result in results if variant(result) == name]
        limits = own[0].config.verdict
        for text, paper, judge in (
            ("DNC1 falls from layer to layer of the head", "decreases with depth", lambda g: falls(g, "dnc1")),
            ("DNC3 falls from layer to layer of the head", "decreases with depth", lambda g: falls(g, "dnc3")),
            (f"DNC1 of the last layer falls to {SHRINKS:g} of its start", "decreases over training", shrinks("dnc1")),
            (f"DNC3 of the last layer falls to {SHRINKS:g} of its start", "decreases over training", shrinks("dnc3")),
            (f"DNC1 of the last layer <= {limits.dnc1:g}", "tends to 0", at_most("dnc1", limits.dnc1)),
            (f"DNC2 of the last layer <= {limits.dnc2:g}", "tends to 1", at_most("dnc2", limits.dnc2)),
            (f"DNC3 of the last layer <= {limits.dnc3:g}", "tends to 0", at_most("dnc3", limits.dnc3)),
            ("DNC1 falls from the first to the last block of the backbone", OURS, falls_in_backbone),
            ("on the test images too, DNC1 is smaller in the last layer than in the features", OURS, generalises),
        ):
            made.append(_over_settings(f"{name}: {text}", paper, own, judge))
        if name in ("end_to_end_dufm", "fixed_head"):
            text = f"{name}: loss within {NEAR:.0%} of the DUFM's optimum"
            made.append(_over_settings(text, "reaches near-optimal loss", own, near_optimal(gap)))
        if name == "fixed_head":
            text = f"{name}: the same without the penalty on what W_1 cannot see of the features"
            made.append(_over_settings(text, OURS, own, near_optimal(seen_gap)))
    return made


def e4_claims(results: Sequence[Result]) -> list[Claim]:
    """How collapse depends on the settings of the head."""
    sweeps = {name: swept(results, name) for name in SWEEPS}
    limits = results[0].config.verdict
    narrow = [result for result in sweeps["width"] if result.config.head.width < 4]
    wide = [result for result in sweeps["width"] if result.config.head.width >= WIDE]
    made = [
        _over_settings(f"{text}: DNC1 of the last layer <= {limits.dnc1:g}", paper, own, at_most("dnc1", limits.dnc1))
        for text, paper, own in (
            ("at every decay of the head (dufm)", "collapses", sweeps["decay"]),
            ("at every decay of all weights (standard)", "collapses", sweeps["standard"]),
            (f"at every width from {WIDE} on", "collapses", wide),
            ("at every depth", "collapses", sweeps["depth"]),
            ("at every learning rate", OURS, sweeps["lr"]),
            ("with a linear head", "collapses (arXiv 2410.04887)", [r for r in sweeps["activation"] if not _relu(r)]),
        )
    ]
    made += [
        _over_settings(f"{text}: DNC2 of the last layer <= {limits.dnc2:g}", paper, own, at_most("dnc2", limits.dnc2))
        for text, paper, own in (
            ("at every decay of the head (dufm)", "tends to 1", sweeps["decay"]),
            (f"at every width from {WIDE} on", "tends to 1", wide),
            ("at every depth", "tends to 1", sweeps["depth"]),
        )
    ]
    if narrow:
        text = f"width {narrow[0].config.head.width}: some networks do not fit their training images"
        shares = [accuracy(result, "train") for result in narrow]
        stuck = sum(not share >= TERMINAL for share in shares)
        made.append(Claim(text, "narrow heads get stuck", f"{stuck} of {len(shares)} networks", stuck > 0))
    made.append(_ordered("stronger decay of the head brings DNC2 closer to 1", sweeps["decay"], "weight_decay"))
    made.append(_ordered("a larger learning rate brings DNC2 closer to 1", sweeps["lr"], "lr"))
    return made


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
    blocks = [row["layer"] for row in _completed(group)[0].summary["backbone_layers"] if row["tap"] == "post"]
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
    config = result.config
    if config.protocol.name == "fixed_head":
        return math.inf
    if config.protocol.name == "frozen_features":
        rate = config.descent.lr / (1 - config.descent.momentum)
        return config.descent.steps * rate * min(config.weight_decays)
    problem, settings = result.summary["problem"], config.optimizer
    counts = problem["samples_per_class"]
    images = sum(counts) if isinstance(counts, list) else counts * problem["num_classes"]
    steps = config.backbone.epochs * math.ceil(images / config.backbone.batch_size)
    rate = settings.lr / (1 - settings.momentum) * (0.5 if settings.schedule == "cosine" else 1.0)
    return steps * rate * min(problem["weight_decay"])


def label(result: Result) -> str:
    """A setting in words."""
    head = result.config.head
    return f"{images(result)} {result.config.backbone.name} L={head.depth}"


def _completed(group: Sequence[Result]) -> list[Result]:
    return [result for result in group if result.completed]


def _end_over_start(result: Result, metric: str) -> float:
    record, (stage, layer, tap) = result.record, entered(result.config.head.depth)[-1]
    rows = record[(record.stage == stage) & (record.layer == layer) & (record.tap == tap) & (record.metric == metric)]
    values = rows.sort_values("step").value.tolist()
    return values[-1] / values[0] if len(values) > 1 else math.nan


def _over_settings(
    text: str, paper: str, results: Sequence[Result], judge: Callable[[Sequence[Result]], Judgement]
) -> Claim:
    """Judge every setting that decides, and say how many hold, which do not, and the range of the numbers."""
    held, failed, numbers, undecided, short = 0, [], [], 0, 0
    for group in groups(results).values():
        fitted = [accuracy(result, "train") for result in _completed(group)]
        if not fitted or median(fitted) < TERMINAL:
            undecided += 1
            continue
        holds, number = judge(_completed(group))
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
    return Claim(text, paper, measured, None if not numbers else not failed)


def _range(numbers: Sequence[float]) -> str:
    known = [number for number in numbers if not math.isnan(number)]
    return f"{min(known):.3g} to {max(known):.3g}" if known else "undefined"


def _difference(result: Result, results: Sequence[Result]) -> str:
    """What tells this setting from the others: the images and the backbone (E3), or the swept setting (E4)."""
    if len(set(map(label, results))) > 1:
        return label(result)
    return result.point.name.rpartition("-")[0] or result.point.name


def _ordered(text: str, results: Sequence[Result], key: str) -> Claim:
    """DNC2 of the last layer falls strictly from the smallest to the largest value of a setting (ends compared)."""
    fitted = {}
    for group in groups(results).values():
        shares = [accuracy(result, "train") for result in _completed(group)]
        if shares and median(shares) >= TERMINAL:
            config = group[0].config
            value = config.head.weight_decay if key == "weight_decay" else config.optimizer.lr
            fitted[value] = chain(_completed(group), "dnc2")[-1]
    ends = sorted(fitted)
    measured = ", ".join(f"{value:g}: {fitted[value]:.3g}" for value in ends)
    return Claim(text, OURS, measured, None if len(ends) < 2 else fitted[ends[-1]] < fitted[ends[0]])


def _relu(result: Result) -> bool:
    return result.config.head.activation == "relu"
