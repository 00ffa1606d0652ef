"""Families of metrics that are named and need what a run does not have are refused before it begins."""

from pipeline.config import Config
from pipeline.data import ImageData
from pipeline.measure.blocks import sizes_of_rows
from pipeline.measure.flows import is_leaky, path_bytes
from pipeline.metrics import registry
from pipeline.networks import Backbone
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.settings import shown

JACOBIANS, PATHS = "jacobians", "paths"


def check_families(config: Config, images: ImageData | None, backbone: Backbone | None) -> None:
    """Refuse families that need what is not there, and texts whose positions are not rows.

    Raises:
        ConfigError: says what is lacking.
    """
    named = config.measure.families
    if "groups" in named and (images is None or (images.train.groups is None and images.train.given is None)):
        raise ConfigError(
            f"measure.families={shown(named)}: groups needs groups of images or given labels; allowed: data.group=..., "
            "data.flip.rate=..., or families without it."
        )
    if "foreign" in named and (images is None or images.foreign is None):
        raise ConfigError(
            f"measure.families={shown(named)}: foreign needs foreign rows; allowed: data.foreign=..., or families "
            "without it."
        )
    if images is not None and images.kind == "text" and not config.measure.positions:
        raise ConfigError(
            f"measure.positions=false does not go with data={images.name}, whose positions have a label each; "
            "allowed: measure.positions=true."
        )
    if JACOBIANS in named:
        _check_blocks(config, backbone)
    if PATHS in named and not path_of(config, backbone, 1):
        raise ConfigError(
            f"measure.families={shown(named)}: {PATHS} needs a leaky network in a training whose objective it is; "
            "allowed: backbone=residual_mlp with backbone.leak > 0, backbone.norm=none, backbone.block_layers=1 and "
            "backbone.activation=relu, protocol.regularization=objective, protocol.penalty_weights=steps and "
            "optimizer.weight_decay > 0, or families without it."
        )


def _check_blocks(config: Config, backbone: Backbone | None) -> None:
    begins = f"measure.families={shown(config.measure.families)}: {JACOBIANS} needs"
    if backbone is None:
        raise ConfigError(
            f"{begins} a network, which protocol={config.protocol.name} does not have; allowed: families without it."
        )
    found = stacks_of(config, backbone)
    if not found:
        raise ConfigError(
            f"{begins} two blocks in a row that leave the shape of what enters them as it is, and {backbone.name} has "
            "none; allowed: a residual network such as backbone=residual_mlp, or families without it."
        )
    least, rank = min(width for _, width in found), config.measure.coupling_rank
    if rank > least:
        raise ConfigError(
            f"measure.coupling_rank={rank} is more than the width of the blocks of {backbone.name}, {least}; allowed: "
            f"an integer from 1 to {least}."
        )


def stacks_of(config: Config, backbone: Backbone) -> list[tuple[int, int]]:
    """Number and width of the blocks of each row whose Jacobians are asked for."""
    asked = {JACOBIANS, registry.ALL} & set(config.measure.families)
    return sizes_of_rows(backbone) if asked else []


def path_of(config: Config, backbone: Backbone | None, rows: int) -> int:
    """Bytes of the path of so many rows through a leaky network, where that is asked for and can be had; else 0."""
    asked = {PATHS, registry.ALL} & set(config.measure.families)
    if not asked or backbone is None or not is_leaky(backbone):
        return 0
    own = config.protocol
    minimised = own.regularization == "objective" and own.penalty_weights == "steps"
    return path_bytes(backbone, rows) if minimised and config.optimizer.weight_decay else 0
