"""Decoded images on disk are those from memory, whatever happened while they were made."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data import DataError, ResidentLoader, load_images, validate_request
from pipeline.data import disk_store as module
from pipeline.data.disk_store import DiskStore
from pipeline.data.registry import Request
from pipeline.runs.door import admit

COUNT = 12


@pytest.fixture
def root(tmp_path) -> Path:
    """Two classes of twelve images: grey, colours, grey of 16 bits of which 12 are in use."""
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "files" / name).mkdir(parents=True)
        for number in range(COUNT):
            path = tmp_path / "files" / name / f"{number:02}.png"
            if number % 4 == 3:
                Image.fromarray(draw.integers(0, 4096, (6, 6), dtype=np.uint16)).save(path)
            elif number % 2:
                Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(path)
            else:
                Image.fromarray(draw.integers(0, 256, (6, 6), dtype=np.uint8)).save(path)
    return tmp_path / "files"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache whose parts are of three colour images."""
    monkeypatch.setattr(module, "PART_BYTES", 3 * 6 * 6 * 3)
    return tmp_path / "cache"


def load(root, cache, storage="disk", **options):
    return load_images("image_folder", root=root, storage=storage, cache=cache, **options)


def assert_same(found, expected) -> None:
    for split, other in ((found.train, expected.train), (found.test, expected.test)):
        assert torch.equal(split.images, other.images) and torch.equal(split.labels, other.labels)
        assert split.mapped is not None and other.mapped is None
    assert torch.equal(found.mean, expected.mean) and torch.equal(found.std, expected.std)


@pytest.mark.parametrize("options", [{}, {"image_size": 4}, {"samples_per_class": 5, "seed": 3}])
def test_images_from_disk_are_those_from_memory(root, cache, options):
    expected = load_images("image_folder", root=root, **options)
    for _ in range(2):  # made, then found
        assert_same(load(root, cache, **options), expected)
    assert expected.image_shape[0] == 3 and len(list(cache.iterdir())) == 1


def test_grey_files_have_one_channel_and_one_with_colours_after_all_makes_three(root, cache, monkeypatch):
    expected = load_images("image_folder", root=root)
    monkeypatch.setattr(module, "greys_only", lambda paths: True)
    assert_same(load(root, cache), expected)
    for path in root.rglob("*.png"):
        if int(path.stem) % 2:
            path.unlink()
    monkeypatch.undo()
    assert load(root, cache).image_shape == (1, 6, 6)


def counted(monkeypatch, fail_after: int | None = None) -> list[int]:
    """How many files were decoded by each call; an error after so many calls."""
    calls, original = [], module.read_pictures

    def read_pictures(paths, *arguments):
        if len(calls) == fail_after:
            raise KeyboardInterrupt
        calls.append(len(paths))
        return original(paths, *arguments)

    monkeypatch.setattr(module, "read_pictures", read_pictures)
    return calls


def test_what_was_made_is_not_decoded_again(root, cache, monkeypatch):
    expected = load_images("image_folder", root=root)
    load(root, cache)
    calls = counted(monkeypatch)
    assert_same(load(root, cache), expected)
    assert calls == []


def test_a_killed_maker_leaves_parts_with_which_the_next_goes_on(root, cache, monkeypatch):
    expected = load_images("image_folder", root=root)
    with monkeypatch.context() as patch:
        counted(patch, fail_after=4)  # the first image for its size, and three parts of three
        with pytest.raises(KeyboardInterrupt):
            load(root, cache)
    calls = counted(monkeypatch)
    assert_same(load(root, cache), expected)
    made = sum(calls)
    again = sum(1 for path in root.rglob("*.png") if int(path.stem) % 4 == 3)
    assert COUNT * 2 - 9 <= made <= COUNT * 2 - 9 + 3 * again  # the rest, and parts with grey of 16 bits once more


def test_a_damaged_part_is_made_anew(root, cache, caplog):
    expected = load(root, cache, "memory")
    load(root, cache)
    (rows,) = cache.rglob("images.u8")
    content = bytearray(rows.read_bytes())
    content[100] ^= 1
    rows.write_bytes(content)
    assert_same(load(root, cache), expected)
    assert "1 damaged part(s) are made anew" in caplog.text
    rows.write_bytes(content[:-10])  # shorter: nothing of it counts
    assert_same(load(root, cache), expected)
    (cache / rows.parent.name / "index.json").write_text("{}")
    assert_same(load(root, cache), expected)


def test_two_makers_take_turns_and_the_second_finds_what_the_first_made(root, cache, monkeypatch):
    calls, paths = counted(monkeypatch), sorted(root.rglob("*.png"))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: DiskStore(cache, paths, None).open().rows, range(2)))
    assert torch.equal(*found)
    alone = len(calls)
    DiskStore(cache.with_name("other"), paths, None).open()
    assert len(calls) == 2 * alone


def test_changed_files_are_another_entry(root, cache):
    load(root, cache)
    path = root / "a" / "00.png"
    Image.new("L", (6, 6), 9).save(path)
    os.utime(path, ns=(1, 1))
    assert_same(load(root, cache), load(root, cache, "memory"))
    assert len(list(cache.iterdir())) == 2


def test_a_disk_that_is_too_small_or_full_is_refused_in_a_sentence(root, cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
        with pytest.raises(
            DataError, match=r"data\.cache=.* has 1 MiB free, and the 24 images need 0 MiB; allowed: a la"
        ):
            load(root, cache)
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(
            DataError, match=r"data\.cache=.* cannot be written \(No space left on device\); allowed: a "
        ):
            load(root, cache)
    assert not list(cache.rglob("index.json"))
    assert_same(load(root, cache), load(root, cache, "memory"))


def test_files_that_memory_refuses_are_refused_on_disk(root, cache):
    (root / "b" / "05.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"data\.root has 1 image file\(s\) that cannot be read: .*05\.png"):
        load(root, cache)
    Image.new("L", (7, 6)).save(root / "b" / "05.png")
    with pytest.raises(DataError, match=r"data\.image_size=null, but .* is 6x6 and .*05\.png is 7x6 pixels"):
        load(root, cache)


def test_auto_takes_the_disk_where_memory_is_scarce(root, cache, monkeypatch):
    assert load(root, cache, "auto").train.mapped is None
    monkeypatch.setattr("pipeline.data.assembly.free_memory", lambda: 1000)
    assert load(root, cache, "auto").train.mapped is not None
    assert load(root, None, "auto").train.mapped is None and load(root, cache, "memory").train.mapped is None


@pytest.mark.parametrize("augment", ["none", "crop"])
def test_batches_from_disk_are_those_from_memory(root, cache, augment):
    mapped, resident = load(root, cache), load(root, cache, "memory")
    batches = [
        list(ResidentLoader(data.train, 4, seed=1, standardise=data.standardise, augment=augment))
        for data in (mapped, resident)
    ]
    assert all(torch.equal(*pair) for one, other in zip(*batches, strict=True) for pair in zip(one, other, strict=True))
    halfway = iter(ResidentLoader(mapped.train, 4, seed=1, standardise=mapped.standardise))
    next(halfway)
    halfway.close()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {"storage": "disk"}, r"data\.storage=disk needs data\.cache, which is null; allowed: a folder"),
        ("digits", {"storage": "tape"}, r"data\.storage=tape is not known; allowed: auto, memory, disk"),
        ("digits", {"storage": "disk", "cache": "x", "group": "invert"}, r"data\.group=invert changes images"),
    ],
)
def test_a_storage_that_cannot_be_is_refused_beforehand(name, options, message):
    for call in (validate_request, load_images):
        with pytest.raises(DataError, match=message):
            call(name, **options)


def test_sets_that_are_read_whole_stay_in_memory(tmp_path):
    with pytest.raises(DataError, match=r"data\.storage=disk does not go with data=digits, which is read whole"):
        load_images("digits", storage="disk", cache=tmp_path)
    assert load_images("digits", cache=tmp_path).train.mapped is None
    assert Request(storage="disk", cache=tmp_path).cache == tmp_path


def test_a_run_from_disk_records_the_bytes_of_one_from_memory(root, cache, composed, tmp_path):
    arguments = ["data=image_folder", f"data.root={root}", f"data.cache={cache}", "backbone.hidden=[8]"]
    arguments += ["backbone.epochs=2", "backbone.batch_size=4", "descent.steps=4", "descent.seeds=1", "head.depth=2"]
    arguments += ["head.width=4", "logger=none", "record.figures=false", f"features.cache={tmp_path}/features"]
    for storage in ("memory", "disk"):
        admit(composed(*arguments, f"data.storage={storage}"), tmp_path / storage).perform()
    first, second = ((tmp_path / storage / "record.csv").read_bytes() for storage in ("memory", "disk"))
    assert first == second and first.count(b"\n") > 20
    tensors = [(tmp_path / storage / "tensors.safetensors").read_bytes() for storage in ("memory", "disk")]
    assert tensors[0] == tensors[1]
