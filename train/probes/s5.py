"""The word problem of a group (Liu et al., 2023, arXiv 2210.10749; Merrill et al., 2024)."""

import dataclasses
import functools
import itertools
from typing import Annotated, ClassVar, Literal

import numpy as np

from train.probes.probe import RandomNumbers, Rows, StringProbe
from train.ranges import Count, Range


@dataclasses.dataclass(frozen=True)
class WordProblem(StringProbe):
    """The product of all elements of a group so far, as in Merrill et al. (2024, arXiv 2404.08819).

    The answer is given at every element, and the score is that of the last one. Chance is one over
    the number of elements: 120 for S5, 60 for A5 and Z60. Of these groups only Z60 is solvable, so
    a fixed number of parallel layers should do for it, and not for the others. The source trains on
    all lengths up to a largest one, at which it tests; here the test is on longer strings.

    Attributes:
      group: the permutations of five things, the even ones, or the numbers modulo 60.
    """

    name: ClassVar[str] = "s5"
    paper: ClassVar[str] = "Merrill et al., 2024, arXiv 2404.08819"
    group: Literal["S5", "A5", "Z60"] = "S5"
    shortest: Count = 2
    longest_trained: Annotated[int, Range(1, 2**16)] = 20
    tested: tuple[Count, ...] = (24, 32, 48, 64)

    @property
    def vocab_size(self) -> int:
        """Padding and elements."""
        return 1 + len(table(self.group))

    def positions(self, size: int) -> int:
        """The string alone."""
        return size

    @property
    def answers(self) -> range:
        """The elements."""
        return range(1, self.vocab_size)

    def make(self, draws: RandomNumbers, *, test: bool) -> Rows:
        """Elements, and at each the product of all up to it."""
        sizes_N1 = self.sizes(draws, test=test)[:, None]
        longest = max(self.tested) if test else self.longest_trained
        products_EE = table(self.group)
        elements_NL = draws.below(len(products_EE), longest)
        labels_NL = np.empty_like(elements_NL)
        product_N = np.zeros(len(draws), np.int64)  # the neutral element
        for at in range(longest):
            product_N = products_EE[product_N, elements_NL[:, at]]
            labels_NL[:, at] = product_N
        at_L = np.arange(longest)
        inside_NL = at_L < sizes_N1
        tokens_NL, labels_NL = (
            np.where(inside_NL, 1 + values_NL, 0) for values_NL in (elements_NL, labels_NL)
        )
        return Rows(tokens_NL, labels_NL, at_L == sizes_N1 - 1, sizes_N1[:, 0])


@functools.cache
def table(group: str) -> np.ndarray:
    """The products of a group's elements, int64 [E, E]; element 0 is the neutral one.

    A permutation p is listed in alphabetical order among the group's, and `table[p, q]` is first p
    and then q.
    """
    if group == "Z60":
        return (np.arange(60)[:, None] + np.arange(60)) % 60
    every = list(itertools.permutations(range(5)))
    chosen = [p for p in every if group == "S5" or _is_even(p)]
    number = {p: i for i, p in enumerate(chosen)}
    return np.array([[number[tuple(q[i] for i in p)] for q in chosen] for p in chosen])


def _is_even(p: tuple[int, ...]) -> bool:
    return sum(a > b for a, b in itertools.combinations(p, 2)) % 2 == 0
