"""Measure deep neural collapse, layer by layer, in real networks and in the deep unconstrained features model."""
