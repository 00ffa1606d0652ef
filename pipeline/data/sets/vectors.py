"""Bring your own vectors: a feature matrix in a .npy or .safetensors file, with labels beside it."""

from dataclasses import dataclass

from pipeline.data import Request, Source, data_set
from pipeline.data.matrix_files import Matrix, find_matrices, read_matrix
from pipeline.data.selection import split_off_test
from pipeline.data.vector_rows import VectorSettings, as_rows
from pipeline.runtime.settings import knob


@dataclass(frozen=True)
class Settings(VectorSettings):
    """Of vectors from files; names are relative to the folder that data.root is, or that holds it."""

    file: str | None = knob(None, "the .npy or .safetensors file of the rows; null where data.root is it", path=True)
    labels: str | None = knob(
        None, "file of the labels; null takes those beside the rows (labels.npy, or labels in a safetensors)", path=True
    )
    test_file: str | None = knob(None, "file of the test rows; null sets some of the others aside", path=True)
    test_labels: str | None = knob(None, "file of their labels; null takes those beside them", path=True)


def class_names(request: Request) -> tuple[str, ...]:
    """The distinct labels: numbers in their order, text in alphabetical order."""
    files = find_matrices(request)
    return files.train.label_names()


def check(request: Request) -> None:
    """Raise DataError unless the files are there; of them only the labels are read."""
    find_matrices(request)


@data_set(classes=class_names, needs_root=True, check=check, settings=Settings, kind="vectors", takes_file=True)
def vectors(request: Request) -> Source:
    """The rows (N, d) of a file as float32, with labels (N,), integers >= 0 or text.

    Where there is no file of test rows, `test_fraction` of each class is set aside.
    """
    files = find_matrices(request)
    names = files.train.label_names()
    train = _read(files.train, names)
    if files.test is None:
        rows = split_off_test(train[1], names, request.test_fraction)
        return Source.of_tensors(*((train[0][part], train[1][part]) for part in rows))
    test = _read(files.test, names)
    files.require_same_width(train[0].shape[1], test[0].shape[1])
    return Source.of_tensors(train, test)


def _read(files: Matrix, names: tuple[str, ...]):
    return as_rows(read_matrix(files)), files.read_labels(names)
