"""A backbone in a training step on a CPU, its maps laid out channels last."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from pipeline.measure.extraction import channels_last
from pipeline.runs.training.native_norm import NativeNorm, is_ours
from pipeline.runs.training.residual_blocks import fused


class ChannelsLast:
    """Images ``(B, C, H, W)`` to features ``(B, d)``.

    Not a module, so that the network it holds does not show up in a state dict twice. Norms and residual blocks have
    another `forward` during the call only: measuring, and whoever else calls the backbone, finds them as they are.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone
        norms = {part: NativeNorm(part) for part in backbone.modules() if is_ours(part)}
        self._forwards = fused(backbone, norms)
        self.has_fused_parts = len(self._forwards) > len(norms)
        """Whether more than its norms is done in another way: it is a residual network that we know."""

    def __call__(self, images: Tensor) -> Tensor:
        with self._swapped():
            return self._backbone(channels_last(images))

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        kept = [(part.__dict__, part.__dict__.get("forward")) for part in self._forwards]
        for part, forward in self._forwards.items():
            part.__dict__["forward"] = forward
        try:
            yield
        finally:
            for own, forward in kept:
                if forward is None:
                    del own["forward"]
                else:
                    own["forward"] = forward
