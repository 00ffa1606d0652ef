"""Foreign data: NC5 over training, AUROC at both ends and through the layers."""

from measured_results import point_of, result_of
from readable import drawn_for
from study_results import one

from pipeline.studies._measured import CLASSIFIER
from pipeline.studies.engine.study import QUICK
from pipeline.studies.foreign import STUDY, claims, draw


def _run(folder, seed, nc5, auroc, first=0.7):
    places = {("network.hidden1", "post"): first, ("network.hidden2", "post"): auroc[1], CLASSIFIER: auroc[1]}
    curves = {
        place: {"nc5": list(nc5), "neco_auroc": [auroc[0], value], "neco_fpr95": [0.9, 0.2]}
        for place, value in places.items()
    }
    return result_of(folder, STUDY, point_of(STUDY, QUICK, f"digits-digits-seed_{seed}"), curves)


def test_claims_are_of_every_seed(tmp_path):
    good = [_run(tmp_path, seed, (0.9, 0.6), (0.6, 0.95)) for seed in (0, 1)]
    assert [claim.holds for claim in claims(good)] == [True] * 4
    mixed = claims([*good, _run(tmp_path, 2, (0.6, 0.7), (0.8, 0.75), first=0.8)])
    assert [claim.holds for claim in mixed] == [False] * 4 and one(mixed, "NC5").measured.startswith("2 of 3")
    (figure,) = drawn_for("neurips", lambda: draw(good)).values()
    assert [len(axes.lines) for axes in figure.axes] == [2, 3, 2]
