"""The collapse of any network's layers, measured from within any training loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor, nn

from pipeline.measure.tracker import plots
from pipeline.measure.tracker.evaluation import Split, batches, call, device_of, evaluation
from pipeline.measure.tracker.layers import Place, find_places, plain
from pipeline.measure.tracker.measurement import Measurement
from pipeline.metrics.checks import check_label_range, check_num_classes
from pipeline.networks.taps import Taps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipeline.measure.tracker.callback import CollapseCallback

COLUMNS = ["step", "layer", "tap", "metric", "value"]


class CollapseTracker:
    """Collapse metrics of the layers of any `nn.Module`, measurement by measurement.

        tracker = CollapseTracker(model, num_classes=10, layers=["layer*", "fc:pre"])
        for epoch in range(epochs):
            train(model, loader)
            table = tracker.measure(loader)
        tracker.plot("dnc1")

    Layers are read as `pipeline.networks.taps` reads them: activations `(N, d)` as they are, conv maps `(N, C, H, W)`
    averaged over space, tokens `(N, T, d)` over tokens. The metrics are those of `CollapseMetrics`; where a linear
    module is tapped `pre`, also dnc3, how its rows align with the class means that enter it, and nc3_duality if it has
    one row per class. All are accumulated in float64. Nothing is hooked but during a measurement, in which anything
    compiled runs eagerly.

    In a process group (DDP) every rank must call `measure` or `compute`, and gets the numbers of all ranks' samples.

    Args:
        model: any module; wrappers by torch.compile and DistributedDataParallel are looked through.
        num_classes: K, at least 2.
        layers: module names or patterns such as "layer*" and "blocks.?.mlp:pre": `*` and `?` stay within one part of a
            dotted name; `:pre` is what enters the module, `:post` (the default) what leaves it.
        split: makes a pair (inputs, labels) of what a loader yields; None if it yields that. Inputs are a tensor, or
            a dict of tensors for the model's keyword arguments; labels are int64 `(N,)` in [0, K).
        covariance: False drops nc1_pinv, and with it the (d, d) matrix that very wide layers have no room for.

    Attributes:
        latest: the last measurement for a logger, by "layer/tap/metric".
        undefined: why some of its values are not finite, by the same keys.

    Raises:
        ValueError: for a pattern that matches no module, and numbers out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        layers: Sequence[str] | str,
        split: Split | None = None,
        covariance: bool = True,
    ) -> None:
        check_num_classes(num_classes)
        self.model = plain(model)
        self.num_classes = num_classes
        self.latest: dict[str, float] = {}
        self.undefined: dict[str, str] = {}
        self._taps = find_places(self.model, layers)
        self._split, self._covariance = split, covariance
        self._rows: list[tuple] = []
        self._listened = self._new_measurement()

    def measure(self, loader: Iterable, step: int | None = None) -> pd.DataFrame:
        """Measure the model on a loader, in one pass of its own: a table (step, layer, tap, metric, value).

        The pass is made in eval mode, without gradients, on the device of the model's parameters. Modes, random
        states and gradients are afterwards what they were, so training goes on as if nothing had been. `step` is 1
        more than that of the measurement before (1 at first) unless given.

        Raises:
            ValueError: for batches that are no pair, labels out of range, layers whose values are no features, and a
                loader without batches.
            RuntimeError: if a layer did not run in the pass, or ran more than once in it.
        """
        measurement = self._new_measurement()
        with evaluation(self.model, loader):
            for inputs, labels, counting in batches(loader, self._split):
                with self._listening(measurement, labels, counting):
                    call(self.model, inputs)
        return self._close(measurement, step)

    @contextmanager
    def listen(self, labels: Tensor) -> Iterator[None]:
        """Measure one forward pass that you make yourself, of samples with these labels; `compute` ends it all.

            for images, labels in loader:
                with tracker.listen(labels):
                    outputs = model(images)
            table = tracker.compute()

        The model's mode and gradients are your own. A pass that fails is not counted. Raises what `measure` raises, and
        RuntimeError if the model runs twice.
        """
        with self._listening(self._listened, labels):
            yield

    def compute(self, step: int | None = None) -> pd.DataFrame:
        """The metrics of all passes listened to since the last `compute`, as `measure` gives them."""
        measurement, self._listened = self._listened, self._new_measurement()
        return self._close(measurement, step)

    @property
    def history(self) -> pd.DataFrame:
        """All measurements, one number a row (step, layer, tap, metric, value); layers stand in running order."""
        return pd.DataFrame(self._rows, columns=COLUMNS)

    def plot(self, metric: str = "dnc1", ax: Axes | None = None) -> Axes:
        """A metric against the step, one line per layer, on `ax` or new axes."""
        return plots.plot_over_steps(self.history, metric, ax)

    def plot_profile(self, metric: str = "dnc1", ax: Axes | None = None) -> Axes:
        """A metric at the last step against the layer, on `ax` or new axes."""
        return plots.plot_profile(self.history, metric, ax)

    def callback(self, loader: Iterable | None = None, every_n_epochs: int = 1, prefix: str = "") -> CollapseCallback:
        """For Lightning: `Trainer(callbacks=[tracker.callback(loader)])`; see `CollapseCallback`."""
        # Here, so that nobody else waits for Lightning.
        from pipeline.measure.tracker.callback import CollapseCallback

        return CollapseCallback(self, loader, every_n_epochs, prefix)

    def _new_measurement(self) -> Measurement:
        modules = {place: self.model.get_submodule(tap.module) for place, tap in self._taps.items()}
        weights = {
            place: module for place, module in modules.items() if place[1] == "pre" and isinstance(module, nn.Linear)
        }
        return Measurement(self.num_classes, weights, self._covariance)

    @contextmanager
    def _listening(self, measurement: Measurement, labels: Tensor, counting: int | None = None) -> Iterator[None]:
        """Add the pass made inside to the measurement, its first `counting` samples if given."""
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
            got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
            raise ValueError(f"labels must be an int64 tensor of shape (N,), got {got}.")
        check_label_range(labels, self.num_classes)
        heard: dict[Place, Tensor] = {}

        def hear(place: Place, features: Tensor) -> None:
            if place in heard:
                raise RuntimeError(
                    f"layer {place[0]!r} ({place[1]}) ran twice for the same labels: listen to every pass by itself."
                )
            heard[place] = features.clone()  # a later layer may work in place

        with Taps(self.model, self._taps, hear):
            yield
        measurement.add({place: features[:counting] for place, features in heard.items()}, labels[:counting])

    def _close(self, measurement: Measurement, step: int | None) -> pd.DataFrame:
        values, reasons = measurement.compute(device_of(self.model))
        if step is None:
            step = self._rows[-1][0] + 1 if self._rows else 1
        rows = [(step, *quantity, value) for quantity, value in values.items()]
        self._rows += rows
        self.latest = {"/".join(quantity): value for quantity, value in values.items()}
        self.undefined = {"/".join(quantity): why for quantity, why in reasons.items()}
        return pd.DataFrame(rows, columns=COLUMNS)
