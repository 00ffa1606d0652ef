"""Layer-wise measuring: of a backbone in one pass over a split, of a batch of heads from its tensors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline import dufm
from pipeline.data import ImageData, ResidentLoader, Split
from pipeline.metrics import CollapseMetrics, layer_metrics, undefined_reasons
from pipeline.taps import Taps

EVAL_BATCH = 512


@dataclass(frozen=True)
class LayerMeasurement:
    """Metrics of one place: ``values`` name -> ``(S,)`` float64, ``reasons`` why some of them are undefined."""

    layer: str
    tap: str
    values: dict[str, Tensor]
    reasons: dict[str, str]


def backbone_features(backbone: nn.Module, images: ImageData, split: Split) -> Tensor:
    """Features ``(N, d)`` of a split in eval mode, one pass."""
    features, _ = _pass(backbone, images, split, ())
    return features


def measure_backbone(backbone: nn.Module, images: ImageData, split: Split) -> tuple[Tensor, list[LayerMeasurement]]:
    """Features ``(N, d)`` and the metrics of every block's output (maps averaged over space), in the same pass."""
    return _pass(backbone, images, split, backbone.blocks)


@torch.inference_mode()
def _pass(
    backbone: nn.Module, images: ImageData, split: Split, blocks: Sequence[str]
) -> tuple[Tensor, list[LayerMeasurement]]:
    device = next(backbone.parameters()).device
    metrics: dict[str, CollapseMetrics] = {}
    loader = ResidentLoader(split, EVAL_BATCH, seed=0, shuffle=False, standardise=images.standardise, device=device)
    features, labels = [], torch.empty(0)

    def listen(name: str, output: Tensor) -> None:
        if name not in metrics:
            metrics[name] = CollapseMetrics(images.num_classes, output.shape[1]).to(device)
        metrics[name].update(output, labels)

    training = backbone.training
    backbone.eval()
    with Taps(backbone, blocks, listen):
        for batch, labels in loader:  # noqa: B007 (the listener reads it)
            features.append(backbone(batch))
    backbone.train(training)
    layers = []
    for name, metric in metrics.items():
        values = {key: value.reshape(1) for key, value in metric.compute().items()}
        layers.append(LayerMeasurement(name, "post", values, dict(metric.undefined)))
    return torch.cat(features), layers


@torch.no_grad()
def measure_head(
    features: Tensor, weights: Sequence[Tensor], labels: Tensor, num_classes: int, activation: str
) -> Iterator[LayerMeasurement]:
    """Metrics of every layer of S heads at once, layer by layer.

    The metrics of W_l (dnc3, ranks, its balancedness with W_{l+1}, NC3 duality of W_L) stand with what enters W_l:
    ``pre`` for l = 1, ``post`` after.

    Args:
        features: ``(N, d_1)`` or ``(S, N, d_1)``; weights: W_l ``(S, d_{l+1}, d_l)``; labels: ``(N,)``.
    """
    decisions = dufm.forward(features, weights, activation)[-1].argmax(dim=-1)
    for layer, tap, tensor in dufm.layer_taps(features, weights, activation):
        entered = layer == 1 or tap == "post"
        arguments = (
            tensor.expand(len(weights[0]), -1, -1),
            labels,
            num_classes,
            weights[layer - 1] if entered else None,
            weights[layer] if entered and layer < len(weights) else None,
            decisions,
        )
        values = layer_metrics(*arguments)
        defined = all(bool(value.isfinite().all()) for value in values.values())
        yield LayerMeasurement(str(layer), tap, values, {} if defined else undefined_reasons(*arguments))
