"""The tracker measures every family: what each takes besides rows and labels comes from its pass."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from pipeline import CollapseTracker
from pipeline.metrics import layer_metrics

CLASSES = 3


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    parts = [nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 5, 3, padding=1), nn.ReLU()]
    parts += [nn.Conv2d(5, 5, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, CLASSES))


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(36) % CLASSES
    images = torch.randn(36, 1, 4, 4, generator=generator) + 0.4 * labels[:, None, None, None]
    return (
        images,
        labels,
        torch.randint(0, 2, (36,), generator=generator),
        torch.randn(14, 1, 4, 4, generator=generator),
    )


LAYERS = ["1", "3", "5", "8:pre"]


def test_every_family_is_what_rows_at_hand_give(model: nn.Module, data: tuple[torch.Tensor, ...]) -> None:
    images, labels, groups, foreign = data
    loader = list(zip(images.split(10), labels.split(10), groups.split(10), strict=True))
    tracker = CollapseTracker(model, CLASSES, LAYERS, families=["all"], groups=["a", "b"])
    tracker.measure(loader, test=loader, foreign=foreign.split(6))
    with torch.no_grad():
        maps = [model[:upto](images) for upto in (2, 4, 6)]
        rows = [it.mean((2, 3)) for it in maps]
        others, decided = model[:6](foreign).mean((2, 3)), model(images).argmax(1)
    expected = layer_metrics(
        rows[2], labels, CLASSES, decisions=decided, nearest=True, families=("all",), groups=groups, foreign=others,
        previous=rows[1],
    )  # fmt: skip
    pooled_away = {"cka_batch"} | {name for name in expected if "active" in name or "dead" in name}
    pooled_away |= {"always_share", "rate_top10"}
    for name, value in expected.items():
        key = f"5/post/{name}".replace("group=0", "group=a").replace("group=1", "group=b")
        if key in tracker.latest and name not in pooled_away and value.isfinite():
            assert tracker.latest[key] == pytest.approx(float(value), rel=1e-5, abs=1e-6), name
    assert {"5/post/nc5", "5/post/neco_auroc", "5/post/cka", "5/post/dnc1/group=b", "5/post/group_gap"} <= set(
        tracker.latest
    )
    assert tracker.latest["5/post/active_share"] == pytest.approx(float((maps[2] != 0).double().mean()))
    assert tracker.latest["5/post/test_neco_auroc"] == tracker.latest["5/post/neco_auroc"]


def test_ways_through_blocks_and_gradients_are_found(model: nn.Module, data: tuple[torch.Tensor, ...]) -> None:
    images, labels, *_ = data
    tracker = CollapseTracker(model, CLASSES, LAYERS, families=["core", "progress", "agop"])
    tracker.measure(list(zip(images.split(10), labels.split(10), strict=True)))
    with torch.no_grad():
        first, second, third = (model[:upto](images).mean((2, 3)) for upto in (2, 4, 6))
    way = (second - first).norm(dim=1) + (third - second).norm(dim=1)
    assert tracker.latest["5/post/straightness"] == pytest.approx(float(((third - first).norm(dim=1) / way).mean()))
    falls = [tracker.latest[f"{layer}/post/dnc1"] for layer in ("1", "3", "5")]
    share = sum(after <= before for before, after in pairwise(falls)) / 2
    assert tracker.latest["5/post/decreasing_share/dnc1"] == share
    # The last layer's outputs are the network's: its S is the identity, the AGOP W^T W.
    assert tracker.latest["8/pre/nfa_full"] == pytest.approx(1)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_core_alone_is_what_it_was(model: nn.Module, data: tuple[torch.Tensor, ...]) -> None:
    images, labels, *_ = data
    loader = [(images, labels)]
    plain, asked = (CollapseTracker(model, CLASSES, "5", **more) for more in ({}, {"families": ["core", "cosine"]}))
    plain.measure(loader)
    asked.measure(loader)
    assert plain.latest == {key: asked.latest[key] for key in plain.latest}
    assert {key for key in asked.latest if "cos_" in key} and not {key for key in plain.latest if "cos_" in key}


def test_what_is_wrong_is_told(model: nn.Module, data: tuple[torch.Tensor, ...]) -> None:
    images, labels, *_ = data
    with pytest.raises(ValueError, match=r"families must be among .*, got 'cosin' \(did you mean cosine\?\)\."):
        CollapseTracker(model, CLASSES, "5", families=["cosin"])
    tracker = CollapseTracker(model, CLASSES, "5", families=["core", "groups"], groups=["a", "b"])
    with pytest.raises(ValueError, match=r"a batch must be three parts \(inputs, labels, groups\), got a tuple of 2"):
        tracker.measure([(images, labels)])


def test_all_pairs_of_layers_are_compared_where_that_is_asked_for(
    model: nn.Module, data: tuple[torch.Tensor, ...]
) -> None:
    images, labels, *_ = data
    loader = list(zip(images.split(10), labels.split(10), strict=True))
    tracker = CollapseTracker(model, CLASSES, LAYERS[:3], families=["similarity"], pairs="all")
    tracker.measure(loader, test=loader)
    with torch.no_grad():
        rows = [model[:upto](images).mean((2, 3)) for upto in (2, 4, 6)]
    for (one, first), (other, second) in [((0, "1"), (1, "3")), ((0, "1"), (2, "5")), ((1, "3"), (2, "5"))]:
        expected = layer_metrics(rows[other], labels, CLASSES, previous=rows[one], families=["similarity"])["cka"]
        for prefix in ("", "test_"):
            found = tracker.latest[f"{second}/post/{prefix}cka/with={first}/post"]
            assert found == pytest.approx(float(expected), rel=1e-5)
    assert "5/post/cka" not in tracker.latest
    with pytest.raises(ValueError, match=r"pairs must be one of consecutive, all, got 'each'"):
        CollapseTracker(model, CLASSES, LAYERS, pairs="each")


def test_values_of_each_class_are_a_table_and_among_all_others_where_classes_are_few() -> None:
    generator = torch.Generator().manual_seed(2)
    for classes in (3, 21):
        labels = torch.arange(4 * classes) % classes
        rows = torch.randn(len(labels), 6, generator=generator)
        tracker = CollapseTracker(nn.Sequential(nn.Linear(6, classes)), classes, "0:pre", families=["kernels", "norms"])
        assert tracker.classes.empty
        loader = list(zip(rows.split(7), labels.split(7), strict=True))
        tracker.measure(loader, step=4, test=loader[:-1])
        table = tracker.classes
        assert table["class"].tolist() == list(range(classes)) and set(table.step) == {4}
        assert table.dual.mean() == pytest.approx(tracker.latest["0/pre/dual_mean"])
        assert table.test_samples.sum() == len(loader) * 7 - 7 and list(table.samples) == [4] * classes
        few = {key: value for key, value in tracker.latest.items() if "/class=" in key}
        assert bool(few) == (classes == 3)
        if few:
            assert few["0/pre/test_feature_norm/class=2"] == table.test_feature_norm[2]
            assert "/class=" not in tracker._repr_html_()
            assert "2" in tracker.plot("test_feature_norm/class=2").get_title()
