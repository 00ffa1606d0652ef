"""Products of columns, summed over tiles."""

import pytest
import torch

from pipeline.metrics.engine import sums
from pipeline.metrics.engine.sums import ClassSums, Gram


@pytest.mark.parametrize("threads", [(1, 1), (2, 2), (1, 2), (2, 1)])
def test_the_number_of_threads_may_change_between_tiles(
    threads: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = torch.randn(20, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = Gram()
    for tile, number in zip(rows.split(10), threads, strict=True):
        monkeypatch.setattr(sums.torch, "get_num_threads", lambda number=number: number)
        gram.add(tile)
    torch.testing.assert_close(gram.total(), rows.T @ rows, rtol=1e-14, atol=1e-14)


def test_an_anchor_is_the_first_row_of_its_class_and_stays() -> None:
    rows = torch.arange(12.0).view(6, 2)
    found = ClassSums(3, torch.empty(2, 3, 2, dtype=torch.float64), False)
    found.add(rows[:3], torch.tensor([2, 0, 2]))
    found.add(rows[3:], torch.tensor([0, 1, 1]))
    assert found.anchors.tolist() == [[2, 3], [8, 9], [0, 1]]
    assert found.drifts.tolist() == [[2, 2], [1, 1], [2, 2]]
    assert found.squares.tolist() == pytest.approx([32, 8, 32], rel=1e-14)
