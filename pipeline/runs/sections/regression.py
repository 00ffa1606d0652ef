"""What the summary says of a head that is fitted to a matrix of targets."""

from typing import Any

from pipeline.dufm.head_measures import head_regression
from pipeline.runs.solutions import HeadSolution


def regression_facts(head: HeadSolution) -> dict[str, Any]:
    """NRC1 to NRC3, explained variance and R^2 of every seed, and why some are undefined; {} without targets."""
    targets = head.terms.targets
    if targets is None or not head.weights:
        return {}
    found = head_regression(head.features, head.weights, targets.to(head.features), head.activation, head.bias)
    collapse = found.collapse
    facts = {
        "nrc1": collapse.nrc1,
        "nrc1_centred": True,
        "nrc2": collapse.nrc2,
        "nrc3": collapse.nrc3,
        "gamma": collapse.gamma,
        "nrc3_reason": collapse.reason,
        "explained_variance": found.explained_variance,
        "r_squared": found.r_squared,
    }
    return {"regression": facts}
