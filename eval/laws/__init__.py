"""Scaling laws: forms, fits that find the optimum, intervals, comparisons between architectures.

    forms/                    the laws, one small class each
    fitting/points.py         the points of a fit
    fitting/objective.py      the objectives that a fit can minimise
    fitting/optimise.py       many fits at once
    fitting/fit.py            one law fitted to one table, and whether the data determine it
    fitting/projection.py     variable projection, an independent way to the least-squares optimum
    fitting/uncertainty.py    bootstrap by run, profile likelihood, prediction intervals
    law_table.py              a table in the user's own columns as points
    study_laws.py             the laws that the records of a study support
    diagnostics.py            curves, residuals and the checklist for one law
    choice.py                 AICc, BIC and leave-largest-out backtests
    groups.py                 which parameters architectures share, with nested tests
    grouped.py                the laws of several groups as one form
    score_test.py             whether groups differ, each with noise of its own size
    allocation.py             compute-optimal N and D from a law, and the cost of other choices
    isoflop.py                compute-optimal N without a law: envelope of training curves, isoFLOPs
    kaplan_implications.py    consequences of Kaplan's constants
    loss_to_score.py          downstream score through the loss
    next_run.py               which run to make next
    at.py                     parses the places to predict at
    example_points.py         constants and inputs of every form, for tests and benchmarks

Read forms/powers.py and fitting/fit.py first. The commands are in `eval.commands`.
"""
