"""Measures of what is no layer's rows under labels: kernels, Jacobians, paths through a network, regression, curvature.

Nothing here is registered: these are functions, not columns of the record. Their public names are in
`pipeline.metrics`.
"""
