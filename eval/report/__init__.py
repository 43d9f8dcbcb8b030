"""Presentation: tables, figures, the HTML page and the files of a report."""
