"""``dnc figure`` as a user calls it: what it writes, and what it refuses before it writes anything."""

import re

import handmade
import pytest
from readable import fonts_of

from pipeline.views import style
from pipeline.views.html.command import main
from pipeline.views.printing import spelled_out


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, kind in (("a", "no head"), ("b", "no layers")):
        handmade.KINDS[kind](folder / name)
    handmade.KINDS["nothing"](tmp_path_factory.getbasetemp() / "empty" / "run")
    return folder


def width(pdf: bytes) -> float:
    """Inches."""
    return float(re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", pdf)[1]) / 72


def test_a_figure_for_print_is_as_wide_as_its_medium_and_has_its_fonts_with_it(runs, tmp_path, capsys):
    for arguments, inches in ((["--paper"], 5.5), (["--paper=column"], 3.25)):
        file = tmp_path / f"{inches}.pdf"
        main(["figure", *arguments, str(runs / "b"), "-o", str(file)])
        assert capsys.readouterr().out.strip() == str(file)
        pdf = file.read_bytes()
        assert width(pdf) == pytest.approx(inches) and fonts_of(pdf) == {"Type0", "CIDFontType2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.25.pdf", "5.5.pdf"]


def test_several_runs_are_drawn_into_a_folder_by_their_names_or_each_into_its_own(runs, tmp_path, capsys):
    main(["figure", str(runs), "-o", str(tmp_path / "new"), "--paper", "slide"])
    names = [f"{run}_collapse_slide{suffix}" for run in "ab" for suffix in (".pdf", ".png")]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
    assert len(capsys.readouterr().out.splitlines()) == 4
    main(["figure", str(runs / "b")])
    assert {path.name for path in (runs / "b" / "figures").iterdir()} == {"collapse.pdf", "collapse.png"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere is not there"),
        ([], "FOLDER"),
        (["{a}", "--paper=colum"], "colum is not known (did you mean column?); allowed: neurips, column, slide"),
        (["{a}", "--paper="], "nothing is not known"),
        (["{a}", "-o", "x.jpg"], "x.jpg ends in .jpg; allowed: .pdf, .png, or a folder"),
        (["{a}", "{b}", "-o", "x.pdf"], "x.pdf is one file, for 2 runs; allowed: a folder"),
        (["{a}", "{empty}"], "has recorded nothing that can be drawn"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_2_and_leaves_nothing(
    arguments, said, runs, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    places = {"a": runs / "a", "b": runs / "b", "empty": runs.parent / "empty" / "run"}
    with pytest.raises(SystemExit) as exit_:
        main(["figure", *(argument.format(**places) for argument in arguments)])
    out, err = capsys.readouterr()
    assert exit_.value.code == 2 and out == "" and len(err.splitlines()) == 1 and said in err
    assert not list(tmp_path.iterdir()) and not (runs / "a" / "figures").exists()


def test_a_folder_behind_the_option_is_none_of_its_values():
    assert spelled_out(["figure", "--paper", "runs"]) == ["figure", f"--paper={style.PAPER[0]}", "runs"]
    assert spelled_out(["runs", "--paper", "slide"]) == ["runs", "--paper=slide"]
    assert spelled_out(["--paper=x", "runs", "--paper"]) == ["--paper=x", "runs", "--paper=neurips"]
