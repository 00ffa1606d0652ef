"""Results made by hand: what a study's claims, tables and figures are judged on in tests."""

import math
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import pandas as pd
import torch

from pipeline.config import (
    BackboneConfig,
    Config,
    DataConfig,
    DescentConfig,
    HeadConfig,
    OptimizerConfig,
    ProtocolConfig,
    VerdictConfig,
)
from pipeline.storage.record import COMPLETED, Row, write_summary
from pipeline.storage.tensors import write_tensors
from pipeline.studies import e3
from pipeline.studies._networks import VARIANTS
from pipeline.studies.engine.claims import Claim
from pipeline.studies.engine.results import Point, Result
from pipeline.theory import DufmProblem, collapsed_optimum, construct_optimum

NETWORK_DEPTH = 3


def collapsed_layers(depth: int, seeds: int) -> list[dict]:
    """What a perfectly collapsed head measures, with layer 1 left free."""
    places = [(1, "pre")] + [(layer, tap) for layer in range(2, depth + 1) for tap in ("pre", "post")]
    return [
        {
            "layer": layer,
            "tap": tap,
            "dnc1": [1e-20] * seeds,
            "dnc2": [3.0 if (layer, tap) in ((1, "pre"), (2, "pre")) else 1.0] * seeds,
            "dnc3": [0.7] * seeds if layer == 1 else [1e-3] * seeds if tap == "post" else None,
        }
        for layer, tap in places
    ]


def descents_in(folder: Path) -> Callable[..., Result]:
    """Makes results of the DUFM: losses as given, everything else collapsed unless told otherwise."""
    numbers = count()

    def make(
        losses: list[float],
        *,
        layers: list[dict] | None = None,
        rows: Sequence[Row] = (),
        depth: int = 3,
        width: int = 64,
        decay: float = 5e-4,
        lr: float = 0.5,
        scale: float = 1.0,
    ) -> Result:
        place = folder / str(next(numbers))
        place.mkdir()
        config = Config(
            head=HeadConfig(depth=depth, width=width, weight_decay=decay, feature_decay=decay, init_scale=scale),
            descent=DescentConfig(seeds=len(losses), lr=lr),
            protocol=ProtocolConfig(name="dufm"),
            verdict=VerdictConfig(dnc1=1e-6, dnc2=1.05, dnc3=0.05),
        )
        problem = {"num_classes": 2, "samples_per_class": 50, "depth": depth, "activation": "relu"}
        problem |= {"weight_decay": [decay] * depth}
        summary = {
            "status": COMPLETED,
            "seeds": list(range(len(losses))),
            "problem": problem | {"feature_decay": decay},
            "loss": {"total": [None if math.isnan(loss) else loss for loss in losses]},
            "layers": collapsed_layers(depth, len(losses)) if layers is None else layers,
        }
        write_summary(place, summary)
        pd.DataFrame(rows, columns=Row._fields).to_csv(place / "record.csv", index=False)
        return Result(Point("made", ()), config, place)

    return make


def networks_in(folder: Path) -> Callable[..., Result]:
    """Makes results of networks: DNC metrics of what enters W_1, W_2, W_3 as given."""
    numbers = count()

    def make(
        *,
        variant: str = "end_to_end_dufm",
        seed: int = 0,
        classes: tuple[int, int] = (0, 1),
        dnc1: tuple[float, ...] = (1e-1, 1e-3, 1e-4),
        dnc2: tuple[float, ...] = (1.5, 1.05, 1.02),
        dnc3: tuple[float, ...] = (0.5, 0.05, 0.01),
        start: float = 0.9,
        accuracy: float = 1.0,
        gap: float | None = 0.01,
        epochs: int = 5000,
        status: str = COMPLETED,
        **more: object,
    ) -> Result:
        place = folder / str(next(numbers))
        place.mkdir()
        protocol = next(override.partition("=")[2] for override in VARIANTS[variant])
        config = Config(
            seed=seed,
            data=DataConfig(name="mnist", classes=list(classes)),
            backbone=BackboneConfig(name="mlp", epochs=epochs, batch_size=10),
            optimizer=OptimizerConfig(name="sgd", lr=0.1, momentum=0.0, schedule="constant"),
            head=HeadConfig(depth=NETWORK_DEPTH, weight_decay=1e-2),
            descent=DescentConfig(seeds=1),
            protocol=ProtocolConfig(name=protocol, regularization="dufm"),
        )
        layers, rows = [], []
        for layer in range(1, NETWORK_DEPTH + 1):
            tap = "pre" if layer == 1 else "post"
            values = {"dnc1": dnc1[layer - 1], "dnc2": dnc2[layer - 1], "dnc3": dnc3[layer - 1]}
            values |= {f"test_{name}": 2 * value for name, value in values.items()}
            layers.append({"layer": layer, "tap": tap, **{name: [value] for name, value in values.items()}})
            for name, value in values.items():
                rows += [
                    Row("head", 0, seed, str(layer), tap, name, start),
                    Row("head", epochs, seed, str(layer), tap, name, value),
                ]
        blocks = [
            {"layer": f"network.hidden{n}", "tap": "post", "dnc1": [1 / n], "dnc2": [2.0], "dnc3": None} for n in (1, 2)
        ]
        rows += [Row("backbone", 5, seed, block["layer"], "post", "dnc1", block["dnc1"][0]) for block in blocks]
        summary = {
            "status": status,
            "error": "RunError: diverged" if status != COMPLETED else None,
            "seeds": [seed],
            "layers": layers,
            "backbone_layers": blocks,
            "accuracy": {"train": [accuracy], "test": [accuracy]},
            "loss": {"total": [1.0], "relative_gap": None if gap is None else [gap]},
            "problem": {
                **{"samples_per_class": 5, "num_classes": 2, "depth": NETWORK_DEPTH, "activation": "relu"},
                "weight_decay": [1e-2] * NETWORK_DEPTH,
            },
            "step_units": {"head": "epoch", "backbone": "epoch"},
        }
        write_summary(place, summary | more)
        pd.DataFrame(rows, columns=Row._fields).to_csv(place / "record.csv", index=False)
        return Result(Point(f"{variant}-seed_{seed}", ()), config, place)

    return make


def verdicts(made_claims: list[Claim]) -> dict[str, bool | None]:
    """Claim -> whether it holds."""
    return {claim.claim: claim.holds for claim in made_claims}


def one(made_claims: list[Claim], part: str) -> Claim:
    """The only claim that says this."""
    (found,) = [claim for claim in made_claims if part in claim.claim]
    return found


def optimum(depth: int = 3, decay: float = 5e-4) -> float:
    """The loss at the closed-form optimum."""
    return collapsed_optimum(DufmProblem(2, 50, depth, decay, decay)).loss


STEPS = [0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000]


def gap_rows(gap_at: Callable[[int], float], seeds: int = 1) -> list[Row]:
    """Rows of the gap over `STEPS`."""
    return [Row("head", step, seed, "", "", "relative_gap", gap_at(step)) for step in STEPS for seed in range(seeds)]


def with_optimal_tensors(result: Result) -> Result:
    """Factors at the closed-form optimum, for every seed, as the run's final state."""
    widths = [8] * result.config.head.depth
    point = construct_optimum(result.problem, widths, torch.Generator().manual_seed(0))
    members = len(result.seeds)
    features = point.features.expand(members, -1, -1)
    weights = tuple(weight.expand(members, -1, -1) for weight in point.weights)
    tensors = {"labels": point.labels, "features/1": features}
    tensors |= {f"weights/{layer}": weight for layer, weight in enumerate(weights, start=1)}
    write_tensors(result.folder, tensors, max_mb=10)
    return result


def held(results: Sequence[Result]) -> dict[str, bool | None]:
    """Claims of E3 about one variant -> whether they hold."""
    return {claim.claim.partition(": ")[2]: claim.holds for claim in e3.claims(results)}
