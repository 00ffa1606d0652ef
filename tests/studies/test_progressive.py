"""Progressive collapse: shares of blocks before and after training, and straightness by stage."""

from measured_results import point_of, result_of
from readable import drawn_for
from study_results import one

from pipeline.studies.engine.study import QUICK
from pipeline.studies.progressive import PFC, STUDY, claims, draw


def _run(folder, name, shares, straight=(0.5, 0.8)):
    """`shares` before and after, of each of the three metrics."""
    blocks = {
        (f"network.{block}", "post"): {metric: [2.0, 1.0 / block, 0.5 / block] for metric in PFC.values()}
        for block in (1, 2, 3)
    }
    blocks["network.3", "post"] |= {
        f"decreasing_share/{metric}": [before, before, after]
        for metric, (before, after) in zip(PFC.values(), shares, strict=True)
    }
    blocks["network.2", "post"] |= {"straightness": [straight[0], straight[0], straight[1]]}
    return result_of(folder, STUDY, point_of(STUDY, QUICK, name), blocks)


def test_all_claims_hold_for_a_network_that_collapses_block_by_block(tmp_path):
    result = _run(tmp_path, "decay_0", [(0.3, 1.0)] * 3)
    judged = claims([result])
    assert len(judged) == 7 and all(claim.holds for claim in judged)
    other = _run(tmp_path, "decay_0.0005", [(0.3, 1.0)] * 3)
    (figure,) = drawn_for("column", lambda: draw([result, other])).values()
    assert [len(axes.lines) for axes in figure.axes] == [3] * 6 + [1] * 2


def test_each_metric_and_the_ways_are_judged_by_themselves(tmp_path):
    judged = claims([_run(tmp_path, "decay_0.0005", [(0.9, 1.0), (0.3, 0.6), (0.3, 1.0)], straight=(0.8, 0.6))])
    failing = {claim.claim.partition(": ")[2][:12] for claim in judged if not claim.holds}
    assert failing == {"PFC1 does no", "PFC2 falls a", "ways through"}
    assert one(judged, "PFC3 falls").holds
