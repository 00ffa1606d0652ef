"""Long tails: collapse onto the centres, and accuracies by the loss."""

import pytest
from measured_results import point_of, result_of
from readable import drawn_for
from study_results import one

from pipeline.studies._measured import CLASSIFIER
from pipeline.studies.engine.study import CPU, QUICK
from pipeline.studies.long_tail import STUDY, accuracy_of, alike, by_loss, claims, draw


def _run(folder, name, accuracy, above=0.001, away=0.002, kind="seed_0"):
    point = point_of(STUDY, QUICK if kind == "seed_0" else CPU, f"{name}-{kind}")
    curves = {"train_loss": [1.0, 0.7 + above], "test_accuracy": [0.1, accuracy]}
    if name != "cross_entropy":
        curves |= {
            "least_loss": [0.7, 0.7],
            "centre_mean": [0.8, away],
            "test_balanced_accuracy": [0.1, accuracy + 0.01],
        }
    return result_of(folder, STUDY, point, {None: curves, CLASSIFIER: {"dnc1": [2.0, away]}})


def test_claims_of_centres_and_of_accuracies(tmp_path):
    runs = [_run(tmp_path, "cross_entropy", 0.8), _run(tmp_path, "centres_1", 0.81), _run(tmp_path, "centres_20", 0.85)]
    assert list(by_loss(runs)) == ["cross_entropy", "centres_1", "centres_20"]
    assert [accuracy_of(result) for result in runs] == pytest.approx([0.8, 0.82, 0.86])
    judged = claims(runs)
    assert len(judged) == 8 and all(claim.holds for claim in judged)
    (figure,) = drawn_for("neurips", lambda: draw(runs)).values()
    assert [len(axes.lines) for axes in figure.axes] == [6, 2, 3]


def test_a_worse_loss_and_accuracy_fail(tmp_path):
    runs = [_run(tmp_path, "cross_entropy", 0.9), _run(tmp_path, "centres_1", 0.85, above=-0.1, away=0.5)]
    judged = claims([*runs, _run(tmp_path, "centres_4", 0.8)])
    for part in ("centres_1: loss over", "centres_1: features lie", "centres_1: no loss below", "better than one"):
        assert not one(judged, part).holds
    assert not one(judged, "than cross-entropy").holds and "tiny images" in one(judged, "than cross-entropy").why


def test_shorter_tails_and_mixup_are_shown_beside_the_others(tmp_path):
    runs = [_run(tmp_path, "cross_entropy", 0.8), _run(tmp_path, "simplex", 0.7), _run(tmp_path, "centres_1", 0.75)]
    runs.append(_run(tmp_path, "centres_20", 0.75))
    more = [_run(tmp_path, "cross_entropy", 0.85, kind=kind) for kind in ("tau_0.1", "tau_0.2", "mixup")]
    assert alike([*more, *runs]) == runs
    judged = claims([*runs, *more])
    assert one(judged, "mixup makes it better").holds and one(judged, "than a fixed simplex").holds
    assert not one(judged, "than cross-entropy").holds
    (figure,) = drawn_for("neurips", lambda: draw([*runs, *more])).values()
    assert figure.axes[1].lines and len(figure.axes[1].lines[0].get_xdata()) == 3
