"""Reads run tables and studies. Every command reads its tables through the same modules.

files.py the bytes of a file as cells, each row with its line number entries.py one cell as a number
or text table.py columns by type; errors name the file, row and column where.py conditions on rows,
as typed on a command line units.py checks that numbers are plausible for their column: units,
ranges, mixtures replicates.py which rows belong to one run, where a run ends, and which runs are
replicates run_table.py a table in the user's own columns, as a study study.py run directories as a
study quantity.py quantities and the axes that they are shown on cells.py a checked run table, and
the means over its seeds provenance.py the configuration, corpus, code and machine of a run
neutral.py makes text safe for terminals and spreadsheets
"""
