"""C++ files are compiled once, and where that fails there is none."""

import logging
from pathlib import Path

import pytest

from pipeline.runtime import native


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "twice.cpp").write_text(text)
    return tmp_path / "twice.cpp"


def test_a_kernel_is_compiled_once_for_each_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = written(tmp_path, 'extern "C" int twice(int x) { return 2 * x; }')
    if native.built(source, "") is None:
        pytest.skip("no working C++ compiler")
    kept = list((tmp_path / "cache").rglob("*.so"))
    assert len(kept) == 1 and kept[0].name.startswith("twice_")
    before = kept[0].stat().st_mtime_ns
    assert native.built(source, "").twice(21) == 42 and kept[0].stat().st_mtime_ns == before
    assert native.built(written(tmp_path, 'extern "C" int twice(int x) { return 3 * x; }'), "").twice(2) == 6
    assert len(list((tmp_path / "cache").rglob("*"))) == 3  # the folder and two kernels, no unfinished file


def test_a_kernel_is_compiled_anew_when_a_file_that_it_includes_changes(tmp_path: Path) -> None:
    source = written(tmp_path, '#include "one.hpp"\nextern "C" int twice(int x) { return FACTOR * x; }')
    (tmp_path / "one.hpp").write_text('#pragma once\n#include "two.hpp"')
    for factor in (2, 3):
        (tmp_path / "two.hpp").write_text(f'#include "one.hpp"\n#define FACTOR {factor}')
        if (kernel := native.built(source, "")) is None:
            pytest.skip("no working C++ compiler")
        assert kernel.twice(5) == 5 * factor


@pytest.mark.parametrize("text", ["no C++", None])
def test_what_does_not_build_is_none_and_says_why(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, native.__name__)
    if text is None:
        monkeypatch.setenv("CXX", "/does/not/exist")
    assert native.built(written(tmp_path, text or ""), "it is done slowly") is None
    assert "twice.cpp does not build, it is done slowly:" in caplog.text
    assert not list((tmp_path / "cache").rglob("*.so"))
