"""Families that are named and need blocks that a run does not have are refused in a sentence."""

import pytest

from pipeline.config import Config
from pipeline.networks import build_backbone
from pipeline.runs.family_checks import check_families, path_of, stacks_of
from pipeline.runtime.errors import ConfigError


def config(*families: str, rank: int = 5) -> Config:
    made = Config()
    made.measure.families, made.measure.coupling_rank = list(families), rank
    return made


@pytest.mark.parametrize(
    ("rank", "backbone", "named"),
    [
        (5, None, "jacobians needs a network, which protocol=dufm does not have"),
        (5, {"name": "mlp", "hidden": [8, 6, 4]}, "jacobians needs two blocks in a row .* backbone=mlp has none"),
        (7, {"name": "residual_mlp", "width": 6}, "measure.coupling_rank=7 is more than .* 6; allowed: .* 1 to 6"),
    ],
)
def test_what_lacks_blocks_is_refused(rank: int, backbone: dict | None, named: str) -> None:
    made = config("core", "jacobians", rank=rank)
    made.protocol.name = "dufm" if backbone is None else "network"
    network = None if backbone is None else build_backbone(backbone.pop("name"), (1, 3, 3), **backbone)
    with pytest.raises(ConfigError, match=named):
        check_families(made, None, network)


def test_who_asks_for_all_gets_what_there_is() -> None:
    check_families(config("all", rank=7), None, build_backbone("mlp", (1, 3, 3), hidden=[4, 4, 4]))
    residual = build_backbone("residual_mlp", (1, 3, 3), width=6, depth=2)
    assert stacks_of(config("all"), residual) == [(2, 6)] and stacks_of(config("core"), residual) == []


def test_paths_are_of_leaky_networks_whose_objective_is_minimised() -> None:
    made, leaky = config("core", "paths"), build_backbone("residual_mlp", (1, 3, 3), width=6, leak=2.0, norm="none")
    for backbone in (None, leaky, build_backbone("residual_mlp", (1, 3, 3), width=6)):
        with pytest.raises(ConfigError, match="paths needs a leaky network in a training whose objective it is"):
            check_families(made, None, backbone)
    made.protocol.regularization, made.protocol.penalty_weights = "objective", "steps"
    made.optimizer.weight_decay = 0.1
    check_families(made, None, leaky)
    assert path_of(made, leaky, 10) == 8 * (2 * 5 + 1) * 10 * 6 and path_of(config("core"), leaky, 10) == 0
