"""Batch norm and decay: trends with decay, with against without, and the optimum."""

from measured_results import point_of, result_of
from readable import drawn_for
from study_results import one

from pipeline.studies._measured import CLASSIFIER
from pipeline.studies.engine.study import QUICK
from pipeline.studies.norm_decay import DECAYS, STUDY, claims, draw


def _runs(folder, norm, intra, inter, gap=None):
    found = []
    for decay, one_intra, one_inter in zip(DECAYS, intra, inter, strict=True):
        point = point_of(STUDY, QUICK, f"cones-{norm}-decay_{decay:g}")
        curves = {CLASSIFIER: {"cos_intra_min": [0.1, one_intra], "cos_inter_max": [0.9, one_inter]}}
        found.append(result_of(folder, STUDY, point, curves | ({} if gap is None else {None: {"relative_gap": [gap]}})))
    return found


def test_trends_and_comparisons(tmp_path):
    batch = _runs(tmp_path, "batch", (0.6, 0.7, 0.8, 0.9), (-0.1, -0.15, -0.2, -0.3), gap=0.01)
    none = _runs(tmp_path, "none", (0.8, 0.8, 0.8, 0.8), (0.5, 0.5, 0.5, 0.5))
    judged = claims([*batch, *none])
    assert [claim.holds for claim in judged] == [True, False, True, True, True]
    assert one(judged, "within a class is larger").measured.startswith("1 of 4")
    (figure,) = drawn_for("neurips", lambda: draw([*batch, *none])).values()
    assert [len(axes.lines) for axes in figure.axes] == [4, 1]
    (unknown,) = draw(none).values()
    assert not unknown.axes[1].get_visible()


def test_what_turns_back_or_is_below_the_optimum_fails(tmp_path):
    judged = claims(_runs(tmp_path, "batch", (0.6, 0.7, 0.65, 0.9), (-0.1, -0.3, -0.2, -0.3), gap=-0.01))
    assert len(judged) == 3 and not any(claim.holds for claim in judged)
