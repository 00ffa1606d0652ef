"""Backbones: from images to the feature vectors whose collapse is measured."""

from pipeline.networks.backbone import Backbone
from pipeline.networks.build import build_backbone, known_backbones, structural_settings, validate_backbone
from pipeline.networks.registry import Architecture, architecture
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
