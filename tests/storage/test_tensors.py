"""The tensors of a run: written whole, or not at all and why."""

import torch
from safetensors.torch import load_file

from pipeline.storage.tensors import FILE, write_tensors


def test_tensors_come_back_as_they_were(tmp_path):
    tensors = {
        "labels": torch.tensor([0, 1]),
        "features/1": torch.randn(2, 3, dtype=torch.float64),
        "weights/1": torch.randn(4, 5, 3).mT.contiguous().mT,
        "weights/2": torch.nn.Parameter(torch.randn(4, 2, 5)),
    }
    assert write_tensors(tmp_path, tensors, max_mb=1) is None
    loaded = load_file(tmp_path / FILE)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_views_of_one_tensor_are_written_one_by_one(tmp_path):
    whole = torch.arange(6.0)
    assert write_tensors(tmp_path, {"all": whole, "first": whole[:3], "again": whole}, max_mb=1) is None
    loaded = load_file(tmp_path / FILE)
    assert loaded["first"].tolist() == [0, 1, 2] and loaded["again"].equal(whole)


def test_tensors_that_are_too_large_are_skipped_with_the_reason(tmp_path):
    reason = write_tensors(tmp_path, {"a": torch.zeros(100), "b": torch.zeros(100)}, max_mb=5e-4)
    assert "record.max_tensor_mb=0.0005" in reason and not (tmp_path / FILE).exists()


def test_a_run_without_tensors_says_so(tmp_path):
    assert write_tensors(tmp_path, {}, max_mb=1) == "the results of the run hold no tensors"
    assert not (tmp_path / FILE).exists()
