"""Without other processes every collective is the identity; shares are contiguous, whole and even."""

import pytest
import torch

from pipeline.runtime import ranks


@pytest.fixture
def world(monkeypatch):
    """Pretend to be one rank of several, for what asks nobody."""

    def be(rank: int, size: int) -> None:
        monkeypatch.setattr(ranks, "rank", lambda: rank)
        monkeypatch.setattr(ranks, "world_size", lambda: size)

    return be


def test_one_process_talks_to_itself():
    value = {"a": torch.arange(3)}
    assert ranks.rank() == 0 and ranks.world_size() == 1 and ranks.is_first() and not ranks.connected()
    assert ranks.gather(value) == [value] and ranks.broadcast(value) is value
    assert ranks.largest(2.5) == 2.5
    assert ranks.total(value["a"]) is value["a"] and ranks.maxima(value["a"]) is value["a"]
    ranks.barrier()
    rows = torch.randn(5, 2)
    assert torch.equal(ranks.gather_rows(rows), rows)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 11, 12])
def test_shares_make_up_the_whole_in_order_and_differ_by_one(count, size, world):
    shares = []
    for rank in range(size):
        world(rank, size)
        shares.append(ranks.share(count))
    assert [number for share in shares for number in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("size", [2, 3, 5])
def test_with_fewer_things_than_ranks_the_last_thing_is_dealt_out_again(size, world):
    shares = []
    for rank in range(size):
        world(rank, size)
        shares.append(ranks.share(2, whole=2))
    assert [list(share) for share in shares] == [[0], *[[1]] * (size - 1)]
