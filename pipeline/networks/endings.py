"""The activations that end the blocks of a network, found by watching one pass."""

from collections import Counter
from contextlib import ExitStack
from functools import partial

from torch import Tensor, nn

from pipeline.networks.probing import is_activation


class Endings:
    """Context of one pass through a module in evaluation mode, in which hooks see what its parts do.

    Attributes:
        calls: candidate -> how often it ran, in running order; 2 or more if it gave something else than features.
        runs: the same without that.
        endings: candidate -> the activation module inside whose output it returned.
    """

    def __init__(self, module: nn.Module, candidates: set[str], num_images: int) -> None:
        self.calls: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        self.endings: dict[str, str] = {}
        self._module, self._candidates, self._num_images = module, candidates, num_images
        self._latest: dict[str, tuple[Tensor, int]] = {}  # activation -> its output, and that tensor's version then
        self._hooks = ExitStack()

    def __enter__(self) -> "Endings":
        modules = dict(self._module.named_modules(remove_duplicate=False))
        bends = {module: is_activation(module) for module in modules.values()}
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
        usable = isinstance(output, Tensor) and output.is_floating_point() and output.ndim > 1
        usable = usable and self._num_images in output.shape
        self.runs[block] += 1
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
