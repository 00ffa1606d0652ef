"""Families that need more than the rows of a place, in the pass of the pipeline."""

from dataclasses import replace

import pytest
import torch

from pipeline.data import ImageData, Split
from pipeline.measure.layers import CLASSIFIER, measure_backbone
from pipeline.metrics import layer_metrics
from pipeline.metrics.engine.settings import MeasureSettings
from pipeline.networks import build_backbone


@pytest.fixture(scope="module")
def images() -> ImageData:
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        labels = torch.arange(count) % 3
        pixels = torch.randn(count, 1, 4, 4, generator=generator) + labels[:, None, None, None]
        given = torch.where(torch.arange(count) % 7 == 0, (labels + 1) % 3, labels)
        return Split(pixels, labels, torch.randint(0, 2, (count,), generator=generator), given)

    foreign = Split(torch.randn(15, 1, 4, 4, generator=generator), torch.full((15,), -1))
    made = ImageData.from_splits("drawn", split(45), split(30), ("a", "b", "c"), ("left", "right"), foreign)
    return replace(made, mean=torch.zeros(1), std=torch.ones(1))


@pytest.fixture(scope="module")
def backbone():
    return build_backbone("mlp", (1, 4, 4), hidden=[6, 6, 6]).eval()


def rows_of(backbone, split: Split, place: tuple[str, str]) -> torch.Tensor:
    from pipeline.networks.taps import Taps

    found = {}
    with torch.no_grad(), Taps(backbone, backbone.taps, lambda key, rows: found.setdefault(key, rows.values.clone())):
        backbone(split.images)
    return found[place]


def test_groups_foreign_rows_and_pairs_are_those_of_rows_at_hand(backbone, images) -> None:
    weight = torch.randn(3, 6, generator=torch.Generator().manual_seed(4))
    entered = {CLASSIFIER: (weight, None)}
    settings = MeasureSettings(families=("all",))
    decide = lambda rows: rows @ weight.T  # noqa: E731
    measured = measure_backbone(backbone, images, decide, settings=settings, entered=entered)
    before, place = list(backbone.taps)[-2:]
    (at,) = [it for it in measured.layers if (it.layer, it.tap) == place]
    for split, prefix in ((images.train, ""), (images.test, "test_")):
        rows, others = (rows_of(backbone, split, each) for each in (place, before))
        expected = layer_metrics(
            rows, split.labels, 3, decisions=decide(rows).argmax(1), families=("groups", "similarity"),
            groups=split.groups, given=split.given, previous=others,
        )  # fmt: skip
        assert {"group_gap", "dnc1/group=0", "dnc1/labels=given", "cka", "f1/group=1"} <= expected.keys()
        for name, value in expected.items():
            if prefix and name.startswith(("nc4", "ncm")):
                continue  # asks for the nearest class mean of the training split
            key = prefix + name.replace("group=0", "group=left").replace("group=1", "group=right")
            assert float(at.values[key]) == pytest.approx(float(value), rel=1e-6, abs=1e-9), key
    foreign = rows_of(backbone, images.foreign, place)
    known = layer_metrics(
        rows_of(backbone, images.train, place), images.train.labels, 3, families=("foreign",), foreign=foreign
    )
    assert {name: float(at.values[name]) for name in known} == pytest.approx({n: float(v) for n, v in known.items()})


def test_classes_left_out_do_not_go_into_what_is_accumulated(backbone, images) -> None:
    few = images.train.labels.clone()
    few[few == 2] = torch.where(torch.arange((few == 2).sum()) < 12, 0, 2)  # three samples of the last class are left
    sparse = replace(images, train=replace(images.train, labels=few, groups=None, given=None), groups=(), foreign=None)
    settings = MeasureSettings(families=("core", "spectrum", "cosine"), min_samples=5)
    measured = measure_backbone(backbone, sparse, settings=settings)
    at, place = measured.layers[-1], list(backbone.taps)[-1]
    kept = few < 2
    expected = layer_metrics(rows_of(backbone, sparse.train, place)[kept], few[kept], 2, families=settings.families)
    for name, value in expected.items():
        if name not in ("active_units", "classes_left_out"):
            assert float(at.values[name]) == pytest.approx(float(value), rel=1e-6, nan_ok=True), name
    assert float(at.values["classes_left_out"]) == 1 and at.reasons == {
        name: why for name, why in at.reasons.items() if "samples of classes left out" not in why
    }


def test_positions_are_rows_and_maps_are_counted_before_they_are_averaged(images) -> None:
    network = build_backbone("resnet20", (1, 4, 4)).eval()
    settings = MeasureSettings(families=("core", "elements"))
    bare = replace(images, groups=(), foreign=None)
    for pooling in ("average", "positions"):
        measured = measure_backbone(network, bare, pooling=pooling, settings=settings)
        at = next(it for it in measured.layers if it.tap == "post")
        assert 0 < float(at.values["active_share"]) < 1
        if pooling == "average":
            expected = float(at.values["active_share"])
        else:
            assert float(at.values["active_share"]) == pytest.approx(expected, rel=1e-12)
    assert float(at.values["active_units"]) == pytest.approx(expected, rel=1e-12)


def test_labels_of_positions_need_rows_of_positions(backbone, images) -> None:
    from pipeline.measure.looks import first_look
    from pipeline.metrics.engine.plan import Plan
    from pipeline.networks.rows import Rows, each_position

    values, labels = torch.randn(4, 3, 5), torch.tensor([[0, 1, -1]] * 4)
    plan = Plan.full(("decisions", *("weight", "spectrum", "next_weight", "classifier")))
    found = first_look(plan, each_position(values, None), labels, 2)
    assert found.counts.tolist() == [4, 4] and int(found.samples) == 8
    masked = first_look(plan, each_position(values, torch.tensor([[True, False, True]] * 4)), labels, 2)
    assert masked.counts.tolist() == [4, 0]
    with pytest.raises(ValueError, match=r"read the layer by positions \(measure\.positions=true\)"):
        first_look(plan, Rows(values[:, 0]), labels, 2)
