"""Groups of ranked lines -> baselines.html: one self-contained page that links to the runs' pages.

html: the page; plot: accuracy against cost; heatmap: accuracy by class.
"""

from fgvc.report.page.html import render_baselines

__all__ = ["render_baselines"]
