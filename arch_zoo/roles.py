"""What a parameter does, by which an optimizer may treat it: a role, known from its axes."""

from typing import Literal, get_args

Role = Literal["matrix", "embedding", "head", "vector", "convolution", "expert", "gate", "balance"]
ROLES: tuple[Role, ...] = get_args(Role)
ADJUSTABLE: tuple[Role, ...] = tuple(role for role in ROLES if role != "balance")
"""The roles that an optimizer may treat in its own way: all but biases of balance."""


def role(axes: tuple[str, ...]) -> Role:
    """What a parameter with these axes does.

    A vector is a scale or a bias; an embedding a table of tokens, positions or steps, also if it is
    the head's matrix; a head the matrix of logits alone; a gate chooses experts or components. A
    balance is added to the scores by which experts are chosen, and evens out their loads.
    """
    if len(axes) < 2:
        return "balance" if axes == ("router",) else "vector"
    if axes[-1] == "vocab":
        return "head"
    if axes[0] in ("vocab", "position", "relpos", "steps"):
        return "embedding"
    if "width" in axes:
        return "convolution"
    if "expert" in axes:
        return "expert"
    return "gate" if axes in (("embed", "router"), ("component", "embed")) else "matrix"
