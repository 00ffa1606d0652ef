"""Samples of a head are shared out where the features would take more than half of what a process has."""

import pytest
import torch
from omegaconf import OmegaConf

from pipeline.config import Config, settings
from pipeline.data import ImageData, Split
from pipeline.runs import sharding
from pipeline.runs.protocols import protocol_named
from pipeline.runtime import ranks

FEATURES, TRAIN, TEST = 50, 12, 4
NEEDED = 8 * sharding.COPIES * FEATURES * (TRAIN + TEST)


def split(count: int) -> Split:
    return Split(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.arange(count) % 2)


IMAGES = ImageData.from_splits("drawn", split(TRAIN), split(TEST), ("a", "b"))


def config(**changes) -> Config:
    made = OmegaConf.structured(Config)
    named = {"data.name": "digits", "backbone.name": "mlp", "optimizer.name": "sgd", "logger.name": "none"}
    named |= {"protocol.name": "frozen_features", "trainer.devices": 2, "trainer.accelerator": "cpu"}
    changes = named | changes
    for key, value in changes.items():
        OmegaConf.update(made, key, value)
    return settings(made)


def decided(own: Config) -> bool:
    return sharding.is_sharded(own, protocol_named(own.protocol.name), IMAGES, FEATURES)


@pytest.fixture
def two(monkeypatch):
    """Be one of two ranks that have so much memory, of which the other may have less."""

    def have(own: int, other: int | None = None) -> None:
        scarce = other is not None and other // 2 < NEEDED
        monkeypatch.setattr(ranks, "world_size", lambda: 2)
        monkeypatch.setattr(ranks, "largest", lambda number: max(number, float(scarce)))
        monkeypatch.setattr(sharding, "free_memory", lambda: 2 * own)

    return have


def test_auto_goes_by_the_memory_of_the_rank_that_has_least(two):
    two(2 * NEEDED)
    assert not decided(config())
    two(2 * NEEDED - 2)
    assert decided(config())
    two(2 * NEEDED, other=NEEDED)
    assert decided(config())


def test_what_is_said_goes_before_and_one_process_has_nothing_to_share(two, monkeypatch):
    two(1)
    assert not decided(config(**{"descent.sharded": "false"}))
    two(10**12)
    assert decided(config(**{"descent.sharded": "true"}))
    monkeypatch.setattr(ranks, "world_size", lambda: 1)
    assert not decided(config(**{"descent.sharded": "true"}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"descent.polish": True}, "takes all samples at once"),
        ({"head.loss": "supervised_contrastive"}, "compares samples of all ranks"),
        ({"features.cache": "/nowhere"}, "keeps whole splits"),
        ({"measure.families": ["core", "spectrum"]}, "take rows of all ranks"),
    ],
)
def test_where_they_cannot_be_shared_out_auto_says_why_and_goes_on(two, change, why, caplog):
    two(1)
    with caplog.at_level("WARNING"):
        assert not decided(config(**change))
    assert "cannot be shared out: " in caplog.text and why in caplog.text
