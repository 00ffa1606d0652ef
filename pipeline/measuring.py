"""Layer-wise measuring: of a backbone in one pass over a split, of a batch of heads from its tensors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline import dufm
from pipeline.data import ImageData, ResidentLoader, Split
from pipeline.metrics import CollapseMetrics, layer_metrics, undefined_reasons
from pipeline.taps import tapped

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

    def listen(name: str, tap: str, output: Tensor) -> None:
        if name not in metrics:
            metrics[name] = CollapseMetrics(images.num_classes, output.shape[1]).to(device)
        metrics[name].update(output, labels)

    training = backbone.training
    backbone.eval()
    with tapped(backbone, blocks, listen):
        for batch, labels in loader:  # noqa: B007 (the listener reads it)
            features.append(backbone(batch))
    backbone.train(training)
    return torch.cat(features), [
        LayerMeasurement(
            name, "post", {key: value.reshape(1) for key, value in metric.compute().items()}, metric.reasons()
        )
        for name, metric in metrics.items()
    ]


@torch.no_grad()
def measure_head(
    features: Tensor, weights: Sequence[Tensor], labels: Tensor, num_classes: int, activation: str
) -> Iterator[LayerMeasurement]:
    """Metrics of every layer of S heads at once, layer by layer.

    The metrics of W_l (dnc3, ranks) stand with what enters W_l: ``pre`` for l = 1, ``post`` after. Balancedness of
    (W_{l-1}, W_l) stands with layer l, NC3 duality with the last.

    Args:
        features: ``(N, d_1)`` or ``(S, N, d_1)``; weights: W_l ``(S, d_{l+1}, d_l)``; labels: ``(N,)``.
    """
    decisions = dufm.forward(features, weights, activation)[-1].argmax(dim=-1)
    for layer, tap, tensor in dufm.layer_taps(features, weights, activation):
        entered = layer == 1 or tap == "post"
        values, reasons = layer_metrics(
            tensor.expand(len(weights[0]), -1, -1),
            labels,
            num_classes,
            weight=weights[layer - 1] if entered else None,
            decisions=decisions,
        )
        yield LayerMeasurement(str(layer), tap, values, reasons)
