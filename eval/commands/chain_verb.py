"""The verb `chain`: predicts a downstream score from N and D by way of the loss."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import tyro

from eval.commands.answers import Answer, show
from eval.commands.law_options import LawOptions, raw, warn
from eval.laws import at, law_table, loss_to_score
from eval.laws.fitting.fit import Fit
from eval.laws.fitting.objective import Objective
from train.records import InputError

_NO_INTERVAL = (
    "the chained fit has no intervals, because its second law is fitted to predicted losses"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainVerb(LawOptions):
    """Predicts a downstream score at N and D: one law gives the loss, a second one the score.

    Attributes:
      score_form: the law that gives the score from the loss.
      through: the losses that the second law is fitted to: `measured` ones (two-step), or those
        `predicted` by the first law (chained; no intervals).
      score_objective: what the second fit minimises.
      at: where to predict: `N=1e9,D=2e10`, or `C=1e21` for the best N and D; may be given several
        times.
    """

    fits_groups: ClassVar[bool] = False

    score_form: Literal["downstream_sigmoid", "downstream_exp"] = "downstream_sigmoid"
    through: Literal["measured", "predicted"] = "measured"
    score_objective: Literal["huber", "l1", "l2"] = "l2"
    at: Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(required)")]

    def run(self) -> int:
        """Prints both laws and the predictions; returns exit code 0."""
        if self.drop_highest_loss or self.fix or self.group not in ("", law_table.POOLED):
            raise InputError(
                "chain: --group, --drop-highest-loss and --fix do not apply here; use --where to "
                "select one group"
            )
        self.refuse(
            {"method": ("newton",), "starts": ("grid",)},
            "chain: both laws are fitted by newton from a grid",
        )
        if self.bootstrap < 1:
            raise InputError("bootstrap: predictions need resamples; set --bootstrap above 0")
        loss_form, score_form = self.law_form(), self.law_form(self.score_form)
        if loss_form.output != "loss":
            raise InputError(
                f"form: {loss_form.name} predicts {loss_form.output}; the first law must predict "
                "the loss"
            )
        self.refuse_unused(score_form, self.objective, self.score_objective)
        read, decided = law_table.load(self.table, self, warn)
        options = dataclasses.replace(self, **decided)
        if options.group not in ("", law_table.POOLED):
            raise InputError(
                "chain: the table has several architectures; select one with --where "
                "architecture=NAME, or pool them with --group none"
            )
        losses = law_table.from_table(read, loss_form, options, warn)
        # The first reading has checked for rows that differ only in other columns, and has warned.
        scores = law_table.from_table(
            read, score_form, dataclasses.replace(options, ignore=tuple(read.frame.columns))
        )
        # The second law reads only the loss. N and D are needed to predict the loss of its rows.
        scores = dataclasses.replace(scores, x={**losses.x, **scores.x})
        first = options.law_objective(loss_form)
        second = Objective(options.score_objective, options.delta, score_form.space)
        both = loss_to_score.chain(
            loss_form, score_form, losses, scores, options.through, first, second
        )
        rows, far = [], []
        for text in options.at:
            x = at.place(text, both.loss, options.k(losses))
            found = (
                loss_to_score.predict(both, x, options.level, options.bootstrap, options.seed)
                .iloc[0]
                .to_dict()
            )
            rows.append({**raw(x), "loss": both.loss.predict(x)[0], **found})
            far += at.outside(text, x, both.loss)
        laws = {"loss_law": both.loss, "score_law": both.score}
        warnings = [f"{name}: {line}" for name, law in laws.items() for line in law.warnings]
        warnings += [_NO_INTERVAL] if options.through == "predicted" else []
        answer: Answer = {
            "warnings": [*warnings, *far],
            "through": options.through,
            "predictions": rows,
        }
        return show(answer | {name: _law(law) for name, law in laws.items()}, options.format)


def _law(law: Fit) -> dict[str, Any]:
    return {
        "form": law.form.name,
        "formula": law.form.formula,
        **law.params,
        "objective": law.value,
        "points": len(law.runs.y),
        "agreed": law.agreed,
    }


VERBS: dict[str, type] = {"chain": ChainVerb}
