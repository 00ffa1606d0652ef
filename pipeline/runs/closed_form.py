"""Final losses of a head against what theory knows."""

from collections import Counter
from collections.abc import Sequence

from pipeline.storage.record import finite_or_none
from pipeline.theory import OPTIMUM, Reference, diagnose_among, lowest


class ClosedForm:
    """Final losses against closed forms.

    ``optimum``: the cheapest point known; ``kind``: what to call it; ``gaps``: relative distance of every seed's loss
    to it; ``sits_at``: the value each seed sits at, by name (`pipeline.theory.diagnose_among`), e.g. ``global optimum``
    or ``1 of 2 classes fitted``.
    """

    def __init__(self, known: Sequence[Reference], losses: list[float]) -> None:
        self.optimum = lowest(known)
        self.kind = "global optimum" if self.optimum.kind == OPTIMUM else self.optimum.name
        self.gaps = [finite_or_none(loss / self.optimum.value - 1) for loss in losses]
        self.sits_at = [diagnose_among(known, loss).name for loss in losses]

    def sentence(self) -> str:
        """The optimum, the range of the gaps, and where the seeds ended."""
        text = f"{self.kind} {self.optimum.value:.6g}" + (" (all factors zero)" if self.optimum.is_zero else "")
        known = [gap for gap in self.gaps if gap is not None]
        if known:
            text += f"; relative gap of the loss {min(known):.2e} to {max(known):.2e}"
        return f"{text}; seeds at: " + ", ".join(f"{name} ({n})" for name, n in Counter(self.sits_at).items())
