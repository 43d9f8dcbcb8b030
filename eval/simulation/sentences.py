"""How often a report says something false about simulated studies, and what it can find.

Every sentence that names an architecture rests on the tests of `eval.analyses.verdicts`. Here these
are asked of studies in which all architectures share one law, so that every name is an error, and
of studies in which one of them scales better. `benchmarks/verdicts.py` prints the long version.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pandas as pd

from eval.analyses import verdicts
from eval.analyses.comparison import Comparison
from eval.analyses.question import Question
from eval.analyses.settings import Variance
from eval.data.cells import RunTable
from eval.data.quantity import FLOPS, LOSS, SCORE
from eval.simulation.simulate import Line, Noise, study

_SPREAD = 0.2  # decades by which the FLOPs of architectures differ at one size
_START = -8.0  # nats; so high a loss stays positive however steep a line is
_SIDES = {"upstream": LOSS, "downstream": SCORE}


@dataclasses.dataclass(frozen=True)
class Design:
    """A simulated study of twelve architectures.

    Attributes:
      sizes: sizes of every architecture.
      seeds: runs of every size.
      bend: the share of the slope that all lose per decade of FLOPs; 0 is a straight law.
      noisier: the factor on the noise of one architecture, which is not the reference.
      reference_noisier: the factor on the noise of the reference.
      noise: a factor on all noise.
    """

    sizes: int = 4
    seeds: int = 1
    bend: float = 0.0
    noisier: float = 1.0
    reference_noisier: float = 1.0
    noise: float = 1.0

    def runs(self, seed: int, steeper: float = 1.0) -> pd.DataFrame:
        """The runs of one study.

        Args:
          seed: of the noise, and of the FLOPs of the architectures.
          steeper: the factor on both slopes of one architecture.
        """
        rng = np.random.default_rng([seed, 1])
        lines = {
            name: Line(
                _START,
                flops=10 ** rng.uniform(-_SPREAD, _SPREAD),
                noise=self.noise,
                bend=self.bend,
            )
            for name in ("transformer", *(f"other{i:02d}" for i in range(11)))
        }
        for name, factor in (
            ("other03", self.noisier),
            ("transformer", self.reference_noisier),
        ):
            lines[name] = dataclasses.replace(lines[name], noise=factor * self.noise)
        plain = lines["other07"]
        lines["other07"] = dataclasses.replace(
            plain,
            upstream_slope=steeper * plain.upstream_slope,
            downstream_slope=steeper * plain.downstream_slope,
        )
        return study(lines, sizes=self.sizes, seeds=self.seeds, noise=Noise(), seed=seed)


def errors(design: Design, replicates: int, seed: int = 0) -> dict[str, float]:
    """The share of studies in which a sentence is false, by what it says.

    All architectures follow one law, at FLOPs of their own, so a sentence that names one as
    different, or a crossing, is false.

    Args:
      design: the studies.
      replicates: how many of them.
      seed: of the first one.
    """
    found: dict[str, list[bool]] = {}
    for i in range(replicates):
        for what, named in _named(design.runs(seed + i)):
            found.setdefault(what, []).append(named)
    return {what: float(np.mean(named)) for what, named in found.items()}


def _named(table: pd.DataFrame) -> Iterator[tuple[str, bool]]:
    """What a report says of a study, and whether it names an architecture there."""
    runs = RunTable(table)
    for where, y in _SIDES.items():
        asked = Question(x=FLOPS, y=y, permutations=0, draws=1)
        found = Comparison(runs, asked)
        contrasts, alpha = found.contrasts(), asked.alpha
        slopes = verdicts.of_slopes(contrasts, alpha)
        levels = verdicts.of_levels(found.levels(), alpha)
        crossings = verdicts.crossings(found.crossovers(), contrasts, "transformer")
        yield f"scales better or worse, {where}", bool(slopes and slopes.differs)
        yield f"is better or worse at equal FLOPs, {where}", bool(levels and levels.differs)
        yield f"crosses the reference, {where}", bool(len(crossings))


def power(
    design: Design, steeper: float, replicates: int, variance: Variance = "separate", seed: int = 0
) -> float:
    """The share of studies that find the one architecture whose slopes are `steeper` times higher.

    Args:
      design: the studies.
      steeper: the factor on the slope, upstream.
      replicates: how many studies.
      variance: the choice of variances, see `Question`.
      seed: of the first study.
    """
    hits = []
    for i in range(replicates):
        asked = Question(permutations=0, draws=1, variance=variance)
        contrasts = Comparison(design.runs(seed + i, steeper), asked).contrasts()
        verdict = verdicts.of_slopes(contrasts, asked.alpha)
        hits.append(bool(verdict and "other07" in verdict.better))
    return float(np.mean(hits))


def level(design: Design, replicates: int, variance: Variance, seed: int = 0) -> float:
    """The share of studies in which some slope is called different although all are alike."""
    hits = []
    for i in range(replicates):
        asked = Question(permutations=0, draws=1, variance=variance)
        contrasts = Comparison(design.runs(seed + i), asked).contrasts()
        verdict = verdicts.of_slopes(contrasts, asked.alpha)
        hits.append(bool(verdict and verdict.differs))
    return float(np.mean(hits))
