"""Run folders as a stranger, a full disk or a slip of the editor may leave them: one thing in one file is another."""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CANARY = "canary-0123456789abcdef-key"
"""The value of a secret in the environment: it is to be found in nothing that is written or said."""
ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202e"
FILES = ("summary.json", "record.csv", "tensors.safetensors", ".hydra/config.yaml", ".hydra/hydra.yaml")
FILES += (".hydra/overrides.yaml", "wandb/run.json")
SECRETS = ("${oc.env:WANDB_API_KEY}", "${oc.decode:${oc.env:WANDB_API_KEY}}", "'${oc.env:WANDB_API_KEY}'")
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**53, 2**63, 10**299, 10**400, 1e23, 1e308, -1e308, 5e-324, float("nan"), float("inf")),
    *("", "text", ESCAPES, "\ud800", "x" * 5000, "$\\frac$", "<script>alert(1)</script>", "[bold]", "%s", *SECRETS),
    *([], {}, [[]], [None], [{}], {"a": {}}, {"value": None}, ["a", 1], [1, 2, 3], [1e308] * 3),
)
CONTENTS = (
    *(b"", b"\0" * 100, b"\xff\xfe", b"[1]", b"7", b"null", b"[" * 100_000, b"{" * 100_000, b'{"a":' * 60 + b"1"),
    *(b"9" * 5000, b"- " * 3000, b"a: &a [x]\nb: *a\n", b"!!python/object/apply:os.system [true]", b"!!bool q"),
    *(b"stage,step,seed,layer,tap,metric,value\n", b"a,b\n1,2\n", b"PK\x03\x04", b"\x1b[2J\x1b]0;x\x07", b"? [a]\n: b"),
    b"a: &a [x]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\n" * 3,
    *(b"protocol: {name: ${oc.env:WANDB_API_KEY}}\n", b"- logger.notes=${oc.decode:${oc.env:WANDB_API_KEY}}\n"),
)  # fmt: skip
CELLS = ("", "nan", "x", "1e23", "-1", "1e400", "1e308", "-1e-320", "9" * 5000, ESCAPES, "head", "0", "1.5", '"', "a,b")


def mutated(content: bytes, file: str, draw: random.Random) -> bytes:
    """The content of a file, changed in one way or another."""
    kind = draw.choice(["field"] * 6 + ["bytes", "other"])
    if kind == "other" or not content:
        return draw.choice(CONTENTS)
    if kind == "bytes":
        return _bytes(content, draw)
    return {".json": _json, ".yaml": _yaml, ".csv": _csv, ".safetensors": _header}[Path(file).suffix](content, draw)


def _bytes(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return draw.choice(
        [
            content[:at],
            content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :],
            content[:at] + content[at + draw.randrange(40) :],
            content[:at] + bytes(draw.randrange(256) for _ in range(8)) + content[at:],
        ]
    )


def _json(content: bytes, draw: random.Random) -> bytes:
    return json.dumps(_changed(json.loads(content), draw)).encode()


def _yaml(content: bytes, draw: random.Random) -> bytes:
    return yaml.safe_dump(_changed(yaml.safe_load(content), draw)).encode("utf-8", "surrogatepass")


def _csv(content: bytes, draw: random.Random) -> bytes:
    lines = content.decode().splitlines()
    at = draw.randrange(len(lines))
    cells = lines[at].split(",")
    cells[draw.randrange(len(cells))] = draw.choice(CELLS)
    lines[at] = ",".join(cells[: draw.choice([len(cells)] * 4 + [1])])
    return "\n".join(lines).encode()


def _header(content: bytes, draw: random.Random) -> bytes:
    """Of a safetensors file: its header is JSON, after its length."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(_changed(json.loads(content[8 : 8 + size]), draw)).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def _changed(value: Any, draw: random.Random) -> Any:
    """Nested plain values with one of them another, missing, or under another name."""
    root = {"": value}
    node, key = draw.choice(list(_places(root)))
    how = draw.choice(["value"] * 5 + ["missing", "name"])
    if how == "value" or (node is root and how):
        node[key] = draw.choice(VALUES)
    elif how == "missing" or isinstance(node, list):
        del node[key]
    else:
        node[draw.choice(["", ESCAPES, "run", "status", "a.b", *SECRETS])] = node.pop(key)
    return root[""]


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    for key, item in list(node.items() if isinstance(node, dict) else enumerate(node)):
        yield node, key
        if isinstance(item, dict | list):
            yield from _places(item)


COMMANDS_OF_TERMINALS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
"""What no output may hold that is no terminal's."""


def check_said(said: str) -> None:
    """Neither a traceback, nor what commands a terminal, nor a secret."""
    assert "Traceback" not in said, said
    assert not COMMANDS_OF_TERMINALS.search(said), ascii(said)
    assert CANARY not in said
