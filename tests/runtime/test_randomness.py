"""A stream of random numbers depends on its seed and its purpose, and on nothing else."""

import pytest
import torch

from pipeline.runtime.randomness import generator


def draw(seed: int, purpose: str) -> list[float]:
    return torch.rand(5, generator=generator(seed, purpose)).tolist()


def test_seed_and_purpose_give_the_stream_whatever_was_drawn_before():
    first = draw(3, "weights")
    draw(3, "batches")
    torch.rand(7)
    assert draw(3, "weights") == first


def test_other_seeds_and_other_purposes_give_other_streams():
    streams = [tuple(draw(seed, purpose)) for seed in range(4) for purpose in ("weights", "batches", "")]
    assert len(set(streams)) == len(streams)


def test_the_stream_is_the_same_on_every_machine():
    assert generator(0, "head weights").initial_seed() % 2**64 == 0x851708341AA6637F


@pytest.mark.parametrize("seed", [-1, True, 1.0, "1", None])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(ValueError, match="seed must be an integer >= 0"):
        generator(seed, "weights")
