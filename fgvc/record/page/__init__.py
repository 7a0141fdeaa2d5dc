"""The files of one run -> report.html: a self-contained page to read, print and share.

run: run folder -> facts; gallery: which classes and errors to show; images: images within a
budget of bytes; chart: curves; render: facts and a template -> HTML, used by report/ as well.
"""

from fgvc.record.page.run import FILE, derive, write

__all__ = ["FILE", "derive", "write"]
