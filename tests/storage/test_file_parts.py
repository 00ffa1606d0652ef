"""Files taken apart where their first keys begin hold what the whole holds, and are refused as it is."""

import json

import pytest

from pipeline.storage.parts import Parts
from pipeline.storage.reading import Unreadable, json_of, yaml_of
from pipeline.storage.shapes import ANY, NULL, NUMBER

SHAPE = {"a?": int, "b?": {ANY: ([(NUMBER, NULL)], NULL)}, "c?": {"d": str}}
WHOLE = {"a": 1, "b": {"x": [1.5, None], "y": None}, "c": {"d": '\n  "e": 1,\n', "f": [[], {}]}, "é": [True, "}"]}


def values(path, *, is_json: bool, shape=SHAPE) -> tuple[dict, list]:
    """What is found in a file, and the keys that were new in it."""
    new = []
    parts = Parts(shape, lambda key, value: new.append(key) or value, is_json=is_json)
    return parts.of(path), new


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(WHOLE, indent=2),
        json.dumps(WHOLE, indent=2) + "\n \n",
        json.dumps(WHOLE),
        json.dumps(WHOLE, indent=1),
        json.dumps(WHOLE, indent=2).replace("\n", "\r\n"),
        '{\n  "a": 1,\n  "a": 2,\n  "g": 3\n}\n',  # the last one counts
        '{\n  "a": 1, "g": 2,\n  "h": 3\n}',
        '{\n  "c": {"d": "x",\n  "e": 1}\n}',
        '{\n  "g": [1,\n  "b",\n  "c"],\n  "a": 1\n}',
        '{\n  "g": "\\n  \\"a\\": 7"\n}',
        "{}",
        "{\n}",
    ],
)
def test_a_json_file_holds_what_the_whole_holds(tmp_path, text):
    path = tmp_path / "it.json"
    path.write_text(text, newline="")
    found, _ = values(path, is_json=True)
    assert found == json_of(path, SHAPE) and list(found) == list(json_of(path, SHAPE))


@pytest.mark.parametrize(
    "text",
    [
        '{\n  "a": 1,\n}',
        '{\n  "a": 1\n  "b": {}\n}',
        '{\n  "a": 1,\n  "b": {}\n',
        '{\n  "a": "x"\n}',
        '{\n  "g": NaN\n}',
        '{\n  "b": {"x": [1e999]}\n}',
        '{\n  "g": 1' + "0" * 300 + "\n}",
        '{\n  "g": ' + "[" * 60 + "]" * 60 + "\n}",
        '{\n  "a": 1\n}\u00a0',
        '[\n  "a"\n]',
        "7",
        "",
    ],
)
def test_what_is_wrong_is_said_of_the_whole(tmp_path, text):
    path = tmp_path / "it.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Unreadable) as expected:
        json_of(path, SHAPE)
    with pytest.raises(Unreadable) as found:
        values(path, is_json=True)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("text", ["a: 1\nc:\n  d: x\n", "{a: 1, c: {d: x}}\n", "a: 1\na: 2\n", "c: &n\n  d: x\n"])
def test_so_does_a_yaml_file(tmp_path, text):
    path = tmp_path / "it.yaml"
    path.write_text(text)
    assert values(path, is_json=False)[0] == yaml_of(path, SHAPE)


@pytest.mark.parametrize("text", ["a: x\n", "c: {}\n", "a: &x 1\ng: *x\n", "- 1\n", f"g: {'[' * 60 + ']' * 60}\n"])
def test_what_is_wrong_in_yaml_is_refused(tmp_path, text):
    path = tmp_path / "it.yaml"
    path.write_text(text)
    with pytest.raises(Unreadable) as expected:
        yaml_of(path, SHAPE)
    with pytest.raises(Unreadable) as found:
        values(path, is_json=False)
    assert str(found.value) == str(expected.value)


def test_a_part_seen_in_another_file_is_not_taken_again(tmp_path):
    first, second = (tmp_path / name for name in ("1.json", "2.json"))
    first.write_text(json.dumps(WHOLE, indent=2))
    second.write_text(json.dumps(WHOLE | {"a": 5}, indent=2))
    new = []
    parts = Parts(SHAPE, lambda key, value: new.append((key, value)) or value, is_json=True)
    parts.of(first)
    new.clear()
    assert parts.of(second) == WHOLE | {"a": 5}
    assert new == [("a", 5)]
    assert parts.of(tmp_path / "none.json") is None


def test_required_keys_are_asked_of_the_whole(tmp_path):
    path = tmp_path / "it.yaml"
    path.write_text("a: 1\nb: 2\n")
    assert values(path, is_json=False, shape={"a": int})[0] == {"a": 1, "b": 2}
    path.write_text("b: 2\n")
    with pytest.raises(Unreadable, match="lacks a"):
        values(path, is_json=False, shape={"a": int})
