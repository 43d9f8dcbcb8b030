"""Arithmetic modulo 5 (Deletang et al., 2023, arXiv 2207.02098)."""

import dataclasses
from typing import ClassVar

import numpy as np

from train.probes.probe import LastAnswer, RandomNumbers

_PLUS, _MINUS, _TIMES = range(3)


@dataclasses.dataclass(frozen=True)
class ModArithmetic(LastAnswer):
    """The value of an expression of digits 0 to 4 with +, - and *, modulo 5. Chance is 20 %.

    Products come before sums. A string has an odd length; an even one that is drawn is one shorter.
    """

    name: ClassVar[str] = "mod_arithmetic"
    paper: ClassVar[str] = "Deletang et al., 2023, arXiv 2207.02098"
    symbols: ClassVar[int] = 8
    classes: ClassVar[int] = 5

    def sizes(self, draws: RandomNumbers, *, test: bool) -> np.ndarray:
        """Odd lengths."""
        return (super().sizes(draws, test=test) - 1) // 2 * 2 + 1

    def symbols_of(self, draws: RandomNumbers, length: int) -> np.ndarray:
        """Digits at even places, from 5 on operators at odd ones."""
        digits_NL, operators_NL = draws.below(5, length), 5 + draws.below(3, length)
        return np.where(np.arange(length) % 2 == 0, digits_NL, operators_NL)

    def classify(self, symbols_NL: np.ndarray, inside_NL: np.ndarray) -> np.ndarray:
        """The value, from left to right: a finished sum, and the product that is still open."""
        total_N = np.zeros(len(symbols_NL), np.int64)
        product_N = symbols_NL[:, 0].copy()
        for at in range(2, symbols_NL.shape[1], 2):
            inside_N = inside_NL[:, at]
            operator_N, digit_N = symbols_NL[:, at - 1] - 5, symbols_NL[:, at]
            times_N = operator_N == _TIMES
            signed_N = np.where(operator_N == _MINUS, -digit_N, digit_N)
            total_N = np.where(inside_N & ~times_N, (total_N + product_N) % 5, total_N)
            new_N = np.where(times_N, product_N * digit_N % 5, signed_N)
            product_N = np.where(inside_N, new_N, product_N)
        return (total_N + product_N) % 5
