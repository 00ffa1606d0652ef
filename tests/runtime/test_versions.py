"""What ``--version`` prints."""

import torch

from pipeline.runtime.versions import print_versions


def test_the_versions_are_those_of_the_libraries(capsys):
    print_versions()
    said = capsys.readouterr().out
    assert said.startswith("dnc ") and f"torch {torch.__version__.partition('+')[0]}" in said
