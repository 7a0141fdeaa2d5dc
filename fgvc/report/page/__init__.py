"""Groups of ranked lines -> baselines.html: one page, whole in itself, linked to the runs' own.

html: the page; plot: accuracy against cost; heat: accuracy by class.
"""

from fgvc.report.page.html import render_baselines

__all__ = ["render_baselines"]
