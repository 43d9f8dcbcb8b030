"""The rows of a map: which of our parameters are made of which of another project's tensors.

A row names parameters of the zoo, by their paths, and tensors of the other project. Its move takes
entries from one layout to the other without changing them, so it fits gradients as well. Where the
other project multiplies or adds what we do not, `scale` and `offset` say so.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

Arrays = tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Move:
    """A change of layout and its inverse, both from arrays to arrays.

    Attributes:
      ours: makes our parameters of their tensors.
      theirs: makes their tensors of our parameters.
    """

    ours: Callable[..., Arrays]
    theirs: Callable[..., Arrays]


def _same(array: np.ndarray) -> Arrays:
    return (array,)


def _transposed(array: np.ndarray) -> Arrays:
    return (array.T,)


SAME = Move(_same, _same)
"""The same layout."""

TRANSPOSED = Move(_transposed, _transposed)
"""A matrix [in, out] of ours is a matrix [out, in] of theirs."""

TAPS = Move(lambda taps: (taps[:, 0].T,), lambda taps: (taps.T[:, None],))
"""The taps [W, X] of a depthwise convolution are [X, 1, W] of theirs."""


def stacked() -> Move:
    """One stack of matrices [E, in, out] of ours is E matrices [out, in] of theirs."""
    return Move(
        lambda *kernels: (np.stack([kernel.T for kernel in kernels]),),
        lambda stack: tuple(kernel.T for kernel in stack),
    )


def joined(*widths: int) -> Move:
    """Several matrices [in, width] of ours are the rows of one matrix [widths, in] of theirs."""
    cuts = np.cumsum(widths)[:-1]
    return Move(
        lambda whole: tuple(part.T for part in np.split(whole, cuts)),
        lambda *parts: (np.concatenate([part.T for part in parts]),),
    )


def side_by_side(*widths: int) -> Move:
    """Several arrays [..., width] of ours are one array [..., widths] of theirs."""
    cuts = np.cumsum(widths)[:-1]
    return Move(
        lambda whole: tuple(np.split(whole, cuts, axis=-1)),
        lambda *parts: (np.concatenate(parts, axis=-1),),
    )


def joined_by_head(heads: int, *widths: int) -> Move:
    """The same where each head has its own rows: [heads * widths, in] of theirs.

    A matrix of ours has `width` columns for each head, the first head first.
    """
    cuts = np.cumsum(widths)[:-1]

    def ours(whole: np.ndarray) -> Arrays:
        by_head = whole.reshape(heads, sum(widths), -1)
        return tuple(part.reshape(-1, part.shape[-1]).T for part in np.split(by_head, cuts, axis=1))

    def theirs(*parts: np.ndarray) -> Arrays:
        by_head = [part.T.reshape(heads, -1, part.shape[0]) for part in parts]
        return (np.concatenate(by_head, axis=1).reshape(-1, parts[0].shape[0]),)

    return Move(ours, theirs)


@dataclasses.dataclass(frozen=True)
class Row:
    """Some parameters of ours and the tensors of theirs that hold the same numbers.

    Attributes:
      ours: paths of parameters, such as decoder.blocks.0.feed_forward.layer.wo.
      theirs: names of tensors.
      move: the change of layout.
      scale: our numbers are theirs times this,
      offset: plus this.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    move: Move = SAME
    scale: float = 1.0
    offset: float = 0.0

    def from_theirs(self, *tensors: np.ndarray) -> Arrays:
        """Our parameters."""
        moved = self.move.ours(*tensors)
        if (self.scale, self.offset) == (1.0, 0.0):
            return moved
        return tuple((x * np.float64(self.scale) + self.offset).astype(x.dtype) for x in moved)

    def from_ours(self, *params: np.ndarray) -> Arrays:
        """Their tensors."""
        if (self.scale, self.offset) != (1.0, 0.0):
            params = tuple(
                ((x - np.float64(self.offset)) / self.scale).astype(x.dtype) for x in params
            )
        return self.move.theirs(*params)

    def gradient(self, *tensors: np.ndarray) -> Arrays:
        """The gradients of our parameters, from those of their tensors."""
        return tuple(x / self.scale for x in self.move.ours(*tensors))


def row(ours: str, theirs: str, move: Move = SAME, **numbers: float) -> Row:
    """A row of one parameter and one tensor."""
    return Row((ours,), (theirs,), move, **numbers)
