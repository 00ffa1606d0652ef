"""Final losses of a head against what theory knows."""

from collections import Counter

from pipeline.runs.known import Known
from pipeline.storage.record import finite_or_none
from pipeline.theory import OPTIMUM, Diagnosis, diagnose_among


class ClosedForm:
    """Final losses against closed forms.

    ``optimum``: the value that gaps are taken to (`Known.yardstick`); ``kind``: what to call it; ``gaps``: relative
    distance of every seed's loss to it; ``found``: the reference each seed sits at (`pipeline.theory.diagnose_among`),
    e.g. ``global optimum`` or ``1 of 2 classes fitted``.
    """

    def __init__(self, known: Known, losses: list[float]) -> None:
        self.optimum = known.yardstick
        self.found = sitting(known, losses)
        self.sits_at = [found.name for found in self.found]
        self.kind = "global optimum" if self.optimum.kind == OPTIMUM else self.optimum.name
        self.gaps = [finite_or_none(loss / self.optimum.value - 1) for loss in losses] if self.optimum.value else None

    def sentence(self) -> str:
        """The optimum, the range of the gaps, and where the seeds ended."""
        text = f"{self.kind} {self.optimum.value:.6g}" + (" (all factors zero)" if self.optimum.is_zero else "")
        known = [gap for gap in self.gaps or [] if gap is not None]
        if known:
            ends = dict.fromkeys(f"{gap:.2e}" for gap in (min(known), max(known)))
            text += f"; relative gap of the loss {' to '.join(ends)}"
        return f"{text}; seeds at: " + ", ".join(f"{name} ({n})" for name, n in Counter(self.sits_at).items())


def sitting(known: Known, losses: list[float]) -> list[Diagnosis]:
    """The reference that each seed's loss sits at; [] where no point is known."""
    points = [point for point in known.points if point.value > 0]  # at 0 there is no relative distance
    return [diagnose_among(points, loss) for loss in losses] if points else []
