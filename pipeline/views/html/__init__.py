"""Looking at runs that were made: the subcommands ``dnc report``, ``dnc compare`` and ``dnc list``.

Everything is read from run folders (see `pipeline.storage.record`) and nothing is measured again. Only ``report`` needs
plotly, the extra ``report``; ``list`` and ``compare`` load neither PyTorch nor Hydra.
"""

SUBCOMMANDS = ("report", "compare", "list")
"""First arguments of the command that mean a look at runs and not a run."""
