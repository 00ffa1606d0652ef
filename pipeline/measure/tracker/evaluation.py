"""A pass over a loader that leaves no trace in the training around it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.data import BatchSampler, DistributedSampler, Sampler

from pipeline.runtime.modes import evaluating

Split = Callable[[object], tuple[object, Tensor]]
"""Makes a pair (inputs, labels) of a batch."""


@dataclass(frozen=True)
class Feed:
    """What a network is given.

    Attributes:
        loader: yields the batches.
        limit: how many of them are taken, all if None.
        prepare: makes what the network gets of a batch, as a trainer does.
        around: made anew around every call of the network, such as a trainer's precision.
    """

    loader: Iterable
    limit: int | None = None
    prepare: Callable[[object], object] | None = None
    around: Callable[[], AbstractContextManager] = nullcontext

    @classmethod
    def of(cls, loader: Iterable | Feed) -> Feed:
        """A loader by itself, or what is one already."""
        return loader if isinstance(loader, Feed) else cls(loader)


@contextmanager
def evaluation(model: nn.Module, loader: Iterable) -> Iterator[None]:
    """Eval mode without gradients; afterwards every module's mode and all random states are what they were."""
    with torch.no_grad(), _random_states_kept(device_of(model), loader), evaluating(model):
        yield


def batches(
    feed: Feed, split: Split | None, groups: bool = False
) -> Iterator[tuple[object, Tensor, int | None, Tensor | None]]:
    """Yield (inputs, labels, how many of them count, groups), all counting if None; groups if they are told.

    A `DistributedSampler` fills up the shorter shards with samples that another rank has too; they do not count.
    """
    left = _own_samples(feed.loader)
    for raw in islice(feed.loader, feed.limit):
        batch = raw if feed.prepare is None else feed.prepare(raw)
        inputs, labels, *group = _parts(batch if split is None else split(batch), 2 + groups)
        yield inputs, labels, left, next(iter(group), None)
        if left is not None:
            left = max(0, left - len(labels))


def call(model: nn.Module, inputs: object) -> object:
    """The model's output for a tensor, or a dict by keyword, on the device of its parameters.

    A model in half or double precision gets floats of that precision, as Lightning's precision plugins cast them.
    """
    if not isinstance(inputs, Mapping | Tensor):
        raise ValueError(f"the inputs of a batch must be a tensor or a dict of tensors, got {type(inputs).__name__}.")
    moved = _moved(dict(inputs) if isinstance(inputs, Mapping) else inputs, device_of(model), _precision_of(model))
    try:
        return model(**moved) if isinstance(moved, dict) else model(moved)
    except RuntimeError as error:
        flat = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and part.weight.ndim != 2]
        if flat:
            raise ValueError(flat_weight(flat[0])) from error
        raise


def flat_weight(layer: str) -> str:
    """The sentence for a weight of which only a piece is there."""
    return (
        f"the weight of {layer!r} is no matrix, as the first FullyShardedDataParallel leaves it between its passes: "
        "shard by fully_shard (FSDP2), or measure by listen in a pass of the wrapped model, without this layer's :pre."
    )


def _moved(value: object, device: torch.device, dtype: torch.dtype | None) -> object:
    """Tensors, and those in lists, tuples and dicts; anything else as it is."""

    def moved(leaf: object) -> object:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.to(device, dtype if leaf.is_floating_point() else None)

    return tree_map(moved, value)


def _precision_of(model: nn.Module) -> torch.dtype | None:
    """The one type of all parameters, if it is a float type other than the usual one."""
    found = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return found.pop() if len(found) == 1 and found <= {torch.float16, torch.bfloat16, torch.float64} else None


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter is; the CPU if there is none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def foreign_inputs(feed: Feed, split: Split | None) -> Iterator[object]:
    """The inputs of batches whose labels do not matter, and need not be there."""
    for raw in islice(feed.loader, feed.limit):
        batch = raw if feed.prepare is None else feed.prepare(raw)
        bare = isinstance(batch, Tensor | Mapping) and split is None
        yield batch if bare else (batch if split is None else split(batch))[0]


def _parts(batch: object, count: int) -> Sequence:
    if isinstance(batch, tuple | list) and len(batch) == count:
        return batch
    got = f"a {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, tuple | list) else "")
    what = "a pair (inputs, labels)" if count == 2 else "three parts (inputs, labels, groups)"
    made = "this pair" if count == 2 else "these parts"
    raise ValueError(f"a batch must be {what}, got {got}: pass split=, a function that makes {made} of a batch.")


def _own_samples(loader: Iterable) -> int | None:
    """How many samples of this rank are not padding, if a `DistributedSampler` gives it its share."""
    sampler = next((sampler for sampler in _samplers(loader) if isinstance(sampler, DistributedSampler)), None)
    if sampler is None:
        return None
    share = range(sampler.rank, len(sampler.dataset), sampler.num_replicas)
    return min(len(share), sampler.num_samples)


def _samplers(loader: Iterable) -> list[object]:
    """The samplers of a loader, and those that they draw from."""
    found = [getattr(loader, name, None) for name in ("sampler", "batch_sampler")]
    for sampler in found:
        inside = vars(sampler).values() if hasattr(sampler, "__dict__") else ()
        held = [each for each in inside if isinstance(each, Sampler | BatchSampler)]
        found += [each for each in held if not any(each is known for known in found)]
    return [sampler for sampler in found if sampler is not None]


@contextmanager
def _random_states_kept(device: torch.device, loader: Iterable) -> Iterator[None]:
    """Restore the global random states, and those of the loader's generators: iterating over it draws from them."""
    owners = (loader, *_samplers(loader))
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
