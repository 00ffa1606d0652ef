"""Tensors move together, and what is there stays the same object; "meta" stands for a device of its own."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from pipeline.dufm.descent import Descent
from pipeline.runtime import devices
from pipeline.runtime.devices import STAYS, has_float64, moved


@dataclass(frozen=True)
class Pair:
    first: Tensor
    rest: dict[str, object]
    rows: Tensor | None = field(default=None, metadata=STAYS)


def test_what_is_there_already_is_the_same_object():
    pair = Pair(torch.ones(2), {"a": [torch.ones(3)], "b": "text"})
    assert moved(pair, "cpu") is pair


def test_everything_inside_moves_in_one_copy_for_each_dtype(monkeypatch):
    copies = []
    to = Tensor.to
    monkeypatch.setattr(Tensor, "to", lambda self, *where: copies.append(self.dtype) or to(self, *where))
    shared = torch.arange(6.0).view(2, 3)
    pair = Pair(shared, {"a": [torch.ones(3), shared], "b": ("text", torch.arange(2)), "c": torch.tensor(1.5)}, shared)
    there = moved(pair, "meta")
    assert copies == [torch.float32, torch.int64]
    assert there.rows is shared and there.first.is_meta and there.first.shape == (2, 3)
    assert there.rest["a"][1] is there.first and there.rest["b"][0] == "text"
    assert there.rest["b"][1].dtype == torch.int64 and there.rest["c"].shape == ()


def test_a_descent_needs_float64(monkeypatch):
    assert not has_float64(torch.device("mps")) and has_float64(torch.device("cuda"))
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", {"cpu"})
    with pytest.raises(ValueError, match=r"^features must be on a CPU or a CUDA device, which have float64, got cpu"):
        Descent(torch.ones(4, 2), [torch.ones(2, 2)], torch.arange(4) % 2, num_classes=2, lr=0.1, weight_decay=0.1)
