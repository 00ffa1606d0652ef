"""A tracker says in a line what it is, and shows its last measurement as a table."""

import torch
from torch import nn

from pipeline import CollapseTracker


def test_a_tracker_shows_what_it_measures_and_what_it_found() -> None:
    tracker = CollapseTracker(nn.Sequential(nn.Linear(4, 3)), 2, ["0", "0:pre"], metrics=["dnc1"])
    assert repr(tracker) == ("CollapseTracker(Sequential, num_classes=2, layers=[0/post, 0/pre]: not measured yet)")
    assert "not measured yet" in tracker._repr_html_() and "<table" not in tracker._repr_html_()
    images = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    for step in (3, 7):
        tracker.measure([(images, torch.arange(8) % 2)], step=step)
    assert repr(tracker).endswith("2 measured, the last at step 7)")
    html = tracker._repr_html_()
    for value in tracker.latest.values():
        assert f"<td>{value:.4g}</td>" in html
    assert html.count("<th>dnc1</th>") == 1
