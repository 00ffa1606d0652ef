"""A network as a map from images to feature vectors, with its layers and how they are read found by trying it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.networks.endings import Endings
from pipeline.networks.errors import unfit
from pipeline.networks.layouts import find_layouts
from pipeline.networks.parts import find_parts
from pipeline.networks.patterns import Pattern, listed, matching
from pipeline.networks.probing import Inputs, buffers_kept, leaving_no_trace, plain_attention, tried
from pipeline.networks.reading import Reading
from pipeline.networks.rows import Layout, Unclear
from pipeline.networks.taps import Place, Tap
from pipeline.runtime.modes import evaluating, modes_kept
from pipeline.runtime.text import first_line

Read = Mapping[Pattern, Reading | str | Callable[[object], Tensor]]
"""How layers are read, by patterns; the last one that means a layer counts."""


class Backbone(nn.Module):
    """A network as a map from images (N, C, H, W) to feature vectors (N, num_features).

    If the network returns maps (N, d, h, w), or (N, h, w, d), the features are their averages over h and w. The network
    is tried in evaluation mode on a few images of noise, so that its output, its blocks and their axes are known and
    not guessed.

    Args:
        layers: the layers, by patterns over the names of the network's modules, their classes, or the modules
            themselves (`pipeline.networks.patterns`); None finds the parts that it is stacked from.
        read: how layers are read where that is not to be found out.

    Attributes:
        network: the module itself; weights from elsewhere are loaded into it.
        name: how messages call it ("backbone=resnet20").
        image_shape: (C, H, W).
        num_features: d.
        blocks: names within this module ("network.layer1.0") of the submodules that are the backbone's layers, in the
            order of the forward pass. Each runs once per pass and returns a floating-point tensor. The network itself
            ("network") where no submodule does.
        activations: block -> name of the activation module within it ("network.layer1.0.act2") whose output is the
            block's, so that its input is the block's pre-activation. If it runs several times per pass, that is its
            latest run when the block ends. Blocks that do not end in an activation module are absent.
        taps: where and how layers are read, by (block, "pre" or "post"): their outputs, and where they end in an
            activation what enters that.

    Raises:
        ValueError: if the network cannot take images of this shape, returns neither vectors nor maps, or has no
            parameters; for patterns that match nothing.
    """

    def __init__(
        self,
        network: nn.Module,
        image_shape: Sequence[int],
        *,
        name: str,
        layers: Sequence[Pattern] | Pattern | None = None,
        read: Read | None = None,
    ) -> None:
        super().__init__()
        self.network, self.name, self.image_shape = network, name, tuple(image_shape)
        self._output = Layout()
        # Noise, because a network that scales every image by its spread cannot take a black one.
        images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
        inputs = Inputs((images,), {}, len(images))
        output = self._try(images)
        if next(network.parameters(), None) is None:
            raise ValueError(f"{name} has no parameters; allowed: networks with weights.")
        readings = self._readings(read or {})
        if output.ndim == 4:
            self._output = self._layout_of_output(inputs, readings.get(("network", "post")))
        features = self._as_features(output, images)
        if not features.isfinite().all():
            raise unfit(name, images.shape[1:], "its output is NaN or infinite")
        self.num_features = features.shape[1]
        self._find_layers(inputs, layers, readings)
        if readings and not {block for block, _ in readings} & {*self.blocks, "network"}:
            raise ValueError(
                f"backbone.read={{{next(iter(read))}: ...}} means no layer that is measured; allowed: patterns of "
                f"{', '.join(block.removeprefix('network.') for block in self.blocks[:3])}, ..."
            )

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, num_features) of standardised float images (N, C, H, W), in their dtype but at least float32."""
        images = self.as_taken(images)
        return self._as_features(self.network(images), images)

    def noise(self, count: int) -> Tensor:
        """Images of noise, always the same."""
        return self.as_taken(torch.randn(count, *self.image_shape, generator=torch.Generator().manual_seed(0)))

    def blank(self, count: int) -> Tensor:
        """Black images."""
        return torch.zeros(count, *self.image_shape)

    def as_taken(self, images: Tensor) -> Tensor:
        """Float images in double precision where the network is in it, anything else as it is."""
        wanted = next(self.parameters()).dtype
        return images.to(wanted) if wanted == torch.float64 and images.is_floating_point() else images

    def _as_features(self, output: Tensor, images: Tensor) -> Tensor:
        # A network that computes in half or double precision inside still feeds a float32 classifier.
        output = output.to(torch.promote_types(images.dtype, torch.float32))
        return output.mean(self._output.positions) if output.ndim == 4 else output

    def _try(self, images: Tensor) -> Tensor:
        """The output for two images."""
        try:
            with torch.no_grad(), evaluating(self), plain_attention():
                output = self.network(images)
        except Exception as error:
            raise unfit(self.name, images.shape[1:], error) from error
        self._check_output(output, images)
        return output

    def _check_output(self, output: object, images: Tensor, when: str = "") -> None:
        if not _is_features(output, len(images)):
            raise ValueError(
                f"{self.name} returns {_describe(output)} for 2 images{when}; "
                "allowed: vectors (2, d) or maps (2, d, h, w) of floating-point numbers."
            )
        if output.numel() == 0:
            raise unfit(self.name, images.shape[1:], "nothing is left of the image at its last layer")

    def try_training(self) -> None:
        """Refuse a network that cannot be trained as it is, by one pass and its gradient on two images of noise.

        Raises:
            ValueError: it fails, or gives something else than in evaluation mode.
        """
        images = torch.randn(2, *self.image_shape, generator=torch.Generator().manual_seed(0))
        images = self.as_taken(images.to(next(self.parameters()).device))
        when = " while it trains"
        with torch.random.fork_rng(devices=[]), modes_kept(self), buffers_kept(self), torch.enable_grad():
            try:
                output = self.train().network(images)
                if _is_features(output, len(images)) and output.requires_grad:
                    self._as_features(output, images).sum().backward()
            except Exception as error:
                raise ValueError(
                    f"{self.name} cannot be trained: it fails on 2 images in training mode ({first_line(error)}); "
                    "allowed: a network that trains, or backbone.epochs=0."
                ) from error
            finally:
                self.zero_grad(set_to_none=True)
            self._check_output(output, images, when)
            width = self._as_features(output, images).shape[1]
            if width != self.num_features:
                raise ValueError(
                    f"{self.name} returns {width} features{when} and {self.num_features} otherwise; allowed: the same."
                )

    def _layout_of_output(self, inputs: Inputs, reading: Reading | None) -> Layout:
        """Of maps that the network returns."""
        self._output = Layout(0, 1, 4)
        if reading is not None and reading.layout is not None:
            return reading.layout
        layout = find_layouts(self, {0: ("network", "post")}, inputs, {})[0]
        if isinstance(layout, Unclear):
            raise ValueError(
                f"the output of {self.name} {layout.why}; allowed: backbone.read={{network: nchw}}, "
                "backbone.read={network: nhwc}, or a network that returns vectors (N, d)."
            )
        return layout

    def _matching(self, key: str, pattern: Pattern) -> list[tuple[str, str | None]]:
        """Blocks and sides that are meant, by names with or without the "network." that they have in this module."""
        try:
            if isinstance(pattern, str) and pattern.split(":")[0].split(".")[0] == "network":
                return matching(self, pattern)
            return [(f"network.{name}", side) for name, side in matching(self.network, pattern)]
        except ValueError as error:
            problem = str(error).rstrip(".")
            raise ValueError(f"backbone.{key}: {problem}; allowed: patterns of the names of its modules.") from None

    def _readings(self, read: Read) -> dict[Place, Reading]:
        found: dict[Place, Reading] = {}
        for pattern, how in read.items():
            for block, side in self._matching("read", pattern):
                found |= dict.fromkeys([(block, side)] if side else [(block, "pre"), (block, "post")], Reading.of(how))
        return found

    def _find_layers(
        self, inputs: Inputs, layers: Sequence[Pattern] | Pattern | None, readings: Mapping[Place, Reading]
    ) -> None:
        """Set `blocks`, `activations` and `taps`."""
        wanted = {} if layers is None else self._wanted(layers)
        children = [f"network.{name}" for name, _ in self.network.named_children() if name in _weighted(self.network)]
        parts = list(wanted) or self._parts(inputs)
        seen = Endings(self, {*parts, *children, "network"}, inputs.count)
        with torch.no_grad(), evaluating(self), plain_attention(), seen:
            self.network(*inputs.args)
        if wanted:
            blocks = self._running_once(wanted, seen.runs)
            spots = {(block, side): (block, side) for block in blocks for side in {"post", *wanted[block]} - {None}}
            layouts = find_layouts(self, spots, inputs, {})
        for tier in () if wanted else (parts, children, ["network"]):
            ran = [block for block, calls in seen.calls.items() if calls == 1 and block in tier]
            layouts = find_layouts(self, {(block, "post"): (block, "post") for block in ran}, inputs, {})
            # Without an axis of samples (windows folded into it) it is no layer.
            blocks = [block for block in ran if getattr(layouts[block, "post"], "has_rows", True)] or ["network"]
            if blocks != ["network"]:
                break
        self.blocks = tuple(blocks)
        self.activations = {block: seen.endings[block] for block in blocks if block in seen.endings}
        self.taps = dict(self._taps(wanted, readings, layouts))

    def _taps(
        self,
        wanted: Mapping[str, set[str | None]],
        readings: Mapping[Place, Reading],
        layouts: Mapping[Place, Layout | Unclear],
    ) -> Iterator[tuple[Place, Tap]]:
        for block in self.blocks:
            sides = wanted.get(block, {None})
            before, after = (readings.get((block, side), Reading()) for side in ("pre", "post"))
            left = layouts.get((block, "post"))
            if "pre" in sides:
                yield (block, "pre"), Tap(block, "pre", before, layout=layouts[block, "pre"])
            elif None in sides and block in self.activations:
                # It runs several times, maybe; what enters it last is arranged as what leaves the block.
                yield (block, "pre"), Tap(self.activations[block], "pre", before, repeats=True, layout=left)
            if sides & {"post", None}:
                yield (block, "post"), Tap(block, "post", after, layout=left)

    def _wanted(self, layers: Sequence[Pattern] | Pattern) -> dict[str, set[str | None]]:
        """Blocks and sides that patterns mean; None where a pattern leaves the side open."""
        found: dict[str, set[str | None]] = {}
        for pattern in listed(layers):
            for block, side in self._matching("layers", pattern):
                found.setdefault(block, set()).add(side)
        if not found:
            raise ValueError(
                f"backbone.layers={list(layers)} names no layer; allowed: patterns such as layer*, or null."
            )
        return found

    def _running_once(self, wanted: Mapping[str, object], runs: Mapping[str, int]) -> list[str]:
        """The blocks that patterns mean, in running order."""
        for block in wanted:
            if runs.get(block, 0) != 1:
                often = "does not run" if block not in runs else f"runs {runs[block]} times"
                raise ValueError(
                    f"backbone.layers: {block.removeprefix('network.')} {often} when {self.name} does; "
                    "allowed: modules that run once, such as the block around it."
                )
        return [block for block in runs if block in wanted]

    def _parts(self, inputs: Inputs) -> list[str]:
        names = {module: name for name, module in self.named_modules()}
        with leaving_no_trace(self):
            runs = tried(self, inputs, names).runs

        def is_readable(name: str) -> bool:
            return len(runs.get(name, ())) == 1 and runs[name][0].is_tensor

        with evaluating(self):
            return find_parts("network", self.network, self._passing(inputs), is_readable)

    def _passing(self, inputs: Inputs) -> Callable[[str], bool]:
        """See `pipeline.networks.parts.PassesAll`."""
        modules = dict(self.named_modules(remove_duplicate=False))

        def output(name: str | None = None) -> Tensor:
            change = None if name is None else (name, partial(_of_the_first, inputs.count))
            watched = {} if name is None else {modules[name]: name}
            with leaving_no_trace(self):
                return tried(self, inputs, watched, change).outputs[0].double()

        plain = output()
        apart = (plain - plain[:1]).abs().max()

        def passes_all(name: str) -> bool:
            try:
                found = output(name)
            except Exception:  # it gives something else than a tensor
                return False
            left = (found - found[:1]).abs().max()
            return bool(left <= 0.01 * apart + 1e-7 * plain.abs().max())

        return passes_all


def _of_the_first(count: int, output: Tensor) -> Tensor:
    """What a module gave for the first image, in place of what it gave for any."""
    axis = output.shape.index(count)
    return output.index_select(axis, torch.zeros(count, dtype=torch.int64, device=output.device))


def _weighted(network: nn.Module) -> set[str]:
    """Names of the children with parameters."""
    return {name.partition(".")[0] for name, _ in network.named_parameters(remove_duplicate=False) if "." in name}


def _is_features(output: object, count: int) -> bool:
    floating = isinstance(output, Tensor) and output.is_floating_point()
    return floating and output.ndim in (2, 4) and len(output) == count


def _describe(output: object) -> str:
    if not isinstance(output, Tensor):
        return f"a {type(output).__name__}"
    numbers = "" if output.is_floating_point() else f" of {str(output.dtype).removeprefix('torch.')}"
    return f"{tuple(output.shape)}{numbers}"
