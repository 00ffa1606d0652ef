"""Label bias: groups that are apart, together, and pay."""

from measured_results import point_of, result_of
from readable import drawn_for
from study_results import one

from pipeline.studies._measured import CLASSIFIER
from pipeline.studies.engine.study import QUICK
from pipeline.studies.label_bias import STUDY, claims, draw, rate_of


def _run(folder, rate, ratios, scores, gap):
    curves = {
        "dnc1": [1.0] * 3,
        "dnc1/group=0": [1.0] * 3,
        "dnc1/group=1": [1.0, *ratios],
        "group_gap": [5.0, 3.0, gap],
    }
    curves |= {f"test_f1/group={group}": [0.5, 0.7, score] for group, score in enumerate(scores)}
    return result_of(folder, STUDY, point_of(STUDY, QUICK, f"rate_{rate}"), {CLASSIFIER: curves})


def test_both_outcomes_are_told_apart(tmp_path):
    clean = _run(tmp_path / "clean", "0", (1.0, 1.0), (0.98, 0.98), 0.3)
    paper = _run(tmp_path / "paper", "0.25", (2.0, 1.1), (0.8, 0.7), 1.0)
    assert rate_of(paper) == 0.25
    judged = claims([clean, paper])
    for part in ("apart early", "one configuration", "in all groups", "rises with the rate"):
        assert one(judged, part).holds
    assert not one(judged, "biased group alone").holds
    other = claims([clean, _run(tmp_path / "other", "0.5", (1.1, 2.5), (0.97, 0.6), 0.2)])
    for part in ("apart early", "one configuration", "in all groups", "rises with the rate"):
        assert not one(other, part).holds
    assert one(other, "biased group alone").holds
    (figure,) = drawn_for("column", lambda: draw([clean, paper])).values()
    nc1, scores, gaps, rates = figure.axes
    assert [len(axes.lines) for axes in figure.axes] == [3, 2, 2, 2] and scores.get_ylim() == rates.get_ylim()
    assert all("0.25" in axes.texts[0].get_text() for axes in (nc1, scores)) and gaps.get_yscale() == "log"


def test_a_training_whose_features_are_all_the_same_decides_nothing(tmp_path):
    clean = _run(tmp_path / "clean", "0", (1.0, 1.0), (0.98, 0.98), 0.3)
    dead = _run(tmp_path / "dead", "0.25", (2.0, 1.1), (0.8, 0.7), 1.0)
    dead.record.loc[dead.record.metric == "dnc1", "value"] = float("nan")
    assert {claim.holds for claim in claims([clean, dead])} == {None}
