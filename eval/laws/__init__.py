"""Scaling laws: forms, fits that find the optimum, honest intervals, comparisons between architectures.

    forms/                    the laws, one small class each
    fitting/points.py         the points of a fit
    fitting/objective.py      what is minimised
    fitting/optimise.py       many fits at once
    fitting/fit.py            one law on one table, and whether the data determine it
    fitting/projection.py     variable projection, an independent way to the least-squares optimum
    fitting/uncertainty.py    bootstrap by run, profile likelihood, prediction intervals
    law_table.py              anybody's table as points
    study_laws.py             the laws that the records of a study support
    diagnostics.py            what there is to see about one law: curves, residuals, the checklist
    choice.py                 AICc, BIC and leave-largest-out backtests
    groups.py                 what architectures share, and nested tests
    allocation.py             compute-optimal N and D from a law, and the cost of other choices
    isoflop.py                compute-optimal N without a law: envelope of training curves, isoFLOPs
    kaplan_implications.py    what follows from Kaplan's constants
    loss_to_score.py          downstream score through the loss
    next_run.py               which run to make next
    at.py                     where to predict, as a person types it
    example_points.py         constants and inputs of every form, for tests and benchmarks

Read forms/powers.py and fitting/fit.py first. The verbs are in `eval.commands`.
"""
