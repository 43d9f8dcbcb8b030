"""The verb chain: a downstream score from N and D through the loss, two-step or chained."""

import dataclasses
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from eval.scaling_laws import chain, cli, forms, places, table
from eval.scaling_laws.fit import Fit
from eval.scaling_laws.objective import Objective
from eval.scaling_laws.render import Answer, show
from train.records import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainOptions(cli.LawOptions):
    """Predicts a downstream score at N and D through the loss: a law of the loss, then a law of the score.

    Attributes:
      score_form: law of the score in the loss.
      through: `measured` fits the score to the measured loss (two-step), `predicted` to the first law's (chained).
      score_objective: what the second fit minimises.
      at: where to predict: `N=1e9,D=2e10`, or `C=1e21` for the best N and D; repeatable.
    """

    score_form: Literal["downstream_sigmoid", "downstream_exp"] = "downstream_sigmoid"
    through: Literal["measured", "predicted"] = "measured"
    score_objective: Literal["huber", "l1", "l2"] = "l2"
    at: Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(required)")]


def run_chain(options: ChainOptions) -> int:
    """Prints both laws and the predictions; exit code 0."""
    if options.group or options.drop_highest_loss or options.fix:
        raise InputError("chain: group, drop_highest_loss and fix are not offered here; use --where for one group")
    if options.bootstrap < 1:
        raise InputError("bootstrap: predictions need resamples; give --bootstrap above 0")
    loss_form, score_form = forms.get(options.form), forms.get(options.score_form)
    if loss_form.output != "loss":
        raise InputError(f"form: {loss_form.name} predicts {loss_form.output}; the first law must predict the loss")
    if isinstance(score_form, forms.DownstreamSigmoid):
        score_form = forms.DownstreamSigmoid(options.chance, options.perfect)
    frame = table.load(options.table, cli.warn)
    losses = table.from_frame(frame, loss_form, options, options.table)
    scores = table.from_frame(frame, score_form, options, options.table)
    scores = dataclasses.replace(scores, x={**losses.x, **scores.x})
    space = loss_form.space if options.space == "auto" else options.space
    first = Objective(options.objective, options.delta, space)
    second = Objective(options.score_objective, options.delta, score_form.space)
    both = chain.chain(loss_form, score_form, losses, scores, options.through, first, second)
    rows, far = [], []
    for text in options.at:
        x = places.place(text, both.loss, options.flops_per_param_token)
        found = chain.predict(both, x, options.level, options.bootstrap, options.seed).iloc[0].to_dict()
        rows.append({**{name: float(np.exp(v[0])) for name, v in x.items()}, "loss": both.loss.predict(x)[0], **found})
        far += places.outside(text, x, both.loss)
    laws = {"loss_law": both.loss, "score_law": both.score}
    warnings = [f"{name}: {line}" for name, law in laws.items() for line in law.warnings]
    answer: Answer = {"warnings": [*warnings, *far], "through": options.through, "predictions": rows}
    return show(answer | {name: _law(law) for name, law in laws.items()}, options.format)


def _law(law: Fit) -> dict[str, Any]:
    return {"form": law.form.name, "formula": law.form.formula, **law.params, "objective": law.value,
            "points": len(law.runs.y), "agreed": law.agreed}  # fmt: skip


VERBS = {"chain": (ChainOptions, run_chain)}
