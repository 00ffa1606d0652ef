"""A network as a map from images to feature vectors, with its blocks and their activations found by trying it."""

import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.networks.errors import unfit
from pipeline.runtime.modes import evaluating


class Backbone(nn.Module):
    """A network as a map from images (N, C, H, W) to feature vectors (N, num_features).

    If the network returns maps (N, d, h, w), the features are their averages over h and w. The network is tried once,
    in evaluation mode on two images of noise, so that its output and its blocks are known and not guessed.

    Attributes:
        network: the module itself; weights from elsewhere are loaded into it.
        name: how messages call it ("backbone=resnet20").
        num_features: d.
        blocks: names within this module ("network.layer1.0") of the submodules whose outputs are the backbone's
            layers, in the order of the forward pass. Each runs once per pass and returns a floating-point tensor of N
            rows. The network itself ("network") where no submodule does.
        activations: block -> name of the activation module within it ("network.layer1.0.act2") whose output is the
            block's, so that its input is the block's pre-activation. If it runs several times per pass, that is its
            latest run when the block ends. Blocks that do not end in an activation module are absent.

    Raises:
        ValueError: if the network cannot take images of this shape, returns neither vectors nor maps, or has no
            parameters.
    """

    def __init__(self, network: nn.Module, image_shape: Sequence[int], *, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name
        candidates = _repeated_parts("network", network)
        children = [f"network.{child}" for child, module in network.named_children() if len(list(module.parameters()))]
        # Noise, because a network that scales every image by its spread cannot take a black one.
        images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
        features, trial = self._try(images, {*candidates, *children, "network"})
        if next(network.parameters(), None) is None:
            raise ValueError(f"{name} has no parameters; allowed: networks with weights.")
        fired = [block for block, number in trial.calls.items() if number == 1]
        self.num_features = features.shape[1]
        self.blocks = (
            tuple(block for block in fired if block in candidates)
            or tuple(block for block in fired if block != "network")
            or ("network",)
        )
        self.activations = {block: trial.endings[block] for block in self.blocks if block in trial.endings}

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, num_features) of standardised float images (N, C, H, W), in their dtype but at least float32."""
        return self._as_features(self.network(images), images)

    def _as_features(self, output: Tensor, images: Tensor) -> Tensor:
        # A network that computes in half or double precision inside still feeds a float32 classifier.
        output = output.to(torch.promote_types(images.dtype, torch.float32))
        return output.mean((2, 3)) if output.ndim == 4 else output

    def _try(self, images: Tensor, candidates: set[str]) -> tuple[Tensor, "_Trial"]:
        """The features of two images, and what the candidates did in that pass."""
        try:
            with torch.no_grad(), evaluating(self), _Trial(self, candidates, len(images)) as trial:
                output = self.network(images)
        except Exception as error:
            raise unfit(self.name, images.shape[1:], error) from error
        if not _is_floating(output) or output.ndim not in (2, 4) or len(output) != len(images):
            raise ValueError(
                f"{self.name} returns {_describe(output)} for 2 images; "
                "allowed: vectors (2, d) or maps (2, d, h, w) of floating-point numbers."
            )
        if output.numel() == 0:
            raise unfit(self.name, images.shape[1:], "nothing is left of the image at its last layer")
        features = self._as_features(output, images)
        if not features.isfinite().all():
            raise unfit(self.name, images.shape[1:], "its output is NaN or infinite")
        return features, trial


class _Trial:
    """Context of one pass through a module in evaluation mode, in which hooks see what its parts do.

    Attributes:
        calls: candidate -> how often it ran, in running order; 2 or more if it gave something else than features.
        endings: candidate -> the activation module inside whose output it returned.
    """

    def __init__(self, module: nn.Module, candidates: set[str], num_images: int) -> None:
        self.calls: Counter[str] = Counter()
        self.endings: dict[str, str] = {}
        self._module, self._candidates, self._num_images = module, candidates, num_images
        self._latest: dict[str, tuple[Tensor, int]] = {}  # activation -> its output, and that tensor's version then
        self._hooks = ExitStack()

    def __enter__(self) -> "_Trial":
        modules = dict(self._module.named_modules(remove_duplicate=False))
        bends = {module: _is_activation(module) for module in modules.values()}
        watched = [(self._see_activation, name) for name, module in modules.items() if bends[module]]
        # Last, so that an activation that is a candidate itself is seen before its block ends.
        for see, name in [*watched, *((self._see_candidate, name) for name in self._candidates)]:
            self._hooks.callback(modules[name].register_forward_hook(partial(see, name)).remove)
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.close()
        self._latest.clear()

    def _see_activation(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            self._latest[name] = output, _version(output)

    def _see_candidate(self, block: str, module: nn.Module, inputs: object, output: object) -> None:
        usable = _is_floating(output) and output.ndim in (2, 3, 4) and len(output) == self._num_images
        self.calls[block] += 1 if usable else 2
        if not usable:
            return
        for name, (value, version) in self._latest.items():
            inside = name == block or name.startswith(f"{block}.")
            # The storage and not the object, because Flatten and the like return views. A version that moved on means
            # that something was added in place to what the activation gave.
            same = value.data_ptr() == output.data_ptr() and value.shape == output.shape
            if inside and same and version == _version(output):
                self.endings.setdefault(block, name)


def _version(tensor: Tensor) -> int:
    """How often the tensor's storage was changed in place."""
    return 0 if tensor.is_inference() else tensor._version


def _is_activation(module: nn.Module) -> bool:
    """Whether a module (in evaluation mode) bends every number by itself, as ReLU does.

    Decided by what it does to numbers on a straight line, not by its class, so that timm's and the user's own count:
    Identity, Dropout and Flatten leave the line straight; pooling, norms and Softmax look at more than one number. Of
    modules with weights only PReLU is an activation.
    """
    if isinstance(module, nn.PReLU):
        return True
    if any(True for tensors in (module.parameters(), module.buffers()) for _ in tensors):
        return False
    line = torch.linspace(-20, 20, 42).reshape(6, 7)
    try:
        with warnings.catch_warnings(action="ignore"):
            values, alone = (module.forward(numbers.clone()) for numbers in (line, line[:1, :1]))
        bend = values.flatten().diff(n=2).abs().max() > 1e-4 * values.abs().max()
        return values.shape == line.shape and bool(bend) and torch.allclose(values[:1, :1], alone)
    except Exception:
        return False  # it takes something else than numbers of any shape


def _is_floating(output: object) -> bool:
    return isinstance(output, Tensor) and output.is_floating_point()


def _describe(output: object) -> str:
    if not isinstance(output, Tensor):
        return f"a {type(output).__name__}"
    numbers = "" if output.is_floating_point() else f" of {str(output.dtype).removeprefix('torch.')}"
    return f"{tuple(output.shape)}{numbers}"


def _repeated_parts(name: str, module: nn.Module) -> list[str]:
    """Names of the blocks a network is stacked from: the elements of its Sequentials and ModuleLists.

    Descends through stages to the innermost stack whose elements are modules with parts of their own, so that a
    `layer1` of four residual blocks counts as four and a (convolution, norm) pair inside a block as none.
    """

    def has_parts(part: nn.Module) -> bool:
        # A child with parameters: a normalisation that carries its activation along is not a block.
        return any(len(list(child.parameters())) for child in part.children())

    def is_stack(part: nn.Module) -> bool:
        return isinstance(part, nn.Sequential | nn.ModuleList) and any(map(has_parts, part.children()))

    wanted = has_parts if is_stack(module) else is_stack
    parts = [(f"{name}.{child}", part) for child, part in module.named_children() if wanted(part)]
    return [block for child, part in parts for block in _repeated_parts(child, part) or [child]]
