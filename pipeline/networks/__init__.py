"""Backbones: from images to the feature vectors whose collapse is measured."""

from pipeline.networks.backbone import Backbone
from pipeline.networks.build import build_backbone, known_backbones, validate_backbone
from pipeline.networks.weights import load_weights

__all__ = [
    "Backbone",
    "build_backbone",
    "known_backbones",
    "load_weights",
    "validate_backbone",
]
