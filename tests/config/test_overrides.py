"""Arguments and values as Hydra's grammar wants them."""

import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from pipeline.config.overrides import check_single, parsed_override, path_keys, quoted, readable_override
from pipeline.runtime.errors import ConfigError

PATHS = [
    *["epoch=9-step=1000.ckpt", "run#1/x.pt", "runs/lr=0.1", "best (1).ckpt", "R&D/", "Ann's/", "a,b/", "run[1]/"],
    *["1e3", "1_0", "007", "true", "[1]", "{a: 1}", "choice(a,b)", " x ", "a$b", "a;b", "<x>", "a!", "%d", "C:\\x\\"],
    *["Größe (1)/", "'a'b", 'say "x"', "a\\'b", "x=1,y=2", "`x`", "*", "a:b", "[", "}", "@x", "a=~/b"],
]


@pytest.mark.parametrize("value", ["plain", "with space", "it's", "back\\slash", "a,b=c", "end\\", "a\\'b"])
def test_quoted_values_come_back_from_hydras_grammar(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(f"key={quoted(value)}")
    assert parsed.value() == value


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("data.root=~/x", "data.root=/home/of/nobody/x"),
        ("~head.width", "~head.width"),
        ("logger.project=a~b", "logger.project=a~b"),
        ("data.root=Größe", "data.root='Größe'"),
        ("data.classes=[ä,b]", "data.classes=[ä,b]"),
    ],
)
def test_home_folders_and_text_beyond_ascii_are_made_readable(given, read, monkeypatch):
    monkeypatch.setenv("HOME", "/home/of/nobody")
    assert readable_override(given) == read


@pytest.mark.parametrize("key", sorted(path_keys()))
def test_a_path_is_taken_as_it_was_typed_whatever_its_characters(key):
    for path in PATHS:
        read = parsed_override(readable_override(f"{key}={path}", sweeping=False)).value()
        assert getattr(read, "text", read) == path


def test_the_schema_marks_paths():
    assert {"data.root", "backbone.checkpoint", "backbone.from_run", "features.cache"} <= path_keys()


@pytest.mark.parametrize("value", ["null", "'a, b'", '"a, b"', "${oc.env:HOME}/x", "my\\ dir", "a b", "", "x/y.pt"])
def test_a_path_typed_in_hydras_grammar_stays_as_it_is(value):
    for sweeping in (False, True):
        assert readable_override(f"data.root={value}", sweeping=sweeping) == f"data.root={value}"


def test_in_a_multirun_a_comma_between_paths_sweeps():
    assert parsed_override(readable_override("data.root=a,b/")).is_choice_sweep()
    assert parsed_override(readable_override("data.root=run[1]/")).value() == "run[1]/"


def test_where_a_path_may_be_several_both_lines_are_shown_and_can_be_typed():
    with pytest.raises(ConfigError) as caught:
        readable_override("backbone.checkpoint=epoch=1.ckpt,epoch=2.ckpt")
    one, two = typed(str(caught.value))
    assert parsed_override(one).value() == "epoch=1.ckpt,epoch=2.ckpt"
    assert [choice.text for choice in parsed_override(two).value().list] == ["epoch=1.ckpt", "epoch=2.ckpt"]


def typed(sentence: str) -> list[str]:
    """What a shell makes of the arguments that a sentence shows."""
    return [shlex.split(line)[0] for line in re.findall(r""""[^"]*"|'(?:[^']|'"'"')*=(?:[^']|'"'"')*'""", sentence)]


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("optimizer.lr=0,05", ["optimizer.lr=0.05", "a finite number > 0", "--multirun"]),
        ("head.depth=2,3", ["head.depth=2,3", "an integer >= 0", "--multirun"]),
        ("data.classes=4,9", ["data.classes=[4,9]", "--multirun"]),
        ("logger.tags=a,b", ["logger.tags=[a,b]", "--multirun"]),
        ("head=relu,linear", ["one choice", "--multirun"]),
        ("head.depth=3(", ["head.depth=3(", "an integer >= 0"]),
        ("protocol.features=a b(", ["random, balanced"]),
        ("head.depth", ["key=value"]),
        ("logger.notes=a,b", ["\"logger.notes='a,b'\""]),
        ("logger.notes=why (so)?", ["\"logger.notes='why (so)?'\""]),
    ],
)
def test_what_cannot_be_read_is_told_with_what_to_type(argument, parts):
    with pytest.raises(ConfigError) as caught:
        check_single(argument, parsed_override(argument))
    assert all(part in str(caught.value) for part in [argument, *parts]), str(caught.value)


@pytest.mark.parametrize("text", ["a (b)", "it's; $x", 'say "x" (!)', "a#b`c`"])
def test_the_line_shown_for_text_can_be_typed(text):
    with pytest.raises(ConfigError) as caught:
        parsed_override(f"logger.notes={text}")
    shown = str(caught.value).partition("within quotes: ")[2].removesuffix(".")
    assert parsed_override(shlex.split(shown)[0]).value() == text


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ('a={"blocks.*": cls}', {"blocks.*": "cls"}),
        (
            "a={'fc:pre': flatten, \"layer[0-9]\": nhwc+positions}",
            {"fc:pre": "flatten", "layer[0-9]": "nhwc+positions"},
        ),
        ("a={**.attn: last}", {"**.attn": "last"}),
        ('a={text: "x: y"}', {"text": "x: y"}),
        ("a={width: 8}", {"width": 8}),
        ("a=[b,c]", ["b", "c"]),
    ],
)
def test_keys_of_mappings_may_be_quoted(argument, value):
    assert OverridesParser.create().parse_override(readable_override(argument)).value() == value
