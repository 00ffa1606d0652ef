"""Values of each class: what rows of the class give, in streams and at once, and why some have none."""

import pytest
import torch
from torch import Tensor

from pipeline.metrics import CollapseMetrics, registry
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.settings import MeasureSettings

K, WIDTH, LONE, ABSENT = 6, 5, 4, 5
FAMILIES = ("cosine", "kernels", "norms", "class_spectrum", "groups")


@pytest.fixture(scope="module")
def rows() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([*range(4)] * 7 + [LONE, 0, 0])
    features = torch.randn(len(labels), WIDTH, generator=generator, dtype=torch.float64) + 1
    weight = torch.randn(K, WIDTH, generator=generator, dtype=torch.float64)
    return features, labels, weight, torch.arange(len(labels)) % 3 // 2


def by_hand(features: Tensor, labels: Tensor, weight: Tensor, groups: Tensor) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    own = {label: features[labels == label] for label in labels.unique().tolist()}
    centre = torch.stack([rows.mean(0) for rows in own.values()]).mean(0)
    decided = (features @ weight.T).argmax(1)
    for label, rows in own.items():
        mean, count = rows.mean(0), len(rows)
        unit, about = (torch.nn.functional.normalize(it, dim=1) for it in (rows, rows - features.mean(0)))
        cosines, singular = unit @ unit.T, torch.linalg.svdvals(rows - mean)
        squares, shares = singular.square(), singular / singular.sum()
        halves = [features[(labels == label) & (groups == at)].mean(0) for at in (0, 1)]
        values = {
            "samples": count,
            "cos_intra": cosines.mean(),
            "cos_intra_off": (cosines.sum() - count) / (count * (count - 1)) if count > 1 else float("nan"),
            "cos_centred_intra": (about @ about.T).mean(),
            "variance": (rows - mean).square().sum(1).mean(),
            "norm": (mean - centre).norm(),
            "dual": torch.cosine_similarity(weight[label], mean - centre, dim=0),
            "feature_norm": rows.norm(dim=1).mean(),
            "erank": torch.special.entr(shares).sum().exp() if count > 1 else 1,
            "participation": squares.sum() ** 2 / squares.square().sum() if count > 1 else 1,
            "stable_rank": squares.sum() / squares.max() if count > 1 else 1,
            "group_cosine": torch.cosine_similarity(*halves, dim=0),
            "true_positive_rate": (decided[labels == label] == label).double().mean(),
        }
        for name, value in values.items():
            found.setdefault(name, []).append(float(value))
    return found


def streamed(rows: tuple[Tensor, ...], sizes: list[int], **how: object) -> CollapseMetrics:
    features, labels, weight, groups = rows
    metric = CollapseMetrics(K, WIDTH, families=FAMILIES, groups=2, **how)
    parts = list(zip(features.split(sizes), labels.split(sizes), groups.split(sizes), strict=True))
    for own, named, grouped in parts:
        metric.update(own, named, groups=grouped)
    for own, named, grouped in parts:
        metric.look_again(own, named, (own @ weight.T).argmax(1), groups=grouped)
    values = metric.compute(weight=weight)
    assert not any("/class=" in name for name in [*values, *metric.undefined])
    return metric


@pytest.mark.parametrize("sizes", [[31], [1] * 31, [0, 17, 14]])
def test_streams_give_what_rows_of_the_class_do(rows, sizes):
    found, expected = streamed(rows, sizes).classes, by_hand(*rows)
    assert found.keys() == {f"{name}/class=" for name in expected} and next(iter(found)) == "samples/class="
    assert {name.partition("/")[0] for name in found} == {*registry.class_values(), "samples"}
    for name, values in expected.items():
        got = found[f"{name}/class="].tolist()
        assert got[:ABSENT] == pytest.approx(values, rel=1e-10, nan_ok=True), name
        assert got[ABSENT] == 0 if name == "samples" else got[ABSENT] != got[ABSENT], name


def test_what_has_no_value_says_why_and_classes_left_out_keep_their_sizes(rows):
    metric = streamed(rows, [31])
    why = {name: told for name, told in metric.why_of_classes.items() if name.endswith(f"={LONE}")}
    assert why["cos_intra_off/class=4"] == "the class has one row with a direction"
    assert why["group_cosine/class=4"].startswith("the class has samples in fewer than two groups")
    least = streamed(rows, [31], min_samples=8)
    assert least.classes["samples/class="].tolist() == [9, 7, 7, 7, 1, 0]
    assert least.classes["cos_intra/class="].isnan().all()  # one class alone counts
    assert least.why_of_classes["cos_intra/class=0"].startswith("fewer than two classes have the min_samples")


def test_members_are_measured_one_by_one(rows):
    features, labels, weight, _ = rows
    lacking = (*registry.BEYOND_A_LAYER, "decisions")
    plan = Plan.full(lacking, MeasureSettings(("core", "cosine", "kernels")), each_class=True)
    both = torch.stack([features, 2 * features + 1])
    values, _ = plan.at_once(plan.first_look(both, labels, K), weight=torch.stack([weight, weight]))
    for member, own in enumerate(both):
        expected = by_hand(own, labels, weight, torch.arange(len(labels)) % 3 // 2)
        for name in ("cos_intra", "cos_centred_intra", "variance", "norm", "dual"):
            got = values[f"{name}/class="][member, :ABSENT].tolist()
            assert got == pytest.approx(expected[name], rel=1e-9), name


def test_core_has_nothing_of_each_class():
    assert registry.class_values_of(("core",)) == ()
    assert {value.name for value in registry.class_values_of(("all",))} == set(registry.class_values())
    titled = registry.entry("test_cos_intra_off/class=3"), registry.entry("cos_intra_off")
    assert titled[0].title != titled[1].title and titled[0].of_rows
