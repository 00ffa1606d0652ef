"""Backbones: from images to the feature vectors whose collapse is measured."""

from typing import TYPE_CHECKING

from pipeline.runtime.on_demand import passes_on

if TYPE_CHECKING:
    from pipeline.networks.backbone import Backbone
    from pipeline.networks.build import build_backbone, structural_settings, validate_backbone
    from pipeline.networks.registry import Architecture, architecture
    from pipeline.networks.settings import known_backbones
    from pipeline.networks.weights import load_weights

__all__ = [
    "Architecture",
    "Backbone",
    "architecture",
    "build_backbone",
    "known_backbones",
    "load_weights",
    "structural_settings",
    "validate_backbone",
]

__getattr__ = passes_on(__name__, __file__)
