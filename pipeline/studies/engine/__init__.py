"""What studies have in common: ``scripts/reproduce``, or ``python -m pipeline.studies``.

A study is a module of `pipeline.studies`: a named set of ordinary pipeline runs, the figures drawn from their records
and the claims those records must bear out. What the settings are and where they come from stands in
``conf/experiment/``.

    command     the command line: which studies, then run, draw, judge
    study       what a study is, and which there are
    folders     the folder of a version of a study, or of a variation of it
    own_file    a study of the user's own, as a YAML file says it (own_study: as a study; own_figures, own_tables)
    planning    the runs of a study: found where they were made, those that come to the same once
    jobs        a run of a study: composed, found where it was made before
    performing  runs one after another, several at once, or through a Hydra launcher; shared with other processes
    workers     the processes that make several runs at once (worker: what such a process does)
    results     what a finished run left behind
    claims      results -> claim | expected | measured | holds
    tables      results and claims -> CSV, markdown, terminal
    publish     figures and tables -> docs/
"""
