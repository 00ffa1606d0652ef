"""Looking at runs that were made: the subcommands ``dnc report``, ``dnc compare``, ``dnc list``, ``dnc sweep``
and ``dnc figure``.

Everything is read from run folders (see `pipeline.storage.record`) and nothing is measured again. Only ``report`` needs
plotly; none of them loads PyTorch or Hydra.
"""

SUBCOMMANDS = ("report", "compare", "list", "sweep", "figure")
"""First arguments of the command that mean a look at runs and not a run."""
