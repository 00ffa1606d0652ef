"""What a study asks of the places of which the theorem speaks, over time constants of the decay."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.dufm.verdict import METRICS, theorem_speaks_of
from pipeline.studies._networks_drawing import record_of
from pipeline.studies.engine.results import Result


def time_constants(result: Result, steps: Sequence[float] | np.ndarray) -> np.ndarray:
    """How many time constants 1 / (rate x decay) a run had behind it at these of its steps.

    The rate is that of the schedule over 1 - momentum; of one_cycle, its peak. The decay is the least of the weights';
    under a fixed head that of the features of a class, n x feature_decay, the only one that acts.
    """
    config, summary = result.config, result.summary
    if summary["step_units"]["head"] != "epoch":
        rate = config.descent.lr / (1 - config.descent.momentum)
        return np.asarray(steps, dtype=float) * rate * min(config.weight_decays)
    problem, settings, epochs = summary["problem"], config.optimizer, config.backbone.epochs
    decay = min(problem["weight_decay"])
    if "fixed_head" in summary:
        decay = problem["samples_per_class"] * problem["feature_decay"]
    images = problem["samples_per_class"] * problem["num_classes"]
    batches = math.ceil(images / config.backbone.batch_of(images))
    at = np.arange(epochs)
    shares = {
        "cosine": (1 + np.cos(np.pi * at / max(epochs, 1))) / 2,
        "drop": np.where(at < math.ceil(0.8 * epochs), 1.0, 0.1),
    }.get(settings.schedule, np.ones(epochs))
    passed = np.concatenate([[0.0], np.cumsum(shares)]) * batches * settings.lr / (1 - settings.momentum) * decay
    return passed[np.asarray(steps, dtype=int)]


def promised(result: Result) -> pd.DataFrame:
    """The record of the head at the places of which the theorem speaks, its steps in time constants."""
    frame = record_of([result])
    frame = frame[(frame.stage == "head") & frame.metric.isin(METRICS)]
    spoken = [
        theorem_speaks_of(int(layer), tap, metric) for layer, tap, metric in frame[["layer", "tap", "metric"]].values
    ]
    frame = frame[spoken]
    return frame.assign(step=time_constants(result, frame.step.to_numpy()))


def worst(result: Result) -> pd.DataFrame:
    """The largest value of every metric over the promised places: a row per metric, seed and step."""
    return promised(result).groupby(["metric", "seed", "step"], as_index=False).value.max()


def within_from(result: Result) -> float:
    """Time constants from which on everything promised was within the thresholds, for every seed; inf if never."""
    frame = worst(result)
    missed = frame[~(frame.value <= frame.metric.map(vars(result.config.verdict)))]
    later = sorted(set(frame.step[frame.step > missed.step.max()])) if len(missed) else sorted(set(frame.step))
    return later[0] if later else math.inf


def at_the_end(result: Result, metric: str) -> tuple[float, str]:
    """The worst promised place at the end, by the median over seeds: value and place."""
    frame = promised(result)
    frame = frame[(frame.metric == metric) & (frame.step == frame.step.max())]
    middle = frame.groupby(["layer", "tap"]).value.median()
    layer, tap = middle.idxmax()
    return float(middle.max()), f"layer {layer} {tap}"
