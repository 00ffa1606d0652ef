"""Claims: whose they are, how many hold of each owner's, and why those do not that do not."""

import re
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from pipeline.studies.engine.claims import CONTROL, OPEN, OURS, OWNERS, THEOREM, Claim, Measurement, owned, reasoned
from pipeline.studies.engine.tables import (
    VERDICTS,
    claims_frame,
    counts_frame,
    markdown,
    print_claims,
    print_failures,
    save_claims,
)

DOCS = Path(__file__).parents[3] / "docs" / "reproduction"
COMMITTED = sorted(DOCS.glob("*_claims.csv")) + sorted(DOCS.glob("*_control.csv"))
CLAIMS = reasoned(
    [
        Claim("a: falls", "every seed", "3 of 3", True, THEOREM),
        Claim("b: falls", "every seed", "0 of 3 [seeds]", False, THEOREM),
        Claim("c: rises", "median > 1", "1", False),
        Claim("d: rises", "median > 1", "too short", None),
        *owned(CONTROL, Claim("e: falls", "never", "2 of 2", False), Claim("f: falls", "never", "0", True)),
    ],
    {"b: ": "too few steps", "falls": "never reached"},
)


def test_nobody_owns_a_claim_who_is_not_described():
    with pytest.raises(ValueError, match=r"'paper'.*theorem.*control"):
        Claim("a", "b", "c", True, "paper")


def test_the_reason_is_the_first_that_fits_and_only_of_what_does_not_hold():
    assert [claim.why for claim in CLAIMS] == ["", "too few steps", OPEN, "", "never reached", ""]


def test_claims_are_counted_owner_by_owner():
    counts = counts_frame(claims_frame({"s": CLAIMS}))
    assert counts.to_numpy().tolist() == [[THEOREM, 2, 1, 1, 0], [OURS, 2, 0, 1, 1], [CONTROL, 2, 1, 1, 0]]


def test_the_control_and_what_is_not_promised_have_tables_of_their_own(tmp_path):
    save_claims("s", CLAIMS, [Measurement("DNC3 of W_1", "1e-11", "not promised")], "as recalled", tmp_path)
    frames = {path.stem: pd.read_csv(path) for path in tmp_path.glob("*.csv")}
    assert {name: len(frame) for name, frame in frames.items()} == {"s_claims": 4, "s_control": 2, "s_measured": 1}
    assert "holds" not in frames["s_measured"] and CONTROL not in set(frames["s_claims"].owner)
    text = (tmp_path / "s_claims.md").read_text()
    assert "| claim | owner | as recalled |" in text and f"| {OURS} | 2 | 0 | 1 | 1 |" in text and CONTROL not in text
    save_claims("t", CLAIMS[:1], [], "expected", tmp_path)
    assert sorted(path.name for path in tmp_path.glob("t_*")) == ["t_claims.csv", "t_claims.md"]


def test_what_is_printed_is_what_failed_and_how_many_hold(capsys):
    console = Console(width=150)
    print_failures({"s": {"x_1": "every seed [all 3] diverged"}, "t": {}}, console)
    print_claims(claims_frame({"s": CLAIMS}), console)
    said = capsys.readouterr().out
    assert said.splitlines()[:2] == ["Failed runs", "  s x_1: every seed [all 3] diverged"]
    assert "too few steps" in said and "0 of 3 [seeds]" in said and not re.search("[adf]: (falls|rises)", said)
    assert "1 of 4 claims hold: theorem 1 of 2, ours 0 of 2 (1 not decided)." in said
    assert (
        said.index("ours 0 of 2") < said.index("Control, where the opposite is expected") < said.index("control 1 of 2")
    )


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_every_committed_claim_has_an_owner_and_a_reason_where_it_fails(path):
    table = pd.read_csv(path, keep_default_na=False, dtype=str)
    assert len(table) and set(table.owner) <= set(OWNERS) and set(table.holds) <= set(VERDICTS.values())
    assert (set(table.owner) == {CONTROL}) == path.stem.endswith("_control") and "left free" not in set(table.claim)
    assert ((table.why != "") == (table.holds == VERDICTS[False])).all()
    text = path.with_suffix(".md").read_text()
    assert markdown(counts_frame(table)) in text and text.startswith("| claim | owner | ")
    pages = "".join(page.read_text() for page in DOCS.glob("*.md") if "_" not in page.stem)
    assert text in pages or f"({path.stem}.md)" in pages


def test_the_page_describes_every_owner():
    page = (DOCS / "README.md").read_text()
    assert [owner for owner in OWNERS if f"`{owner}`" not in page] == []
