"""Scaling laws fitted right: forms, fits that find the optimum, honest intervals, comparisons between architectures.

forms/               the laws, one small class each
objective.py         what is minimised
optimise.py          many fits at once
fit.py               one law on one table, and whether the data determine it
projection.py        variable projection, an independent way to the least-squares optimum
uncertainty.py       bootstrap by run, profile likelihood, prediction intervals
choice.py            AICc, BIC and leave-largest-out backtests
groups.py            what architectures share, nested tests, effective-compute multipliers
chain.py             downstream score through the loss
kaplan.py            what follows from Kaplan's constants
allocation.py        compute-optimal N and D from a law; envelope.py and isoflop.py: from curves and budgets
design.py            which run to make next
table.py             anybody's table as points
cli.py               the verbs fit, predict, allocate, next
page.py, figures.py  the pieces of the report
"""
