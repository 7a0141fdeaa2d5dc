"""Groups of ranked lines -> baselines.html: one self-contained page that links to the runs' pages.

sections: the tables; plot: accuracy against cost; heatmap: accuracy by class.
"""
