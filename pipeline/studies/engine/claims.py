"""What a figure must show, said before looking: results -> claim | expected | measured | holds.

The thresholds are those of the runs' own verdicts (``conf/protocol/dufm.yaml``: DNC1 1e-6, DNC2 1.05, DNC3 0.05) and
the constants below. They were fixed before the runs and stay: a claim that fails is reported as failing.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from pipeline import dufm
from pipeline.dufm.verdict import theorem_speaks_of
from pipeline.studies.engine.runs import Result
from pipeline.theory import collapsed_optimum, critical_decay

GAP_E1 = {3: 1e-3, 4: 1e-3, 6: 5e-3}
"""Largest relative gap to the closed form after 1e5 steps, by depth."""
GAP = 0.01
"""Largest relative gap at which a run counts as having reached a value (the default of `theory.diagnose`)."""
OUTPUT = 0.01
"""Largest distance of the correct-class output from q*."""
WIDE, NARROW = 16, 4
"""From WIDE on no seed gets stuck; up to NARROW some do."""
FLOW_LR, FLOW_GAP, FLOW_SPREAD = 0.5, 1.0, 0.1
"""Up to FLOW_LR descent follows the gradient flow: lr x steps to a gap of FLOW_GAP agree to FLOW_SPREAD."""
AT_OPTIMUM = ("global optimum", "collapsed solution")
UNNAMED = ("none of them", "diverged")


@dataclass(frozen=True)
class Claim:
    """One line of the table; ``holds`` is None where runs of this size cannot decide."""

    claim: str
    expected: str
    measured: str
    holds: bool | None


def outputs(result: Result) -> list[float]:
    """Mean output for the correct class at the end, per seed: q* at the optimum; NaN where a seed diverged."""
    if not result.completed:
        return [math.nan] * len(result.seeds)
    labels = result.tensors["labels"]
    return _final_outputs(result)[:, torch.arange(len(labels)), labels].mean(dim=1).tolist()


def dead_samples(result: Result) -> list[int]:
    """Samples whose output has died (all units of a layer inactive, so no gradient reaches it), per seed.

    Each costs 1/(2N) more than a fitted one: how descent misses the optimum without sitting at a value with a name.
    """
    if not result.completed:
        return [0] * len(result.seeds)
    return (_final_outputs(result).abs().amax(dim=2) < 1e-3).sum(dim=1).tolist()


def _final_outputs(result: Result) -> torch.Tensor:
    """(S, N, K)."""
    weights = [result.tensors[f"weights/{layer}"] for layer in range(1, result.config.head.depth + 1)]
    return dufm.forward(result.tensors["features/1"], weights, result.config.head.activation)[-1]


def gaps(result: Result) -> list[float]:
    """Relative gap of the final loss to the closed form, per seed."""
    optimum = collapsed_optimum(result.problem).loss
    return [loss / optimum - 1 for loss in result.losses]


def worst(result: Result, metric: str, promised: bool = True) -> list[float]:
    """Per seed, the largest value among the places where the theorem promises the metric (or all others)."""
    places = [
        values
        for (layer, tap), values in result.final(metric).items()
        if theorem_speaks_of(layer, tap, metric) == promised
    ]
    return [_largest(values) for values in zip(*places, strict=True)] if places else [math.nan] * len(result.seeds)


def decay_multiple(result: Result) -> float:
    """The common decay in multiples of the critical one."""
    return result.config.head.feature_decay / critical_decay(result.problem)


def fold_multiple(result: Result) -> float:
    """Where the collapsed solution ceases to be a local minimum, in multiples of the critical decay.

    The (L+1)-th root of equation (4) of `pipeline.theory`: (L+1) / 4^(L/(L+1)).
    """
    depth = result.config.head.depth
    return (depth + 1) / 4 ** (depth / (depth + 1))


def collapse_claims(results: Sequence[Result]) -> list[Claim]:
    """E1: the loss, DNC1-3 exactly where the theorem promises them, and layer 1 left alone."""
    claims = []
    for result in results:
        name, bound = f"L = {result.config.head.depth}", GAP_E1[result.config.head.depth]
        limits = {"dnc1": result.config.verdict.dnc1, "dnc2": result.config.verdict.dnc2}
        limits["dnc3"] = result.config.verdict.dnc3
        claims.append(_at_most(f"{name}: gap of the loss to the closed form", gaps(result), bound))
        where = {"dnc1": "every layer", "dnc2": "post l >= 2, pre l >= 3", "dnc3": "W_l, l >= 2"}
        claims += [
            _at_most(f"{name}: {metric.upper()} of {where[metric]}", worst(result, metric), limit)
            for metric, limit in limits.items()
        ]
        for metric, place in (("dnc2", "H_1"), ("dnc3", "W_1")):
            values = result.final(metric).get((1, "pre"), [math.nan])
            claims.append(_above(f"{name}: {metric.upper()} of {place} is left free", values, limits[metric]))
    return claims


def depth_claims(results: Sequence[Result]) -> list[Claim]:
    """E2: the optimum is found at every depth, and the last layer collapses."""
    claims = []
    for result in results:
        depth, limit = result.config.head.depth, result.config.verdict.dnc1
        claims.append(_at_most(f"L = {depth}: gap of the loss to the closed form", gaps(result), GAP))
        last = result.final("dnc1").get((depth, "post"), [math.nan] * len(result.seeds))
        claims.append(_at_most(f"L = {depth}: DNC1 of the last layer", last, limit))
    return claims


def width_claims(results: Sequence[Result]) -> list[Claim]:
    """E2: narrow heads get stuck, at values that have names, and wide ones do not."""
    claims = []
    for result in results:
        width, found = result.config.head.width, [diagnosis.name for diagnosis in result.diagnoses]
        reached = sum(name in AT_OPTIMUM for name in found)
        if width >= WIDE:
            text = f"width {width}: every seed within {GAP:.0%} of the optimum"
            claims.append(Claim(text, f"{len(found)} of {len(found)}", _counted(found), reached == len(found)))
        elif width <= NARROW:
            text = f"width {width}: some seeds do not reach the optimum"
            claims.append(Claim(text, f"fewer than {len(found)}", _counted(found), reached < len(found)))
    everyone = [diagnosis.name for result in results for diagnosis in result.diagnoses]
    named = sum(name not in UNNAMED for name in everyone)
    text = "every final loss is at a value that theory names"
    claims.append(Claim(text, f"{len(everyone)} of {len(everyone)}", f"{named}", named == len(everyone)))
    return claims


def decay_claims(results: Sequence[Result]) -> list[Claim]:
    """E2: the collapsed optimum below the critical decay, zero above, and hysteresis between threshold and fold."""
    below = [result for result in results if decay_multiple(result) < 1]
    above = [result for result in results if decay_multiple(result) > 1]
    beyond = [result for result in results if decay_multiple(result) > fold_multiple(result)]
    claims = [
        _best_loss("below the critical decay: the best run's loss is the closed form", below),
        _best_output("below the critical decay: the best run's output is q*", below),
        _best_loss("above the critical decay: the best run's loss is 1/2, the zero solution", above),
    ]
    everyone = [(loss, result) for result in beyond for loss in result.losses]
    at_zero = sum(abs(loss - 0.5) <= 0.5 * GAP for loss, _ in everyone)
    text = "beyond the fold every seed of every start ends at zero"
    claims.append(
        Claim(text, f"{len(everyone)} of {len(everyone)}", str(at_zero), bool(everyone) and at_zero == len(everyone))
    )
    for scale in sorted({result.config.head.init_scale for result in below}):
        started = [result for result in below if result.config.head.init_scale == scale]
        found = [diagnosis.name for result in started for diagnosis in result.diagnoses]
        reached = sum(name in AT_OPTIMUM for name in found)
        text = f"below the critical decay every seed reaches the optimum from a start of scale {scale:g}"
        claims.append(Claim(text, f"{len(found)} of {len(found)}", _counted(found), reached == len(found)))
    lowest = min((gap for result in results for gap in gaps(result) if not math.isnan(gap)), default=math.nan)
    claims.append(
        Claim("no run is below the closed form", "gap >= -1e-05", f"smallest gap {lowest:.1e}", lowest >= -1e-5)
    )
    return claims


def lr_claims(results: Sequence[Result]) -> list[Claim]:
    """E2: small learning rates follow the gradient flow, large ones diverge."""
    claims, flow_times = [], {}
    for result in results:
        lr = result.config.descent.lr
        if lr <= FLOW_LR and (step := steps_to_gap(result, FLOW_GAP)) is not None:
            flow_times[lr] = lr * step
    if flow_times:
        spread = max(flow_times.values()) / min(flow_times.values()) - 1
        shown = ", ".join(f"{lr:g}: {time:.0f}" for lr, time in flow_times.items())
        text = f"lr <= {FLOW_LR:g}: lr x steps to a gap of {FLOW_GAP:.0%} is the same"
        claims.append(Claim(text, f"within {FLOW_SPREAD:.0%}", f"within {spread:.1%} ({shown})", spread <= FLOW_SPREAD))
    usual = [result for result in results if result.config.descent.lr == FLOW_LR]
    claims += [_at_most(f"lr = {FLOW_LR:g}: gap of the loss to the closed form", gaps(result), GAP) for result in usual]
    last = max(results, key=lambda result: result.config.descent.lr)
    found = [diagnosis.name for diagnosis in last.diagnoses]
    text = f"lr = {last.config.descent.lr:g} is too large: no seed reaches the optimum"
    reached = sum(name in AT_OPTIMUM for name in found)
    claims.append(Claim(text, f"0 of {len(found)}", _counted(found), reached == 0))
    return claims


def steps_to_gap(result: Result, gap: float) -> float | None:
    """Steps until the median seed's gap to the closed form is at most ``gap``; None if it never is.

    Interpolated between two measurements, linearly in the logarithms of steps and gap.
    """
    rows = result.record[(result.record.metric == "relative_gap") & (result.record.step > 0)]
    median = rows.groupby("step").value.median()
    reached = median.index[median <= gap]
    if reached.empty:
        return None
    after = median.index.get_loc(reached[0])
    if after == 0:
        return float(reached[0])
    (low, high), (gap_low, gap_high) = median.index[after - 1 : after + 1], median.iloc[after - 1 : after + 1]
    share = math.log(gap_low / gap) / math.log(gap_low / gap_high)
    return math.exp(math.log(low) + share * math.log(high / low))


def _largest(values: Iterable[float]) -> float:
    """Maximum; NaN as soon as one value is (an undefined metric is not a small one)."""
    values = list(values)
    return math.nan if any(math.isnan(value) for value in values) else max(values)


def _at_most(claim: str, values: Sequence[float], bound: float) -> Claim:
    """Every seed's value is at most ``bound``; NaN is not."""
    passed = sum(value <= bound for value in values)
    measured = f"at most {_largest(values):.3g}; {passed} of {len(values)} seeds"
    return Claim(claim, f"<= {bound:g}, every seed", measured, passed == len(values))


def _above(claim: str, values: Sequence[float], bound: float) -> Claim:
    """The median seed's value has not converged below ``bound``."""
    median = statistics.median(values)
    measured = f"median {median:.3g} ({min(values):.3g} to {max(values):.3g})"
    return Claim(claim, f"median > {bound:g}", measured, median > bound)


def _counted(names: Sequence[str]) -> str:
    """`8 x global optimum, 2 x zero solution`."""
    counts: Mapping[str, int] = {name: names.count(name) for name in dict.fromkeys(names)}
    return ", ".join(f"{count} x {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _best_by_decay(results: Sequence[Result]) -> list[Result]:
    """Of the results at each decay the one with the lowest loss (the starts differ)."""
    best: dict[float, Result] = {}
    for result in results:
        decay = result.config.head.feature_decay
        if decay not in best or _lowest(result.losses) < _lowest(best[decay].losses):
            best[decay] = result
    return list(best.values())


def _lowest(losses: Iterable[float]) -> float:
    return min((loss for loss in losses if not math.isnan(loss)), default=math.inf)


def _best_loss(claim: str, results: Sequence[Result]) -> Claim:
    best = _best_by_decay(results)
    off = [abs(_lowest(result.losses) / collapsed_optimum(result.problem).loss - 1) for result in best]
    passed = sum(value <= GAP for value in off)
    measured = f"off by at most {max(off, default=math.nan):.1e}; {passed} of {len(off)} decays"
    return Claim(claim, f"within {GAP:.0%} at every decay", measured, bool(off) and passed == len(off))


def _best_output(claim: str, results: Sequence[Result]) -> Claim:
    off = []
    for result in _best_by_decay(results):
        found = dict(zip(result.losses, outputs(result), strict=True)).get(_lowest(result.losses), math.nan)
        off.append(abs(found - collapsed_optimum(result.problem).output))
    passed = sum(value <= OUTPUT for value in off)
    measured = f"off by at most {max(off, default=math.nan):.1e}; {passed} of {len(off)} decays"
    return Claim(claim, f"within {OUTPUT:g} at every decay", measured, bool(off) and passed == len(off))
