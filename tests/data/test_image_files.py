"""What becomes of the pixels of image files of many kinds."""

import os

import numpy as np
import pytest
from PIL import Image

from pipeline.data import DataError
from pipeline.data.image_files import read_images


@pytest.fixture
def saved(tmp_path):
    """Saves an image and returns its path."""

    def save(name: str, image: Image.Image, **options):
        image.save(tmp_path / f"{name}.png", **options)
        return tmp_path / f"{name}.png"

    return save


def test_grey_images_stay_grey_and_one_colour_image_makes_all_colour(saved):
    white = Image.new("L", (6, 4), 255)
    grey = [saved(mode, white.convert(mode)) for mode in ("L", "1", "LA")]
    assert read_images(grey, None).shape == (3, 1, 4, 6)
    images = read_images([*grey, saved("palette", white.convert("P"))], None)
    assert images.shape == (4, 3, 4, 6) and images.min() == 255


def test_sixteen_bit_grey_keeps_its_upper_byte(saved):
    images = read_images([saved("deep", Image.fromarray(np.full((4, 6), 0xAB12, dtype=np.uint16)))], None)
    assert images.shape == (1, 1, 4, 6) and images.unique().tolist() == [0xAB]


def test_a_palette_with_transparency_is_laid_on_white_without_a_warning(saved):
    image = Image.new("P", (6, 4), 0)
    image.putpalette([10, 20, 30])
    images = read_images([saved("palette", image, transparency=b"\x80")], None)
    assert images[0, :, 0, 0].tolist() == [132, 137, 142]  # 255 - (255 - level) * 128 / 255


@pytest.mark.parametrize(("largest", "bits"), [(255, 8), (1000, 10), (4095, 12), (4096, 14), (2**14, 16)])
@pytest.mark.parametrize("size", [None, 3])
def test_sixteen_bit_files_are_cut_alike_by_the_largest_value_in_any(saved, caplog, largest, bits, size):
    caplog.set_level("INFO")
    dim, bright = (Image.fromarray(np.full((3, 3), level, dtype=np.uint16)) for level in (largest // 2, largest))
    plain = Image.fromarray(np.full((3, 3), 77, dtype=np.uint8))
    images = read_images([saved("dim", dim), saved("plain", plain), saved("bright", bright)], size)
    assert images[:, 0, 0, 0].tolist() == [largest // 2 >> bits - 8, 77, largest >> bits - 8]
    assert f"of 3 image files, 2 of 16-bit grey, of which {bits} bits are in use" in caplog.text


def test_what_was_done_to_some_files_is_told_in_one_line(saved, caplog):
    caplog.set_level("INFO")
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.putpixel((0, 0), (0, 0, 0, 255))
    read_images([saved("a", clear), saved("b", clear), saved("c", Image.new("RGB", (4, 4)))], None)
    assert [record.getMessage() for record in caplog.records] == ["data.root: of 3 image files, 2 laid on white"]
    caplog.clear()
    read_images([saved("d", Image.new("RGB", (4, 4)))], None)
    assert caplog.text == ""


def test_resizing_crops_the_middle_square(saved):
    wide = np.zeros((4, 12), dtype=np.uint8)
    wide[:, 4:8] = 255
    images = read_images([saved("wide", Image.fromarray(wide))], 4)
    assert images.shape == (1, 1, 4, 4) and images.unique().tolist() == [255]


def test_a_pipe_is_no_image_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"1 image file.*pipe\.png \(it is no file\)"):
        read_images([tmp_path / "pipe.png"], None)
