from dataclasses import replace

import pytest
import torch

from pipeline.data import ImageData, Split


def image_data(images: torch.Tensor) -> ImageData:
    split = Split(images, torch.arange(len(images)) % 2)
    return ImageData.from_splits("made_up", split, split, ("a", "b"))


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_standardised_training_images_have_mean_zero_and_std_one_in_each_channel():
    images = random_images(50, 3, 4, 5)
    images[:, 1] //= 7
    data = image_data(images)
    out = data.standardise(data.train.images)
    assert out.dtype == torch.float32 and out.shape == images.shape
    torch.testing.assert_close(out.double().mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(out.double().std((0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-6, rtol=0)


def test_statistics_equal_the_direct_float64_computation():
    images = random_images(20, 2, 3, 3)
    data = image_data(images)
    scaled = images.double() / 255
    torch.testing.assert_close(data.mean, scaled.mean((0, 2, 3)).float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(data.std, scaled.std((0, 2, 3), correction=0).float(), rtol=1e-6, atol=0)


def test_a_constant_channel_becomes_zeros_and_not_nan():
    images = random_images(10, 2, 3, 3)
    images[:, 1] = 77
    out = image_data(images).standardise(images)
    assert out.isfinite().all()
    torch.testing.assert_close(out[:, 1], torch.zeros_like(out[:, 1]), atol=1e-4, rtol=0)


def test_image_shape_and_num_classes_describe_the_data():
    data = image_data(random_images(6, 3, 4, 5))
    assert (data.image_shape, data.num_classes) == ((3, 4, 5), 2)


def test_numbers_that_are_no_grey_levels_are_used_as_they_are():
    vectors = torch.randn(6, 5, 1, 1, generator=torch.Generator().manual_seed(0))
    data = image_data(vectors)
    assert torch.equal(data.standardise(data.train.images), vectors)
    assert data.mean.tolist() == [0.0] * 5 and data.std.tolist() == [1.0] * 5


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_numbers_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="images must be finite"):
        Split(torch.full((2, 3, 1, 1), bad), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("images", [torch.zeros(2, 1, 3, 3).double(), torch.zeros(2, 3, 3, dtype=torch.uint8)])
def test_images_of_another_shape_or_dtype_are_refused(images):
    with pytest.raises(ValueError, match="images must be a uint8 tensor"):
        Split(images, torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("labels", [torch.zeros(3, dtype=torch.int64), torch.zeros(2, dtype=torch.int32)])
def test_labels_of_another_shape_or_dtype_are_refused(labels):
    with pytest.raises(ValueError, match="labels must be an int64 tensor"):
        Split(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), labels)


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_outside_the_class_list_are_refused(label):
    split = Split(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.tensor([0, label]))
    with pytest.raises(ValueError, match=r"train labels must lie in 0\.\.1"):
        ImageData.from_splits("made_up", split, split, ("a", "b"))


def text_of(count: int = 4, window: int = 3) -> Split:
    tokens = torch.arange(count * window).view(count, window) % 5
    labels = tokens.roll(-1, dims=1)
    labels[:, -1] = -1
    return Split(tokens, labels)


def test_a_split_of_text_holds_windows_of_tokens_and_a_label_for_each_position():
    split = text_of()
    data = ImageData.from_splits("made_up", split, split, tuple("abcde"))
    assert (len(split), data.kind, data.image_shape, data.num_classes) == (4, "text", (3,), 5)
    assert torch.equal(data.standardise(split.images), split.images)
    assert sum(data.class_counts("train").values()) == 8  # the last position of a window is not counted
    assert data.mean.shape == data.std.shape == (0,)


@pytest.mark.parametrize("field", ["labels", "given"])
def test_labels_of_text_have_the_shape_of_its_tokens(field):
    split = text_of()
    with pytest.raises(ValueError, match=rf"{field}.* must be an int64 tensor \(4, 3\)"):
        replace(split, **{field: torch.zeros(4, dtype=torch.int64)})


def test_rows_of_a_split_keep_their_groups_and_given_labels():
    split = replace(
        image_data(random_images(6, 1, 2, 2)).train, groups=torch.arange(6) // 3, given=torch.ones(6).long()
    )
    assert split.targets.tolist() == [1] * 6 and split.labels.tolist() == [0, 1] * 3
    part = split[torch.tensor([5, 0])]
    assert (part.groups.tolist(), part.labels.tolist(), part.given.tolist()) == ([1, 0], [1, 0], [1, 1])
    moved = ImageData.from_splits("made_up", split, split, ("a", "b"), ("x", "y"), split[:2]).to("cpu")
    assert len(moved.foreign) == 2 and moved.groups == ("x", "y") and torch.equal(moved.train.groups, split.groups)


def test_what_a_sample_is_follows_from_its_type_and_shape():
    kinds = {image_data(made).kind for made in (random_images(4, 3, 1, 1), torch.zeros(4, 3, 2, 2))}
    assert kinds == {"images"} and image_data(torch.zeros(4, 3, 1, 1)).kind == "vectors"


def test_given_labels_outside_the_class_list_are_refused():
    split = replace(image_data(random_images(4, 1, 2, 2)).train, given=torch.tensor([0, 1, 2, 0]))
    with pytest.raises(ValueError, match=r"train labels must lie in 0\.\.1"):
        ImageData.from_splits("made_up", split, split, ("a", "b"))
