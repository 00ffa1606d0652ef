"""Texts as windows of tokens: the class of a position is the token that follows it (after arXiv 2405.17767).

A text is lower case; a token is a run of letters a-z, or any one character that is neither a space, a letter nor a
digit. Digits are left out. The vocabulary is ``<unk>`` and the most frequent tokens; whatever else stands in the text
is ``<unk>``. Windows follow one another without overlap; what is left over at the end is not used. The last position of
a window has no label.
"""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data.images import DataError
from pipeline.data.names import shown
from pipeline.data.registry import Request, Source
from pipeline.runtime.memory import require_memory
from pipeline.runtime.randomness import generator
from pipeline.runtime.settings import knob

TOKEN = re.compile(r"[a-z]+|[^\sa-z0-9]")
UNKNOWN = "<unk>"
HELD_OUT = 0.1
"""Share of the windows that is held out where nothing else is asked for."""
BYTES_PER_CHARACTER = 16
"""What tokenising a text takes at the least, with the tokens as Python's strings and then as numbers."""


@dataclass(frozen=True)
class TextSettings:
    """Of all texts."""

    vocabulary: int = knob(500, "V, classes: <unk> and the V - 1 most frequent tokens", ge=2)
    window: int = knob(32, "T, tokens of a window", ge=2)
    count_unk: bool = knob(True, "whether positions that <unk> follows are measured; they are trained on in any case")


@dataclass(frozen=True, eq=False)
class Text:
    """A text in tokens.

    name: in messages. sha256: of its bytes in UTF-8. types: the distinct tokens, the most frequent first, and of
    equally frequent ones that which comes first. tokens: (M,) int64, positions in `types`.
    """

    name: str
    sha256: str
    types: tuple[str, ...]
    tokens: Tensor

    @classmethod
    def of(cls, name: str, text: str) -> "Text":
        """Tokenise; DataError for a text that needs more memory than there is."""
        require_memory(BYTES_PER_CHARACTER * len(text), f"the tokens of {name}")
        found = TOKEN.findall(text.lower())
        types = tuple(token for token, _ in Counter(found).most_common())  # in the order of their first occurrence
        number = {token: index for index, token in enumerate(types)}
        tokens = torch.tensor([number[token] for token in found], dtype=torch.int64)
        return cls(name, hashlib.sha256(text.encode()).hexdigest(), types, tokens)

    def check(self, settings: TextSettings) -> None:
        """Raise DataError where the vocabulary is larger than the text's, or there are no two windows."""
        if settings.vocabulary > len(self.types) + 1:
            raise DataError(
                f"data.vocabulary={settings.vocabulary} is more than the {len(self.types)} different tokens of "
                f"{self.name} and {UNKNOWN}; allowed: an integer from 2 to {max(len(self.types) + 1, 2)}."
            )
        if 2 * settings.window > len(self.tokens):
            raise DataError(
                f"data.window={settings.window} does not go twice into {self.name}, which has {len(self.tokens)} "
                f"tokens; allowed: a longer text, or an integer from 2 to {max(len(self.tokens) // 2, 2)}."
            )


def vocabulary(text: Text, settings: TextSettings) -> tuple[str, ...]:
    """Class names: ``<unk>``, then the most frequent tokens."""
    text.check(settings)
    return (UNKNOWN, *text.types[: settings.vocabulary - 1])


def text_source(text: Text, request: Request) -> Source:
    """Windows (N, T) of both splits with the token that follows each position, -1 where none does or it is not counted.

    A share `test_fraction` of the windows is held out by a permutation that does not depend on the run's seed, as of
    all data sets without a test split of their own.
    """
    settings = request.settings
    text.check(settings)
    known = text.tokens < settings.vocabulary - 1
    windows = torch.where(known, text.tokens + 1, 0)
    windows = windows[: len(windows) // settings.window * settings.window].view(-1, settings.window)
    following = torch.cat([windows[:, 1:], torch.full((len(windows), 1), -1)], dim=1)
    held_out = min(max(round(request.test_fraction * len(windows)), 1), len(windows) - 1)
    order = torch.randperm(len(windows), generator=generator(0, "data/test_split/windows"))
    test, train = order[:held_out].sort().values, order[held_out:].sort().values
    counted = following if settings.count_unk else following.masked_fill(following == 0, -1)
    given = None if settings.count_unk else (following[train], following[test])
    return Source.of_tensors((windows[train], counted[train]), (windows[test], counted[test]), given, text.sha256)


def read_text(path: Path) -> Text:
    """The text of a file; DataError unless it is a file in UTF-8."""
    if not path.is_file():
        raise DataError(f"data.root={shown(path)} is a folder; allowed: a file of text in UTF-8.")
    found = path.stat()
    return _read(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=2)
def _read(path: Path, changed: int, size: int) -> Text:
    """A file as it was at a time: it is looked at for its classes, to check a request, and to open it."""
    require_memory(BYTES_PER_CHARACTER * size, f"the tokens of {shown(path)}")
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"data.root={shown(path)} is no text in UTF-8 (byte {error.start}: {error.reason}); allowed: a file of "
            "text."
        ) from error
    return Text.of(shown(path), text)
