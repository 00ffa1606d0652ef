"""The record mirrored to Weights & Biases. Nothing here decides over a run: it goes on whatever wandb does."""

from pipeline.tracking.tracker import Tracker

__all__ = ["Tracker"]
