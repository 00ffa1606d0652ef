"""Rows of a file that look like a tensor."""

import numpy as np
import pytest
import torch

from pipeline.data.images import Split
from pipeline.data.mapped import MappedRows


@pytest.fixture
def mapped(tmp_path) -> MappedRows:
    np.arange(10 * 6, dtype=np.uint8).tofile(tmp_path / "rows")
    return MappedRows(tmp_path / "rows", (10, 1, 2, 3))


@pytest.mark.parametrize("rows", [[], [3], [2, 3, 4], [9, 0, 4, 4]])
def test_rows_that_are_read_are_those_that_are_mapped(mapped, rows):
    chosen = torch.tensor(rows, dtype=torch.int64)
    assert torch.equal(mapped.read(mapped.rows, chosen), mapped.rows[chosen])
    if not rows or max(rows) < 7:
        part = mapped.rows[3:]
        assert torch.equal(mapped.read(part, chosen), part[chosen])
    mapped.release()
    assert mapped.rows[9, 0, 1, 2] == 59


def test_a_split_of_mapped_rows_stays_one_in_slices_and_gives_copies_of_rows(mapped):
    split = Split(mapped.rows, torch.arange(10) % 2, mapped=mapped)
    tail = split[6:]
    assert tail.mapped is mapped and tail.images.data_ptr() == mapped.rows[6:].data_ptr()
    assert torch.equal(torch.cat(list(tail.in_parts(13))), mapped.rows[6:]) and len(list(tail.in_parts(13))) == 2
    picked = tail[torch.tensor([1, 0])]
    assert picked.mapped is None and torch.equal(picked.images, mapped.rows[[7, 6]])
    assert tail.to("cpu").images.data_ptr() == tail.images.data_ptr()


def test_a_file_that_has_become_shorter_is_an_error(mapped, tmp_path):
    with (tmp_path / "rows").open("r+b") as file:
        file.truncate(20)
    with pytest.raises(OSError, match="has become shorter"):
        mapped.read(mapped.rows, torch.tensor([9]))
