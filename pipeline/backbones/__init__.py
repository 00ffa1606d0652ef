"""Backbones: from images to the feature vectors whose collapse is measured."""

from pipeline.backbones.backbone import Backbone
from pipeline.backbones.build import build_backbone, known_backbones, validate_backbone
from pipeline.backbones.weights import load_weights, run_weights, trained_as

__all__ = [
    "Backbone",
    "build_backbone",
    "known_backbones",
    "load_weights",
    "run_weights",
    "trained_as",
    "validate_backbone",
]
