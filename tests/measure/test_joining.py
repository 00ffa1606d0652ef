"""Ranks agree on anchors and add plain sums: the numbers of one process, in messages that do not grow with the ranks.

The ranks are threads of this process, and what each receives is counted; with processes and gloo the same is tested in
tests/integration/test_ranks_agree.py.
"""

import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from queue import Queue

import pytest
import torch

from pipeline.data import ImageData, Split
from pipeline.dufm.descent import Descent
from pipeline.dufm.shards import Shard
from pipeline.measure import extraction, joining, second_look
from pipeline.measure.layers import measure_backbone
from pipeline.metrics import ClassStatistics, registry
from pipeline.metrics.engine.pairing import PairStatistics
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.settings import MeasureSettings
from pipeline.networks import build_backbone
from pipeline.networks.probing import plain_attention
from pipeline.runtime import ranks

PLAN = Plan.full(
    (*registry.BEYOND_A_LAYER, *registry.OF_WEIGHTS), MeasureSettings(("core", "spectrum", "class_spectrum", "cosine"))
)


class World:
    """Ranks that are threads, and what they send."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        self.size, self.own = size, threading.local()
        self.barrier, self.given = threading.Barrier(size), [None] * size
        self.reduced, self.gathered, self.passed_on = [0] * size, [0] * size, [0] * size
        self.ways = {(source, to): Queue() for source in range(size) for to in range(size)}
        monkeypatch.setattr(ranks, "world_size", lambda: size)
        monkeypatch.setattr(ranks, "rank", lambda: self.own.rank)
        for name in ("_of_everyone", "_sent_by", "_passed"):
            monkeypatch.setattr(ranks, name, getattr(self, name.removeprefix("_")))
        monkeypatch.setattr(ranks, "total", lambda mine: self.reduce(mine, lambda all_: all_.sum(0)))
        monkeypatch.setattr(ranks, "maxima", lambda mine: self.reduce(mine, lambda all_: all_.amax(0)))

    def of_everyone(self, mine: torch.Tensor) -> list[torch.Tensor]:
        found = self._shown(mine)
        assert len({each.shape for each in found}) == 1
        self.gathered[self.own.rank] += sum(each.nbytes for each in found)
        return found

    def sent_by(self, source: int, mine: torch.Tensor, size: int) -> torch.Tensor:
        found = self._shown(mine)[source]
        assert len(found) == size
        self.gathered[self.own.rank] += size if source != self.own.rank else 0
        return found

    def passed(self, rows: torch.Tensor, *, to: int | None = None, source: int | None = None) -> torch.Tensor:
        if to is not None:
            self.ways[self.own.rank, to].put(rows)
            return rows
        found = self.ways[source, self.own.rank].get(timeout=30)
        assert found.shape == rows.shape
        self.passed_on[self.own.rank] += found.nbytes
        return found

    def _shown(self, mine: torch.Tensor) -> list[torch.Tensor]:
        self.given[self.own.rank] = mine
        self.barrier.wait()
        found = list(self.given)
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

        # Taps set both for the whole process, and those of threads are not closed in the order of a stack.
        with plain_attention(), torch.compiler.set_stance("default"), ThreadPoolExecutor(self.size) as pool:
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
    assert told == {2: 2 * 16, 64: 64 * 16}  # the names and sizes of places are the same on every rank


def pairs_of(size: int) -> list[dict]:
    """Rows of two places with a large offset, dealt out unevenly; the last of several ranks has none of the pair."""
    features, _ = draw(60)
    bounds = {1: [0, 60], 2: [0, 25, 60], 3: [0, 20, 60, 60], 4: [0, 5, 20, 60, 60]}[size]
    found = []
    for start, stop in pairwise(bounds):
        own = features[start:stop]
        found.append({(("a", "pre"), ("b", "post")): PairStatistics.of_rows(own, 2 * own[:, :3].relu())})
    if size > 2:
        del found[-1][("a", "pre"), ("b", "post")]
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_joined_pairs_are_those_of_all_rows(monkeypatch, size):
    parts = pairs_of(size)
    pair = (("a", "pre"), ("b", "post"))
    expected = PairStatistics.merged([own[pair] for own in parts if pair in own])
    first, again = (World(monkeypatch, size).run(lambda rank: joining.joined_pairs(parts[rank])[pair]) for _ in "ab")
    for found in first:
        for name in ("cross", "first", "second"):
            one, other = getattr(found, name), getattr(expected, name)
            torch.testing.assert_close(one.product, other.product, rtol=1e-10, atol=1e-12)
            assert one.count == other.count and one.anchors[0].equal(other.anchors[0])
        torch.testing.assert_close(found.batches, expected.batches, rtol=1e-10, atol=0, equal_nan=True)
    for found in (*first, *again):  # all ranks, and both times
        assert torch.equal(found.cross.product, first[0].cross.product) and found.batches.equal(first[0].batches)


def test_pairs_and_sums_of_64_ranks_take_what_those_of_two_do(monkeypatch):
    rows, other = (torch.randn(128, width, generator=torch.Generator().manual_seed(width)) for width in (20, 30))
    taken, names = {}, {}
    for size in (2, 64):
        shares = [slice(rank * 128 // size, (rank + 1) * 128 // size) for rank in range(size)]
        parts = [{(("a", "pre"), ("b", "pre")): PairStatistics.of_rows(rows[own], other[own])} for own in shares]
        sums = [{("a", "pre"): rows[own].double().T @ rows[own].double()} for own in shares]
        world = World(monkeypatch, size)
        world.run(lambda rank: (joining.joined_pairs(parts[rank]), joining.joined_sums(sums[rank])))  # noqa: B023
        (taken[size],), names[size] = set(world.reduced), world.gathered[0]
    of_pair = 2 * 3 * (20 + 30) + 20 * 30 + 20 * 20 + 30 * 30 + 3 + 3 + 3
    assert taken[2] == taken[64] == 8 * (of_pair + 20 * 20)
    assert names == {2: 2 * 2 * 16, 64: 2 * 64 * 16}  # they are the same everywhere


def test_sums_that_a_rank_lacks_are_zero_there(monkeypatch):
    parts = [{("a", "post"): torch.tensor([1.0, 2.0], dtype=torch.float64)}, {}]
    for found in World(monkeypatch, 2).run(lambda rank: joining.joined_sums(parts[rank])):
        assert found["a", "post"].tolist() == [1.0, 2.0]


def test_what_each_rank_works_out_comes_to_all_once(monkeypatch):
    """What the second look is told of a place is worked out by one rank; without padding, of 64 as of two ranks."""
    places = {(str(at), "pre"): 100 + 400 * at for at in range(3)}
    received = {}
    for size in (2, 64):
        world = World(monkeypatch, size)
        filled = lambda _, width: torch.full((width, 3), float(width))  # noqa: E731
        found = world.run(lambda rank: second_look.shared(places, filled))  # noqa: B023
        for own in found:
            assert list(own) == list(places)
            assert all(own[key].shape == (d, 3) and bool((own[key] == d).all()) for key, d in places.items())
        received[size] = world.gathered
    of_all = 4 * 3 * sum(places.values())
    for size, taken in received.items():
        assert max(taken) < of_all + 3 * 500 + 16 * size
    assert min(received[64][:2]) > of_all  # those who worked nothing out


@pytest.mark.parametrize("size", [1, 2, 3, 64])
def test_numbers_of_rows_come_to_the_rank_that_works_out_the_place(monkeypatch, size):
    values = torch.randn(2, 3, 130, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bounds = [130 * rank // size for rank in range(size + 1)] if size < 64 else [*range(64), 130]
    places = [(str(at), "pre") for at in range(3)]
    world = World(monkeypatch, size)

    def sent(rank: int) -> tuple[list, dict]:
        own = slice(bounds[rank], bounds[rank + 1])
        mine = {place: {"x": values[0, at, own], "y": values[1, at, own]} for at, place in enumerate(places)}
        return list(ranks.share(3)), second_look.to_owners(mine)

    found = world.run(sent)
    assert sorted(at for mine, _ in found for at in mine) == [0, 1, 2]
    for rank, (mine, own) in enumerate(found):
        for at, place in enumerate(places):
            kept = [values[0, at].tolist(), values[1, at].tolist()] if at in mine else []
            assert [each.tolist() for each in own[place].values()] == kept
        rows = 130 - (bounds[rank + 1] - bounds[rank])
        assert world.passed_on[rank] == 2 * 8 * rows * len(mine)  # and nothing of the places of others


@pytest.mark.parametrize("size", [2, 64])
def test_a_value_that_all_ranks_have_is_not_sent(monkeypatch, size):
    long = {"names": "x" * 5000}
    world = World(monkeypatch, size)
    assert world.run(lambda rank: ranks.gather(long)) == [[long] * size] * size
    assert set(world.gathered) == {16 * size}


def test_values_of_ranks_come_in_their_order_whatever_their_lengths(monkeypatch):
    for length in (1, 2000):  # all at once, and one after another
        values = [{"rank": rank, "rows": torch.arange(rank * length)} for rank in (0, 2, 1, 2)]
        for found in World(monkeypatch, 4).run(lambda rank: ranks.gather(values[rank])):  # noqa: B023
            assert [each["rank"] for each in found] == [0, 2, 1, 2]
            assert all(torch.equal(each["rows"], own["rows"]) for each, own in zip(found, values, strict=True))


@pytest.mark.parametrize(
    "value",
    [
        torch.randn(3, 4)[:, ::2],
        torch.tensor([True, False]),
        torch.tensor(2.0, dtype=torch.bfloat16),
        torch.randn(2, dtype=torch.complex64).conj(),
        torch.zeros(0, 3, dtype=torch.int64),
        torch.nn.Parameter(torch.ones(2)),
    ],
)
def test_any_tensor_arrives_as_it_is(value):
    found = pickle.loads(ranks.pickled({"it": [value]}))["it"][0]
    assert torch.equal(found.resolve_conj(), value.resolve_conj()) and found.dtype == value.dtype
    assert type(found) is type(value)
    with torch.no_grad():
        found.zero_()  # and may be written into


def test_all_that_is_measured_of_a_network_takes_messages_that_do_not_grow_with_the_ranks(monkeypatch):
    generator = torch.Generator().manual_seed(0)

    def split(count: int, labels: torch.Tensor) -> Split:
        return Split(torch.randn(count, 1, 3, 3, generator=generator), labels, torch.arange(count) % 2)

    labels = torch.arange(96) % 3
    foreign = Split(torch.randn(40, 1, 3, 3, generator=generator), torch.full((40,), -1))
    images = ImageData.from_splits("drawn", split(96, labels), split(64, labels[:64]), "abc", ("even", "odd"), foreign)
    network = build_backbone("mlp", (1, 3, 3), hidden=[20, 30]).eval()
    weight = torch.randn(3, 30, generator=generator)
    entered = {("classifier", "pre"): (weight, None)}
    families = MeasureSettings(("core", "groups", "similarity", "foreign", "agop", "progress"))
    monkeypatch.setattr(extraction, "EVAL_BATCH", 8)
    monkeypatch.setattr(extraction, "EVAL_PIXELS", 8 * 9)
    reduced, told, passed_on = {}, {}, {}
    for size in (2, 6):
        networks = [copy.deepcopy(network) for _ in range(size)]  # hooks are put on them
        world = World(monkeypatch, size)
        own = {"settings": families, "entered": entered}
        decide = lambda rows: rows @ weight.T  # noqa: E731
        found = world.run(lambda rank: measure_backbone(networks[rank], images, decide, **own))  # noqa: B023
        (reduced[size],) = set(world.reduced)
        told[size], passed_on[size] = sum(world.gathered) / size, sum(world.passed_on)
    assert reduced[2] == reduced[6] > 0
    # Numbers of rows go to the rank that works out a place and to no other: all that all ranks get is one copy.
    assert 0 < passed_on[2] < passed_on[6] < 8 * len(found[0].layers) * (96 + 64 + 40)
    # What one rank works out comes to all once, half of it from the other of two; of names and sizes a few bytes.
    assert told[6] < 2 * told[2] + 6 * 500


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
