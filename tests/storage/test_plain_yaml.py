"""Files taken apart where keys begin mean what PyYAML says of the whole, and what is unusual is left to it."""

import pytest
import yaml

from pipeline.storage import plain_yaml as module
from pipeline.storage.plain_yaml import MOST_NODES, PlainLoader, plain_yaml

LONG = "hydra:\n" + "".join(f"  key_{i}:\n    a: {i}\n    b: [x, 'y: z', {{c: 1e-3}}]\n" for i in range(60))


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb:\n  c: [1, 2.5, 1e-3, null, ~, yes, 'on']\n  d: 2024-01-01\n",
        LONG,
        LONG + "  tail: |\n    text\n      more: of it\nlast: 0x1f\n",
        LONG.replace("key_7:", "key_3:").replace("    a: 8\n", "    a: 8\n\n# a remark\n"),
        "- a=1\n- b=[1,2]\n",
        "a: 1\na: 2\nb: 3\n",  # the last one counts
        "a: |+\n  text\n\nb: >-\n  one\n  two\n",
        "a: one\n  two\nb: x # no text\n",
        'a: "x\nb: y"\n',  # one value over two lines, of which the second looks like a key
        "a: 'it\nb: c'\nd: 1\n",
        "a: [1,\nb: 2]\n",
        "a: {x: 1,\nb: 2}\nc: 3\n",
        "on: 1\n1: 2\nnull: 3\n",
        "a: &here 1\nb: 2\n",
        "a: {<<: {b: 1}, c: 2}\n",
        "a: !!str 1\nb: ! 2\n",
        "? a\n: 1\n",
        "a:\nb:\n- 1\n- 2\nc: {}\n",
        "a:\n  b:\n    c:\n      d:\n        e: 1\n    f: 'on'\n  g: .inf\n  h: 0x1f\nlast:\n  one: 1_000\n",
        "a:\n  b:\n  - x=1\n  - 1e-3\n  - on\n  c: 'it''s'\n  d: \"q\"\n  true: no\n",
        "a:\n  b:\n    - x\n    - -\n  c:\n    - y: 1\n",
        "a:\n  b: one\n    two\n  c: |\n    d: 1\n\n  e: x\n",
        "- 1\n- on\n- 'x'\n- a: 1\n  b: 2\n- [3]\n- x\n  y\n- =1\n",
        "- a\n-\n- - b\n  - c\n",
        "a: 5 # no text\nb: x#y\nd: ~\ne: ''\nf: 12:30\ng: 08\n",
        "a: " + "7" * 400 + "\n",
        "7\n",
        "",
    ],
)
def test_it_is_what_pyyaml_says_of_the_whole(text):
    expected = yaml.load(text, Loader=PlainLoader)
    for _ in range(2):  # parsed, and remembered
        found = plain_yaml(text)
        assert repr(found) == repr(expected)


@pytest.mark.parametrize(
    "text",
    [
        "a: [1\nb: 2\n",
        "a: 'x\n",
        "a: 1\n b: 2\n",
        "a: 1\n---\nb: 2\n",
        "a: =\n",
        "a:\n  'b: 1\n  c: 2': 3\n",
        "b: 1\nc: -\n",
        "[]: 1\n? {}\n: 1\n",
    ],
)
def test_what_pyyaml_refuses_is_refused_in_its_words(text):
    with pytest.raises(yaml.YAMLError) as expected:
        yaml.load(text, Loader=PlainLoader)
    with pytest.raises(yaml.YAMLError) as found:
        plain_yaml(text)
    assert str(found.value) == str(expected.value)


def test_aliases_and_too_much_are_refused_over_parts_too(monkeypatch):
    with pytest.raises(ValueError, match="aliases"):
        plain_yaml("a: &x [1]\nb: *x\n")
    with pytest.raises(ValueError, match="deeper"):
        plain_yaml("a:\n" + "".join(f"{' ' * i}b:\n" for i in range(1, 60)))
    monkeypatch.setattr(module, "MOST_NODES", 30)
    with pytest.raises(ValueError, match="more than 30 values"):
        plain_yaml("".join(f"key_{i}: [1, 2]\n" for i in range(8)))
    assert MOST_NODES == 100_000


def test_what_one_reader_changes_another_does_not_see():
    text = "a:\n  b: [1]\n"
    plain_yaml(text)["a"]["b"].append(2)
    assert plain_yaml(text) == {"a": {"b": [1]}}


def test_a_part_seen_before_is_not_parsed_again(monkeypatch):
    first = plain_yaml(LONG + "only_here: [1]\n")
    parsed = []
    real = yaml.parse
    monkeypatch.setattr(module.yaml, "parse", lambda text, **more: parsed.append(text) or real(text, **more))
    assert plain_yaml(LONG + "only_here: [2]\n") == first | {"only_here": [2]}
    assert parsed == ["only_here: [2]\n"]
