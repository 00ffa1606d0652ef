"""Our metrics agree with those of other programs, and `scripts/compare_peers.py` says so when they do not."""

import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import compare_peers as peers

from pipeline.metrics import layer_metrics


@pytest.mark.parametrize("rows", [peers.gaussian_rows, peers.simplex_rows, peers.logit_rows])
def test_every_peer_agrees_within_its_tolerance(rows) -> None:
    found = list(rows())
    assert [row.cells() for row in found if not row.agrees] == []
    assert any(row.tolerance is not None for row in found)


@pytest.mark.parametrize("sizes", [(30, 30), (300, 30), (40, 400)])
def test_calinski_harabasz_and_dnc1_of_two_classes_differ_by_their_sizes_alone(sizes: tuple[int, int]) -> None:
    features, labels = peers.two_gaussians(sizes)
    index = peers.sklearn_index(features.numpy(), labels.numpy())
    share = sizes[0] / sum(sizes)
    ratio = 2 * share * (1 - share) / (share**2 + (1 - share) ** 2)
    expected = (sum(sizes) - 2) / index * ratio
    assert layer_metrics(features, labels, 2)["dnc1"] == pytest.approx(expected, rel=1e-12)


def test_the_gaussians_differ_in_their_sizes_alone() -> None:
    values = [layer_metrics(*peers.two_gaussians(sizes), 2) for sizes in ((2000, 2000), (2000, 200), (2000, 20))]
    assert [round(float(value["dnc1"]), 2) for value in values] == [5.70, 3.41, 2.91]
    assert [float(value["dnc1_balanced"]) for value in values] == pytest.approx([5.70] * 3, rel=1e-12)


@pytest.mark.parametrize(("classes", "width"), [(100, 8), (10, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_directions_of_rounding_would_be_seen(classes: int, width: int, dtype: torch.dtype) -> None:
    """The case tells the right number from the wrong one: with K - 1 directions it is off by far more than allowed."""
    features, labels = peers.logits(classes, width, dtype)
    naive = peers.known_rank_nc1(features.double().numpy(), labels.numpy(), classes - 1)
    assert naive > 100 * layer_metrics(features, labels, classes)["nc1_pinv"]


@pytest.mark.parametrize(("ours", "theirs"), [(1.1, 1.0), (math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0)])
def test_a_row_off_its_peer_does_not_agree_unless_it_is_only_shown(ours: float, theirs: float) -> None:
    assert not peers.Row("case", "dnc1", ours, "peer", theirs).agrees
    assert peers.Row("case", "dnc1", ours, "peer", theirs, None).agrees
    assert peers.Row("case", "dnc2", math.inf, "peer", math.inf).agrees


def test_the_script_ends_with_1_and_names_the_row_that_is_off(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(peers, "simplex_rows", lambda: iter(()))
    monkeypatch.setattr(peers, "logit_rows", lambda: iter(()))
    out = tmp_path / "table.md"
    assert peers.main(["--out", str(out)]) == 0
    assert out.read_text() == capsys.readouterr().out
    monkeypatch.setattr(peers, "looped_cdnv", lambda z, y: 1.4264)
    assert peers.main([]) == 1
    assert "two Gaussians, 2000:200: cdnv is 1.425, loops says 1.4264" in capsys.readouterr().err
