"""Groups of ranked lines -> baselines.html: one self-contained page that links to the runs' pages.

sections: the tables; plot: accuracy against cost; heatmap: accuracy by class.
"""

from fgvc.report.baselines_page.sections import render_baselines

__all__ = ["render_baselines"]
