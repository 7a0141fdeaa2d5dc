"""The files of one run -> report.html: a self-contained page to read, print and share.

facts: run folder -> facts; gallery: which classes, errors and images to show.
"""

from fgvc.record.run_page.facts import FILE, derive

__all__ = ["FILE", "derive"]
