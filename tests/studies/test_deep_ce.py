"""Deep cross-entropy: runs are judged by the values of frames, and by the ranks of their logits."""

from family_results import descent_rows, result_at
from readable import drawn_for
from study_results import one

from pipeline.studies.deep_ce import claims, draw, rank
from pipeline.theory import Problem

DECAY = 2.0**-10


def _run(folder, point, name, *, width=10, loss=None):
    problem = Problem("cross_entropy", "linear", (5,) * 10, 2, DECAY, DECAY)
    rows = descent_rows("loss", [2.0, 1.0, 0.5, 0.1])
    return result_at(folder, point, problem, name, [width] * 2, loss, rows)


def test_runs_that_stay_at_their_frame_are_told_from_those_that_leave_it(tmp_path):
    kept = _run(tmp_path, "from_collapsed", "collapsed solution"), _run(tmp_path, "from_pairs", "pairs")
    judged = claims(kept)
    assert one(judged, "from collapsed").holds and one(judged, "from pairs").holds
    (figure,) = drawn_for("column", lambda: draw(kept)).values()
    tags = [text.get_text() for axes in figure.axes for text in axes.texts if text.get_gid() == "tag"]
    assert {tag.replace("\n", " ") for tag in tags} == {"collapsed solution", "pairs"}
    left = claims([_run(tmp_path / "left", "from_collapsed", "pairs")])
    assert not one(left, "from collapsed").holds
    assert one(left, "five classes").holds and one(left, "decagon").holds


def test_random_starts_are_judged_by_share_rank_and_the_lowest_frame(tmp_path):
    narrow, wide = _run(tmp_path, "width_10", "pairs"), _run(tmp_path, "width_20", "collapsed solution", width=20)
    assert rank(narrow) == [5, 5] and rank(wide) == [9, 9]
    judged = claims([narrow, wide])
    for part in ("more frequent", "ranks 5..9", "below the frames"):
        assert one(judged, part).holds
    low = claims([_run(tmp_path / "low", "width_10", "johnson 5", loss=0.06)])
    for part in ("more frequent", "ranks 5..9", "below the frames"):
        assert not one(low, part).holds
