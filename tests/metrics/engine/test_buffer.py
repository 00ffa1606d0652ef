"""Rows that wait in a stream's buffer count like all others, whatever happens to the stream."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pipeline.metrics import CollapseMetrics, layer_metrics
from pipeline.metrics.engine import intake
from pipeline.metrics.engine.plan import Plan

K, WIDTH = 3, 5


def draw(samples: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % K
    means = 3 * torch.randn(K, WIDTH, generator=generator, dtype=torch.float64)
    return means[labels] + torch.randn(samples, WIDTH, generator=generator, dtype=torch.float64), labels


def assert_measures(metric: CollapseMetrics, rows: Tensor, labels: Tensor) -> None:
    expected = layer_metrics(rows, labels, K)
    for name, value in metric.compute().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-14)


@pytest.fixture(autouse=True, params=["by the kernel", "by PyTorch", "in blocks"])
def few_rows_wait(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty rows fill the buffer and forty the sums, so that some are in the state, some in sums, and some wait."""
    for name in ("TILE_ELEMENTS", "CACHED_ELEMENTS", "BLOCK_ELEMENTS"):
        monkeypatch.setattr(intake, name, 20 * WIDTH)
    monkeypatch.setattr(intake, "TILE_ROWS", 1)
    monkeypatch.setattr(intake, "SUMMED_ROWS", 40)
    monkeypatch.setattr(Plan, "of_sums", request.param != "in blocks")
    if request.param == "by PyTorch":
        monkeypatch.setattr(intake, "library", lambda: None)
    elif request.param == "by the kernel" and intake.library() is None:
        pytest.skip("no working C++ compiler")


def waiting(rows: Tensor, labels: Tensor) -> CollapseMetrics:
    metric = CollapseMetrics(K, WIDTH)
    for start in range(0, len(labels), 7):
        metric.update(rows[start : start + 7], labels[start : start + 7])
    assert len(metric._pending)
    return metric


def restored(metric: CollapseMetrics) -> CollapseMetrics:
    metric.persistent(True)
    other = CollapseMetrics(K, WIDTH)
    other.persistent(True)
    other.load_state_dict(metric.state_dict())
    other.update(torch.zeros(0, WIDTH), torch.zeros(0, dtype=torch.int64))
    return other


COPIES: dict[str, Callable[[CollapseMetrics], CollapseMetrics]] = {
    "pickle": lambda metric: pickle.loads(pickle.dumps(metric)),
    "copy": copy.deepcopy,
    "clone": lambda metric: metric.clone(),
    "state_dict": restored,
    "moved": lambda metric: metric.to("cpu"),
    "cast": lambda metric: metric.half(),
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_have_the_rows_that_wait(way: str) -> None:
    rows, labels = draw()
    metric = waiting(rows, labels)
    other = COPIES[way](metric)
    assert_measures(other, rows, labels)
    assert_measures(metric, rows, labels)
    more, of_more = draw(9, seed=1)
    other.update(more, of_more)
    assert_measures(other, torch.cat([rows, more]), torch.cat([labels, of_more]))


def test_merging_takes_what_waits_on_both_sides() -> None:
    (rows, labels), (others, of_others) = draw(), draw(30, seed=1)
    whole, shard = waiting(rows, labels), waiting(others, of_others)
    whole.merge_state(shard)
    assert_measures(whole, torch.cat([rows, others]), torch.cat([labels, of_others]))
    assert_measures(shard, others, of_others)
    whole.update(others, of_others)
    assert_measures(whole, torch.cat([rows, others, others]), torch.cat([labels, of_others, of_others]))


def test_a_reset_or_a_loaded_state_forgets_what_waits() -> None:
    rows, labels = draw()
    metric = waiting(rows, labels)
    metric.reset()
    others, of_others = draw(9, seed=1)
    metric.update(others, of_others)
    assert_measures(metric, others, of_others)
    source = waiting(rows, labels)
    source.persistent(True)
    metric.persistent(True)
    metric.load_state_dict(source.state_dict())
    assert_measures(metric, rows, labels)


def test_a_batch_whose_memory_is_used_again_counts_as_it_was() -> None:
    rows, labels = draw()
    metric, place = CollapseMetrics(K, WIDTH), torch.empty(6, WIDTH, dtype=torch.float64)
    of_place = torch.empty(6, dtype=torch.int64)
    for start in range(0, 60, 6):
        place.copy_(rows[start : start + 6])
        of_place.copy_(labels[start : start + 6])
        metric.update(place, of_place)
    assert_measures(metric, rows, labels)


def test_dtypes_may_change_and_large_batches_come_between() -> None:
    rows, labels = draw(100)
    rows = rows.half().double()  # the same numbers in every dtype
    metric, sizes = CollapseMetrics(K, WIDTH), [3, 3, 60, 4, 30]
    dtypes = [torch.half, torch.float, torch.half, torch.double, torch.half]
    for part, of_part, dtype in zip(rows.split(sizes), labels.split(sizes), dtypes, strict=True):
        metric.update(part.to(dtype), of_part)
    assert_measures(metric, rows.half(), labels)


def test_the_forward_value_is_of_the_batch_and_the_whole_goes_on() -> None:
    rows, labels = draw()
    metric = waiting(rows, labels)
    others, of_others = draw(9, seed=1)
    found, expected = metric(others, of_others), layer_metrics(others, of_others, K)
    assert float(found["dnc1"]) == pytest.approx(float(expected["dnc1"]), rel=1e-12)
    assert_measures(metric, torch.cat([rows, others]), torch.cat([labels, of_others]))


def test_memory_is_bounded_and_a_pickle_holds_no_rows() -> None:
    rows, labels = draw(610)
    metric = waiting(rows, labels)
    assert len(metric._pending) <= 40
    assert intake.rows_of_tile(WIDTH, wide=True) == intake.rows_of_block(WIDTH) == 20
    assert len(pickle.dumps(metric)) < len(pickle.dumps(CollapseMetrics(K, WIDTH))) + 20 * WIDTH * 8
    assert intake.rows_of_tile(10**6, wide=False) == intake.rows_of_block(10**6) == 1
