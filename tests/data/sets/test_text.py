"""A text from a file of one's own."""

from pathlib import Path

from pipeline.data import class_names, load_images


def example_root(folder: Path) -> Path:
    """A file with enough text for the default vocabulary and window; the tests of all sets use it, too."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["".join(chr(97 + (number // 26**place) % 26) for place in range(3)) for number in range(600)]
    (folder / "some.txt").write_text(" ".join(words))
    return folder / "some.txt"


def test_a_text_is_read_from_the_file_that_data_root_is(tmp_path):
    root = example_root(tmp_path)
    data = load_images("text", root=root)
    assert data.classes == class_names("text", root) and data.classes[:3] == ("<unk>", "aaa", "baa")
    assert len(data.train) + len(data.test) == 600 // 32 and len(data.test) == round(0.1 * (600 // 32))
