"""What theory knows of a head's problem: the values that runs are compared with, and why there are none."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.dufm.objectives import Objective
from pipeline.runs.solutions import HeadSolution, Terms
from pipeline.theory import BOUND, OPTIMUM, Problem, Reference, lowest
from pipeline.theory._problem import LOSSES


@dataclass(frozen=True)
class _Held:
    """A tensor that is equal to another one of the same content."""

    content: bytes
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor | None) -> "_Held | None":
        if tensor is None:
            return None
        rows = tensor.detach().cpu().to(torch.float64).contiguous()
        return cls(rows.numpy().tobytes(), tuple(rows.shape))

    @property
    def tensor(self) -> Tensor:
        return torch.frombuffer(bytearray(self.content), dtype=torch.float64).view(self.shape)


class _Bias(NamedTuple):
    """Whether the last layer has one, and its decay."""

    given: bool
    decay: float


def is_known_to_theory(loss: Objective) -> bool:
    """Whether theory can state problems with this loss."""
    return _name(loss) in LOSSES


def _name(loss: Objective) -> str:
    return type(loss).__module__.rpartition(".")[2]


def problem_of(head: HeadSolution) -> tuple[Problem | None, str | None]:
    """This head's problem as theory states it, or None and the reason why it is not one of those."""
    decay = head.feature_decay
    if decay is None and not head.weights and "sphere" in head.terms.constraint:
        decay = 0.0  # what every row costs is the same
    if decay is None:
        frozen = head.inputs == "frozen"
        return None, "the input features are frozen" if frozen else "the features carry no penalty of their own"
    sizes = [size for size in head.class_sizes if size] if head.terms.has_classes else None
    bias = _Bias(head.bias is not None, head.bias_decay)
    return _problem(head.loss, head.activation, sizes, head.weight_decays, decay, bias, head.terms)


def problem_in(config: Config, class_sizes: Sequence[int] | None, terms: Terms) -> tuple[Problem | None, str | None]:
    """The problem of a configuration with free features, as of `problem_of`."""
    head = config.head
    bias = _Bias(head.bias == "last", head.bias_decay)
    return _problem(
        config.objective, head.activation, class_sizes, config.weight_decays, head.feature_decay, bias, terms
    )


def _problem(
    loss: Objective,
    activation: str,
    sizes: Sequence[int] | None,
    weight_decays: tuple[float, ...],
    feature_decay: float,
    bias: _Bias,
    terms: Terms,
) -> tuple[Problem | None, str | None]:
    anchor, name = terms.anchor, _name(loss)
    if name not in LOSSES:
        return None, f"none is known for {loss.title}"
    if anchor is not None and anchor.features.dim() == 3:
        return None, "every seed has an anchor of its own"
    values: dict[str, Any] = {
        "loss": name,
        "activation": activation,
        "class_sizes": None if sizes is None else tuple(sizes),
        "depth": len(weight_decays),
        "weight_decay": weight_decays,
        "feature_decay": feature_decay,
        "bias": bias.given,
        "bias_decay": bias.decay,
        "targets": terms.targets,
        "constraint": None if terms.constraint == "none" else terms.constraint,
        "temperature": getattr(loss, "temperature", None),
        "anchor": None if anchor is None else (anchor.features.detach().cpu(), anchor.strength),
    }
    if terms.targets is not None:
        values["targets"] = terms.targets.detach().cpu()
    try:
        return Problem(**values), None
    except ValueError as error:
        return None, f"theory does not state this problem: {error}"


@dataclass(frozen=True)
class Known:
    """What theory knows of a problem.

    references: points that its layers can hold, and bounds.
    yardstick: what gaps are taken to: the cheapest state of the collapsed family where theory has one (all classes
        fitted, or zero where that is cheaper), since it is the state in question, else the cheapest point; None if
        there is none, or the layers are too narrow for it.
    reason: why there is no yardstick.
    """

    references: tuple[Reference, ...] = ()
    yardstick: Reference | None = None
    reason: str | None = None

    @property
    def points(self) -> list[Reference]:
        """Without the bounds."""
        return [reference for reference in self.references if reference.kind != BOUND]

    @property
    def has_theorem(self) -> bool:
        """Whether theory calls one of the points an optimum."""
        return any(reference.kind == OPTIMUM for reference in self.references)


def known_of(head: HeadSolution) -> Known:
    """What theory knows of this head's problem and objective."""
    problem, reason = problem_of(head)
    if problem is None:
        return Known(reason=reason)
    return known_about(problem, head.loss, head.widths[: max(1, len(head.weights))])


def known_about(problem: Problem, loss: Objective, widths: Sequence[int]) -> Known:
    """What theory knows of a problem with layers of these widths."""
    known, everywhere = (_references(_Key.of(problem), loss, held) for held in (tuple(widths), None))
    points = [reference for reference in everywhere if reference.kind != BOUND]
    if not points:
        return Known(known, reason=_why_none(problem, loss))
    family = [reference for reference in points if reference.fitted is not None]
    wanted = lowest(family or points)
    held = [reference for reference in known if reference.name == wanted.name and reference.kind != BOUND]
    if held:
        return Known(known, held[0])
    if min(widths) < problem.num_classes:
        return Known(known, reason=f"a layer is narrower than the number of classes ({_narrow(problem, widths)})")
    return Known(known, reason=f"the layers are too narrow for the {wanted.name}")


def _narrow(problem: Problem, widths: Sequence[int]) -> str:
    return f"{min(widths)} < {problem.num_classes}"


def _why_none(problem: Problem, loss: Objective) -> str:
    if not all(decay > 0 for decay in problem.weight_decays):
        return "a weight decay is zero"
    if problem.weight_decays and problem.feature_decay == 0 and problem.anchor is None:
        return "the decay of the features is zero"
    plain = problem.targets is None and problem.anchor is None and problem.constraint is None and not problem.bias
    if plain and problem.depth and problem.loss == "mse" and problem.samples_per_class is None:
        return "the classes differ in size"
    return f"none is known for {_in_words(problem, loss)}"


@dataclass(frozen=True)
class _Key:
    """A problem that can be compared."""

    numbers: tuple[Any, ...]
    targets: _Held | None
    anchor: _Held | None
    strength: float

    @classmethod
    def of(cls, problem: Problem) -> "_Key":
        anchor = problem.anchor
        numbers = tuple(
            (name, getattr(problem, name))
            for name in (
                *("loss", "activation", "class_sizes", "depth", "weight_decay", "feature_decay"),
                *("bias", "bias_decay", "constraint", "temperature"),
            )
        )
        features, strength = (None, 0.0) if anchor is None else anchor
        return cls(numbers, _Held.of(problem.targets), _Held.of(features), strength)

    @property
    def problem(self) -> Problem:
        tensors = {
            "targets": None if self.targets is None else self.targets.tensor,
            "anchor": None if self.anchor is None else (self.anchor.tensor, self.strength),
        }
        return Problem(**dict(self.numbers), **tensors)


@lru_cache(maxsize=16)
def _references(key: _Key, loss: Objective, widths: tuple[int, ...] | None) -> tuple[Reference, ...]:
    """Measured heads ask for theirs at every stop of a descent."""
    return loss.references(key.problem, widths)


def _in_words(problem: Problem, loss: Objective) -> str:
    parts = [loss.title]
    if problem.anchor is not None:
        parts.append("anchored features")
    if problem.constraint is not None:
        parts.append(f"{problem.constraint.replace('_', ' ')} features")
    if problem.bias:
        parts.append("a penalised bias" if problem.bias_decay else "a bias")
    if problem.targets is not None:
        parts.append("these targets")
    elif problem.samples_per_class is None:
        parts.append("classes that differ in size")
    return parts[0] + (f" with {' and '.join(parts[1:])}" if parts[1:] else "")
