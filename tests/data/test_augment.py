import pytest
import torch

from pipeline.data import AUGMENTATIONS, Augmentation


def images(count: int = 6) -> torch.Tensor:
    return torch.randint(1, 256, (count, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_every_image_is_cropped_and_flipped_by_its_own_draw():
    augmentation, batch = Augmentation("crop_flip", padding=2), images(40)
    moves = augmentation.draw(40, torch.Generator().manual_seed(1))
    out = augmentation.apply(batch, moves)
    for image, moved, (top, left, flip) in zip(batch, out, moves.tolist(), strict=True):
        padded = torch.zeros(3, 9, 11, dtype=torch.uint8)
        padded[:, 2:7, 2:9] = image
        expected = padded[:, top : top + 5, left : left + 7]
        assert torch.equal(moved, expected.flip(2) if flip else expected)
    assert out.shape == batch.shape and out.dtype == torch.uint8


def test_the_draws_cover_all_offsets_and_both_directions_evenly():
    moves = Augmentation("crop_flip", padding=2).draw(50_000, torch.Generator().manual_seed(2))
    for column, values in enumerate((5, 5, 2)):
        share = moves[:, column].bincount() / len(moves)
        assert len(share) == values
        # Six standard deviations of a binomial share.
        torch.testing.assert_close(share, torch.full((values,), 1 / values), rtol=0, atol=6 * (0.25 / 50_000) ** 0.5)


def test_offsets_and_flips_of_one_image_are_uncorrelated():
    moves = Augmentation("crop_flip").draw(50_000, torch.Generator().manual_seed(3)).double()
    correlation = torch.corrcoef(moves.T)
    torch.testing.assert_close(correlation, torch.eye(3).double(), rtol=0, atol=6 / 50_000**0.5)


def test_crop_never_flips():
    assert Augmentation("crop").draw(1000, torch.Generator().manual_seed(0))[:, 2].max() == 0


def test_no_augmentation_gives_the_images_themselves():
    batch = images()
    assert torch.equal(Augmentation("none").apply(batch, torch.zeros(6, 3, dtype=torch.int64)), batch)


def test_the_neutral_move_of_a_crop_is_the_identity():
    batch = images()
    assert torch.equal(Augmentation("crop", padding=3).apply(batch, torch.tensor([[3, 3, 0]] * 6)), batch)


def test_unknown_kinds_and_negative_padding_are_refused():
    assert AUGMENTATIONS == ("none", "crop", "crop_flip")
    with pytest.raises(ValueError, match=r"data\.augment=rotate is unknown; allowed: none, crop, crop_flip"):
        Augmentation("rotate")
    with pytest.raises(ValueError, match="padding=-1"):
        Augmentation("crop", -1)
