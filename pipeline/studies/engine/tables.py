"""Results and claims as tables: CSV for machines, markdown for the docs, rich for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from pipeline.dufm.verdict import METRICS, theorem_speaks_of
from pipeline.runtime.files import atomic
from pipeline.studies.engine.claims import Claim, dead_samples, outputs
from pipeline.studies.engine.runs import Result
from pipeline.theory import collapsed_optimum


def seeds_table(results: Sequence[Result]) -> pd.DataFrame:
    """One row per point and seed: the settings that studies vary, the final loss, what it is and where it should be."""
    rows = []
    for result in results:
        head, optimum = result.config.head, collapsed_optimum(result.problem)
        columns = (result.seeds, result.losses, result.diagnoses, outputs(result), dead_samples(result))
        for seed, loss, found, output, dead in zip(*columns, strict=True):
            rows.append(
                {
                    "point": result.point.name,
                    "depth": head.depth,
                    "width": head.width,
                    "decay": head.feature_decay,
                    "init_scale": head.init_scale,
                    "lr": result.config.descent.lr,
                    "steps": result.config.descent.steps,
                    "seed": seed,
                    "loss": loss,
                    "optimum": optimum.loss,
                    "relative_gap": loss / optimum.loss - 1,
                    "output": output,
                    "optimal_output": optimum.output,
                    "diagnosis": found.name,
                    "dead_samples": dead,
                    "seconds_of_run": result.summary.get("timings", {}).get("solve_head"),
                }
            )
    return pd.DataFrame(rows)


def layers_table(results: Sequence[Result]) -> pd.DataFrame:
    """One row per point, place and metric: smallest, median and largest value over seeds, and whether promised."""
    rows = []
    for result in results:
        for metric in METRICS:
            for (layer, tap), values in result.final(metric).items():
                column = pd.Series(values)
                rows.append(
                    {
                        "point": result.point.name,
                        "layer": layer,
                        "tap": tap,
                        "metric": metric,
                        "min": column.min(),
                        "median": column.median(),
                        "max": column.max(),
                        "promised": theorem_speaks_of(layer, tap, metric),
                    }
                )
    return pd.DataFrame(rows)


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
