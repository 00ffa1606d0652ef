"""Tensors move together, and what is there stays the same object; "meta" stands for a device of its own."""

import inspect
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from pipeline import metrics
from pipeline.dufm.descent import Descent
from pipeline.runtime import devices
from pipeline.runtime.devices import STAYS, has_float64, moved, where_float64_is


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


class Moved(Exception):
    """What a stand-in for the copy raises."""


OF_BLOCKS = {"block_jacobian", "stack_alignment"}
"""Where networks are called, whose weights stay where they are."""
FUNCTIONS = {
    name: function
    for name in metrics.__all__
    if getattr(function := getattr(metrics, name), "__module__", "").startswith("pipeline.metrics.functions.")
    and (inspect.isfunction(function) or name == "LayerCurvature")
    and name not in OF_BLOCKS
}


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("geometry_errors", "sphere_kernel_log")])
def test_functions_bring_rows_of_a_device_without_float64_to_the_cpu(monkeypatch, name):
    def moves(value, device):
        assert device == "cpu"
        raise Moved

    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", {"meta"})
    monkeypatch.setattr(devices, "moved", moves)
    needed = [it for it in inspect.signature(FUNCTIONS[name]).parameters.values() if it.default is it.empty]
    with pytest.raises(Moved):
        FUNCTIONS[name](*(torch.ones(3, 2, device="meta") for _ in needed))


def test_a_function_gets_what_it_is_given_where_there_is_float64():
    rows = torch.ones(3, 2)
    assert where_float64_is(lambda given, *, more: (given, more))(rows, more=[rows]) == (rows, [rows])
