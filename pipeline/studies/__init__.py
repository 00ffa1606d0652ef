"""Studies of papers: a module here is a study, by the name of its file (see `pipeline.studies.engine`).

Modules whose names begin with an underscore hold what several studies share.
"""
