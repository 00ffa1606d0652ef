"""Final losses of a head against what theory knows."""

from collections import Counter

from pipeline.storage.record import finite_or_none
from pipeline.theory import DufmProblem, collapsed_optimum, diagnose


class ClosedForm:
    """Final losses against the closed form.

    ``gaps``: relative distance of every seed's loss to the optimum; ``sits_at``: the value each seed sits at, by name
    (`pipeline.theory.diagnose`), e.g. ``global optimum`` or ``1 of 2 classes fitted``.
    """

    def __init__(self, problem: DufmProblem, losses: list[float]) -> None:
        self.optimum = collapsed_optimum(problem)
        self.kind = "global optimum" if problem.num_classes == 2 else "collapsed solution"
        self.gaps = [finite_or_none(loss / self.optimum.loss - 1) for loss in losses]
        self.sits_at = [diagnose(problem, loss).name for loss in losses]

    def sentence(self) -> str:
        """The optimum, the range of the gaps, and where the seeds ended."""
        text = f"{self.kind} {self.optimum.loss:.6g}" + (" (all factors zero)" if self.optimum.zero_is_optimal else "")
        known = [gap for gap in self.gaps if gap is not None]
        if known:
            text += f"; relative gap of the loss {min(known):.2e} to {max(known):.2e}"
        return f"{text}; seeds at: " + ", ".join(f"{name} ({n})" for name, n in Counter(self.sits_at).items())
