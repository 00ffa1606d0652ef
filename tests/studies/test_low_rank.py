"""Low rank: runs are judged by the values of collapse and SRG, and by the ranks of their layers."""

from family_results import descent_rows, result_at
from readable import drawn_for
from study_results import one

from pipeline.studies.low_rank import claims, draw, hidden_ranks
from pipeline.theory import Problem, named, references

PROBLEM = Problem("mse", "relu", (2,) * 10, 4, 4e-3, 4e-3)
SRG = next(state for state in references(PROBLEM) if state.name.startswith("SRG"))
COLLAPSE = named(references(PROBLEM), "collapsed").value


def _run(folder, point, name, loss=None, decay=4e-3):
    rows = descent_rows("loss", [0.5, 0.4, 0.2, 0.1]) + descent_rows("dnc1", [1.0, 0.1, 0.01, 1e-8], "2", "post")
    problem = Problem("mse", "relu", (2,) * 10, 4, decay, decay)
    return result_at(folder, point, problem, name, [12] * 4, loss, rows)


def test_low_rank_below_srg_is_told_from_collapse(tmp_path):
    low = _run(tmp_path, "main", SRG.name, 0.99 * SRG.value)
    assert hidden_ranks(low).tolist() == [[5, 5]] * 2
    judged = claims([low])
    for part in ("seeds below collapse", "seeds below SRG", "ranks of H_3"):
        assert one(judged, part).holds
    (figure,) = drawn_for("column", lambda: draw([low])).values()
    assert len(figure.axes) == 6
    judged = claims([_run(tmp_path / "collapsed", "main", "collapsed solution")])
    for part in ("seeds below collapse", "seeds below SRG", "ranks of H_3"):
        assert not one(judged, part).holds


def test_ranks_are_compared_along_the_decay(tmp_path):
    weak = _run(tmp_path, "weight_decay_0.000488281", "collapsed solution", decay=2.0**-11)
    strong = _run(tmp_path, "main", SRG.name)
    assert one(claims([weak, strong]), "mean rank").holds
    assert not one(claims([strong]), "mean rank").holds


def test_the_construction_pays_from_four_layers_on(tmp_path):
    judged = claims([])
    assert one(judged, "L = 3").holds and one(judged, "L = 4, 5").holds
