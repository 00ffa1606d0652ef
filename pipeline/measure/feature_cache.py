"""Features of frozen backbones, kept in a folder that runs share, so that a later head on the same ones need not pass
the images through the network again.

An entry is one file. Its name is a SHA-256 of all that the numbers depend on: the network's structure and weights, the
images and labels of both splits and how they are standardised, how layers are read, names and versions of the
metrics, the versions of PyTorch and of this format; and of the features of two images, computed on the spot, so that a
network whose code has changed, or a processor that rounds differently, is not served with what another one made. Any
number of processes may use a folder at once: an entry appears whole or not at all, and two that make the same one write
the same. Nothing is ever removed; entries may be deleted at any time.
"""

import hashlib
import json
import logging
import os
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data import ImageData
from pipeline.data.images import PART_BYTES
from pipeline.measure.extraction import SplitFeatures, backbone_features, places
from pipeline.measure.layers import BackboneMeasurement, LayerMeasurement, measure_backbone
from pipeline.metrics import registry
from pipeline.metrics.engine.settings import DEFAULT, MeasureSettings
from pipeline.networks import Backbone
from pipeline.runtime import ranks, tensor_files
from pipeline.runtime.files import atomic
from pipeline.runtime.modes import evaluating

log = logging.getLogger(__name__)

VERSION = 2
"""Changes with what an entry holds and with how it is computed."""


class FeatureCache:
    """The entries of ``features.cache``, or none if that is null; the first rank reads and writes for all."""

    def __init__(self, folder: str | None, pooling: str, settings: MeasureSettings = DEFAULT) -> None:
        self._folder = None if folder is None else Path(os.path.expanduser(folder))
        self._pooling, self._settings = pooling, settings
        self._writable = True

    def features(self, backbone: Backbone, images: ImageData) -> dict[str, Tensor]:
        """Features ``(N, d)`` of the splits ``train`` and ``test``, found or computed and kept."""
        path, found = self._find(backbone, images)
        if found is not None:
            return found[0]
        tensors = {name: backbone_features(backbone, images, getattr(images, name)) for name in ("train", "test")}
        self._keep(path, tensors, None)
        return tensors

    def measurement(self, backbone: Backbone, images: ImageData) -> BackboneMeasurement:
        """What `measure_backbone` says of a network with nothing on top, found or computed and kept."""
        path, found = self._find(backbone, images, with_layers=True)
        if found is not None:
            tensors, layers = found
            return BackboneMeasurement(*(SplitFeatures.known(tensors[name]) for name in ("train", "test")), layers)
        measured = measure_backbone(backbone, images, pooling=self._pooling, settings=self._settings)
        if self._folder is not None:
            self._keep(path, {"train": measured.train, "test": measured.test}, measured.layers)
        return measured

    def _find(
        self, backbone: Backbone, images: ImageData, with_layers: bool = False
    ) -> tuple[Path | None, tuple[dict[str, Tensor], list[LayerMeasurement]] | None]:
        """Where the entry is or will be, and what it holds; features alone do not do for ``with_layers``."""
        if self._folder is None:
            return None, None
        path, entry = None, None
        if ranks.is_first():
            key = _key(backbone, images, self._pooling, self._settings)
            path = self._folder / f"{key}.safetensors"
            entry = tensor_files.read(path, key, "it is made anew", lambda metadata: _layers(metadata["layers"] or []))
            if entry is not None and not {"train", "test"} <= entry[0].keys():
                entry = None
            if entry is not None and with_layers and entry[1]["layers"] is None:
                entry = None
        entry = ranks.broadcast(entry)
        if entry is None:
            return path, None
        log.info("found the features of this backbone in %s: no pass over the images", path)
        tensors, metadata = entry
        device = next(backbone.parameters()).device
        return path, ({name: rows.to(device) for name, rows in tensors.items()}, _layers(metadata["layers"] or []))

    def _keep(self, path: Path | None, tensors: dict[str, Tensor], layers: list[LayerMeasurement] | None) -> None:
        if path is None or not self._writable:
            return
        # NaN and infinity as Python's json spells and reads them.
        plain = None if layers is None else [_plain(layer) for layer in layers]
        try:
            with atomic(path) as temporary:
                temporary.write_bytes(tensor_files.serialised(tensors, {"key": path.stem, "layers": plain}))
        except OSError as error:
            log.warning(
                "features.cache=%s cannot be written (%s); the run goes on without it",
                self._folder,
                error.strerror or error,
            )
            self._writable = False


def _plain(layer: LayerMeasurement) -> dict:
    return asdict(layer) | {"values": {name: value.tolist() for name, value in layer.values.items()}}


def _layers(plain: list[dict]) -> list[LayerMeasurement]:
    layers = [LayerMeasurement(**fields) for fields in plain]
    return [
        LayerMeasurement(
            at.layer,
            at.tap,
            {name: torch.tensor(value, dtype=torch.float64) for name, value in at.values.items()},
            at.reasons,
        )
        for at in layers
    ]


@torch.inference_mode()
def _key(backbone: Backbone, images: ImageData, pooling: str, settings: MeasureSettings) -> str:
    facts = [
        VERSION,
        torch.__version__,
        registry.signature(settings.families),
        backbone.name,
        str(backbone),
        [repr(read) for read in places(backbone, pooling).items()],
        settings.min_samples,
        images.num_classes,
        *_beyond_core(settings),
    ]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name, value in backbone.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            tensor_files.absorb(digest, value)
    for split in (images.train, images.test, *([] if images.foreign is None else [images.foreign])):
        digest.update(str(tuple(split.images.shape)).encode())
        for tensor in (*split.in_parts(PART_BYTES), split.labels):
            tensor_files.absorb(digest, tensor)
        for name, tensor in (("groups", split.groups), ("given", split.given)):
            if tensor is not None:  # without them entries keep the names that they had before there were any
                digest.update(name.encode())
                tensor_files.absorb(digest, tensor)
    for tensor in (images.mean, images.std, _probe(backbone, images)):
        tensor_files.absorb(digest, tensor)
    return digest.hexdigest()


def _beyond_core(settings: MeasureSettings) -> list[object]:
    """What the numbers depend on besides, if it is not the default: entries of before it existed stay in use."""
    default = DEFAULT
    others = (entry.name for entry in fields(settings) if entry.name not in ("families", "min_samples"))
    return [[name, getattr(settings, name)] for name in others if getattr(settings, name) != getattr(default, name)]


def _probe(backbone: Backbone, images: ImageData) -> Tensor:
    """Features of two images."""
    device, cudnn = next(backbone.parameters()).device, torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    # By trial cuDNN may choose other algorithms, of other rounding, in every process.
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        with evaluating(backbone):
            return backbone(images.standardise(images.train.images[:2].to(device)))
    finally:
        cudnn.benchmark, cudnn.deterministic = before
