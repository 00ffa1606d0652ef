"""The kernel sums what PyTorch sums, whatever the width, the dtype, the labels and how rows come."""

import pytest
import torch
from torch import Tensor

from pipeline.metrics.engine import native_sums
from pipeline.metrics.engine.chunks import Chunk
from pipeline.metrics.engine.native_sums import NativeSums, deviations_of, library
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.metrics.engine.sums import ClassSums, minus_rows

pytestmark = pytest.mark.skipif(library() is None, reason="no working C++ compiler")
K, ROWS = 4, 30
NAMES = ("samples", "counts", "anchors", "drifts", "squares", "nonzero", "gram")


def draw(width: int, dtype: torch.dtype, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """Rectified rows of all but the last class, in two orders of labels."""
    generator = torch.Generator().manual_seed(width)
    labels = torch.randint(0, K - 1, (ROWS,), generator=generator)
    rows = torch.randn(ROWS, width, generator=generator, dtype=torch.float64).relu() + labels[:, None] + offset
    return rows.to(dtype), labels


def summed(kind: type[ClassSums], rows: Tensor, labels: Tensor, sizes: list[int], room: int = 8) -> ClassSums:
    sums = kind(K, torch.full((2, room, rows.shape[1]), torch.nan, dtype=torch.float64), True)
    for batch, of_batch in zip(rows.split(sizes), labels.split(sizes), strict=True):
        sums.add(batch, of_batch)
    return sums


def assert_same(found: ClassSums, expected: ClassSums) -> None:
    for name in NAMES:
        own, other = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(own, other, rtol=1e-13, atol=1e-13, equal_nan=True, msg=name)


@pytest.mark.parametrize("width", [1, 2, 7, 8, 17, 64, 67])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_sums_are_those_of_pytorch(width: int, dtype: torch.dtype) -> None:
    rows, labels = draw(width, dtype)
    expected = summed(ClassSums, rows, labels, [8, 8, 8, 6])
    assert_same(summed(NativeSums, rows, labels, [1, 0, 20, 3, 6]), expected)
    assert expected.counts[-1] == 0 and (expected.anchors[-1] == 0).all()
    assert expected.anchors[0].tolist() == rows[labels == 0][0].tolist()


def test_rows_need_not_lie_side_by_side() -> None:
    rows, labels = draw(12, torch.float32)
    expected = summed(ClassSums, rows, labels, [8, 8, 8, 6])
    apart, of_apart = rows.mT.contiguous().mT, torch.stack([labels, labels], 1)[:, 0]
    assert not apart.is_contiguous() and not of_apart.is_contiguous()
    assert_same(summed(NativeSums, apart, of_apart, [13, 17]), expected)


def test_rows_of_no_class_are_counted_as_rows_alone() -> None:
    rows, labels = draw(9, torch.float32)
    strays = torch.where(torch.arange(ROWS) % 5 == 4, torch.tensor(K), labels)
    strays = torch.where(torch.arange(ROWS) % 7 == 6, torch.tensor(-3), strays)
    known = (strays >= 0) & (strays < K)
    found, expected = summed(NativeSums, rows, strays, [30]), summed(NativeSums, rows[known], strays[known], [8, 8, 4])
    assert (found.samples, expected.samples) == (ROWS, int(known.sum()))
    assert found.nonzero == torch.count_nonzero(rows)
    for name in ("counts", "anchors", "drifts", "squares"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=0)


def test_what_is_not_finite_is_not_lost_and_counts_as_not_zero() -> None:
    rows, labels = draw(11, torch.float32)
    rows[5, 3], rows[6, 10] = torch.nan, torch.inf
    found = summed(NativeSums, rows, labels, [30])
    assert_same(found, summed(ClassSums, rows, labels, [8, 8, 8, 6]))
    assert found.squares[labels[5]].isnan() and found.nonzero == torch.count_nonzero(rows)


def test_without_a_matrix_batches_may_be_larger_than_a_tile() -> None:
    rows, labels = draw(9, torch.float32, offset=1e6)
    sums = NativeSums(K, torch.empty(2, 1, 9, dtype=torch.float64), False)
    sums.add(rows, labels)
    own = rows[labels == 1].double()
    torch.testing.assert_close(sums.anchors[1] + sums.drifts[1], own.mean(0), rtol=1e-15, atol=0)
    torch.testing.assert_close(sums.squares[1], (own - own[0]).square().sum(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("width", [1, 8, 67])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_chunk_is_the_same_bits_by_the_kernel_and_by_pytorch(
    width: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, labels = draw(width, dtype, offset=100.0)
    labels[::7], labels[3] = K, -1
    rows = rows.mT.contiguous().mT
    found = {}
    for worth in (0, 10**9):
        monkeypatch.setattr(native_sums, "WORTH", worth)
        chunk = Chunk(rows, labels, K, torch.full((2, ROWS, width), torch.nan, dtype=torch.float64))
        found[worth] = [getattr(chunk, name) for name in NAMES[1:-1]] + [chunk.deviations.clone()]
        assert chunk.samples == ROWS
    assert all(map(torch.equal, *found.values()))


def test_the_last_rows_may_be_fewer_than_the_buffers_have_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_sums, "WORTH", 0)
    rows, labels = draw(13, torch.float32)
    table = rows[:K].double() + 1e-9
    for count in (0, 1, ROWS - 1, ROWS):
        scratch = torch.full((2, ROWS - 1, 13), torch.nan, dtype=torch.float64)
        own = deviations_of(rows[:count], table, labels[:count], scratch)
        assert torch.equal(own, minus_rows(rows[:count], table, labels[:count], scratch[:, :count].clone()))


@pytest.mark.parametrize("sizes", [[ROWS], [1] * ROWS, [13, 17], [29, 1]])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("classes", [K, 2 * ROWS])
def test_parts_of_a_stream_or_of_ranks_come_to_what_float64_says_of_all_rows(
    sizes: list[int], dtype: torch.dtype, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_sums, "WORTH", 0)
    rows, labels = draw(19, dtype, offset=100.0)
    labels[::7] = -1
    parts = [
        ClassStatistics.from_features(own, of_own, classes)
        for own, of_own in zip(rows.split(sizes), labels.split(sizes), strict=True)
    ]
    found, exact = ClassStatistics.merged(parts), rows.double()
    assert found.samples == ROWS and found.active == torch.count_nonzero(rows)
    for label in range(classes):
        own = exact[labels == label]
        assert found.counts[label] == len(own)
        if len(own):
            torch.testing.assert_close(found.means[label], own.mean(0), rtol=1e-14, atol=0)
            scatter = (own - own.mean(0)).square().sum()
            torch.testing.assert_close(found.scatter[label], scatter, rtol=1e-12, atol=0)
