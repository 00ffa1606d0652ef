"""The reference text of Python."""

import platform
from pydoc_data.topics import topics

import pytest

from pipeline.data import load_images
from pipeline.data.sets.pydoc import reference_text


def test_the_text_is_all_topics_in_sorted_order():
    text = reference_text()
    words = [text.types[token] for token in text.tokens[:8].tolist()]
    first = topics[sorted(topics)[0]].lower().split()
    assert words[0] == first[0] and len(text.types) > 2500 and len(text.sha256) == 64


@pytest.mark.skipif(platform.python_version() != "3.11.7", reason="the text differs between versions of Python")
def test_the_text_of_python_3_11_7_is_that_of_the_specification():
    text, data = reference_text(), load_images("pydoc", vocabulary=500, window=32)
    assert text.sha256.startswith("2a95af4ac93f5b71") and data.sha256 == text.sha256
    assert (len(text.tokens), len(text.types)) == (118_249, 3157)
    assert (len(data.train), len(data.test)) == (3695 - 370, 370)
    rarest = data.classes[-1]
    assert int((text.tokens == text.types.index(rarest)).sum()) == 21
    unknown = int((text.tokens >= 499).sum()) / len(text.tokens)
    assert unknown == pytest.approx(0.100, abs=5e-4)
