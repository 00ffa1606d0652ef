"""Contrastive: frames and simplices are told apart, and what is neither fails."""

from family_results import descent_rows, result_at
from readable import drawn_for
from study_results import one

from pipeline.studies.contrastive import claims, draw
from pipeline.theory import Problem


def _run(folder, point, sizes, constraint, *, name="global optimum", width=4):
    problem = Problem("supervised_contrastive", "relu", sizes, 0, (), 0.0, constraint=constraint, temperature=0.5)
    rows = descent_rows("nc2_frame", [1.0, 0.5, 1e-3, 1e-9], "1", "pre")
    return result_at(folder, point, problem, name, [width], rows=rows)


def test_frames_of_any_sizes_and_a_simplex_of_equal_ones(tmp_path):
    results = [
        _run(tmp_path, "equal-relu", (4, 4, 4), "nonnegative_sphere"),
        _run(tmp_path, "step-relu", (4, 4, 2), "nonnegative_sphere"),
        _run(tmp_path, "equal-free", (4, 4, 4), "sphere"),
        _run(tmp_path, "step-free", (12, 12, 2, 2), "sphere"),
    ]
    judged = claims(results)
    assert len(judged) == 8 and all(claim.holds for claim in judged)
    assert "theorem" in one(judged, "step-relu: Gram").owner and "ours" in one(judged, "step-free: gap").owner
    (figure,) = drawn_for("neurips", lambda: draw(results)).values()
    tags = [text.get_text() for axes in figure.axes for text in axes.texts if text.get_gid() == "tag"]
    assert tags == ["4, 4, 4", "4, 4, 2", "12, 12, 2, 2"]


def test_what_is_no_frame_fails(tmp_path):
    judged = claims([_run(tmp_path, "equal-relu", (4, 4, 4), "nonnegative_sphere", name=None)])
    assert not any(claim.holds for claim in judged)
    narrow = claims([_run(tmp_path, "narrow-relu", (4, 4, 4), "nonnegative_sphere")])
    assert not one(narrow, "3 dimensions").holds  # a frame in spite of it would be news
