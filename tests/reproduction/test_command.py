"""The command runs what is missing and nothing else, draws, judges, and says what is wrong in one sentence."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from pipeline.reproduction.catalogue import STUDIES
from pipeline.reproduction.command import main

TINY = [
    "descent.steps=12",
    "descent.seeds=2",
    "head.width=4",
    "protocol.num_features=4",
    "protocol.samples_per_class=3",
]


def test_list_names_every_study(capsys):
    main(["--list"])
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == list(STUDIES)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["e3"], ("e3", "e2_width", "dufm")),
        (["e1", "nonsense"], ("nonsense", "e2_width")),
        ([], ("no figure", "dufm")),
        (["--frobnicate"], ("--frobnicate",)),
        (["e1", "--out"], ("--out",)),
        (["e1", "head.width=0"], ("head.width=0", ">= 1")),
        (["e1", "head.widht=3"], ("head.widht", "width")),
        (["e1", "head.depth=5"], ("head.depth", "e1")),
        (["e2_decay", "head.weight_decay=1"], ("head.weight_decay", "e2_decay")),
        (["e1", "--out", "file"], ("file",)),
    ],
)
def test_bad_arguments_get_one_sentence_and_exit_2_and_leave_nothing(arguments, parts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    err = capsys.readouterr().err
    assert exit_.value.code == 2 and err.startswith("error: ") and len(err.strip().splitlines()) == 1
    assert all(part in err for part in parts)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory) -> tuple[Path, str]:
    """E1, shrunk, as a real process in an empty folder."""
    folder = tmp_path_factory.mktemp("reproduction")
    command = [sys.executable, "-m", "pipeline.reproduction", "e1", "--quick", *TINY, "--docs", "docs"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "outputs" / "reproduction" / "quick", done.stdout


def summaries(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in sorted((out / "runs").glob("*/*/summary.json"))}


def test_a_study_leaves_runs_figures_tables_and_claims(reproduced):
    out, printed = reproduced
    assert list(summaries(out)) == ["depth_3", "depth_4", "depth_6"]
    for name in ("e1_convergence", "e1_gram"):
        assert (out / "figures" / f"{name}.pdf").stat().st_size > 1000
        assert Image.open(out / "figures" / f"{name}.png").size[0] > 500
    seeds = pd.read_csv(out / "tables" / "e1.csv")
    assert len(seeds) == 6 and set(seeds.depth) == {3, 4, 6}
    claims = pd.read_csv(out / "tables" / "e1_claims.csv")
    assert list(claims.columns) == ["study", "claim", "expected", "measured", "holds"]
    # Twelve steps collapse nothing, and the table says so.
    gaps = claims[claims.claim.str.contains("gap")]
    assert len(gaps) == 3 and set(gaps.holds) == {"no"}
    assert (out / "tables" / "e1_claims.md").read_text().count("\n") == len(claims) + 2
    assert "L = 6: gap of the loss" in printed and "claims hold" in printed
    docs = out.parents[2] / "docs"
    assert (docs / "e1_convergence.png").stat().st_size < (out / "figures" / "e1_convergence.png").stat().st_size
    assert (docs / "e1_claims.csv").read_bytes() == (out / "tables" / "e1_claims.csv").read_bytes()


def test_the_table_says_what_the_summaries_say(reproduced):
    out, _ = reproduced
    record = pd.read_csv(out / "runs" / "e1" / "depth_4" / "record.csv")
    final = record[(record.metric == "loss") & (record.step == 12)].sort_values("seed").value
    table = pd.read_csv(out / "tables" / "e1.csv").query("point == 'depth_4'").sort_values("seed").loss
    assert table.to_numpy() == pytest.approx(final.to_numpy(), rel=1e-6)


def test_a_second_call_repeats_nothing_and_force_repeats_all(reproduced, tmp_path, monkeypatch, caplog):
    out, _ = reproduced
    caplog.set_level("INFO")
    monkeypatch.chdir(out.parents[2])
    before = summaries(out)
    main(["e1", "--quick", *TINY])
    assert summaries(out) == before
    assert caplog.text.count("finished before") == 3

    (out / "runs" / "e1" / "depth_4" / "summary.json").write_text('{"status": "interrupted"}')
    main(["e1", "--quick", *TINY])
    after = summaries(out)
    assert [name for name in before if before[name] != after[name]] == ["depth_4"]

    main(["e1", "--quick", "--force", *TINY])
    assert all(summaries(out)[name] != after[name] for name in after)
