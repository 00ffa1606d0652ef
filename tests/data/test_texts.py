"""Texts in windows of tokens."""

import pytest
import torch

from pipeline.data import DataError, ImageData, load_images, validate_request
from pipeline.data.texts import UNKNOWN, Text

SENTENCE = "The cat saw 12 cats: the cat, the Dog!\n"


def load(tmp_path, text: str = 6 * SENTENCE, **options) -> ImageData:
    (tmp_path / "some.txt").write_text(text)
    return load_images("text", root=tmp_path / "some.txt", **{"vocabulary": 4, "window": 5} | options)


def restored(data: ImageData) -> list[list[str]]:
    """All windows of both splits in words."""
    rows = torch.cat([data.train.images, data.test.images])
    return sorted([data.classes[token] for token in row] for row in rows.tolist())


def test_tokens_are_runs_of_letters_and_single_signs_in_lower_case():
    text = Text.of("a text", SENTENCE)
    words = [text.types[token] for token in text.tokens]
    assert words == ["the", "cat", "saw", "cats", ":", "the", "cat", ",", "the", "dog", "!"]
    assert Text.of("a text", "naïve É1").types == ("na", "ï", "ve", "é")


def test_the_vocabulary_is_the_most_frequent_tokens_and_of_equal_ones_the_first(tmp_path):
    data = load(tmp_path, vocabulary=4)
    assert data.classes == (UNKNOWN, "the", "cat", "saw") and data.num_classes == 4


def test_windows_follow_one_another_and_a_tenth_of_them_is_held_out(tmp_path):
    data = load(tmp_path, 20 * SENTENCE)  # 220 tokens
    assert data.kind == "text" and data.image_shape == (5,)
    assert (len(data.train), len(data.test)) == (40, 4)
    words = [word if word in data.classes else UNKNOWN for word in SENTENCE.lower().replace("12 ", "").split()]
    assert words[:4] == ["the", "cat", "saw", UNKNOWN]
    tokens = Text.of("a text", 20 * SENTENCE)
    plain = [tokens.types[token] if tokens.types[token] in data.classes else UNKNOWN for token in tokens.tokens]
    assert restored(data) == sorted(plain[start : start + 5] for start in range(0, 220, 5))
    other = load(tmp_path, 20 * SENTENCE, seed=7, test_fraction=0.25)
    assert len(other.test) == 11 and torch.equal(load(tmp_path, 20 * SENTENCE, seed=7).test.images, data.test.images)


def test_the_label_of_a_position_is_the_token_that_follows_and_the_last_has_none(tmp_path):
    data = load(tmp_path)
    for split in (data.train, data.test):
        assert torch.equal(split.labels[:, :-1], split.images[:, 1:]) and (split.labels[:, -1] == -1).all()
        assert split.given is None


def test_positions_before_unknown_tokens_may_be_left_out_of_measuring_but_are_trained_on(tmp_path):
    whole, part = load(tmp_path), load(tmp_path, count_unk=False)
    for split, told in ((part.train, whole.train), (part.test, whole.test)):
        assert torch.equal(split.targets, told.labels)
        assert torch.equal(split.labels, told.labels.masked_fill(told.labels == 0, -1))
    assert part.class_counts("train")[UNKNOWN] == 0 < whole.class_counts("train")[UNKNOWN]


def test_the_digest_of_a_text_is_known(tmp_path):
    first, other = load(tmp_path), load(tmp_path, 7 * SENTENCE)
    assert len(first.sha256) == 64 and first.sha256 != other.sha256


BAD = [
    (
        {"vocabulary": 10},
        r"data\.vocabulary=10 is more than the 8 different tokens of .*some\.txt and <unk>; .* 2 to 9",
    ),
    ({"window": 40}, r"data\.window=40 does not go twice into .*some\.txt, which has 66 tokens; .* 2 to 33"),
    ({"vocabulary": 1}, r"data\.vocabulary=1 is out of range"),
    ({"window": 1}, r"data\.window=1 is out of range"),
    ({"classes": ["the", "cat"]}, r"data\.classes=\[the,cat\] does not go with data=text, which holds text"),
    ({"samples_per_class": 3}, r"data\.samples_per_class=3 does not go with data=text"),
    ({"imbalance": 0.5}, r"data\.imbalance=0\.5 does not go with data=text"),
    ({"group": "invert"}, r"data\.group=invert does not go with"),
    ({"random_labels": True}, r"data\.random_labels=true does not go with"),
    ({"flip": {"rate": 0.5}}, r"data\.flip\.rate=0\.5 does not go with data=text"),
    ({"foreign": "digits"}, r"data\.foreign=digits does not go with"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_what_does_not_go_with_a_text_is_refused_beforehand(tmp_path, options, message):
    (tmp_path / "some.txt").write_text(6 * SENTENCE)
    asked = {"root": tmp_path / "some.txt", "vocabulary": 4, "window": 5} | options
    for call in (validate_request, load_images):
        with pytest.raises(DataError, match=message) as error:
            call("text", **asked)
        assert "\n" not in str(error.value)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "some.bin").write_bytes(b"abc \xff\xfe")
    with pytest.raises(DataError, match=r"some\.bin is no text in UTF-8 \(byte 4: invalid start byte\)"):
        validate_request("text", root=tmp_path / "some.bin")
    (tmp_path / "none.txt").touch()
    with pytest.raises(DataError, match=r"data\.vocabulary=500 is more than the 0 different tokens"):
        validate_request("text", root=tmp_path / "none.txt")
    with pytest.raises(DataError, match=r"is a folder; allowed: a file of text in UTF-8"):
        validate_request("text", root=tmp_path)


def test_a_text_that_changes_is_read_again(tmp_path):
    first = load(tmp_path, 6 * SENTENCE)
    assert len(load(tmp_path, 12 * SENTENCE).train) > len(first.train)


def test_networks_for_images_do_not_take_text(run_here):
    code, err, left = run_here("data=pydoc", "backbone=mlp", "logger=none")
    assert code == 2 and left == [] and "backbone=mlp does not go with data=pydoc, which holds text" in err
