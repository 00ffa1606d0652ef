"""How a shell may go on with a command line: subcommands are ours, all else is Hydra's."""

import os

from pipeline.views.html import SUBCOMMANDS


def main() -> None:
    """Print what may follow; after a subcommand nothing does, and the shell offers its files."""
    line = os.environ.get("COMP_LINE", "")
    _, *words = [*line.split(), *([""] if line.endswith(" ") else [])] or [""]
    if len(words) > 1 and words[0] in SUBCOMMANDS:
        return
    if len(words) == 1 and (offered := [name for name in SUBCOMMANDS if name.startswith(words[0])]):
        print(" ".join(offered))
    from pipeline.cli.app import main as ask_hydra

    ask_hydra()
