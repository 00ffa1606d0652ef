"""Ranks agree on anchors and add plain sums: the numbers of one process, in messages that do not grow with the ranks.

The ranks are threads of this process, and what each receives is counted; with processes and gloo the same is tested in
tests/integration/test_ranks_agree.py.
"""

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pipeline.dufm.descent import Descent
from pipeline.dufm.shards import Shard
from pipeline.measure import joining
from pipeline.metrics import ClassStatistics, registry
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.settings import MeasureSettings
from pipeline.runtime import ranks

PLAN = Plan.full(
    (*registry.BEYOND_A_LAYER, *registry.OF_WEIGHTS), MeasureSettings(("core", "spectrum", "class_spectrum", "cosine"))
)


class World:
    """Ranks that are threads, and what they send."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        self.size, self.own = size, threading.local()
        self.barrier, self.given = threading.Barrier(size), [None] * size
        self.reduced, self.gathered = [0] * size, [0] * size
        monkeypatch.setattr(ranks, "world_size", lambda: size)
        monkeypatch.setattr(ranks, "rank", lambda: self.own.rank)
        monkeypatch.setattr(ranks, "gather", self.gather)
        monkeypatch.setattr(ranks, "total", lambda mine: self.reduce(mine, lambda all_: all_.sum(0)))
        monkeypatch.setattr(ranks, "maxima", lambda mine: self.reduce(mine, lambda all_: all_.amax(0)))

    def gather(self, value: object) -> list:
        self.given[self.own.rank] = value
        self.barrier.wait()
        found = list(self.given)
        self.gathered[self.own.rank] += sum(len(pickle.dumps(each)) for each in found)
        self.barrier.wait()
        return found

    def reduce(self, mine: torch.Tensor, how: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        self.given[self.own.rank] = mine
        self.barrier.wait()
        found = how(torch.stack(self.given))
        self.reduced[self.own.rank] += mine.nbytes
        self.barrier.wait()
        return found

    def run(self, work: Callable[[int], object]) -> list:
        def as_rank(rank: int) -> object:
            self.own.rank = rank
            try:
                return work(rank)
            except BaseException:
                self.barrier.abort()  # or the others would wait for it
                raise

        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(as_rank, range(self.size)))


def draw(rows: int, offset: float = 1e4) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows whose offset is far larger than their spread, of four classes, the last of which few ranks have."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (rows,), generator=generator)
    labels[-3:] = 3
    means = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    return means[labels] + 1e-3 * torch.randn(rows, 6, generator=generator, dtype=torch.float64) + offset, labels


def parts_of(size: int) -> list[dict[tuple[str, ...], ClassStatistics]]:
    """Two places of each rank, uneven; the last of several ranks has no rows of the second one. Class 4 has none."""
    features, labels = draw(60)
    bounds = [60 * rank * rank // (size * size) for rank in range(size + 1)]
    found = []
    for rank in range(size):
        own = slice(bounds[rank], bounds[rank + 1])
        first = PLAN.first_look(features[own], labels[own], 5)
        found.append({("a", "pre"): first, ("b", "post"): PLAN.first_look(2 * features[own, :3], labels[own], 5)})
    if size > 1:
        del found[-1]["b", "post"]
    return found


def numbers_of(found: ClassStatistics) -> dict[str, torch.Tensor]:
    names = ("counts", "means", "scatter", "active", "samples", "roundoff", "balanced_means")
    own = {name: getattr(found, name) for name in names} | dict(found.extras)
    return own | {f"{view} {name}": it for view, of in found.views.items() for name, it in numbers_of(of).items()}


@pytest.mark.parametrize("sent", [1, 16 * 2**20])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_joined_statistics_are_those_of_all_rows(monkeypatch, size, sent):
    monkeypatch.setattr(joining, "SENT_BYTES", sent)
    parts = parts_of(size)
    assert parts[0]["a", "pre"].views and len(parts[0]["a", "pre"].extras) > 2
    results = World(monkeypatch, size).run(lambda rank: joining.joined(parts[rank]))
    for place in parts[0]:
        expected = numbers_of(ClassStatistics.merged([own[place] for own in parts if place in own]))
        for found in results:
            assert list(numbers_of(found[place])) == list(expected)
            for name, value in numbers_of(found[place]).items():
                largest = float(value.abs().max()) if value.isfinite().all() else 1.0
                torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-14 * largest, msg=name)
                assert torch.equal(value, numbers_of(results[0][place])[name])  # all ranks go on alike
    again = World(monkeypatch, size).run(lambda rank: joining.joined(parts[rank]))
    for place, found in again[0].items():
        for name, value in numbers_of(found).items():
            assert torch.equal(value, numbers_of(results[0][place])[name])


def test_what_64_ranks_reduce_is_what_two_do(monkeypatch):
    """And it is what docs/performance.md counts: 2 K d numbers and a few of each class."""
    classes, width = 20, 30
    rows, labels = torch.randn(128, width, generator=torch.Generator().manual_seed(0)), torch.arange(128) % classes
    sent, told = {}, {}
    for size in (2, 64):
        share = 128 // size
        shares = [slice(rank * share, (rank + 1) * share) for rank in range(size)]
        parts = [{("a", "pre"): ClassStatistics.from_features(rows[own], labels[own], classes)} for own in shares]
        world = World(monkeypatch, size)
        world.run(lambda rank: joining.joined(parts[rank]))  # noqa: B023
        (sent[size],), told[size] = set(world.reduced), world.gathered[0]
    assert sent[2] == sent[64] == 8 * (2 * classes * width + 3 * classes + 3)
    assert told[64] < 64 * 300  # the names and sizes of places, of every rank


def test_a_step_on_shared_out_samples_sends_what_the_weights_take_whatever_the_ranks(monkeypatch):
    source = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=source, dtype=torch.float64)  # noqa: E731
    rows, labels = normal(66, 5), torch.arange(66) % 3
    weights, bias = [normal(2, 4, 5), normal(2, 3, 4)], normal(2, 3)
    how = {"num_classes": 3, "lr": 0.1, "weight_decay": 1e-3, "momentum": 0.5, "bias": bias, "bias_decay": 1e-2}
    alone = Descent(rows, weights, labels, backend="torch", **how)
    alone.advance(5)
    for size in (2, 64):
        # Of 64 ranks the last has no sample, as where there are fewer batches than ranks.
        own = [slice(0, 20), slice(20, 66)] if size == 2 else [*(slice(at, at + 1) for at in range(62)), slice(62, 66)]
        own += [slice(66, 66)] * (size - len(own))
        world = World(monkeypatch, size)

        def descend(rank: int) -> tuple[Descent, int, float]:
            labels_of_rank = labels[own[rank]]  # noqa: B023
            shard = Shard.of(labels_of_rank, 3)
            descent = Descent(rows[own[rank]], weights, labels_of_rank, shard=shard, **how)  # noqa: B023
            before = world.reduced[rank]  # noqa: B023
            descent.advance(5)
            return descent, world.reduced[rank] - before, descent.objective().total  # noqa: B023

        for descent, sent, objective in world.run(descend):
            assert sent == 5 * 8 * (sum(weight.numel() for weight in weights) + bias.numel())
            torch.testing.assert_close(objective, alone.objective().total, rtol=1e-12, atol=0)
            for found, expected in zip([*descent.weights, descent.bias], [*alone.weights, alone.bias], strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
    with pytest.raises(ValueError, match="shard must be None for free features"):
        Descent(rows, weights, labels, shard=Shard(66, (22, 22, 22)), feature_decay=1e-3, **how)
