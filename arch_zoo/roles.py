"""What a parameter does, by which an optimizer may treat it: a role, known from its axes."""

from typing import Literal, get_args

Role = Literal["matrix", "embedding", "head", "vector", "convolution", "expert", "gate"]
ROLES: tuple[Role, ...] = get_args(Role)


def role(axes: tuple[str, ...]) -> Role:
    """What a parameter with these axes does.

    A vector is a scale or a bias; an embedding a table of tokens, positions or steps, also if it is
    the head's matrix; a head the matrix of logits alone; a gate chooses experts or components.
    """
    if len(axes) < 2:
        return "vector"
    if axes[-1] == "vocab":
        return "head"
    if axes[0] in ("vocab", "position", "relpos", "steps"):
        return "embedding"
    if "width" in axes:
        return "convolution"
    if "expert" in axes:
        return "expert"
    return "gate" if axes in (("embed", "router"), ("component", "embed")) else "matrix"
