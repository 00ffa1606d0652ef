"""Which metrics there are, and how they are spoken of: every figure, table and page reads names and titles here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    Attributes:
        name: as in the record.
        title: of a panel or a column.
        target: the value at collapse; None if there is none.
        scale: of an axis, "log" or "linear".
        panel: whether figures, reports and dashboards draw it by default.
    """

    name: str
    title: str
    target: float | None = None
    scale: str = "log"
    panel: bool = False


def metrics() -> dict[str, Metric]:
    """All registered metrics by name, in the order in which they are recorded."""
    known = (
        Metric("dnc1", "DNC1: within / between variability", target=0.0, panel=True),
        Metric("dnc2", "DNC2: condition number of class means", target=1.0, panel=True),
        Metric("dnc3", "DNC3: rows of $W_l$ to class means (sine)", target=0.0, panel=True),
    )
    return {metric.name: metric for metric in known}
