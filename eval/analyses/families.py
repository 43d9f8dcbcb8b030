"""Compares the two families of models: decoder-only against encoder-decoder, per architecture.

Each architecture that has both families is a comparison of its own: the line of its decoder-only
models against the line of its encoder-decoders, by the tests of `eval.analyses.comparison`. So the
question is not which architecture is best, but whether the family of an architecture matters.

The decoder-only models are twins of the encoder-decoders: of equal FLOPs in the protocol that the
encoder-decoders have, of equal parameters in the protocol EQUAL_PARAMETERS.
"""

import numpy as np
import pandas as pd

from eval.analyses.comparison import Comparison
from eval.analyses.question import Inquiry
from eval.analyses.verdicts import PRIMARY_POSITION, WORDS
from eval.data.cells import RunTable
from eval.data.families import DECODER_ONLY, ENCODER_DECODER, PLAIN, plain_names
from eval.stats.decision import holm, verdict
from train.power import detectable

EQUAL_PARAMETERS = "params"
"""The protocol of decoder-only models that have as many parameters as the encoder-decoders."""

_FRONT = ("architecture", "family", "reference", "alpha", "link", "x_axis", "y_axis")
_DIFFERENCES = (
    *_FRONT,
    "higher_is_better",
    "measure",
    "position",
    "budget",
    "n_sizes",
    "n_sizes_reference",
    "difference",
    "se",
    "df",
    "ci_low",
    "ci_high",
    "p",
    "p_holm",
    "detectable",
    "verdict",
    "method",
    "note",
)
_MULTIPLIERS = (
    *_FRONT,
    "higher_is_better",
    "position",
    "budget",
    "inside",
    "multiplier",
    "ci_low",
    "ci_high",
    "interval",
    "method",
    "note",
)


class Families(Inquiry):
    """The decoder-only models of every architecture against its encoder-decoders.

    Example:
      >>> study = eval.read_study("runs/families")
      >>> Families(study, eval.Question(x=FLOPS, y=LOSS)).differences()
    """

    def _chosen(self, everything: RunTable) -> RunTable:
        everything.check((self.question.x, self.question.y))
        return everything  # the twins of equal parameters have a protocol of their own

    def pairs(self, twins: str | None = None) -> dict[str, Comparison]:
        """The comparison of each architecture that has both families, by its plain name.

        Args:
          twins: the protocol of the decoder-only models; None takes that of the encoder-decoders.
        """
        table = self.runs.frame
        if "family" not in table or (twins is not None and "protocol" not in table):
            return {}
        main = self.runs.main(self.question.protocol).frame
        alone = main if twins is None else table[table["protocol"] == twins]
        both = pd.concat(
            [main[main["family"].isin(PLAIN)], alone[alone["family"] == DECODER_ONLY]]
        ).assign(protocol="")
        names, found = plain_names(both), {}
        for name in sorted(names.unique()):
            rows = both[names == name]
            if rows["architecture"].nunique() == 2:
                asked = self.question.ask(reference=name, protocol=None, permutations=0)
                found[name] = Comparison(self.runs.take(rows), asked)
        return found

    def differences(self, twins: str | None = None) -> pd.DataFrame:
        """The decoder-only line minus the encoder-decoder line, of every architecture.

        Differences are of the quantity itself: of the loss, where negative means that decoder-only
        is better, or of the score, where positive does.

        Args:
          twins: see `pairs`.

        Returns:
          Two rows per architecture that has both families, with columns
            architecture (its plain name), family, reference (the families compared), alpha, link,
            x_axis, y_axis, higher_is_better (of the difference), measure (`slope`; or `level`, the
            difference in the middle of the common range), position, budget (of the level, in the
            unit of x), n_sizes, n_sizes_reference, difference, se, df, ci_low, ci_high (each at
            `level`, not corrected), p, p_holm (over the architectures, for one measure),
            detectable (the smallest difference that this design finds with 80 % probability after
            correction), verdict (of `verdicts.WORDS`, `not told apart`, `not tested`; by p_holm),
            method, note.
        """
        rows = [
            row
            for name, comparison in self.pairs(twins).items()
            for row in self._rows(name, comparison)
        ]
        frame = pd.DataFrame(rows, columns=list(_DIFFERENCES))
        better = 1.0 if self.question.y.more_is_better else -1.0
        for measure, words in WORDS.items():
            same = frame[frame["measure"] == measure]
            corrected = holm(same["p"])
            tests, level = int(same["p"].notna().sum()), self.question.level
            frame.loc[same.index, "p_holm"] = corrected
            frame.loc[same.index, "detectable"] = same["se"] * detectable(
                same["df"].to_numpy(float), tests, level
            )
            frame.loc[same.index, "verdict"] = [
                verdict(better * difference, p, level, *words)
                for difference, p in zip(same["difference"], corrected, strict=True)
            ]
        return frame

    def multipliers(self, twins: str | None = None) -> pd.DataFrame:
        """The cost at which decoder-only reaches the encoder-decoder's quality, over its cost.

        Args:
          twins: see `pairs`.

        Returns:
          One row per architecture that has both families, in the middle of the common range, with
          the columns of `Comparison.multipliers`; architecture, family and reference as in
          `differences`.
        """
        rows = [
            {**row, **self._front(name), "higher_is_better": self.question.y.more_is_better}
            for name, comparison in self.pairs(twins).items()
            for row in _middle(comparison.multipliers())
        ]
        return pd.DataFrame(rows, columns=list(_MULTIPLIERS))

    def _rows(self, name: str, comparison: Comparison) -> list[dict]:
        """The slope and the level of one architecture, without correction."""
        slope = comparison.contrasts().to_dict("records")[0]
        level = _middle(comparison.levels())[0]
        sizes = dict(zip(comparison.names, comparison.lines.n, strict=True))
        level["n_sizes_reference"] = sizes.pop(name)
        level["n_sizes"] = next(iter(sizes.values()))
        sign, rows = -1.0 if self.y.reversed else 1.0, []
        for measure, row in zip(WORDS, (slope, level), strict=True):
            ends = sorted((sign * row["ci_low"], sign * row["ci_high"]))
            rows.append(
                {
                    "position": "",
                    "budget": np.nan,
                    **row,
                    **self._front(name),
                    "higher_is_better": self.question.y.more_is_better,
                    "measure": measure,
                    "difference": sign * row["difference"],
                    "ci_low": ends[0],
                    "ci_high": ends[1],
                }
            )
        return rows

    def _front(self, name: str) -> dict[str, str]:
        """What a row is about; the quality is named as it is, not with the sign of its axis."""
        return {
            "architecture": name,
            "family": DECODER_ONLY,
            "reference": ENCODER_DECODER,
            **self.question.columns(),
            "y_axis": self.y.label.removeprefix("-"),
        }


def _middle(table: pd.DataFrame) -> list[dict]:
    """The rows that decide, those in the middle of the common range."""
    rows = table[table["position"] == PRIMARY_POSITION].to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]
