"""The streamed metrics equal those of all the data at once, whatever the batches, the shards and the casts."""

import itertools
import pickle
from pathlib import Path

import brute_force
import numpy as np
import pytest
import torch
from commands import commands, script
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchmetrics import MetricCollection

from pipeline.metrics import CollapseMetrics, layer_metrics, undefined_reasons
from pipeline.metrics.engine import intake


def draw(seed: int, sizes: tuple[int, ...], width: int, offset: float = 1.0) -> tuple[Tensor, Tensor]:
    """Gaussian classes of the given sizes about random means, in shuffled order, float64, rectified in part."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    means = 2 * torch.randn(len(sizes), width, generator=generator, dtype=torch.float64) + offset
    noise = torch.randn(len(labels), width, generator=generator, dtype=torch.float64)
    features = means[labels] + noise
    features[:, 0].relu_()
    return features, labels


def stream(metric: CollapseMetrics, features: Tensor, labels: Tensor, sizes: list[int]) -> CollapseMetrics:
    for batch, batch_labels in zip(features.split(sizes), labels.split(sizes), strict=True):
        metric.update(batch, batch_labels)
    return metric


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-10) -> None:
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        assert value.dtype == torch.float64
        assert value.shape == ()
        # nc2_simplex is a difference of unit matrices, zero for two classes: its digits end at the rounding of 1
        assert float(value) == pytest.approx(float(expected[name]), rel=rtol, abs=1e-14, nan_ok=True), name


@st.composite
def partitions(draw: st.DrawFn, total: int) -> list[int]:
    """Batch sizes that add up to `total`; zeros and ones among them."""
    cuts = sorted(draw(st.lists(st.integers(0, total), max_size=12)))
    edges = [0, *cuts, total]
    return [end - start for start, end in itertools.pairwise(edges)]


@settings(deadline=None, max_examples=60)
@given(sizes=partitions(40), seed=st.integers(0, 5), in_class_order=st.booleans())
def test_any_split_into_batches_gives_what_one_batch_gives(sizes: list[int], seed: int, in_class_order: bool) -> None:
    features, labels = draw(seed, (9, 25, 6), 4)
    if in_class_order:  # most batches miss classes
        labels, order = labels.sort()
        features = features[order]
    metric = stream(CollapseMetrics(3, 4), features, labels, sizes)
    assert_same(metric.compute(), layer_metrics(features, labels, 3), rtol=1e-11)


@pytest.fixture(params=["by the kernel", "by PyTorch"])
def summed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams are summed either way, whether there is a compiler or not."""
    if request.param == "by PyTorch":
        monkeypatch.setattr(intake, "library", lambda: None)
    elif intake.library() is None:
        pytest.skip("no working C++ compiler")


@pytest.mark.usefixtures("summed")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("offset", "spread"), [(1e6, 1.0), (1.0, 1e-6), (0.0, 1e-6)])
@pytest.mark.parametrize("sizes", [[1] * 60, [1, 0, 50, 9], [20, 20, 20]])
def test_offsets_and_near_collapse_cost_no_digits(
    dtype: torch.dtype, offset: float, spread: float, sizes: list[int]
) -> None:
    noise, labels = draw(1, (15, 25, 20), 4, offset=0)
    means = torch.tensor([[1, 0, 2, 1], [0, 3, 1, -1], [-2, 1, 0, 0]], dtype=torch.float64)
    features = (offset + means[labels] + spread * noise).to(dtype)
    values = stream(CollapseMetrics(3, 4), features, labels, sizes).compute()
    dnc1, cdnv = brute_force.exact_dnc1_and_cdnv(features.double().numpy(), labels.numpy(), 3)
    assert float(values["dnc1"]) == pytest.approx(dnc1, rel=1e-11, abs=0)
    assert float(values["cdnv"]) == pytest.approx(cdnv, rel=1e-11, abs=0)
    # Taking the offset off again is exact, and then the plain two-pass formula is exact enough.
    centred = (features.double() - offset).numpy(), labels.numpy()
    assert float(values["nc1_pinv"]) == pytest.approx(brute_force.nc1_pinv(*centred, 3), rel=1e-10, abs=0)
    assert float(values["nc2_simplex"]) == pytest.approx(brute_force.nc2_simplex(*centred, 3), rel=1e-10, abs=0)


@pytest.mark.usefixtures("summed")
def test_an_outlier_first_costs_no_digits() -> None:
    features, labels = draw(2, (30, 30), 3)
    features[0] += 1e5  # the anchor of its class, far from all its other samples
    values = stream(CollapseMetrics(2, 3), features, labels, [1] * 60).compute()
    exact = brute_force.exact_dnc1_and_cdnv(features.numpy(), labels.numpy(), 2)
    assert float(values["dnc1"]) == pytest.approx(exact[0], rel=1e-11, abs=0)


@pytest.mark.usefixtures("summed")
def test_collapsed_classes_stay_exactly_collapsed_over_batches() -> None:
    means = torch.tensor([[0.1, 1 / 3], [1e6 + 0.1, 0.7]], dtype=torch.float64)
    labels = torch.arange(101) % 2
    values = stream(CollapseMetrics(2, 2), means[labels], labels, [1, 33, 0, 67]).compute()
    assert values["dnc1"] == values["nc1_pinv"] == values["cdnv"] == 0


def test_without_covariance_only_nc1_pinv_is_missing_and_the_state_is_linear_in_d() -> None:
    features, labels = draw(3, (9, 11), 50)
    lean, full = CollapseMetrics(2, 50, covariance=False), CollapseMetrics(2, 50)
    lean.update(features, labels)
    full.update(features, labels)
    expected = full.compute()
    del expected["nc1_pinv"]
    assert_same(lean.compute(), expected)
    assert lean.state.numel() < 5 * 50
    assert full.state.numel() < 50 * 50 + 5 * 50


@pytest.mark.usefixtures("summed")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_batches_are_measured_in_float64(dtype: torch.dtype) -> None:
    features, labels = draw(4, (9, 11), 5)
    features = features.to(dtype)
    assert_same(
        stream(CollapseMetrics(2, 5), features, labels, [13, 7]).compute(), layer_metrics(features.double(), labels, 2)
    )


def test_autocast_does_not_touch_the_accumulation() -> None:
    features, labels = draw(5, (9, 11), 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = stream(CollapseMetrics(2, 5), features.float(), labels, [13, 7]).compute()
    assert_same(values, layer_metrics(features.float().double(), labels, 2))


@pytest.mark.usefixtures("summed")
def test_batches_in_and_out_of_inference_mode_mix() -> None:
    features, labels = draw(15, (9, 11), 5)
    metric = CollapseMetrics(2, 5)
    with torch.inference_mode():
        metric.reset()
        metric.update(features[:8], labels[:8])
    metric(features[8:].requires_grad_(), labels[8:])
    assert_same(metric.compute(), layer_metrics(features, labels, 2))


class Holder(nn.Module):
    """A model that holds its metric as Lightning modules do."""

    def __init__(self, metric: CollapseMetrics) -> None:
        super().__init__()
        self.metric = metric
        self.linear = nn.Linear(2, 2)


@pytest.mark.parametrize(
    "cast",
    [
        lambda metric: metric.float(),
        lambda metric: metric.half(),
        lambda metric: metric.set_dtype(torch.float16),
        lambda metric: metric.to(torch.bfloat16),
        lambda metric: metric.to("cpu", torch.float32),
        lambda metric: Holder(metric).half().metric,
        lambda metric: Holder(metric).to(torch.float16).metric,
        lambda metric: MetricCollection([metric]).set_dtype(torch.float32)["CollapseMetrics"],
    ],
)
def test_the_state_stays_float64_under_every_cast(cast) -> None:
    features, labels = draw(6, (9, 11), 5, offset=1e6)
    metric = CollapseMetrics(2, 5)
    metric.update(features[:8], labels[:8])
    metric = cast(metric)
    assert metric.state.dtype == torch.float64
    metric.update(features[8:], labels[8:])
    expected = layer_metrics(features, labels, 2)
    assert float(metric.compute()["dnc1"]) == pytest.approx(float(expected["dnc1"]), rel=1e-11)
    metric.reset()
    assert metric.state.dtype == torch.float64


def test_reset_forgets_and_forward_gives_the_batch_while_adding_it() -> None:
    features, labels = draw(7, (9, 11), 5)
    metric = CollapseMetrics(2, 5)
    metric.update(100 * features.flip(0), labels)
    metric.reset()
    assert_same(metric(features[:12], labels[:12]), layer_metrics(features[:12], labels[:12], 2))
    assert_same(metric(features[12:], labels[12:]), layer_metrics(features[12:], labels[12:], 2))
    assert_same(metric.compute(), layer_metrics(features, labels, 2))


def test_clones_pickles_and_state_dicts_go_on_where_the_original_stood() -> None:
    features, labels = draw(8, (9, 11), 5)
    original = CollapseMetrics(2, 5)
    original.update(features[:12], labels[:12])
    original.persistent(True)
    restored = CollapseMetrics(2, 5)
    restored.load_state_dict(original.state_dict())
    for metric in (original.clone(), pickle.loads(pickle.dumps(original)), restored):
        metric.update(features[12:], labels[12:])
        assert_same(metric.compute(), layer_metrics(features, labels, 2))


def test_a_metric_collection_keeps_apart_two_layers() -> None:
    first, labels = draw(9, (9, 11), 5)
    collection = MetricCollection({"a": CollapseMetrics(2, 5), "b": CollapseMetrics(2, 5, covariance=False)})
    for part in (slice(0, 13), slice(13, 20)):
        collection.update(first[part], labels[part])
    values = collection.compute()
    expected = layer_metrics(first, labels, 2)
    for name in expected.keys() - {"nc1_pinv"}:
        for key in (f"a_{name}", f"b_{name}"):
            assert float(values[key]) == pytest.approx(float(expected[name]), rel=1e-10, abs=1e-14)
    assert "b_nc1_pinv" not in values


def test_merging_shards_equals_one_stream() -> None:
    features, labels = draw(10, (3, 20, 9), 5, offset=1e6)
    labels, order = labels.sort()  # so that no shard has all classes
    features = features[order]
    total = CollapseMetrics(3, 5)
    empty = total.compute  # computed while empty: the value must not outlive the merge
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert empty()["dnc1"].isnan()
    for start, end in [(0, 10), (10, 11), (11, 11), (11, 32)]:
        shard = CollapseMetrics(3, 5)
        shard.update(features[start:end], labels[start:end])
        total.merge_state(shard)
    assert_same(total.compute(), layer_metrics(features, labels, 3))


def test_merging_a_metric_of_other_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"incoming_state must have .* \(2, 5, True, 1\), got \(2, 4, True, 1\)"):
        CollapseMetrics(2, 5).merge_state(CollapseMetrics(2, 4))


def test_undefined_values_come_with_their_reasons_until_they_are_defined() -> None:
    features, labels = draw(11, (9, 11), 5)
    metric = CollapseMetrics(2, 5)
    only = labels == 0
    metric.update(features[only], labels[only])
    assert metric.compute()["dnc1"].isnan()
    assert metric.undefined == undefined_reasons(features[only], labels[only], 2)
    assert metric.undefined["dnc2"] == "the data hold one class only"
    metric.update(features[~only], labels[~only])
    assert_same(metric.compute(), layer_metrics(features, labels, 2))
    assert metric.undefined == {}


@pytest.mark.usefixtures("summed")
def test_a_batch_that_is_not_finite_makes_the_metrics_undefined_for_good() -> None:
    features, labels = draw(12, (9, 11), 5)
    metric = CollapseMetrics(2, 5)
    for value in (float("nan"), 1.0):
        features[3, 2] = value
        metric.update(features, labels)
    assert all(value.isnan() for value in metric.compute().values())
    assert metric.undefined.keys() == metric.compute().keys()
    assert metric.undefined["dnc1"].startswith("the features are not finite")


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.zeros(4, 3), [0, 1, 0, 1], r"features must have shape \(N, 2\), got \(4, 3\)\."),
        (torch.zeros(2, 4, 2), [0, 1, 0, 1], r"features must have shape \(N, 2\), got \(2, 4, 2\)\."),
        (torch.zeros(4, 2), [0, 1, 0], r"labels must have shape \(4,\), one per sample, got \(3,\)\."),
        (torch.zeros(4, 2), [0, 1, 2, 0], r"labels must lie in 0\.\.1 for num_classes = 2, got 2\."),
        (torch.zeros(4, 2), [0.0, 1.0, 1.0, 0.0], r"labels must be an int64 tensor, got a torch\.float32 tensor\."),
        (
            torch.zeros(4, 2).int(),
            [0, 1, 1, 0],
            r"features must be a floating-point tensor, got a torch\.int32 tensor\.",
        ),
    ],
)
def test_malformed_batches_are_refused_in_one_sentence(features: Tensor, labels: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CollapseMetrics(2, 2).update(features, torch.tensor(labels))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((1, 3), r"num_classes must be .* got 1\."), ((2, 0), r"num_features must be .* got 0\."), ((2, "3"), "got '3'")],
)
def test_sizes_out_of_range_are_refused(sizes: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CollapseMetrics(*sizes)


@pytest.mark.usefixtures("summed")
def test_labels_out_of_range_that_update_could_not_look_at_are_found_by_compute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What a GPU does, where looking at the labels would mean waiting for it.
    monkeypatch.setattr("pipeline.metrics.engine.streaming.check_label_range", lambda *_: None)
    metric = CollapseMetrics(2, 3)
    metric.update(torch.ones(4, 3), torch.tensor([0, 1, -1, 7]))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1, got 2 of them outside\."):
        metric.compute()


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # which is a prototype, as the first call says
def test_updates_on_a_gpu_equal_the_cpu_and_do_not_wait() -> None:
    features, labels = draw(13, (90, 110, 56), 20)
    metric = CollapseMetrics(3, 20).to("cuda")
    on_gpu = features.cuda(), labels.cuda()
    try:
        torch.cuda.set_sync_debug_mode("error")
        stream(metric, *on_gpu, [100, 156])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    values = {name: value.cpu() for name, value in metric.compute().items()}
    assert_same(values, layer_metrics(features, labels, 3))


def test_two_ranks_with_uneven_shards_equal_one_process(tmp_path: Path) -> None:
    features, labels = draw(14, (8, 30, 12), 6, offset=1e4)
    by_class, order = labels.sort()
    cases = {
        "uneven": (features, labels, 11),
        "a rank lacks classes": (features[order], by_class, 20),
        "an empty shard": (features, labels, 50),
        "one class in all": (features[labels == 1], labels[labels == 1], 9),
    }
    torch.save(
        {
            name: {"num_classes": 3, "shards": [(z[:cut].clone(), y[:cut].clone()), (z[cut:].clone(), y[cut:].clone())]}
            for name, (z, y, cut) in cases.items()
        },
        tmp_path / "data",
    )
    worker = Path(__file__).with_name("distributed_worker.py")
    ranks = [
        commands().start(
            *script(worker, rank, 2, *(tmp_path / name for name in ("rendezvous", "data", f"result{rank}"))),
            folder=tmp_path,
        )
        for rank in range(2)
    ]
    done = [rank.end() for rank in ranks]
    assert [rank.code for rank in done] == [0, 0], done
    results = [torch.load(tmp_path / f"result{rank}", weights_only=True) for rank in range(2)]
    assert [result["gathered"] for result in results] == [0, 0]  # sums are added up, whatever the ranks
    for name, (z, y, _) in cases.items():
        for result in results:
            assert_same(result[name]["once"], layer_metrics(z, y, 3))
            assert_same(result[name]["twice"], layer_metrics(torch.cat([z, z]), torch.cat([y, y]), 3))
            assert result[name]["undefined"] == undefined_reasons(z, y, 3)
        first, second = (np.array([float(value) for value in result[name]["once"].values()]) for result in results)
        np.testing.assert_array_equal(first, second)  # every rank reports the same number, to the last bit
