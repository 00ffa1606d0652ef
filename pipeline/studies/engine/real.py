"""The studies of real networks, E3 and E4: which runs they need in each size.

Every point is one network and one seed. The presets in ``conf/experiment/`` hold the full version's settings; what the
smaller versions change, so that two CPU cores can afford them, stands here.
"""

from collections.abc import Mapping

from pipeline.studies.engine import claims_real, drawing_real, tables_real
from pipeline.studies.engine.runs import Point
from pipeline.studies.engine.study import CPU, FULL, QUICK, Grid, Study

SEEDS = (0, 1, 2, 3, 4)
DEPTHS = (3, 5)
PRESETS = tuple(
    f"e3_{data}_{backbone}" for backbone in ("mlp", "resnet20") for data in ("mnist01", "mnist49", "cifar10")
)
# Two networks of the same settings differ in what is drawn by their seed; the DUFM of a fixed head is solved from three
# starts, so that one stuck start does not decide over it.
VARIANTS = {
    "end_to_end_dufm": ("protocol=end_to_end", "protocol.regularization=dufm", "descent.seeds=1"),
    "end_to_end_standard": (
        "protocol=end_to_end",
        "protocol.regularization=standard",
        "optimizer.weight_decay=5e-3",
        "descent.seeds=1",
    ),
    "frozen_features": ("protocol=frozen_features", "descent.seeds=1"),
    "fixed_head": ("protocol=fixed_head", "descent.seeds=3"),
    "untrained_backbone": ("protocol=frozen_features", "backbone.epochs=0", "descent.seeds=1"),  # a control
}

# Small batches, because what a network must take to collapse are steps: in units of 1 / (lr x decay) about three.
CPU_SHRUNK = ("descent.records_per_decade=5", "descent.steps=3000")
CPU_SIZES = {
    "mlp": ("data.samples_per_class=1000", "backbone.batch_size=64", "backbone.epochs=200"),
    "resnet20": ("data.samples_per_class=500", "backbone.batch_size=32", "backbone.epochs=80"),
}
CPU_SEEDS = {"mlp": (0, 1, 2), "resnet20": (0,)}
QUICK_RESNET = ("data.samples_per_class=64", "backbone.epochs=4")
QUICK_SHRUNK = ("backbone.batch_size=32", "descent.records_per_decade=3", "descent.steps=500")


def _e3(
    variant: str, presets: tuple[str, ...] = PRESETS, depths: tuple[int, ...] = DEPTHS, seeds: tuple[int, ...] = SEEDS
) -> Grid:
    return Grid(variant, {"experiment": presets, "head.depth": depths, "seed": seeds}, VARIANTS[variant])


def _e3_cpu() -> tuple[Point, ...]:
    points = []
    for preset in PRESETS:
        backbone = preset.rpartition("_")[2]
        for variant in VARIANTS:
            if variant == "end_to_end_standard" and backbone == "resnet20":
                continue  # the MLP shows the difference between the two regularisations, for a tenth of the time
            points += _shrunk(variant, preset, DEPTHS, CPU_SEEDS[backbone], (*CPU_SIZES[backbone], *CPU_SHRUNK))
    return tuple(points)


def _e3_quick() -> tuple[Point, ...]:
    points = []
    for preset in PRESETS:
        mlp = preset.endswith("mlp")
        size = ("data.samples_per_class=200", "backbone.epochs=30") if mlp else QUICK_RESNET
        for variant in VARIANTS:
            if "mnist49" not in preset and (mlp or variant != "end_to_end_standard"):
                points += _shrunk(variant, preset, (3,), (0,), (*size, *QUICK_SHRUNK))
    return tuple(points)


def _shrunk(
    variant: str, preset: str, depths: tuple[int, ...], seeds: tuple[int, ...], smaller: tuple[str, ...]
) -> list[Point]:
    """Points of one preset; what ``smaller`` says of the epochs does not count where nothing is to be trained."""
    fixed = {override.partition("=")[0] for override in VARIANTS[variant]}
    kept = tuple(override for override in smaller if override.partition("=")[0] not in fixed)
    return _e3(variant, (preset,), depths, seeds).points(lambda values: kept)


# Each sweep leaves out the value of the base point, which belongs to all of them.
E4_SWEEPS = {
    "decay": {"head.weight_decay": (5e-4, 2e-3, 1e-2, 2e-2)},
    "standard": {"optimizer.weight_decay": (1e-4, 5e-4, 1e-3, 5e-3, 1e-2)},
    "width": {"head.width": (2, 4, 8, 16, 256)},
    "depth": {"head.depth": (2, 3, 6, 8)},
    "lr": {"optimizer.lr": (0.002, 0.01, 0.02, 0.1)},
    "activation": {"head.activation": ("linear",)},
    "base": {},
}
E4_FIXED = {"standard": ("protocol.regularization=standard",)}
E4_QUICK = {
    "decay": {"head.weight_decay": (5e-4, 2e-2)},
    "standard": {"optimizer.weight_decay": (1e-3,)},
    "width": {"head.width": (4,)},
    "depth": {"head.depth": (2,)},
    "lr": {"optimizer.lr": (0.01,)},
    "activation": {"head.activation": ("linear",)},
    "base": {},
}
E4_CPU_SHRUNK = ("data.samples_per_class=1000", "backbone.epochs=150", "backbone.batch_size=64")
E4_QUICK_SHRUNK = (*QUICK_SHRUNK, "data.samples_per_class=200", "backbone.epochs=30")


def _e4(sweeps: Mapping[str, Mapping[str, tuple]], seeds: tuple[int, ...]) -> tuple[Grid, ...]:
    return tuple(Grid(name, {**axes, "seed": seeds}, E4_FIXED.get(name, ())) for name, axes in sweeps.items())


def _points(grids: tuple[Grid, ...], shrunk: tuple[str, ...] = ()) -> tuple[Point, ...]:
    return tuple(point for grid in grids for point in grid.points(lambda values: shrunk))


E3_GRIDS = tuple(_e3(variant) for variant in VARIANTS)
E4_GRIDS = _e4(E4_SWEEPS, SEEDS)
PAPER = "what the paper says"

STUDIES = (
    Study(
        name="e3",
        group="real",
        title="real networks: three protocols, two backbones, three pairs of classes, heads of 3 and 5 layers",
        versions={FULL: _points(E3_GRIDS), CPU: _e3_cpu(), QUICK: _e3_quick()},
        draw=drawing_real.draw_e3,
        claims=claims_real.e3_claims,
        tables=tables_real.e3_tables,
        expectation=PAPER,
        grids=E3_GRIDS,
    ),
    Study(
        name="e4",
        group="real",
        title="real networks against decay, width, depth, learning rate and activation of the head",
        versions={
            FULL: _points(E4_GRIDS),
            CPU: _points(_e4(E4_SWEEPS, (0, 1, 2)), (*E4_CPU_SHRUNK, "descent.records_per_decade=5")),
            QUICK: _points(_e4(E4_QUICK, (0,)), E4_QUICK_SHRUNK),
        },
        draw=drawing_real.draw_e4,
        claims=claims_real.e4_claims,
        tables=tables_real.e4_tables,
        expectation=PAPER,
        grids=E4_GRIDS,
    ),
)
