"""Families of metrics that are named and need what a run does not have are refused before it begins."""

from pipeline.config import Config
from pipeline.data import ImageData
from pipeline.measure.blocks import sizes_of_rows
from pipeline.metrics import registry
from pipeline.networks import Backbone
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.settings import shown

JACOBIANS = "jacobians"


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
