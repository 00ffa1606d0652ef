"""The collapse of any network's layers, measured from within any training loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isnan
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pipeline.measure.tracker.classes import OfClasses, merged, of_test
from pipeline.measure.tracker.classes import table as class_table
from pipeline.measure.tracker.evaluation import Feed, Split, batches, call, device_of, evaluation, foreign_inputs
from pipeline.measure.tracker.labels import class_numbers
from pipeline.measure.tracker.layers import Read, find_places, plain
from pipeline.measure.tracker.measurement import KEPT_BYTES, Measurement, Quantity
from pipeline.metrics import registry
from pipeline.metrics.engine.cases import left_out_sentence
from pipeline.metrics.engine.checks import check_num_classes
from pipeline.metrics.engine.settings import MeasureSettings, listed
from pipeline.networks.patterns import Pattern
from pipeline.networks.rows import Rows
from pipeline.networks.taps import Place, Taps

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from pipeline.measure.tracker.callback import CollapseCallback

log = logging.getLogger(__name__)

COLUMNS = ["step", "layer", "tap", "metric", "value"]

Receive = Callable[[Mapping[Place, Rows], Tensor, Tensor | None, Tensor | None], None]
"""Takes rows of every place, labels, decisions of the network where they are needed, and groups."""


class CollapseTracker:
    """Collapse metrics of the layers of any `nn.Module`, measurement by measurement.

        tracker = CollapseTracker(model, num_classes=10, layers=["layer*", "fc:pre"])
        for epoch in range(epochs):
            train(model, loader)
            table = tracker.measure(loader)
        tracker.plot("dnc1")

    Layers are read as `read` says, by default: activations `(N, d)` as they are, maps averaged over space, and of
    tokens those that what follows reads, such as the class token. Which axis holds the channels is found out by trying
    the model on three samples of the first batch; what stays open is refused. `reads` says what is read.

    The metrics are those of `CollapseMetrics`; where a linear module is tapped `pre`, also dnc3, how its rows align
    with the class means that enter it, and nc3_duality if it has one row per class. Others of
    `pipeline.metrics.metrics()` are asked for by name; nc4 and ncm_accuracy among them look at all rows a second time,
    which are kept for that, or where they take more than 1 GiB come from a second pass. All are accumulated in float64.
    Nothing is hooked but during a measurement, in which anything compiled runs eagerly.

    In a process group (DDP) every rank must call `measure` or `compute`, and gets the numbers of all ranks' samples.

    Args:
        model: any module; wrappers by torch.compile, DataParallel and DistributedDataParallel are looked through.
        num_classes: K, at least 2.
        layers: module names or patterns such as "layer*" and "blocks.?.mlp:pre": `*` and `?` stay within one part of a
            dotted name, `**` stands for any number of parts; `:pre` is what enters the module, `:post` (the default)
            what leaves it. Classes (`nn.TransformerEncoderLayer`) and modules (`model.encoder`) may stand among them,
            and pairs of one of these and a side.
        split: makes a pair (inputs, labels) of what a loader yields; None if it yields that. Inputs are a tensor, or
            a dict of the model's keyword arguments; labels are integers `(N,)` or `(N, 1)` in [0, K), or one-hot rows.
        covariance: False drops nc1_pinv, and with it the (d, d) matrix that very wide layers have no room for; asked
            for by name, nc1_pinv then comes from a second look.
        metrics: names of the metrics to measure; None for those of one pass.
        min_samples: classes with fewer samples are left out of all metrics; how many is told once, and in every table
            (classes_counted, classes_left_out).
        decide: makes outputs `(N, K)`, whose largest entry is the network's decision, of what the model returns; None
            if it returns that. Only nc4 needs it.
        read: how layers are read, by patterns as in `layers`: "mean", "cls", "last", "flatten", "positions", a layout
            such as "nhwc", a function, or a `Reading`, which may name a mask of padded tokens.
        families: of metrics to measure, where they are not named (`pipeline.metrics.families()`): "core", and others
            that have to be asked for, which may look at all rows a second time; "all" is every one.
        max_samples: classes with more samples are left out as well.
        probe_ridge, foreign_directions: as in `MeasureSettings`.
        pairs: of layers that the family "similarity" compares: "consecutive" ones, or "all", each with every one before
            it, as "cka/with=LAYER/TAP".
        groups: names of the groups that samples are of, for the family "groups": a batch is then (inputs, labels,
            groups), groups integers `(N,)`, and "core" is measured in each group, as "dnc1/group=NAME".

    Attributes:
        latest: the last measurement for a logger, by "layer/tap/metric".
        undefined: why some of its values are not finite, by the same keys.

    Raises:
        ValueError: for a pattern that matches no module, an unknown metric, and numbers out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        layers: Sequence[Pattern] | Pattern,
        split: Split | None = None,
        covariance: bool = True,
        metrics: Sequence[str] | None = None,
        decide: Callable[[object], Tensor] | None = None,
        min_samples: int = 1,
        read: Read | None = None,
        families: Sequence[str] = ("core",),
        max_samples: int | None = None,
        probe_ridge: float = 1e-2,
        foreign_directions: int | None = None,
        groups: Sequence[str] = (),
        pairs: str = "consecutive",
    ) -> None:
        check_num_classes(num_classes)
        self._settings = MeasureSettings(
            listed(families),
            min_samples,
            max_samples,
            pairs,
            probe_ridge=probe_ridge,
            foreign_directions=foreign_directions,
        )
        self.model = plain(model)
        self.num_classes = num_classes
        self.latest: dict[str, float] = {}
        self.undefined: dict[str, str] = {}
        self._taps = find_places(self.model, layers, read)
        self._shapes: dict[Place, tuple[int, ...]] = {}
        self._split, self._covariance = split, covariance
        self._names, self._decide = None if metrics is None else list(metrics), decide
        self._told, self._groups = False, tuple(groups)
        self._told_nan: set[str] = set()
        self._rows: list[tuple] = []
        self._classes: dict[Place, OfClasses] = {}
        self._listened = self._new_measurement()

    def measure(
        self,
        loader: Iterable,
        step: int | None = None,
        test: Iterable | None = None,
        foreign: Iterable | None = None,
    ) -> pd.DataFrame:
        """Measure the model on a loader, in one pass of its own: a table (step, layer, tap, metric, value).

        With a `test` loader also on that, as `test_dnc1` and so on: of its own samples about their own class means,
        except that ncm_accuracy and nc4 ask for the nearest class mean of the first loader's samples. With a `foreign`
        loader, of other data (labels, if there are any, do not matter), the family "foreign" has its values.

        The pass is made in eval mode, without gradients, on the device of the model's parameters. Modes, random
        states and gradients are afterwards what they were, so training goes on as if nothing had been. `step` is 1
        more than that of the measurement before (1 at first) unless given.

        Raises:
            ValueError: for batches that are no pair, labels out of range, layers whose values are no features, and a
                loader without batches.
            RuntimeError: if a layer did not run in the pass, or ran more than once in it.
        """
        others = (None if it is None else Feed.of(it) for it in (test, foreign))
        return self.measure_feeds({"": Feed.of(loader)}, step, *others)

    def measure_feeds(
        self,
        feeds: Mapping[str, Feed],
        step: int | None = None,
        test: Feed | None = None,
        foreign: Feed | None = None,
    ) -> pd.DataFrame:
        """As `measure`, on several loaders, each under a prefix of its own before the names of layers."""
        values: dict[Quantity, float] = {}
        reasons: dict[Quantity, str] = {}
        self._classes = {}
        for prefix, feed in feeds.items():
            *both, classes = self._on(feed, test, foreign)
            for found, into in zip(both, (values, reasons), strict=True):
                into |= {(f"{prefix}{layer}", tap, metric): it for (layer, tap, metric), it in found.items()}
            self._classes |= {(f"{prefix}{layer}", tap): own for (layer, tap), own in classes.items()}
        return self._close(values, reasons, step)

    def _on(
        self, feed: Feed, test: Feed | None, foreign: Feed | None
    ) -> tuple[dict[Quantity, float], dict[Quantity, str], dict[Place, OfClasses]]:
        found = self._measured(feed, foreign=foreign)
        self._tell_left_out(found)
        (values, reasons), classes = found.compute(), found.classes
        if test is not None:
            measured = self._measured(test, found, foreign)
            values_of_test, reasons_of_test = measured.compute()
            values |= _of_test(values_of_test)
            reasons |= _of_test(reasons_of_test)
            classes = merged(classes, of_test(measured.classes))
        return values, reasons, classes

    @contextmanager
    def listen(self, labels: Tensor, groups: Tensor | None = None) -> Iterator[None]:
        """Measure one forward pass that you make yourself, of samples with these labels; `compute` ends it all.

            for images, labels in loader:
                with tracker.listen(labels):
                    outputs = model(images)
            table = tracker.compute()

        The model's mode and gradients are your own. A pass that fails is not counted. Raises what `measure` raises, and
        RuntimeError if the model runs twice.
        """
        if not self._listened.has_kept_all:
            raise ValueError(
                f"metrics that look at the rows a second time, of metrics={self._names}, have no room for more than "
                f"{KEPT_BYTES >> 20} MiB of rows between two calls of compute: use measure(loader), or fewer layers."
            )
        with self._listening(self._listened.add, labels, groups=groups):
            yield

    def compute(self, step: int | None = None) -> pd.DataFrame:
        """The metrics of all passes listened to since the last `compute`, as `measure` gives them."""
        found, self._listened = self._listened, self._new_measurement()
        found.settle(device_of(self.model))
        found.judge_kept()
        self._tell_left_out(found)
        values, reasons = found.compute()
        self._classes = found.classes
        return self._close(values, reasons, step)

    @property
    def reads(self) -> dict[str, str]:
        """What is read of every layer, in words, by "layer/tap"; none before the first pass."""
        return {"/".join(place): self._taps[place].description(shape) for place, shape in self._shapes.items()}

    @property
    def layers(self) -> list[str]:
        """What is measured, as "layer/tap"."""
        return ["/".join(place) for place in self._taps]

    @property
    def history(self) -> pd.DataFrame:
        """All measurements, one number a row (step, layer, tap, metric, value); layers stand in running order."""
        return _table(self._rows)

    @property
    def classes(self) -> pd.DataFrame:
        """Values of each class in the last measurement, where families have such: a row for each class at each layer
        (step, layer, tap, class), a column for each value, samples first; NaN for a class without one.

        Of 20 classes or fewer they stand in all tables, too, as "cos_intra/class=3".
        """
        return class_table(self._rows[-1][0] if self._rows else 0, self._classes)

    def plot(self, metric: str = "dnc1", ax: Axes | None = None) -> Axes:
        """A metric against the step, one line per layer, on `ax` or new axes."""
        from pipeline.measure.tracker import plots

        return plots.plot_over_steps(self.history, metric, ax)

    def plot_profile(self, metric: str = "dnc1", ax: Axes | None = None) -> Axes:
        """A metric at the last step against the layer, on `ax` or new axes."""
        from pipeline.measure.tracker import plots

        return plots.plot_profile(self.history, metric, ax)

    def state_dict(self) -> dict[str, object]:
        """What was measured, in plain values; `load_state_dict` goes on from there."""
        return {"rows": [list(row) for row in self._rows], "latest": self.latest, "undefined": self.undefined}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the measurements of another tracker of the same layers."""
        self._rows = [tuple(row) for row in state["rows"]]
        self.latest, self.undefined = dict(state["latest"]), dict(state["undefined"])

    def __repr__(self) -> str:
        from pipeline.measure.tracker import display

        return display.summary(type(self.model).__name__, self.num_classes, self.layers, self.history)

    def _repr_html_(self) -> str:
        from pipeline.measure.tracker import display

        return display.as_html(repr(self), self.history)

    def callback(
        self, loader: Iterable | None = None, every_n_epochs: int = 1, prefix: str = "", test: Iterable | None = None
    ) -> CollapseCallback:
        """For Lightning: `Trainer(callbacks=[tracker.callback(loader)])`; see `CollapseCallback`."""
        # Here, so that nobody else waits for Lightning.
        from pipeline.measure.tracker.callback import CollapseCallback

        return CollapseCallback(self, loader, every_n_epochs, prefix, test)

    def _new_measurement(self) -> Measurement:
        modules = {place: self.model.get_submodule(tap.module) for place, tap in self._taps.items()}
        weights = {
            place: module for place, module in modules.items() if place[1] == "pre" and isinstance(module, nn.Linear)
        }
        return Measurement(self.num_classes, weights, self._covariance, self._names, self._settings, self._groups)

    def _measured(self, feed: Feed, training: Measurement | None = None, foreign: Feed | None = None) -> Measurement:
        """All looks at what a loader yields, with the class means of another measurement's for reference."""
        measurement = self._new_measurement()
        self._pass_over(feed, measurement.add)
        measurement.settle(device_of(self.model), training)
        if measurement.has_kept_all:
            measurement.judge_kept()
        else:
            # What it draws at random is the same again, because a pass leaves all random states as they were.
            self._pass_over(feed, measurement.judge)
        if foreign is not None and measurement.takes_foreign:
            with evaluation(self.model, foreign.loader):
                for inputs in foreign_inputs(foreign, self._split):
                    with self._listening(measurement.add_foreign, None), foreign.around():
                        call(self.model, inputs)
        if measurement.takes_gradients and training is None:
            self._look_at_gradients(feed, measurement)
        return measurement

    def _look_at_gradients(self, feed: Feed, measurement: Measurement) -> None:
        """One more pass, with gradients of the outputs by what linear layers give; those of parameters stay away."""
        with evaluation(self.model, feed.loader), measurement.gradients.watching():
            for inputs, *_ in batches(feed, self._split, bool(self._groups)):
                with feed.around():
                    output = call(self.model, inputs)
                measurement.gradients.add(self._outputs(output, "agop"))

    def _outputs(self, output: object, asked: str) -> Tensor:
        """Outputs (N, K) of what the model returns."""
        outputs = output if self._decide is None else self._decide(output)
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or not outputs.is_floating_point():
            got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ValueError(
                f"{asked} needs the model's outputs as a float tensor (N, K), got {got}: pass decide=, a function that "
                f"makes them of what the model returns, or leave out {asked}."
            )
        return outputs

    def _pass_over(self, feed: Feed, receive: Receive) -> None:
        with evaluation(self.model, feed.loader):
            for inputs, labels, counting, groups in batches(feed, self._split, bool(self._groups)):
                with self._listening(receive, labels, counting, groups), feed.around():
                    call(self.model, inputs)

    @contextmanager
    def _listening(
        self, receive: Receive, given: Tensor | None, counting: int | None = None, groups: Tensor | None = None
    ) -> Iterator[None]:
        """Hand on the pass made inside, its first `counting` samples if given; foreign samples have no labels."""
        labels = None if given is None else class_numbers(given, self.num_classes)
        grouped = None if groups is None else class_numbers(groups, len(self._groups))
        seen: dict[Place, Rows] = {}

        def on_activation(place: Place, rows: Rows) -> None:
            if place in seen:
                raise RuntimeError(
                    f"layer {place[0]!r} ({place[1]}) ran twice for the same labels: listen to every pass by itself."
                )
            seen[place] = rows.clone()  # a later layer may work in place

        size = None if labels is None else len(labels)
        taps = Taps(self.model, self._taps, on_activation, size, units=self._listened.counts_units)
        with taps, self._decisions() as decisions:
            yield
        self._taps, self._shapes = taps.taps, taps.shapes
        decided = decisions[-1][:counting] if decisions else None
        own = None if labels is None else labels[:counting]
        beside = None if grouped is None else grouped[:counting]
        receive({place: rows.first(counting) for place, rows in seen.items()}, own, decided, beside)

    @contextmanager
    def _decisions(self) -> Iterator[list[Tensor]]:
        """What the network decides in every pass made inside, if it is needed, `(N,)` each."""
        found: list[Tensor] = []
        if not self._listened.needs_decisions:
            yield found
            return

        def on_output(module: nn.Module, inputs: tuple, output: object) -> None:
            found.append(self._outputs(output, "nc4").detach().argmax(dim=1))

        handle = self.model.register_forward_hook(on_output)
        try:
            yield found
        finally:
            handle.remove()

    def _tell_left_out(self, found: Measurement) -> None:
        left_out = [] if self._told else found.left_out
        if left_out:
            self._told = True
            log.warning(
                left_out_sentence(left_out, self.num_classes, self._settings.min_samples, self._settings.max_samples)
            )

    def _tell_nan(self) -> None:
        """Warn of values that are NaN, once for each."""
        new: dict[str, list[str]] = {}
        unknown = [key for key, value in self.latest.items() if isnan(value) and registry.CLASS not in key]
        for key in (key for key in unknown if key not in self._told_nan):
            new.setdefault(self.undefined.get(key, "the features are not finite"), []).append(key)
        for why, keys in new.items():
            log.warning("NaN for %s: %s.", ", ".join(keys), why.rstrip("."))
            self._told_nan.update(keys)

    def _close(self, values: dict[Quantity, float], reasons: dict[Quantity, str], step: int | None) -> pd.DataFrame:
        if step is None:
            step = self._rows[-1][0] + 1 if self._rows else 1
        rows = [(step, *quantity, value) for quantity, value in values.items()]
        self._rows += rows
        self.latest = {"/".join(quantity): value for quantity, value in values.items()}
        self.undefined = {"/".join(quantity): why for quantity, why in reasons.items()}
        self._tell_nan()
        return _table(rows)


def _table(rows: list[tuple]) -> pd.DataFrame:
    import pandas as pd  # as the figures, when they are asked for: whoever imports a tracker has not measured yet

    return pd.DataFrame(rows, columns=COLUMNS)


def _of_test(found: dict[Quantity, object]) -> dict[Quantity, object]:
    """Under the names of the test split, without what does not depend on the split."""
    return {
        (*place, f"{registry.TEST}{name}"): it
        for (*place, name), it in found.items()
        if registry.entry(name).of_rows or registry.CLASS in name
    }
