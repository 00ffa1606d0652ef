"""The pixels of one file, whatever kind of image it holds."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.pixels import BLANK, FRAMES, GROUND, INKS, TURNED, Unreadable, read_picture

UPRIGHT = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
"""A small picture in which no two pixels are the same."""
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: np.rot90(UPRIGHT),
    7: UPRIGHT[::-1, ::-1].T,
    8: np.rot90(UPRIGHT, -1),
}
"""How a camera stores it, by the number of its orientation in EXIF."""


def saved(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(("ending", "options"), [("png", {}), ("tif", {}), ("webp", {"lossless": True})])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_picture_is_upright_whatever_way_the_camera_was_held(tmp_path, orientation, ending, options, mode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation])).convert(mode)
    picture = read_picture(saved(tmp_path / f"x.{ending}", image, exif=exif, **options), None)
    assert np.array_equal(picture.pixels[0], UPRIGHT)
    told = orientation > 1 and ending != "tif"  # which Pillow turns by itself
    assert picture.notes == ((TURNED,) if told else ())


def test_a_deep_picture_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = np.ascontiguousarray(STORED[6]).astype(np.uint16) << 8
    picture = read_picture(saved(tmp_path / "x.png", Image.fromarray(deep), exif=exif), None)
    assert np.array_equal(picture.pixels[0], UPRIGHT)


def test_exif_data_that_are_broken_do_not_cost_the_picture(tmp_path):
    path = saved(tmp_path / "x.png", Image.fromarray(UPRIGHT), exif=b"Exif\0\0nothing of the kind")
    assert np.array_equal(read_picture(path, None).pixels[0], UPRIGHT)


def tiff(order: str, levels: np.ndarray, photometric: int = 1) -> bytes:
    """A grey TIFF of 16 bits in this order of bytes (``<`` or ``>``)."""
    height, width = levels.shape
    pixels = levels.astype(f"{order}u2").tobytes()
    tags = [(256, 3, width), (257, 3, height), (258, 3, 16), (259, 3, 1), (262, 3, photometric), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 3, height), (279, 4, len(pixels))]
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(pixels)) + pixels
    out += struct.pack(f"{order}H", len(tags))
    for tag, kind, value in tags:
        number = struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value)
        out += struct.pack(f"{order}HHI", tag, kind, 1) + number
    return out + struct.pack(f"{order}I", 0)


def pgm(levels: np.ndarray, largest: int = 65535) -> bytes:
    height, width = levels.shape
    return f"P5 {width} {height} {largest}\n".encode() + levels.astype(">u2").tobytes()


DEEP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


@pytest.mark.parametrize(
    ("ending", "content"),
    [("tif", tiff("<", DEEP)), ("tif", tiff(">", DEEP)), ("pgm", pgm(DEEP))],
    ids=["II", "MM", "P5"],
)
def test_sixteen_bits_are_read_alike_in_every_order_of_bytes(tmp_path, ending, content):
    path = tmp_path / f"x.{ending}"
    path.write_bytes(content)
    picture = read_picture(path, None)
    assert np.array_equal(picture.pixels[0], DEEP >> 8) and picture.deepest == 65535
    assert np.array_equal(read_picture(saved(tmp_path / "y.png", Image.fromarray(DEEP)), None).pixels, picture.pixels)


def test_the_largest_value_that_a_pgm_announces_is_white(tmp_path):
    (tmp_path / "x.pgm").write_bytes(pgm(np.array([[0, 4095]]), largest=4095))
    assert read_picture(tmp_path / "x.pgm", None).pixels.tolist() == [[[0, 255]]]


def test_sixteen_bits_in_which_white_is_zero_are_inverted(tmp_path):
    (tmp_path / "x.tif").write_bytes(tiff("<", DEEP, photometric=0))
    assert np.array_equal(read_picture(tmp_path / "x.tif", None).pixels[0], 255 - (DEEP >> 8))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_upper_eight_of_the_bits_in_use_are_kept(tmp_path, bits):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) << (bits - 8)
    picture = read_picture(saved(tmp_path / "x.png", Image.fromarray(levels)), None, bits)
    assert np.array_equal(picture.pixels.flatten(), np.arange(256)) and picture.deepest == levels.max()


INK = np.zeros((4, 4), dtype=np.uint8)
INK[1:3] = 255
"""Where there is ink: two rows of four."""
DRAWN = np.array([255, 0, 0, 255])
"""The rows of a black drawing on white."""


@pytest.mark.parametrize(
    ("mode", "ending"), [("LA", "png"), ("LA", "tif"), ("RGBA", "png"), ("RGBA", "tif"), ("RGBA", "webp")]
)
def test_a_black_drawing_on_transparent_ground_is_black_on_white(tmp_path, mode, ending):
    black = Image.new("L", (4, 4), 0).convert("L" if mode == "LA" else "RGB")
    black.putalpha(Image.fromarray(INK))
    options = {"lossless": True, "exact": True} if ending == "webp" else {}
    picture = read_picture(saved(tmp_path / f"x.{ending}", black.convert(mode), **options), None)
    assert (picture.pixels == DRAWN[:, None]).all() and picture.notes == (GROUND,)
    assert len(picture.pixels) == (1 if mode == "LA" else 3)


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (7, 7, 7)), ("P", 1), ("P", b"\xff\x00"), ("I;16", 7)])
def test_a_colour_that_means_transparent_becomes_white(tmp_path, mode, key):
    if mode == "I;16":
        image = Image.fromarray(np.where(INK, 0, 7).astype(np.uint16))
    elif mode == "P":
        image = Image.fromarray(np.where(INK, 0, 1).astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0, 7, 7, 7])
    else:
        image = Image.fromarray(np.where(INK, 0, 7).astype(np.uint8)).convert(mode)
    picture = read_picture(saved(tmp_path / "x.png", image, transparency=key), None)
    assert (picture.pixels == DRAWN[:, None]).all() and picture.notes == (GROUND,)


def test_half_transparent_is_half_way_to_white(tmp_path):
    picture = read_picture(saved(tmp_path / "x.png", Image.new("RGBA", (2, 2), (10, 20, 30, 51))), None)
    assert picture.pixels[:, 0, 0].tolist() == [206, 208, 210]  # 255 - (255 - level) / 5


def test_a_white_drawing_that_vanishes_is_told(tmp_path):
    white = Image.new("L", (4, 4), 255)
    white.putalpha(Image.fromarray(INK))
    assert read_picture(saved(tmp_path / "x.png", white), None).notes == (GROUND, BLANK)


def test_an_alpha_channel_that_is_opaque_changes_nothing(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8))
    plain = read_picture(saved(tmp_path / "x.png", image), None)
    opaque = read_picture(saved(tmp_path / "y.png", image.convert("RGBA")), None)
    assert np.array_equal(plain.pixels, opaque.pixels) and opaque.notes == ()


@pytest.mark.parametrize(
    ("mode", "colour", "shown", "notes"),
    [
        ("L", 100, [100], ()),
        ("CMYK", (0, 255, 255, 0), [255, 0, 0], (INKS,)),
        ("YCbCr", (76, 85, 255), [254, 0, 0], ()),
    ],
)
def test_jpeg_files_of_other_modes(tmp_path, mode, colour, shown, notes):
    picture = read_picture(saved(tmp_path / "x.jpg", Image.new(mode, (8, 8), colour), quality=100), None)
    assert np.abs(picture.pixels[:, 4, 4].astype(int) - shown).max() <= 2 and picture.notes == notes


def test_one_bit_is_black_and_white(tmp_path):
    for ending in ("png", "tif", "bmp"):
        path = saved(tmp_path / f"x.{ending}", Image.fromarray(INK).convert("1"))
        assert np.array_equal(read_picture(path, None).pixels[0], INK)


@pytest.mark.parametrize(("ending", "options"), [("png", {}), ("webp", {"lossless": True}), ("tif", {})])
def test_of_several_frames_the_first_is_read_and_that_is_told(tmp_path, ending, options):
    first, *others = (Image.new("RGB", (4, 4), (level,) * 3) for level in (10, 200, 90))
    path = saved(tmp_path / f"x.{ending}", first, save_all=True, append_images=others, **options)
    picture = read_picture(path, None)
    assert np.unique(picture.pixels).tolist() == [10] and picture.notes == (FRAMES,)


def test_a_turned_picture_of_several_pages_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    first = Image.fromarray(np.ascontiguousarray(STORED[6]))
    path = saved(tmp_path / "x.tif", first, exif=exif, save_all=True, append_images=[Image.new("L", (3, 3))])
    assert np.array_equal(read_picture(path, None).pixels[0], UPRIGHT)


@pytest.mark.parametrize(
    ("image", "ending", "reason"),
    [
        (Image.new("1", (20_000, 20_000)), "png", r"Image size \(400000000 pixels\) exceeds limit.*attack$"),
        (Image.new("F", (4, 4)), "tif", "pixels of type F have no fixed range"),
        (Image.new("I", (4, 4)), "tif", "pixels of type I have no fixed range"),
    ],
    ids=["bomb", "float", "int32"],
)
def test_what_gives_no_image_says_why(tmp_path, image, ending, reason):
    with pytest.raises(Unreadable, match=reason):
        read_picture(saved(tmp_path / f"x.{ending}", image), 8)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp", "bmp", "pgm"])
def test_a_file_cut_anywhere_is_read_or_unreadable_and_nothing_else(tmp_path, ending):
    path = saved(tmp_path / f"x.{ending}", Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)))
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        try:
            assert read_picture(path, None).pixels.shape[1:] == (8, 8)
        except Unreadable as error:
            assert str(error)
