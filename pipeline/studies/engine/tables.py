"""Tables and claims: CSV for machines, markdown for the docs, rich for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from pipeline.runtime.files import atomic
from pipeline.studies.engine.claims import Claim


def save_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table with seven significant digits."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.7g", na_rep="nan")


VERDICTS = {True: "yes", False: "no", None: "not decidable at this size"}


def claims_frame(claims: Mapping[str, Sequence[Claim]]) -> pd.DataFrame:
    """study | claim | expected | measured | holds."""
    return pd.DataFrame(
        [
            (study, claim.claim, claim.expected, claim.measured, VERDICTS[claim.holds])
            for study, made in claims.items()
            for claim in made
        ],
        columns=["study", "claim", "expected", "measured", "holds"],
    )


def markdown(table: pd.DataFrame) -> str:
    """A table of text as GitHub markdown."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def print_claims(table: pd.DataFrame, console: Console) -> None:
    """The claims on the terminal."""
    shown = Table(title="What was claimed, and what was found", title_style="bold")
    for column in table.columns:
        shown.add_column(column, overflow="fold")
    for row in table.itertuples(index=False):
        style = {"yes": "green", "no": "bold red"}.get(row.holds, "yellow")
        shown.add_row(*row[:-1], f"[{style}]{row.holds}[/]")
    console.print(shown)
    console.print(f"{(table.holds == 'yes').sum()} of {len(table)} claims hold.")
