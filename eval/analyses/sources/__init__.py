"""The claims of the papers that the project rests on, besides Tay et al. (2022), as hypotheses.

`claim.py` says what a claim is, `measured.py` what the records of a study hold for it and
`inference.py` how an estimate becomes a finding. One file for each source lists its claims and
tests them; `scorecard.py` puts them into one table.
"""
