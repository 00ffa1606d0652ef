"""Full-batch gradient descent on many DUFMs at once: seeds x learning rates x decays of one shape are one batch.

This file keeps the books (who descends, from where, who diverged, when to look); the steps themselves are taken by
the C++ kernel (`pipeline.dufm.descent_native`) or, on a GPU, for other losses and without a compiler, in plain PyTorch
(`pipeline.dufm.descent_torch`).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline import dufm
from pipeline.dufm.constraints import Constraint
from pipeline.dufm.cost import Anchor, Cost, ObjectiveValue, Point
from pipeline.dufm.descent_arguments import (
    check_bias_decay,
    check_choices,
    check_mixed,
    check_tensors,
    count_members,
    per_member,
)
from pipeline.dufm.descent_native import NativeSteps, why_not_native
from pipeline.dufm.descent_precision import drifted, until_next_look
from pipeline.dufm.descent_torch import Parameters, Project, Rule, TorchSteps
from pipeline.dufm.objectives import Objective
from pipeline.dufm.objectives.mse import MeanSquaredError
from pipeline.dufm.shards import Shard, ShardedSteps

CHECK_EVERY = 500
"""Steps between two looks for diverged members, and for those whose products have to be in float64."""
DIVERGENCE_FACTOR = 1e6
"""A member has diverged when ||parameters||^2 exceeds this many times (1 + its first value) or is not finite."""


class Descent:
    """S members descending together, each as if it were alone.

    A step is that of `torch.optim.SGD(lr, momentum)` on the gradient of `dufm.objective`, decays included. In the
    native backend a member's bits do not depend on its batch; in the torch backend they do up to rounding.

    Args:
        features: H_1, `(N, d_1)` shared by all members or `(S, N, d_1)`. float32 or float64. Never modified.
        weights: W_1..W_L at the start, each `(out, in)` or `(S, out, in)`, of the features' dtype and device; without
            any the features are the outputs.
        labels: int64 `(N,)`, classes of any size; None where there are `targets`.
        num_classes: K, the last weight's `out`.
        lr: step size, a float or `(S,)`.
        weight_decay: lambda_W, a float, one per layer `(L,)`, or `(S, L)`.
        feature_decay: lambda_{H_1}, a float or `(S,)`: the features descend too. None freezes them.
        momentum: in [0, 1).
        activation: "relu" or "linear".
        loss: what states the fit; mean squared error if None.
        constraint: projects the free features, `(S, N, d_1)`, in place, at the start and after every step.
        tf32: let a GPU multiply float32 matrices in TensorFloat-32.
        backend: "native", "torch", or "auto" for the native one wherever it can do the job.
        bias: of the last layer at the start, `(K,)` or `(S, K)`; it descends.
        targets: `(N, K)`, any matrix, instead of the labels.
        anchor: what the free features are tied to.
        bias_decay: mu, of the bias.
        mixed: take steps with products in float32, of float64 tensors and frozen features in the native backend (in the
            other one, all is float64), see `pipeline.dufm.descent_precision`.
        single: if mixed, the steps that may have products in float32; all if None.
        shard: the features and labels are those of this rank, of frozen features that lie on several; the steps are
            those on all of them, collective, in PyTorch.

    Attributes:
        cost: what is descended on, of all members.
        num_members: S.
        step: steps taken.
        diverged: member -> step at which its divergence was noticed; it was then taken out and reads as NaN.
        switched: if mixed, member -> step from which on its products are in float64.
        backend: "native" or "torch".
        why_not_native: why it is not the native one; None if it is.

    Raises:
        ValueError: on an argument out of range, or shapes that do not fit together.
    """

    def __init__(
        self,
        features: Tensor,
        weights: Sequence[Tensor],
        labels: Tensor | None,
        *,
        num_classes: int,
        lr: float | Tensor,
        weight_decay: float | Tensor,
        feature_decay: float | Tensor | None = None,
        momentum: float = 0.0,
        activation: str = "relu",
        loss: Objective | None = None,
        constraint: Project | None = None,
        tf32: bool = False,
        backend: str = "auto",
        bias: Tensor | None = None,
        targets: Tensor | None = None,
        anchor: Anchor | None = None,
        bias_decay: float = 0.0,
        mixed: bool = False,
        single: range | None = None,
        shard: Shard | None = None,
    ) -> None:
        dufm.check_activation(activation)
        check_tensors(features, weights, labels, num_classes, bias, targets)
        check_choices(features, feature_decay, momentum, constraint, tf32, backend, anchor)
        check_bias_decay(bias_decay, bias)
        check_mixed(mixed, features, feature_decay)
        if not weights and feature_decay is None:
            raise ValueError("feature_decay must be a number (0 for none) without weights, or nothing could move")
        if shard is not None and (feature_decay is not None or not weights):
            raise ValueError("shard must be None for free features (feature_decay is a number), got one")
        members = count_members(features, weights, lr, weight_decay, feature_decay, bias, anchor)
        self.num_members = members
        if targets is None:
            one_hot = dufm.one_hot if shard is None else shard.targets
            targets = one_hot(labels, num_classes, features.dtype).to(features.device)
        self._rule = Rule(
            targets=targets,
            lr=per_member("lr", lr, members, zero_allowed=False),
            weight_decay=dufm.weight_decay_table(weight_decay, members, len(weights)),
            feature_decay=None if feature_decay is None else per_member("feature_decay", feature_decay, members),
            momentum=momentum,
            activation=activation,
            loss=loss or MeanSquaredError(),
            constraint=constraint,
            tf32=tf32,
            anchor=anchor,
            bias_decay=bias_decay,
        )
        self.cost: Cost = self._rule.cost
        self._bias, self._shard = None if bias is None else bias.detach(), shard
        why_not = "asked for torch" if backend == "torch" else why_not_native(features, self._rule, bias)
        if shard is not None:
            why_not = "samples are shared out among ranks"
        if backend == "native" and why_not is not None:
            raise ValueError(f"backend='native' cannot take these steps: {why_not}")
        self.backend, self.why_not_native = ("torch" if why_not else "native"), why_not
        self.step = 0
        self.diverged: dict[int, int] = {}
        self.switched: dict[int, int] = {}
        if mixed and self.backend == "torch":
            self.switched = dict.fromkeys(range(members), 0)
        self.mixed = mixed
        self._edges = () if single is None or not mixed else (single.start, single.stop)
        self._drift: Tensor | None = None
        self._inputs = self._projected(features.detach())
        self._begin(range(members), self._first_parameters([weight.detach() for weight in weights]))
        self._limit = DIVERGENCE_FACTOR * (1 + self._squared_norms())

    @property
    def features(self) -> Tensor:
        """H_1 now: the given tensor where it is frozen, else a fresh `(S, N, d_1)`."""
        return self._all_members(self._live.features) if self._free else self._inputs

    @property
    def weights(self) -> list[Tensor]:
        """W_1..W_L now, fresh tensors `(S, out, in)`."""
        return [self._all_members(weight) for weight in self._live.weights]

    @property
    def bias(self) -> Tensor | None:
        """The last layer's bias now, a fresh `(S, K)`; None if there is none."""
        return None if self._live.bias is None else self._all_members(self._live.bias)

    @property
    def point(self) -> Point:
        """Where all members are."""
        return Point(self.features, tuple(self.weights), self.bias)

    @property
    def lr(self) -> Tensor:
        """The step size of every member, float64 `(S,)` on the CPU."""
        return self._rule.lr

    @property
    def without_direction(self) -> int:
        """Rows of features that a constraint could give no direction, see `pipeline.dufm.constraints`."""
        constraint = self._rule.constraint
        return constraint.without_direction if isinstance(constraint, Constraint) else 0

    def objective(self) -> ObjectiveValue:
        """The objective of every member and its terms, `(S,)` each; NaN for the diverged."""
        found = self.cost.value(self.point)
        return found if self._shard is None else self._shard.objective(found)

    def advance(self, steps: int) -> None:
        """Take `steps` more steps. How they are split over calls changes no bit; once all members have diverged the
        remaining steps are skipped."""
        if steps < 0:
            raise ValueError(f"steps must be at least 0, got {steps}")
        last = self.step + steps
        while self.step < last and self._members:
            if self.mixed and (self.step % self._until_look == 0 or self.step in self._edges):
                self._switch()
            block = min(CHECK_EVERY - self.step % CHECK_EVERY, last - self.step)
            block = min([block, *(edge - self.step for edge in self._edges if edge > self.step)])
            self._steps.run(block)
            self.step += block
            self._remove_diverged()
        self.step = last

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on bit by bit, in tensors and plain Python."""
        live = self._live
        return {
            "step": self.step,
            "diverged": dict(self.diverged),
            "switched": dict(self.switched),
            "drift": None if self._drift is None else self._drift.clone(),
            "limit": self._limit.clone(),
            "features": live.features.contiguous().clone() if self._free else None,
            "weights": [weight.contiguous().clone() for weight in live.weights],
            "velocities": [velocity.contiguous().clone() for velocity in live.velocities],
            "bias": None if live.bias is None else live.bias.clone(),
            "bias_velocity": None if live.bias_velocity is None else live.bias_velocity.clone(),
            "without_direction": self.without_direction,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of a descent that was built with the same arguments.

        Raises:
            ValueError: if the state's tensors do not have the shapes of this problem.
        """
        members = [member for member in range(self.num_members) if member not in state["diverged"]]
        like = self._first_parameters(self.weights).select(members)
        features = like.features if state["features"] is None else state["features"]
        start = Parameters(
            features, list(state["weights"]), list(state["velocities"]), state.get("bias"), state.get("bias_velocity")
        )
        if start.shapes() != like.shapes():
            raise ValueError(f"state must hold tensors of shapes {like.shapes()}, got {start.shapes()}")
        self.step = state["step"]
        self.diverged = dict(state["diverged"])
        self.switched = dict(state.get("switched", {}))
        drift = state.get("drift")
        self._drift = None if drift is None else drift.clone()
        self._limit = state["limit"].to(like.features.device)
        if isinstance(self._rule.constraint, Constraint):
            self._rule.constraint.without_direction = state.get("without_direction", 0)
        self._begin(members, start.to(like.features))

    @property
    def _free(self) -> bool:
        return self._rule.feature_decay is not None

    def _first_parameters(self, weights: Sequence[Tensor]) -> Parameters:
        """All members at the given weights and features, at rest."""
        expanded = [weight.expand(self.num_members, *weight.shape[-2:]) for weight in weights]
        features = self._inputs
        if self._free or features.dim() == 3:
            features = features.expand(self.num_members, *features.shape[-2:])
        moving = [*expanded, features] if self._free else expanded
        velocities = [torch.zeros_like(tensor) for tensor in moving] if self._rule.momentum else []
        bias = None if self._bias is None else self._bias.expand(self.num_members, -1)
        bias_velocity = torch.zeros_like(bias) if bias is not None and self._rule.momentum else None
        return Parameters(features, expanded, velocities, bias, bias_velocity)

    def _projected(self, features: Tensor) -> Tensor:
        """The features at the start: those given, or, if they are constrained, their projection as a fresh tensor."""
        if self._rule.constraint is not None:
            features = features.clone() if features.dim() == 3 else features[None].clone()
            self._rule.constraint(features)
        return features[0] if features.shape[:-2] == (1,) else features

    def _begin(self, members: Iterable[int], start: Parameters) -> None:
        """Descend with these members from here on; `start` holds them and no others."""
        self._members = list(members)
        self._steps = None
        self._live = start
        if self._members:
            rule = self._rule.select(self._members)
            native = self.backend == "native"
            if self._shard is not None:
                self._steps = ShardedSteps(start, rule, self._shard)
            else:
                self._steps = NativeSteps(start, rule, self._single) if native else TorchSteps(start, rule)
            self._live = self._steps.parameters

    @property
    def _single(self) -> list[int]:
        """Places, among the live members, of those whose products are in float32."""
        if not self.mixed or (self._edges and self.step < self._edges[0]):
            return []
        return [i for i, member in enumerate(self._members) if member not in self.switched]

    @property
    def _until_look(self) -> int:
        return until_next_look(self.step, CHECK_EVERY)

    def _switch(self) -> None:
        """Let members go on in float64 for whom products in float32 would show, and write down when."""
        places = self._single
        if not places:
            return
        members = [self._members[place] for place in places]
        leaving = members
        if not self._edges or self.step < self._edges[1]:
            before = None if self._drift is None else self._drift[members]
            found, coarse = drifted(self._live.select(places), self._rule.select(members), self._until_look, before)
            if self._drift is None:
                self._drift = found.new_zeros(self.num_members, *found.shape[1:])
            self._drift[members] = found
            leaving = [member for member, too_far in zip(members, coarse, strict=True) if too_far]
        self.switched |= dict.fromkeys(leaving, self.step)
        if leaving or self.step in self._edges:
            self._begin(self._members, self._live)

    def _squared_norms(self) -> Tensor:
        """||parameters||^2 of the live members. Divergence is read off these rather than off the objective, which
        would cost a forward pass: where one explodes so does the other, within a few steps."""
        moving = [*self._live.weights, self._live.features] if self._free else self._live.weights
        if self._live.bias is not None:
            moving = [*moving, self._live.bias[:, None]]
        return sum(dufm.squared_norm(tensor).double() for tensor in moving)

    def _remove_diverged(self) -> None:
        """Take out the members that have exploded, and write down who and when."""
        healthy = (self._squared_norms() <= self._limit[self._members]).tolist()  # False for NaN
        kept = [place for place, fine in enumerate(healthy) if fine]
        if len(kept) == len(healthy):
            return
        self.diverged |= {member: self.step for member, fine in zip(self._members, healthy, strict=True) if not fine}
        self._begin([self._members[place] for place in kept], self._live.select(kept))

    def _all_members(self, live: Tensor) -> Tensor:
        """A fresh `(S, ...)` from the live members', NaN for the rest."""
        everyone = live.new_full((self.num_members, *live.shape[1:]), torch.nan)
        everyone[self._members] = live
        return everyone


def log_schedule(steps: int, per_decade: int = 10) -> list[int]:
    """Where to look at a descent of `steps` steps: 0, about `per_decade` steps in every decade, and the last.

    >>> log_schedule(100, per_decade=3)
    [0, 1, 2, 5, 10, 22, 46, 100]
    """
    if steps < 0 or per_decade < 1:
        raise ValueError(f"steps must be at least 0 and per_decade at least 1, got {steps=}, {per_decade=}")
    stops = {0, steps}
    exponent = 0
    while (stop := round(10 ** (exponent / per_decade))) < steps:
        stops.add(stop)
        exponent += 1
    return sorted(stops)


def descend(
    descent: Descent,
    schedule: Iterable[int],
    on_block: Callable[[int], Any] | None = None,
    seconds_per_block: float = 0.5,
    agree: Callable[[float], float] = lambda pace: pace,
) -> Iterator[int]:
    """Advance through a schedule and yield at every stop, for the caller to measure there.

    Stops before `descent.step` (a resumed descent) are passed over. Between stops `on_block(step)` is called about
    every `seconds_per_block`, for a progress bar or a checkpoint; it does not change the descent.

    Args:
        agree: makes one of the seconds per step that processes descending side by side have measured, so that
            `on_block` is called at the same steps in all of them.
    """
    block = 1
    for stop in sorted(set(schedule)):
        if stop < descent.step:
            continue
        while descent.step < stop:
            started = time.perf_counter()
            taken = min(block, stop - descent.step)
            descent.advance(taken)
            pace = agree((time.perf_counter() - started) / taken)
            block = max(1, int(min(2 * block, seconds_per_block / pace)))
            if on_block is not None and descent.step < stop:
                on_block(descent.step)
        yield stop
