"""Weights of a backbone from files: state dicts of many origins, and runs of this pipeline; no code is unpickled."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pipeline.networks.backbone import Backbone

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training programs keep the state dict."""

PREFIXES = ("module", "_orig_mod", "backbone", "network", "model", "encoder")
"""What DataParallel, torch.compile and the attributes of a training program put before the names."""

CLASSIFIERS = frozenset(
    (
        "fc",
        "head",
        "heads",
        "head_dist",
        "classifier",
        "classif",
        "linear",
        "last_linear",
        "output",
        "logits",
        "weights",
    )
)
"""First parts of the names of what sits on a backbone."""

NUM_SHOWN = 3


def load_weights(backbone: Backbone, path: Path, key: str = "backbone.checkpoint") -> list[str]:
    """Load the weights in a file into a backbone, on whatever device it is, and return the tensors left out.

    The file is a `.safetensors`, or what `torch.save` writes: a state dict, or a dict that holds one under a name of
    `WRAPPERS`. Of all prefixes made of `PREFIXES` that one is removed under which most names are the network's own.
    Tensors of a classifier that the network does not have are left out, and the counters `num_batches_tracked` may be
    missing; everything else has to be there, of the right shape and finite. Values are converted to the network's
    dtype.

    Args:
        key: the setting that named the file, for messages.

    Returns:
        Names, as in the file, of the classifier's tensors that were left out; the heads that a run of this pipeline
        keeps beside its backbone (`head/1`) are not told.

    Raises:
        ValueError: in one sentence starting with `key=path`, if the file cannot be read, holds more than tensors and
            plain containers, or does not fit. The backbone is then unchanged.
    """
    held = {name: tensor for name, tensor in _read(path, key).items() if not re.fullmatch(r"head/\d+", name)}
    wanted = {name: value for name, value in backbone.network.state_dict().items() if isinstance(value, Tensor)}
    found, others = _renamed(held, wanted)
    left_out = [name for name in others if _is_classifier(name)]
    problems = _mismatches(found, wanted, [own for name, own in others.items() if name not in left_out])
    if problems:
        more = f" (and {len(problems) - NUM_SHOWN} more)" if len(problems) > NUM_SHOWN else ""
        raise ValueError(
            f"{key}={path} does not fit {backbone.name}: {'; '.join(problems[:NUM_SHOWN])}{more}; "
            "allowed: the weights of the same network."
        )
    # Converted before they are checked: what is finite in float64 need not be so in float32.
    found = {name: tensor.to(wanted[name].dtype) for name, tensor in found.items()}
    broken = [name for name, tensor in found.items() if not tensor.isfinite().all()]
    if broken:
        more = f" and {len(broken) - NUM_SHOWN} more" if len(broken) > NUM_SHOWN else ""
        raise ValueError(
            f"{key}={path} holds NaN or infinity in {', '.join(broken[:NUM_SHOWN])}{more}; allowed: finite weights."
        )
    backbone.network.load_state_dict(found, strict=False)
    return left_out


def _renamed(held: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Once the best prefix is removed: the tensors under the network's names, and name -> rest for the others."""

    def fits(prefix: str) -> tuple[int, int, int]:
        same = [(name, name.removeprefix(prefix)) for name in held if name.startswith(prefix)]
        same = [(name, own) for name, own in same if own in wanted]
        return len(same), sum(held[name].shape == wanted[own].shape for name, own in same), -len(prefix)

    prefix = max(sorted({""}.union(*map(_prefixes, held))), key=fits)
    found = {name.removeprefix(prefix): tensor for name, tensor in held.items() if name.startswith(prefix)}
    found = {own: tensor for own, tensor in found.items() if own in wanted}
    # A name without the prefix is not the network's, even if it sounds so: it belongs to something beside it.
    others = {name: name.removeprefix(prefix) for name in held}
    return found, {name: own for name, own in others.items() if own not in found or not name.startswith(prefix)}


def _prefixes(name: str) -> Iterator[str]:
    """All beginnings of a name that consist of `PREFIXES`: "", "model.", "model.backbone.", ..."""
    yield ""
    end = 0
    for part in name.split(".")[:-1]:
        if part not in PREFIXES:
            return
        end += len(part) + 1
        yield name[:end]


def _is_classifier(name: str) -> bool:
    *_, longest = _prefixes(name)
    return re.split(r"[./]", name.removeprefix(longest))[0] in CLASSIFIERS


def _mismatches(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], unknown: list[str]) -> list[str]:
    """What is wrong with each tensor, in words: first other shapes, then names of the file, then of the network."""
    problems = []
    for name, tensor in found.items():
        want = wanted[name]
        if tensor.shape != want.shape:
            shapes = tuple(tensor.shape), tuple(want.shape)
            problems.append(f"{name} is {shapes[0]} in the file and {shapes[1]} in the network")
        elif tensor.is_floating_point() != want.is_floating_point() or tensor.is_complex() != want.is_complex():
            kinds = [str(dtype).removeprefix("torch.") for dtype in (tensor.dtype, want.dtype)]
            problems.append(f"{name} is {kinds[0]} in the file and {kinds[1]} in the network")
    missing = [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
    problems += [f"{name} is not in the network" for name in unknown]
    return problems + [f"{name} is missing in the file" for name in missing]


def _read(path: Path, key: str) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU."""
    allowed = "allowed: a .safetensors file, or a state dict written by torch.save"
    if not path.exists():
        raise ValueError(f"{key}={path} does not exist; {allowed}.")
    if path.is_dir():
        raise ValueError(f"{key}={path} is a folder; {allowed}.")
    if not path.is_file():
        raise ValueError(f"{key}={path} is a device or a pipe; {allowed}.")
    try:
        if path.stat().st_size == 0:
            raise ValueError("it is empty")
        content = _read_safetensors(path) if _is_safetensors(path) else _read_pickle(path)
    except Exception as error:
        if _is_refused_pickle(path, error):
            raise ValueError(
                f"{key}={path} holds more than tensors and plain containers{_refused(error)}, and nothing else is "
                f"unpickled; {allowed}."
            ) from error
        reason = _reason(error)
        raise ValueError(f"{key}={path} cannot be read, it may be damaged ({reason}); {allowed}.") from error
    tensors = _tensors(content)
    if not tensors:
        raise ValueError(f"{key}={path} holds no tensors by name; {allowed}.")
    return tensors


def _read_safetensors(path: Path) -> object:
    from safetensors.torch import load_file

    return load_file(path)


def _read_pickle(path: Path) -> object:
    with warnings.catch_warnings():
        # About pickle protocols and TorchScript files; what they lead to is an error or all right.
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _is_refused_pickle(path: Path, error: Exception) -> bool:
    """Whether a sound file was refused for what it holds: on other bytes the restricted unpickler stumbles as well."""
    if _is_safetensors(path):
        return False
    with path.open("rb") as stream:
        is_pickle = stream.read(1) == b"\x80"
    refused = isinstance(error, pickle.UnpicklingError) and (
        zipfile.is_zipfile(path) or (is_pickle and "GLOBAL" in str(error))
    )
    return refused or "TorchScript" in str(error)


def _is_safetensors(path: Path) -> bool:
    return path.suffix.lower() == ".safetensors"


def _reason(error: Exception) -> str:
    """The first sentence of what a library says; what torch.load says of a file that is not its own is no help."""
    text = " ".join(str(error).split())
    foreign = isinstance(error, pickle.UnpicklingError | LookupError | EOFError) or "enforce fail" in text
    return "it is no file of torch.save" if foreign or not text else text.partition(". ")[0].rstrip(".")


def _refused(error: Exception) -> str:
    """The class or function the restricted unpickler stopped at, in brackets."""
    match = re.search(r"GLOBAL:? ([\w.]+\.\w+)", str(error))
    return f" ({match[1]})" if match else ""


def _tensors(content: object) -> dict[str, Tensor]:
    """The named tensors of a state dict that may be wrapped; values beside them (epoch, version) are not ours."""
    while isinstance(content, Mapping):
        wrapped = [content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)]
        if not wrapped:
            return {name: value for name, value in content.items() if isinstance(name, str) and _is_dense(value)}
        content = wrapped[0]
    return {}


def _is_dense(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not (value.is_meta or value.is_quantized)
