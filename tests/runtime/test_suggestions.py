"""A mistyped name is answered with the one that was meant, and with nothing where none is near."""

import pytest

from pipeline.runtime.suggestions import closest, did_you_mean

NAMES = ("resnet20", "resnet18", "mlp")


@pytest.mark.parametrize("typed", ["resnet2", "RESNET20", "rsenet20"])
def test_the_likest_name_is_meant(typed):
    assert closest(typed, NAMES) == ["resnet20"]
    assert did_you_mean(typed, NAMES) == " (did you mean resnet20?)"


def test_what_is_like_nothing_gets_no_hint():
    assert did_you_mean("vgg", NAMES) == "" and did_you_mean("resnet20", ()) == ""


def test_several_names_may_be_meant_and_keep_their_own_case():
    assert did_you_mean("adam", ["AdamW", "Adam", "sgd"], most=2) == " (did you mean Adam or AdamW?)"


def test_neither_names_nor_what_was_typed_need_be_text():
    assert closest(12, [121, 7]) == ["121"]
