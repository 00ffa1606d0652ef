"""Tables and claims: CSV for machines, markdown for the docs, rich for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.runtime.files import atomic
from pipeline.studies.engine.claims import CONTROL, OWNERS, Claim, Measurement


def save_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table with seven significant digits."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.7g", na_rep="nan")


VERDICTS = {True: "yes", False: "no", None: "not decidable at this size"}
YES, NO = VERDICTS[True], VERDICTS[False]


def claims_frame(claims: Mapping[str, Sequence[Claim]]) -> pd.DataFrame:
    """study | claim | owner | expected | measured | holds | why."""
    return pd.DataFrame(
        [
            (study, claim.claim, claim.owner, claim.expected, claim.measured, VERDICTS[claim.holds], claim.why)
            for study, made in claims.items()
            for claim in made
        ],
        columns=["study", "claim", "owner", "expected", "measured", "holds", "why"],
    )


def measurements_frame(measurements: Mapping[str, Sequence[Measurement]]) -> pd.DataFrame:
    """study | quantity | measured | note."""
    rows = [(study, *astuple(each)) for study, made in measurements.items() for each in made]
    return pd.DataFrame(rows, columns=["study", "quantity", "measured", "note"])


def counts_frame(table: pd.DataFrame) -> pd.DataFrame:
    """owner | claims | hold | do not | not decided, in the order of `OWNERS`; those who have none are left out."""
    rows = []
    for owner in OWNERS:
        found = table.holds[table.owner == owner]
        held, failed = int((found == YES).sum()), int((found == NO).sum())
        rows.append((owner, len(found), held, failed, len(found) - held - failed))
    counts = pd.DataFrame(rows, columns=["owner", "claims", "hold", "do not", "not decided"])
    return counts[counts.claims > 0]


def counts_line(table: pd.DataFrame) -> str:
    """``5 of 7 claims hold: theorem 3 of 4, ours 2 of 3 (1 not decided)``."""
    told = [
        f"{count.owner} {count.hold} of {count.claims}" + (f" ({count[-1]} not decided)" if count[-1] else "")
        for count in counts_frame(table).itertuples(index=False)
    ]
    return f"{(table.holds == YES).sum()} of {len(table)} claims hold" + (f": {', '.join(told)}." if told else ".")


def markdown(table: pd.DataFrame) -> str:
    """A table of text as GitHub markdown."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def claims_markdown(table: pd.DataFrame, expectation: str = "expected") -> str:
    """The claims of one study, and below how many hold of each owner's."""
    shown = table.drop(columns="study").rename(columns={"expected": expectation})
    return f"{markdown(shown)}\n{markdown(counts_frame(table))}"


def save_claims(
    study: str, claims: Sequence[Claim], measurements: Sequence[Measurement], expectation: str, folder: Path
) -> None:
    """``STUDY_claims``, ``STUDY_control`` and ``STUDY_measured``, csv and md each; the latter two if there are any."""
    table = claims_frame({study: claims})
    control = table.owner == CONTROL
    texts = {
        f"{study}_claims": (table[~control], claims_markdown(table[~control], expectation)),
        f"{study}_control": (table[control], claims_markdown(table[control])),
    }
    measured = measurements_frame({study: measurements})
    texts[f"{study}_measured"] = (measured, markdown(measured.drop(columns="study")))
    for name, (rows, text) in texts.items():
        if len(rows) or name.endswith("_claims"):
            save_csv(rows, folder / f"{name}.csv")
            with atomic(folder / f"{name}.md") as path:
                path.write_text(text)


def print_failures(failures: Mapping[str, Mapping[str, str]], console: Console) -> None:
    """The runs that failed, study by study, a line each, with the reason."""
    told = [f"{study} {run}: {reason}" for study, runs in failures.items() for run, reason in runs.items()]
    if told:
        console.print("Failed runs", style="bold")
    for line in told:
        console.print(f"  {escape(line)}", soft_wrap=True, highlight=False)


def print_claims(table: pd.DataFrame, console: Console) -> None:
    """What does not hold, with the reasons, and how many hold of each owner's; the control's apart."""
    for title, own in (
        ("What does not hold", table[table.owner != CONTROL]),
        ("Control, where the opposite is expected: what does not hold", table[table.owner == CONTROL]),
    ):
        failed = own[own.holds == NO]
        if len(failed):
            shown = Table(title=title, title_style="bold", title_justify="left")
            for column in failed.columns.drop("holds"):
                shown.add_column(column, overflow="fold")
            for row in failed.drop(columns="holds").itertuples(index=False):
                shown.add_row(*map(escape, row))
            console.print(shown)
        if len(own):
            console.print(escape(counts_line(own)), soft_wrap=True, highlight=False)
