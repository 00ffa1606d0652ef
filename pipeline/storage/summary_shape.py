"""What stands in ``summary.json``: the shapes of all values that viewers look into."""

from collections.abc import Mapping
from typing import Any

from pipeline.storage.shapes import ANY, NULL, NUMBER

_PER_SEED = ([(NUMBER, NULL)], NULL)
_LAYER = {"layer": (str, int), "tap": str, "undefined?": ({ANY: str}, NULL), ANY: _PER_SEED}
_JUDGED = (
    {"value": (NUMBER, NULL), "collapsed?": bool, "seeds_collapsed?": int, "counts?": bool, "theorem?": bool},
    str,
    int,
    NULL,
)
SUMMARY = {
    "schema_version?": int,
    "status?": str,
    "protocol?": (str, NULL),
    "error?": (str, NULL),
    "uses?": {"images": bool, "network": bool, "head": (str, NULL)},
    "stages?": {ANY: {"title": str, "unit": str, "layers": str, "intermediate?": bool}},
    "sections?": [str],
    "title?": (str, NULL),
    "headline?": [{"name": str, "label": str, "value": (NUMBER, str, bool, NULL)}],
    "metrics?": {ANY: {"title": str, "target": (NUMBER, NULL), "scale": str, "panel": bool}},
    "environment?": ({"git_commit?": (str, NULL), "versions?": ({ANY: (str, NULL)}, NULL)}, NULL),
    "problem?": {
        "num_classes": int,
        "depth": int,
        "activation": str,
        "classes?": ([(str, int)], NULL),
        "has_classes?": bool,
    },
    "seeds?": [int],
    "loss?": {
        "total": [(NUMBER, NULL)],
        "optimum?": (NUMBER, NULL),
        "optimum_kind?": (str, NULL),
        "relative_gap?": _PER_SEED,
    },
    "references?": ([{"name": str, "value": (NUMBER, NULL), "kind": str}], NULL),
    "sits_at?": ([{"name": str, "gap": (NUMBER, NULL)}], NULL),
    "polish?": {
        "from_step": int,
        "iterations": [(int, NULL)],
        "gradient_norm": [(NUMBER, NULL)],
        "heavy_ball_steps?": [(int, NULL)],
    },
    "diverged?": ({ANY: int}, NULL),
    "float64_from?": ({ANY: (int, NULL)}, NULL),
    "layers?": [_LAYER],
    "backbone_layers?": ([_LAYER], NULL),
    "accuracy?": ({ANY: _PER_SEED}, NULL),
    "verdict?": {
        "text": str,
        "thresholds": {ANY: NUMBER},
        "layers": [{"stage": str, "layer": (str, int), "tap": str, ANY: _JUDGED}],
        "collapsed_from_layer": (int, NULL),
        "optimum?": (str, NULL),
        "theorem_reason?": (str, NULL),
        "notes?": ([str], NULL),
    },
    "tensors?": (str, NULL),
    "tensors_reason?": (str, NULL),
    "step_units?": ({ANY: str}, NULL),
    "stopped_early?": ({ANY: int}, NULL),
    "stopped_by?": ({ANY: str}, NULL),
    "parameters?": ({ANY: int}, NULL),
    "training?": ({}, NULL),
    "data?": ({}, NULL),
    "backbone_weights?": ({}, NULL),
    "timings?": ({ANY: NUMBER}, NULL),
}
"""All keys are optional: what is there depends on the run, and a run that goes on has written little."""


def lacks(written: Mapping[str, Any]) -> str | None:
    """What a verdict cannot be shown without and is not there."""
    needed = ("problem", "seeds", "loss", "layers") if "verdict" in written else ()
    missing = [name for name in needed if name not in written]
    return f"it has a verdict, but no {missing[0]}" if missing else None
