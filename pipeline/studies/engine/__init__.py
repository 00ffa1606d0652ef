"""Reproduction of the paper's figures: ``scripts/reproduce``, or ``python -m pipeline.studies.engine``.

A `Study` is a named set of ordinary pipeline runs, the figures drawn from their records and the claims those records
must bear out. What the settings are and where they come from stands in ``conf/experiment/``.

    command     the command line: which studies, then run, draw, judge
    catalogue   the studies and their sweeps
    runs        a point of a sweep as a run folder: composed, repeated only when needed, read back
    claims      results -> claim | expected | measured | holds
    drawing     results -> figures (drawing_e1: those of E1)
    tables      results and claims -> CSV, markdown, terminal
    publish     figures and tables -> docs/
"""
