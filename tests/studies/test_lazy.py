"""Lazy neurons: where shares begin, that they fall, and by how much by the width."""

from measured_results import point_of, result_of
from readable import drawn_for
from study_results import one

from pipeline.studies.engine.study import QUICK
from pipeline.studies.lazy import STUDY, WIDTHS, claims, draw, width_of


def _runs(folder, labels, ends, begin=0.5):
    return [
        result_of(
            folder,
            STUDY,
            point_of(STUDY, QUICK, f"mlp-{labels}-width_{width}"),
            {("network.hidden1", "post"): {"active_share": [begin, (begin + share) / 2, share]}},
        )
        for width, share in zip(WIDTHS, ends, strict=True)
    ]


def test_falling_and_rising_shares(tmp_path):
    runs = [*_runs(tmp_path, "random", (0.4, 0.39, 0.37)), *_runs(tmp_path, "true", (0.6, 0.65, 0.5))]
    assert [width_of(result) for result in runs] == [*WIDTHS, *WIDTHS]
    judged = claims(runs)
    assert one(judged, "before training").holds
    assert one(judged, "mlp-random: the share falls").holds and one(judged, "mlp-random: it falls by more").holds
    assert not one(judged, "mlp-true: the share falls").holds and not one(judged, "mlp-true: it falls by more").holds
    (figure,) = drawn_for("column", lambda: draw(runs)).values()
    over_epochs, over_widths = figure.axes
    assert len(over_epochs.lines) == 6 + 1 and over_epochs.get_ylim() == over_widths.get_ylim()
    assert not one(claims(_runs(tmp_path / "off", "true", (0.1, 0.1, 0.1), begin=0.7)), "before training").holds
