"""The files of one run -> report.html: a self-contained page to read, print and share.

facts: run folder -> facts; gallery: which classes and errors to show; album: images within a budget
of bytes.
"""

from fgvc.record.run_page.facts import FILE, derive

__all__ = ["FILE", "derive"]
