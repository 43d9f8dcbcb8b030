"""Reading what people bring: one reader of tables, whatever the verb.

files.py      a file's bytes as cells, with the line that each row stands on
table.py      the cells with types, conditions and refusals that name file, row and column
where.py      conditions on rows as they are typed
units.py      whether numbers can be what their column says: units, ranges, mixtures
runs.py       which rows are one run, where it ends, and what is a replicate of what
neutral.py    text from files that a terminal or a spreadsheet would take for a command
"""
