"""The loop of `scripts/fma_peak.cpp` does the multiply-adds that it says it has done."""

import ctypes
from pathlib import Path

import pytest

from pipeline.runtime.native import built

SOURCE = next(parent for parent in Path(__file__).parents if (parent / "scripts").is_dir()) / "scripts" / "fma_peak.cpp"


@pytest.mark.parametrize(("name", "kind"), [("peak_float32", ctypes.c_float), ("peak_float64", ctypes.c_double)])
def test_every_sum_has_grown_by_one_in_every_round(name, kind):
    library = built(SOURCE, "there is no peak")
    if library is None:
        pytest.skip("no working C++ compiler")
    kernel, out = getattr(library, name), kind()
    kernel.argtypes, kernel.restype = [ctypes.c_int64, kind, ctypes.POINTER(kind)], ctypes.c_double
    done = kernel(7, 1.0, ctypes.byref(out))
    sums = next(
        sums for sums in (12, 16) if out.value == sums * (sums - 1) / 2 + sums * 7
    )  # they began at 0, 1, 2, ...
    lanes = done / (2 * 7 * sums)
    assert lanes * ctypes.sizeof(kind) in (16, 32, 64)
