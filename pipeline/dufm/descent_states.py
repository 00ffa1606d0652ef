"""The state of a descent, put together from those of its parts and taken apart again."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MAYBE = ("features", "bias", "bias_velocity")
"""Tensors of a state (see `pipeline.dufm.descent.Descent.state_dict`) that may be None."""
STEPS_OF_MEMBERS = ("diverged", "switched")
"""Of a state, what has happened to members, and at which step."""


def joined_states(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The state of one descent from those of its consecutive parts, all at the same step."""
    first, steps, offset = states[0], {name: {} for name in STEPS_OF_MEMBERS}, 0

    def joined(name: str) -> Tensor | None:
        return None if first[name] is None else torch.cat([state[name] for state in states])

    for state in states:
        for name, found in steps.items():
            found |= {offset + member: step for member, step in state[name].items()}
        offset += len(state["limit"])
    return {
        "step": first["step"],
        **steps,
        "limit": torch.cat([state["limit"] for state in states]),
        "drift": _joined_drifts(states),
        **{name: joined(name) for name in MAYBE},
        "without_direction": sum(state["without_direction"] for state in states),
        "weights": [torch.cat(same) for same in zip(*(state["weights"] for state in states), strict=True)],
        "velocities": [torch.cat(same) for same in zip(*(state["velocities"] for state in states), strict=True)],
    }


def _joined_drifts(states: Sequence[dict[str, Any]]) -> Tensor | None:
    """None where nobody has looked; a part without members has not."""
    known = [drift for state in states if (drift := state.get("drift")) is not None]
    if not known:
        return None
    none = known[0].new_zeros(known[0].shape[1:])
    drifts = [(len(state["limit"]), state.get("drift")) for state in states]
    return torch.cat([none.expand(members, *none.shape) if drift is None else drift for members, drift in drifts])


def part_of_state(state: dict[str, Any], members: range) -> dict[str, Any]:
    """The state of some consecutive members of a descent, who then count from 0."""
    live = [member for member in range(len(state["limit"])) if member not in state["diverged"]]
    chosen = [place for place, member in enumerate(live) if member in members]
    return {
        "step": state["step"],
        **{
            name: {m - members.start: step for m, step in state.get(name, {}).items() if m in members}
            for name in STEPS_OF_MEMBERS
        },
        "limit": state["limit"][members.start : members.stop],
        "drift": None if state.get("drift") is None else state["drift"][members.start : members.stop],
        **{name: None if state.get(name) is None else state[name][chosen] for name in MAYBE},
        "without_direction": state.get("without_direction", 0) if members.start == 0 else 0,
        "weights": [weight[chosen] for weight in state["weights"]],
        "velocities": [velocity[chosen] for velocity in state["velocities"]],
    }
