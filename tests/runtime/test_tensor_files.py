"""Tensors are found again under their key, bit by bit, or not at all."""

import logging

import pytest
import torch

from pipeline.runtime.tensor_files import absorb, read, serialised

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([True, False]), "c": torch.zeros(0, 4).double()}


@pytest.fixture
def kept(tmp_path):
    path = tmp_path / "kept.safetensors"
    path.write_bytes(serialised(TENSORS, {"key": "k", "epoch": 3}))
    return path


def nothing(story: object) -> None:
    pass


def test_tensors_and_their_metadata_come_back(kept):
    tensors, told = read(kept, "k", "this is repeated", nothing)
    assert told == {"key": "k", "epoch": 3} and tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype


def test_equal_content_makes_equal_files(kept):
    backwards = dict(reversed(TENSORS.items())) | {"a": TENSORS["a"].t().contiguous().t()}
    assert serialised(backwards, {"key": "k", "epoch": 3}) == kept.read_bytes()


def test_another_key_and_a_missing_file_are_nothing_and_no_warning(kept, caplog):
    assert read(kept, "another", "", nothing) is None and read(kept.with_name("no"), "k", "", nothing) is None
    assert caplog.records == []


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.99])
def test_one_flipped_bit_anywhere_is_noticed_and_said(kept, place, caplog):
    content = bytearray(kept.read_bytes())
    content[int(len(content) * place)] ^= 0x01
    kept.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        found = read(kept, "k", "this stage is repeated", nothing)
    assert found is None
    assert [str(kept) in record.getMessage() and "repeated" in record.getMessage() for record in caplog.records] == [
        True
    ]


def test_metadata_that_cannot_be_used_counts_as_damage(kept, caplog):
    def check(told: dict) -> None:
        told["what is not there"]

    assert read(kept, "k", "this stage is repeated", check) is None and len(caplog.records) == 1


def test_a_digest_depends_on_numbers_not_on_their_layout_in_memory():
    import hashlib

    def digest(tensor: torch.Tensor) -> str:
        found = hashlib.sha256()
        absorb(found, tensor)
        return found.hexdigest()

    assert digest(TENSORS["a"]) == digest(TENSORS["a"].t().contiguous().t())
    assert digest(TENSORS["a"]) != digest(TENSORS["a"] + 1)
