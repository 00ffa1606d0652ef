"""Errors of ours, of Hydra and of OmegaConf are one sentence, and the help page has every knob."""

from dataclasses import fields

import pytest

from pipeline.config import Config
from pipeline.config.messages import LONGEST, explain, one_line
from pipeline.runtime.errors import ConfigError

CASES = {
    "head.widht=3": ("head.widht", "width"),
    "head.width=abc": ("head.width", "'abc'", "integer >= 1"),
    "data=digit": ("data=digit is not known", "did you mean digits?"),
    "head=[": ("override 'head=['", "key=value"),
    "head.width=0": ("head.width=0", "integer >= 1"),
}


@pytest.mark.parametrize("override", CASES)
def test_whoever_found_the_error_it_is_one_sentence_with_key_and_what_is_allowed(override, composed):
    with pytest.raises(Exception) as caught:
        composed(override)
    sentence = explain(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    assert all(part in sentence for part in CASES[override]), sentence


def test_an_error_of_ours_is_its_own_sentence():
    assert explain(ConfigError("a=1 is not known; allowed: 2.")) == "a=1 is not known; allowed: 2."


def test_a_line_is_readable_whatever_was_typed():
    assert one_line("a\nb\x1b[2K\u2028") == r"a\nb\x1b[2K\u2028"
    cut = one_line("a" * 10 * LONGEST)
    assert len(cut) == LONGEST + len(" ... ") and " ... " in cut


def test_every_knob_has_a_line_of_the_help_page():
    """With its present value."""
    from hydra import compose, initialize_config_dir

    from pipeline.config import conf_folder
    from pipeline.config.messages import help_text, register

    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
        page = help_text(compose("main", ["head.width=77"]))
    for group in fields(Config):
        node = getattr(Config(), group.name)
        for entry in fields(node) if hasattr(node, "__dataclass_fields__") else ():
            assert f"{group.name}.{entry.name} " in page
    assert next(line for line in page.splitlines() if "head.width" in line).split()[1] == "77"
