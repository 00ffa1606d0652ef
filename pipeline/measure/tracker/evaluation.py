"""A pass over a loader that leaves no trace in the training around it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DistributedSampler

from pipeline.runtime.modes import evaluating

Split = Callable[[object], tuple[object, Tensor]]
"""Makes a pair (inputs, labels) of a batch."""


@contextmanager
def evaluation(model: nn.Module, loader: Iterable) -> Iterator[None]:
    """Eval mode without gradients; afterwards every module's mode and all random states are what they were."""
    with torch.no_grad(), _random_states_kept(device_of(model), loader), evaluating(model):
        yield


def batches(loader: Iterable, split: Split | None) -> Iterator[tuple[object, Tensor, int | None]]:
    """Yield (inputs, labels, how many of them count), all counting if None.

    A `DistributedSampler` fills up the shorter shards with samples that another rank has too; they do not count.
    """
    left = _own_samples(getattr(loader, "sampler", None))
    for batch in loader:
        inputs, labels = _pair(batch if split is None else split(batch))
        yield inputs, labels, left
        if left is not None:
            left = max(0, left - len(labels))


def call(model: nn.Module, inputs: object) -> object:
    """The model's output for a tensor, or a dict of tensors by keyword, moved to the device of its parameters."""
    device = device_of(model)
    if isinstance(inputs, Mapping):
        return model(**{name: value.to(device) for name, value in inputs.items()})
    if isinstance(inputs, Tensor):
        return model(inputs.to(device))
    raise ValueError(f"the inputs of a batch must be a tensor or a dict of tensors, got {type(inputs).__name__}.")


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter is; the CPU if there is none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _pair(batch: object) -> tuple[object, Tensor]:
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    got = f"a {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, tuple | list) else "")
    raise ValueError(
        f"a batch must be a pair (inputs, labels), got {got}: pass split=, a function that makes this pair of a batch."
    )


def _own_samples(sampler: object) -> int | None:
    if not isinstance(sampler, DistributedSampler):
        return None
    share = range(sampler.rank, len(sampler.dataset), sampler.num_replicas)
    return min(len(share), sampler.num_samples)


@contextmanager
def _random_states_kept(device: torch.device, loader: Iterable) -> Iterator[None]:
    """Restore the global random states, and those of the loader's generators: iterating over it draws from them."""
    owners = (loader, getattr(loader, "sampler", None))
    generators = [owner.generator for owner in owners if isinstance(getattr(owner, "generator", None), torch.Generator)]
    states = [generator.get_state() for generator in generators]
    of_python, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
