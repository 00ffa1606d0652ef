"""What a head's outputs are fitted to: the first term of the DUFM objective."""

from pipeline.dufm.objectives.squared_error import Loss, MeanSquaredError

__all__ = ["Loss", "MeanSquaredError"]
