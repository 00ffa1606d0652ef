"""What a loader yields reaches the model, each sample once, in the model's precision."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, Sampler, TensorDataset

from pipeline import CollapseTracker

SAMPLES, CLASSES = 23, 3


def data(count: int = SAMPLES) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(count, 8, generator=generator), torch.arange(count) % CLASSES)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, CLASSES))


class Around(Sampler):
    """A sampler that passes on what another yields."""

    def __init__(self, inner: Sampler) -> None:
        self.inner = inner

    def __iter__(self) -> Iterator:
        return iter(self.inner)

    def __len__(self) -> int:
        return len(self.inner)


def loader_of(way: str, sampler: Sampler, dataset: TensorDataset) -> DataLoader:
    if way == "sampler":
        return DataLoader(dataset, batch_size=5, sampler=sampler)
    if way == "batch sampler":
        return DataLoader(dataset, batch_sampler=BatchSampler(sampler, 5, drop_last=False))
    if way == "inside another":
        return DataLoader(dataset, batch_size=5, sampler=Around(sampler))
    return DataLoader(dataset, batch_sampler=Around(BatchSampler(Around(sampler), 5, drop_last=False)))


@pytest.mark.parametrize("way", ["sampler", "batch sampler", "inside another", "deep inside"])
def test_padding_does_not_count_wherever_the_distributed_sampler_sits(way) -> None:
    dataset, tracker = data(), CollapseTracker(network(), CLASSES, ["1", "2:pre"])
    last = DistributedSampler(dataset, num_replicas=2, rank=1, shuffle=False)  # 11 of its own, and 1 for padding
    tracker.measure(loader_of(way, last, dataset))
    found = tracker.latest
    tracker.measure(DataLoader(TensorDataset(*dataset[list(range(1, SAMPLES, 2))])))
    assert found == pytest.approx(tracker.latest, rel=1e-5, nan_ok=True)


class Named(nn.Module):
    """Takes tensors and other things by name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: Tensor, names: list[str], scale: float, more: dict[str, Tensor]) -> Tensor:
        assert len(names) == len(x)
        return self.inner(x * scale + more["shift"])


def test_inputs_by_name_may_hold_other_things_than_tensors() -> None:
    images, labels = data().tensors
    batch = {"x": images, "names": ["image"] * SAMPLES, "scale": 1.0, "more": {"shift": torch.zeros(8)}}
    tracker, plain = CollapseTracker(Named(), CLASSES, "inner.1"), CollapseTracker(network(), CLASSES, "1")
    tracker.measure([(batch, labels)])
    plain.measure([(images, labels)])
    assert list(tracker.latest.values()) == pytest.approx(list(plain.latest.values()), nan_ok=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_a_model_of_another_precision_gets_floats_of_it(dtype) -> None:
    images, labels = data().tensors
    tracker = CollapseTracker(network().to(dtype), CLASSES, "1")
    tracker.measure([(images, labels)])
    found = tracker.latest
    tracker.measure([(images.to(dtype), labels)])
    assert found == pytest.approx(tracker.latest, nan_ok=True)


def test_labels_as_one_hot_rows_measure_the_same() -> None:
    images, labels = data().tensors
    tracker = CollapseTracker(network(), CLASSES, "1")
    tracker.measure([(images, labels)])
    found = tracker.latest
    tracker.measure([(images, nn.functional.one_hot(labels, CLASSES))])
    assert found == pytest.approx(tracker.latest, nan_ok=True)


def test_data_parallel_is_looked_through() -> None:
    assert CollapseTracker(nn.DataParallel(network()), CLASSES, ["1", "2:pre"]).layers == ["1/post", "2/pre"]


def test_shards_of_fsdp2_are_gathered() -> None:
    tracker = CollapseTracker(network(), CLASSES, ["1", "2:pre"])
    tracker.measure(DataLoader(data(), batch_size=7))
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = distributed.init_device_mesh("cpu", (1,))
        model = network()
        fully_shard(model[2], mesh=mesh)
        sharded = CollapseTracker(fully_shard(model, mesh=mesh), CLASSES, ["1", "2:pre"])
        sharded.measure(DataLoader(data(), batch_size=7))
    finally:
        distributed.destroy_process_group()
    assert "2/pre/dnc3" in sharded.latest
    assert sharded.latest == pytest.approx(tracker.latest, rel=1e-5, nan_ok=True)


def test_nan_is_told_once_with_the_reason(caplog) -> None:
    images, labels = data().tensors
    tracker = CollapseTracker(network(), CLASSES, "1", metrics=["dnc1", "cdnv"], min_samples=8)  # classes of 8, 8, 7
    few = labels != 1
    for _ in range(2):
        tracker.measure([(images[few], labels[few])])  # one class is left
    told = [record.message for record in caplog.records if record.message.startswith("NaN for")]
    assert sum(message.count("1/post/dnc1") for message in told) == 1
    assert all(tracker.undefined["1/post/dnc1"].rstrip(".") in message for message in told)


def test_flat_pieces_of_weights_are_refused() -> None:
    model = network()
    tracker = CollapseTracker(model, CLASSES, "1")
    model[2].weight = nn.Parameter(model[2].weight.detach().flatten()[:7])
    with pytest.raises(ValueError, match=r"the weight of '2' is no matrix, .*shard by fully_shard"):
        tracker.measure(DataLoader(data(), batch_size=7))
