"""The files of one run -> report.html: a page to read, print and pass on, whole in itself.

run: what the folder says -> facts; gallery: which classes and mistakes; pictures: in how many
bytes; chart: curves; render: facts and a template -> HTML, here and for the table of all runs.
"""

from fgvc.record.page.run import FILE, derive, write

__all__ = ["FILE", "derive", "write"]
