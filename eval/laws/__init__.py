"""Scaling laws fitted right: forms, fits that find the optimum, honest intervals, comparisons between architectures.

    forms/               the laws, one small class each
    points.py            the points of a fit
    table.py             anybody's table as points
    objective.py         what is minimised
    optimise.py          many fits at once
    fit.py               one law on one table, and whether the data determine it
    examples.py          constants and inputs of every form, for tests and benchmarks
    study.py             the laws that the records of a study support
    projection.py        variable projection, an independent way to the least-squares optimum
    uncertainty.py       bootstrap by run, profile likelihood, prediction intervals
    choice.py            AICc, BIC and leave-largest-out backtests
    groups.py            what architectures share, and nested tests
    allocation.py        compute-optimal N and D from a law, the cost of being off,
    effective-compute multipliers isoflop.py           compute-optimal N without a law: envelope of
    training curves, isoFLOP profiles kaplan.py            what follows from Kaplan's constants
    chain.py             downstream score through the loss
    design.py            which run to make next
    places.py            where to predict, as a person types it
    options.py           what every verb asks and how it fits
    cli.py, render.py    the verbs fit, predict, allocate, next; chain_cli.py the verb chain
    page.py, figures.py  the pieces of the report

Read forms/powers.py and fit.py first.
"""
